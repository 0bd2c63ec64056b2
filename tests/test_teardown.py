"""The teardown from outside, on an engine that is late, away, hung, or will not remove: nothing is left unsaid."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep import Run, gone, until, wrong_words
from tests.terminal import Terminal

BOX, SIDECAR = "container 'claude-bottle-a-2'", "container 'claude-bottle-pipelock-a'"
NET, EGRESS = "network 'claude-bottle-net-a-2'", "network 'claude-bottle-egress-a'"
# The first name of the internal network is a sibling's.
CREATES = {"internal-network create#2": NET, "egress-network create": EGRESS, "sidecar create": SIDECAR}
CREATES["agent create"] = BOX
# Far apart, so that a busy machine does not bring one forward of the other.
BOUNDS = {"query": 8.0, "change": 2.0, "late": 10.0, "teardown": 25.0, "patience": 60.0}
BACKGROUND = "the background goes on"
UNREACHABLE = "Cannot connect to the Docker daemon"


class Bottle(Run):
    """A start with some of the bounds, whose session can be waited for."""

    def __init__(self, folder: Path, **bounds: float) -> None:
        super().__init__(folder, {**BOUNDS, **bounds})
        self.within = folder / "within"
        self.fake.session(f"touch {self.within}; exec sleep 100")

    def into_session(self) -> subprocess.Popen[str]:
        child = self.begin()
        assert until(self.within.exists)
        return child

    def ended(self, child: subprocess.Popen[str]) -> tuple[int, str]:
        """Return a launcher's status and words; whatever is left is among them."""
        _, err = child.communicate(timeout=60)
        assert wrong_words(err) == ""
        assert [name for name in self.leftovers() if f"'{name}'" not in err] == [], err
        return child.returncode, err

    def clean(self) -> bool:
        return self.leftovers() == []


def quick(folder: Path) -> Bottle:
    """A start whose launcher and reaper soon give up."""
    return Bottle(folder, late=1.0, teardown=3.0, patience=3.0)


@pytest.mark.parametrize("create", CREATES)
def test_a_create_that_comes_while_the_launcher_looks_is_removed(tmp_path: Path, create: str) -> None:
    run = Bottle(tmp_path)
    fault = run.fake.fault(create, mode="late")
    child = run.begin()
    call = run.fake.wait_for_pause(fault)
    assert until(lambda: gone(call))  # the launcher has given up
    run.fake.release(fault)
    effect = run.fake.wait_for_effect(fault)
    # A container's networks may be gone by now.
    assert effect == "done" or ("network" not in create and effect.endswith("not found"))
    status, err = run.ended(child)
    assert (status, run.clean()) == (1, True), err
    assert "gave no answer within 2 s" in err and ("could not remove" in err) == (effect != "done"), err
    assert (BACKGROUND in err) == (effect != "done"), err


@pytest.mark.parametrize("create", ["internal-network create#2", "egress-network create"])
def test_a_create_that_comes_after_the_launcher_is_the_reapers(tmp_path: Path, create: str) -> None:
    run = Bottle(tmp_path, late=1.0)
    fault = run.fake.fault(create, mode="late")
    status, err = run.ended(run.begin())
    assert (status, run.clean()) == (1, True), err  # the rest is gone
    assert f"could not remove {CREATES[create]}: docker gave no answer" in err and BACKGROUND in err
    run.fake.release(fault)
    assert run.fake.wait_for_effect(fault) == "done"
    assert until(run.clean), run.leftovers()
    assert "could not remove" not in run.command("list").stderr


def test_a_create_that_never_comes_is_named_by_the_next_command_once(tmp_path: Path) -> None:
    run = quick(tmp_path)
    run.fake.fault("sidecar create", mode="late")
    assert run.ended(run.begin())[0] == 1
    assert f"could not remove {SIDECAR}: docker gave no answer" in run.note()
    assert run.command("list").stderr == ""


def test_a_create_that_comes_after_launcher_and_client_were_killed_is_removed(tmp_path: Path) -> None:
    run = Bottle(tmp_path)
    fault = run.fake.fault("egress-network create", mode="late")
    child = run.begin()
    call = run.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGKILL)
    os.kill(call, signal.SIGKILL)
    child.communicate(timeout=60)
    assert until(lambda: [name for name in run.leftovers() if "-stage." not in name] == [])  # but the one that may come
    run.fake.release(fault)
    assert run.fake.wait_for_effect(fault) == "done"
    assert until(run.clean), run.leftovers()


@pytest.mark.parametrize("restarted", [False, True])
def test_an_outage_that_begins_in_the_session_is_waited_out(tmp_path: Path, restarted: bool) -> None:
    run = Bottle(tmp_path, teardown=60.0)
    child = run.into_session()
    run.fake.down()
    before = len(run.fake.calls())
    assert until(lambda: [call["status"] for call in run.fake.calls()[before:]].count(1) > 2)
    run.fake.up(restarted)
    status, err = run.ended(child)
    assert (status, run.clean()) == (255, True), err  # what docker says of a session that was cut off
    assert "could not remove" not in err


def test_what_ends_with_the_bottle_does_not_end_its_session(tmp_path: Path) -> None:
    """The broker's end is seen before that of the session's client."""
    run = Bottle(tmp_path)
    child = run.into_session()
    run.fake.up(restarted=True)
    status, err = run.ended(child)
    assert (status, run.clean()) == (137, True), err
    assert "has stopped" not in err


@pytest.mark.parametrize(("host", "status"), [("", 0), ("tcp://far:2375", 69)])
def test_a_session_far_away_that_was_cut_off_is_lost_whatever_docker_says_of_it(
    tmp_path: Path, host: str, status: int
) -> None:
    run = Bottle(tmp_path, teardown=60.0)
    run.env |= {"DOCKER_HOST": host} if host else {}
    run.fake.fault("agent exec claude", when="after", status=0)
    child = run.into_session()
    run.fake.down()
    before = len(run.fake.calls())
    assert until(lambda: [call["status"] for call in run.fake.calls()[before:]].count(1) > 2)
    run.fake.up()
    seen, err = run.ended(child)
    assert (seen, run.clean()) == (status, True), err
    assert (f"the connection to {host} was lost, and with it what was under way" in err) == bool(host)


def test_a_session_far_away_that_ends_by_itself_has_its_own_status(tmp_path: Path) -> None:
    run = Bottle(tmp_path)
    run.env["DOCKER_HOST"] = "tcp://far:2375"
    run.fake.session("exit 7")
    status, err = run.ended(run.begin())
    assert (status, run.clean(), "was lost" in err) == (7, True, False), err


@pytest.mark.parametrize("host", ["", "tcp://far:2375"])
def test_who_waits_at_an_engine_far_away_waits_less(tmp_path: Path, host: str) -> None:
    run = Bottle(tmp_path, teardown=60.0, afar=3.0)
    run.env |= {"DOCKER_HOST": host} if host else {}
    child = run.into_session()
    run.fake.down()
    before = len(run.fake.calls())
    if host:
        status, err = run.ended(child)
        assert status == 69 and BACKGROUND in err
        run.fake.up()
        assert until(run.clean), run.leftovers()
        return
    assert until(lambda: [call["status"] for call in run.fake.calls()[before:]].count(1) > 4)
    assert child.poll() is None
    run.fake.up()
    assert run.ended(child)[0] == 255 and run.clean()


def test_an_outage_is_told_while_it_lasts(tmp_path: Path) -> None:
    run = Bottle(tmp_path, teardown=60.0)
    terminal = Terminal(run.words, run.cwd, run.env)
    assert until(run.within.exists)
    run.fake.down()
    terminal.until("still asking the engine; ")
    terminal.until(" s more at most; Ctrl-C twice leaves the rest to the background")
    run.fake.up()
    assert (terminal.wait(), run.clean()) == (255, True), terminal.said
    terminal.close()


def test_an_outage_longer_than_the_launchers_patience_is_the_reapers(tmp_path: Path) -> None:
    run = Bottle(tmp_path, teardown=3.0)
    child = run.into_session()
    run.fake.down()
    status, err = run.ended(child)
    assert status == 255 and BACKGROUND in err
    for title in (BOX, SIDECAR, NET, EGRESS):
        assert f"could not remove {title}: cannot reach the Docker daemon (docker info failed); {UNREACHABLE}" in err
    run.fake.up(restarted=True)
    assert until(run.clean), run.leftovers()
    assert "could not remove" not in run.command("list").stderr


def test_what_not_even_the_reaper_could_remove_is_named_by_the_next_command_once(tmp_path: Path) -> None:
    run = quick(tmp_path)
    child = run.into_session()
    run.fake.down()
    run.ended(child)
    said = run.note()
    for title in (BOX, SIDECAR, NET, EGRESS):
        assert f"warning: an earlier start could not remove {title}: " in said
    assert UNREACHABLE in said
    assert run.command("list").stderr == ""


def test_a_launcher_killed_in_an_outage_leaves_the_rest_to_a_reaper_that_waits(tmp_path: Path) -> None:
    run = Bottle(tmp_path)
    child = run.into_session()
    run.fake.down()
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    before = len(run.fake.calls())
    assert until(lambda: len(run.fake.calls()) > before + 2)
    run.fake.up()
    assert until(run.clean), run.leftovers()


@pytest.mark.parametrize("call", ["sidecar create", "agent cp"])
def test_an_outage_in_a_start_is_said_and_waited_out(tmp_path: Path, call: str) -> None:
    run = Bottle(tmp_path, teardown=60.0)
    fault = run.fake.fault(call, mode="pause")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    run.fake.down()
    run.fake.release(fault)
    before = len(run.fake.calls())
    assert until(lambda: "info" in [done["argv"][0] for done in run.fake.calls()[before:]])
    run.fake.up()
    status, err = run.ended(child)
    assert (status, run.clean()) == (1, True), err
    assert UNREACHABLE in err


HANGS = ["engine info", "container ps", "sidecar rm", "internal-network rm", "network ls"]


@pytest.mark.parametrize("call", HANGS)
def test_a_hung_engine_has_one_deadline_in_all(tmp_path: Path, call: str) -> None:
    run = Bottle(tmp_path, query=60.0, change=60.0, teardown=6.0, patience=2.0)
    child = run.into_session()
    run.fake.fault("agent rm: busy")  # so that it has to look
    fault = run.fake.fault(call, mode="hang")  # from now on, and for ever
    child.send_signal(signal.SIGTERM)
    run.fake.wait_for_pause(fault)
    began = time.monotonic()
    status, err = run.ended(child)
    assert status == 143 and time.monotonic() - began < 30, err
    assert "still " in err and BACKGROUND in err
    assert "could not remove" in run.note()


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[tuple[Bottle, Terminal]]:
    """A start whose first removal hangs, and whose bounds are the program's own."""
    run = Bottle(tmp_path, query=10.0, change=60.0, teardown=60.0, patience=600.0)
    run.fake.session("exit 7")
    fault = run.fake.fault("agent rm#1", mode="hang")
    terminal = Terminal(run.words, run.cwd, run.env)
    run.fake.wait_for_pause(fault)
    yield run, terminal
    terminal.close()


def test_a_second_ctrl_c_hands_a_hung_teardown_to_the_reaper(hung: tuple[Bottle, Terminal]) -> None:
    run, terminal = hung
    terminal.type("\x03")
    terminal.until("Ctrl-C leaves the rest to the background")
    (said,) = re.findall("still removing containers (.*?); ", terminal.said)
    assert said == "'claude-bottle-a-2', 'claude-bottle-broker-a', 'claude-bottle-pipelock-a'"
    began = time.monotonic()
    terminal.type("\x03")
    terminal.until(f"could not remove {BOX}: ")
    terminal.until(BACKGROUND)
    assert terminal.wait() == 130 and time.monotonic() - began < 20, terminal.said
    assert until(run.clean), run.leftovers()
    assert "could not remove" not in run.command("list").stderr


def test_one_ctrl_c_after_one_that_ended_the_start_hands_it_over_too(tmp_path: Path) -> None:
    run = Bottle(tmp_path, query=10.0, change=60.0, teardown=60.0, patience=600.0)
    create = run.fake.fault("agent create", mode="pause")
    hang = run.fake.fault("sidecar rm#1", mode="hang")
    terminal = Terminal(run.words, run.cwd, run.env)
    run.fake.wait_for_pause(create)
    terminal.type("\x03")
    terminal.until("^C")
    run.fake.release(create)
    run.fake.wait_for_pause(hang)
    terminal.type("\x03")
    assert terminal.wait() == 130, terminal.said
    assert BACKGROUND in terminal.said
    terminal.close()
    assert until(run.clean), run.leftovers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_do_not_cut_a_hung_teardown_short(hung: tuple[Bottle, Terminal], number: signal.Signals) -> None:
    _, terminal = hung
    terminal.child.send_signal(number)
    terminal.child.send_signal(number)
    terminal.until("still removing")
    terminal.child.send_signal(number)
    assert terminal.child.poll() is None and BACKGROUND not in terminal.said
    terminal.type("\x03")
    terminal.until("; Ctrl-C leaves the rest to the background")
    terminal.type("\x03")
    assert terminal.wait() == 128 + number, terminal.said


FOREIGN = "Could not kill running container 1, cannot remove - container not found inside the runtime"
SILENT = "did nothing and gave no reason"
REMOVALS = {"agent rm": BOX, "sidecar rm": SIDECAR, "internal-network rm": NET, "egress-network rm": EGRESS}


FAILURES = [*((removal, "") for removal in REMOVALS), ("agent rm", FOREIGN), ("agent rm", "No such container: another")]


@pytest.mark.parametrize(("removal", "words"), FAILURES)
def test_a_removal_that_fails_is_said_whatever_its_words(tmp_path: Path, removal: str, words: str) -> None:
    run = Bottle(tmp_path)
    run.fake.session("exit 0")
    run.fake.fault(f"{removal}: {words}" if words else removal)
    status, err = run.ended(run.begin())
    assert status == 1 and f"could not remove {REMOVALS[removal]}: " in err
    assert (words or SILENT) in err
    assert REMOVALS[removal].split("'")[1] in run.leftovers()


def test_a_removal_that_says_nothing_and_does_nothing_is_said(tmp_path: Path) -> None:
    run = Bottle(tmp_path)
    run.fake.session("exit 0")
    run.fake.fault("agent rm", status=0)
    status, err = run.ended(run.begin())
    assert status == 1 and f"could not remove {BOX}: docker rm {SILENT}" in err


def test_a_removal_that_fails_after_it_has_removed_is_no_failure(tmp_path: Path) -> None:
    run = Bottle(tmp_path)
    run.fake.session("exit 7")
    run.fake.fault("agent rm: it broke in the end", when="after")
    status, err = run.ended(run.begin())
    assert (status, run.clean()) == (7, True), err
    assert "could not remove" not in err


def test_what_somebody_else_has_removed_counts_as_removed(tmp_path: Path) -> None:
    """And the volume that they leave goes."""
    run = Bottle(tmp_path)
    docker = run.fake.bin / "docker"
    run.fake.session(f"{docker} rm -f claude-bottle-a-2 claude-bottle-pipelock-a; {docker} network rm {NET[9:-1]}")
    status, err = run.ended(run.begin())
    assert (status, run.clean()) == (69, True), err  # the sidecar went in the middle of the session
    assert "could not remove" not in err


@pytest.mark.parametrize(("removal", "words"), [("agent rm", FOREIGN), ("internal-network rm", "")])
def test_the_cleanup_command_says_what_it_could_not_remove(tmp_path: Path, removal: str, words: str) -> None:
    run = Bottle(tmp_path)
    run.fake.fault(f"{removal}: {words}" if words else removal)
    terminal = Terminal([*run.program, "cleanup"], run.cwd, run.env)
    terminal.until("[y/N] ")
    terminal.type("y\n")
    assert terminal.wait() == 1, terminal.said
    assert (words or SILENT) in terminal.said and "removed 1 containers" not in terminal.said
    terminal.close()
