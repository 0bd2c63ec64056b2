"""The page that says what is promised names tests that exist."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = re.sub(r"<!--.*?-->", "", (ROOT / "docs" / "security.md").read_text(), flags=re.DOTALL)


def test_every_test_that_it_names_exists() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - defined == set()


def test_every_file_that_it_names_exists() -> None:
    files = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_each_promise_has_its_tests() -> None:
    promises = PAGE.split("\n## Promises\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in promises.splitlines() if line.startswith("|")][2:]
    assert [row[0] for row in rows if len(row) != 3 or "test" not in row[2]] == []
