"""A defect of our own: what is said, what is written down, and what never is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from claude_bottle.lib.host import redact

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run

SECRET = 'pa"ss\\wörd-4711'
LINES = "-----BEGIN KEY-----\nline-of-the-key\n}\n"
# The program with a defect: a function that fails with all that it can get hold of.
DEFECT = """
import sys, types
package = types.ModuleType("claude_bottle"); package.__path__ = [sys.argv[1]]; sys.modules["claude_bottle"] = package
from claude_bottle.cli.main import main
from claude_bottle.lib.inside import session
def fails(engine, container, payload, *others):
    values = dict(pair.split("=", 1) for pair in payload.decode().split("\\0")[:-1])
    try:
        raise KeyError(list(values.values()))
    except KeyError as problem:
        raise ValueError(f"{values} {payload!r} {' '.join(values.values())}") from problem
    yield
session.prepare = fails
sys.exit(main("cli.sh", sys.argv[2:]))
"""


@pytest.fixture
def bottle(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    env = {"S": "${SECRET}", "L": "${LINES}"}
    manifest = {"bottles": {"b": {"env": env}}, "agents": {"a": {"bottle": "b"}}}
    (made.home / "claude-bottle.json").write_text(json.dumps(manifest))
    made.env |= {"SECRET": SECRET, "LINES": LINES, "XDG_STATE_HOME": str(tmp_path / "state")}
    made.words = [sys.executable, "-I", "-X", "utf8", "-c", DEFECT, str(ROOT), "start", "-y", "a"]
    return made


def fail(bottle: Run) -> str:
    done = subprocess.run(
        bottle.words, cwd=bottle.cwd, env=bottle.env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 70 and bottle.leftovers() == [], done.stderr
    return done.stderr


def report_of(folder: Path) -> Path:
    """Return the report: the only one, beside which there is at most what a start notes."""
    (report,) = folder.glob("report-*")
    assert {path.name for path in folder.iterdir()} - {report.name} <= {"images"}
    return report


def test_a_defect_names_its_place_and_a_report_that_has_what_helps(bottle: Run, tmp_path: Path) -> None:
    err = fail(bottle)
    report = report_of(tmp_path / "state" / "claude-bottle")
    assert "error: internal error: lib/steps.py, line " in err and ": ValueError: {'S': " in err
    assert f"hint: this is a defect of claude-bottle; please report it with {report}\n" in err
    assert report.stat().st_mode & 0o777 == 0o600 and report.parent.stat().st_mode & 0o777 == 0o700
    text = report.read_text()
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in text and "plumbum 2." in text
    assert "docker calls, the last one last: " in text and ", cp, " in text
    assert "in _launch" in text and "KeyError" in text and "ValueError" in text


def test_no_form_of_a_secret_is_in_the_words_or_the_report(bottle: Run, tmp_path: Path) -> None:
    err = fail(bottle)
    report = report_of(tmp_path / "state" / "claude-bottle")
    for text in (err, report.read_text()):
        assert "[secret]" in text
        for part in (TOKEN, SECRET, "4711", 'pa"ss', "line-of-the-key", "BEGIN KEY"):
            assert part not in text, part


def test_a_home_that_cannot_be_written_costs_only_the_report(bottle: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the folder's place")
    err = fail(bottle)
    assert "please report it with the line above" in err


def test_a_report_goes_below_the_home_where_nothing_else_is_said(bottle: Run) -> None:
    del bottle.env["XDG_STATE_HOME"]
    fail(bottle)
    assert report_of(Path(bottle.env["HOME"], ".local", "state", "claude-bottle")).stat().st_size


def test_a_short_secret_is_taken_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_values", {"4711", "47", ""})
    assert redact.redact("a 4711 b 47 c") == "a [secret] b [secret] c"
