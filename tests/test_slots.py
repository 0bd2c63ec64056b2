"""How many launchers remove things, or start, at the same time."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from claude_bottle.lib.host import locks, slots

from tests.checkout import clone
from tests.conftest import ROOT
from tests.sweep import Run

CPUS = 24
HOLD = """
import fcntl, sys, time
files = [open(path) for path in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""


def test_a_teardown_waits_for_its_turn_and_has_it_when_another_launcher_is_killed(tmp_path: Path) -> None:
    copy = clone(tmp_path / "copy")  # nobody else's launcher is to wait
    (copy / ".venv-run").symlink_to(ROOT / ".venv-run")
    run = Run(tmp_path / "run")
    run.words[0] = copy / "cli.sh"
    files = sorted(copy.glob("lib/**/*.py"))[: slots.REMOVALS]
    with subprocess.Popen([sys.executable, "-c", HOLD, *files], stdout=subprocess.PIPE, text=True) as others:
        assert others.stdout and others.stdout.readline() == "held\n"
        child = run.begin()
        assert child.stderr
        said = iter(child.stderr.readline, "")
        assert any("still waiting for other removals" in line for line in said)
        assert [argv for argv in run.fake.argvs() if "rm" in argv[:2]] == []
        others.send_signal(signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err


class Full(Exception):
    """There is no slot."""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another launcher that holds one slot."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout and child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def test_the_one_slot_that_comes_free_is_taken_while_the_others_stay_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.py" for number in range(slots.REMOVALS + 1)]  # one more than there are slots
    for file in files:
        file.touch()
    monkeypatch.setattr(slots, "_LIB", tmp_path)
    waits: list[float] = []
    with ExitStack() as stack:
        others = [stack.enter_context(holder(file)) for file in files[: slots.REMOVALS]]

        def check() -> float:
            waits.append(time.monotonic())
            if len(waits) == 3:
                others[5].kill()
                others[5].wait()
            return math.inf

        with slots.removal_slot(time.monotonic() + 60, check):
            assert [locks.free_one([file]) for file in files[: slots.REMOVALS]] == [None] * slots.REMOVALS
            assert [other.poll() is None for other in others] == [number != 5 for number in range(slots.REMOVALS)]
    assert len(waits) == 3


def test_an_engine_with_many_processors_has_four_starts_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LIB", clone(tmp_path / "copy") / "lib")  # nobody else's launcher has any of its slots

    def full() -> float:
        raise Full

    with ExitStack() as held:
        for _ in range(4 * CPUS):
            held.enter_context(slots.start_slot(CPUS, full))
        with pytest.raises(Full):
            held.enter_context(slots.start_slot(CPUS, full))


@contextmanager
def waiting(folder: Path) -> Iterator[tuple[Run, subprocess.Popen[str], subprocess.Popen[str]]]:
    """A start that waits, and the process that has all of the slots."""
    copy = clone(folder / "copy")
    (copy / ".venv-run").symlink_to(ROOT / ".venv-run")
    run = Run(folder / "run")
    run.words[0] = copy / "cli.sh"
    files = sorted(copy.glob("lib/**/*.py"))[slots.REMOVALS :][: slots.STARTS]
    with subprocess.Popen([sys.executable, "-c", HOLD, *files], stdout=subprocess.PIPE, text=True) as others:
        assert others.stdout and others.stdout.readline() == "held\n"
        child = run.begin()
        assert child.stderr
        assert any("waiting for other starts" in line for line in iter(child.stderr.readline, ""))
        assert [argv for argv in run.fake.argvs() if argv[:1] == ["create"] or argv[:2] == ["network", "create"]] == []
        yield run, child, others
        others.kill()


def test_a_start_waits_for_its_turn_and_says_so(tmp_path: Path) -> None:
    with waiting(tmp_path) as (run, child, others):
        others.kill()
        _, err = child.communicate(timeout=60)
        assert (child.returncode, run.leftovers()) == (0, []), err


def test_a_start_that_waits_ends_at_a_signal(tmp_path: Path) -> None:
    with waiting(tmp_path) as (run, child, _):
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
        assert (child.returncode, run.leftovers()) == (128 + signal.SIGTERM, [])
