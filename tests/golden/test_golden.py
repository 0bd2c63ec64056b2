"""The port says what the shell launcher said, case by case, but for declared differences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden.case import REPO, Case, load_all
from tests.golden.main import digest, verdict

CASES = load_all()
DIFFERENCES = REPO / "docs" / "differences.md"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_port_says_what_the_shell_said(case: Case) -> None:
    assert verdict(case) == ""


def test_every_recording_comes_from_the_shell_side_kept_here() -> None:
    want = digest(REPO / "fixtures" / "shell" / "cli.sh")
    assert [case.name for case in CASES if (case.folder / "launcher").read_text().strip() != want] == []


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


def test_every_declared_difference_has_its_entry() -> None:
    numbers = declared(DIFFERENCES)
    assert {n for case in CASES for n in case.entries} <= numbers


def declared(page: Path) -> set[int]:
    """Return the numbers of the page's entries, which begin a line or a heading."""
    text = page.read_text() if page.exists() else ""
    return {int(number) for number in re.findall(r"^(?:#+ )?(\d+)\. ", text, re.M)}
