"""The scripts of docs/reliability.md still run, a few cases of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .conftest import ROOT


def run(*words: str, seconds: float = 300) -> str:
    done = subprocess.run([*words], cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fault_at_one_call_leaves_nothing() -> None:
    acts = [word for act in ("fail", "TERM", "KILL", "reaper") for word in ("--act", act)]
    said = run(sys.executable, "-m", "tests.reliability.faults", "--call", "create agent", *acts)
    rows = [[cell.strip() for cell in line.split("|")] for line in said.splitlines()[2:]]
    assert len(rows) == 8
    assert {(row[3], row[6], row[7]) for row in rows} == {("1", "0", "0")}


def test_a_fault_at_a_call_that_there_is_not_is_refused() -> None:
    words = [sys.executable, "-m", "tests.reliability.faults", "--call", "crate agent"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "create agent" in done.stderr


def test_a_short_soak_leaves_nothing() -> None:
    said = run(str(Path("scripts") / "reliability"), "soak", "--starts", "4", "--at-once", "2", "--seed", "1")
    assert "| containers | 0 |" in said


def test_gits_long_transfers_come_to_an_end() -> None:
    said = run(sys.executable, "-m", "tests.reliability.git", "--runs", "1", seconds=900)
    rows = [[cell.strip() for cell in line.split("|")] for line in said.splitlines()[2:]]
    assert len(rows) == 10 and {tuple(row[3:6]) for row in rows} == {("1", "0", "0")}
