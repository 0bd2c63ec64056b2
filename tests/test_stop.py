"""``stop`` on a fake engine: which bottle is meant, who ends it, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from claude_bottle.lib.commands import stop as stop_module
from claude_bottle.lib.teardown.owner import Owner, place_here, process_mark

from tests.sweep import Run, until

MINE = "claude-bottle-a-2"  # the first name is the sibling's


class Stopped(Run):
    """A start whose session lasts until it is ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.attached = folder / "attached"
        self.attached.mkdir()
        self.fake.session(f"touch {self.attached}/$$; while test -e {self.attached}/$$; do sleep 0.1; done")

    def begin(self) -> subprocess.Popen[str]:
        before, child = self.sessions(), super().begin()
        assert until(lambda: self.sessions() > before)
        return child

    def sessions(self) -> int:
        return len(list(self.attached.iterdir()))

    def agents(self) -> list[str]:
        return [box["name"] for box in self.fake.containers() if box["labels"].get("claude-bottle.role") == "agent"]

    def owner(self) -> dict[str, str]:
        (labels,) = (box["labels"] for box in self.fake.containers() if box["name"] == MINE)
        return {name.removeprefix("claude-bottle."): value for name, value in labels.items()}


@pytest.fixture
def run(tmp_path: Path) -> Stopped:
    return Stopped(tmp_path)


@pytest.mark.parametrize("word", ["a", MINE, "--all"])
def test_a_living_launcher_ends_its_own_bottle(run: Stopped, word: str) -> None:
    child = run.begin()
    done = run.command("stop", word)
    assert (done.returncode, run.leftovers()) == (0, []), done.stderr
    assert done.stderr == f"claude-bottle: stopping {MINE}\nclaude-bottle: stopped {MINE}\n"
    child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM
    assert run.command("stop", "--all").stderr == "claude-bottle: nothing to stop\n"


def test_what_a_killed_launch_left_is_removed(run: Stopped) -> None:
    child = run.begin()
    for which in ("reaper", "launcher"):
        os.kill(int(run.owner()[which].split()[0]), signal.SIGKILL)
    child.wait(timeout=60)
    done = run.command("stop", "a")
    assert done.returncode == 0, done.stderr
    for each in run.attached.iterdir():
        each.unlink()
    child.communicate(timeout=60)
    assert [left for left in run.leftovers() if not left.startswith("claude-bottle-stage.")] == []


def test_one_that_nobody_here_started_is_removed_by_its_own_name_only(run: Stopped) -> None:
    for words in (["stop", "a"], ["stop", "claude-bottle-b"]):
        done = run.command(*words)
        assert done.returncode == 1 and run.agents() == ["claude-bottle-a"]
        assert f"error: no bottle of '{words[1]}' runs" in done.stderr
        assert "hint: there run: claude-bottle-a\n" in done.stderr
    done = run.command("stop", "claude-bottle-a")
    assert done.returncode == 0 and run.agents() == [], done.stderr
    assert run.fake.networks() == [] and [box["name"] for box in run.fake.containers()] == ["mine"]


def test_several_of_one_agent_are_named(run: Stopped) -> None:
    first = run.begin()
    second = run.begin()
    for words in (["stop", "a"], ["exec", "a", "true"]):
        done = run.command(*words)
        assert done.returncode == 1
        assert "error: 2 bottles of 'a' run: name the container\n" in done.stderr
        assert all(f"hint: {name} (" in done.stderr for name in (MINE, "claude-bottle-a-3"))
    assert run.command("stop", "--all").returncode == 0
    for child in (first, second):
        child.communicate(timeout=60)
    assert run.leftovers() == []


def test_work_that_its_launcher_could_not_bring_home_is_named(run: Stopped) -> None:
    child = run.begin()
    (noted,) = run.home.glob(".local/state/claude-bottle/work/*/session.json")
    noted.write_text(json.dumps({**json.loads(noted.read_text()), "kept": "work.tar"}))
    done = run.command("stop", "a")
    child.communicate(timeout=60)
    assert done.returncode == 1 and run.leftovers() == []
    assert "warning: the work of a did not come home; to try again: ./cli.sh bring a\n" in done.stderr


def test_what_cannot_be_removed_is_said(run: Stopped) -> None:
    run.fake.fault("* rm: stuck")
    done = run.command("stop", "claude-bottle-a")
    assert done.returncode == 1 and run.agents() == ["claude-bottle-a"]
    assert "warning: could not remove what is left of claude-bottle-a: stuck" in done.stderr


def test_a_launcher_that_does_not_end_in_time_is_left_to_itself(
    run: Stopped, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stop_module, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(stop_module, "TALK_SECONDS", 0.0)
    for name, value in run.env.items():
        monkeypatch.setenv(name, value)
    pause = run.fake.fault("* rm", mode="pause")
    child = run.begin()
    assert stop_module.stop(MINE) == 1
    said = capfd.readouterr().err
    assert f"waiting for {MINE} to end" in said and f"warning: {MINE} is still ending" in said
    run.fake.wait_for_pause(pause)
    run.fake.release(pause)
    child.communicate(timeout=60)
    assert run.leftovers() == []


def test_a_pid_that_is_another_process_by_now_is_nobodys() -> None:
    here, own = place_here(), process_mark(os.getpid())
    assert Owner("o", here, own, "").living(here) == (os.getpid(), 0)
    pid, _, began = own.partition(" ")
    for mark in (f"{pid} {int(began) - 1}", pid, f"0{began}", "x y", ""):
        assert Owner("o", here, mark, mark).living(here) == (0, 0)
    elsewhere = type(here)(here.host, "another boot", here.namespaces, here.user)
    assert Owner("o", elsewhere, own, own).living(here) == (0, 0)


@pytest.mark.parametrize(
    ("words", "what", "usage"),
    [
        ([], "missing agent name", "stop <agent>|--all"),
        (["--all", "a"], "unexpected argument: a", "stop <agent>|--all"),
        (["exec"], "missing agent name", "exec <agent> [--] <command> [args...]"),
        (["exec", "a"], "missing command", "exec <agent> [--] <command> [args...]"),
        (["exec", "a", "--"], "missing command", "exec <agent> [--] <command> [args...]"),
        (["exec", "-x", "a"], "unknown option: -x", "exec <agent> [--] <command> [args...]"),
    ],
)
def test_wrong_words(run: Stopped, words: list[str], what: str, usage: str) -> None:
    done = run.command(*(words if "exec" in words else ["stop", *words]))
    assert (done.returncode, done.stderr) == (2, f"claude-bottle: error: {what}\nusage: cli.sh {usage}\n")


def test_a_commands_own_options_are_its_own(run: Stopped) -> None:
    child = run.begin()
    run.command("exec", "a", "ls", "--", "-l", "--help")
    run.command("exec", "--", "a", "--", "ls", "-l")
    asked = [argv for argv in run.fake.argvs() if "--beside" in argv]
    mark = asked[0][asked[0].index("--beside") + 1]
    assert [argv[argv.index("--beside") + 3 :] for argv in asked] == [["ls", "--", "-l", "--help"], ["ls", "-l"]]
    assert len(mark) == 16 and mark not in asked[1]
    helped = run.command("exec", "a", "--help")
    assert helped.returncode == 0 and helped.stderr.startswith("usage: cli.sh exec <agent> [--] <command> [args...]\n")
    run.command("stop", "a")
    child.communicate(timeout=60)
