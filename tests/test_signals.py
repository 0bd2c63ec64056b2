"""A signal to the launcher during every docker call of a start and of a teardown: nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.sweep import Run, each, gone, name_of, points, until, wrong_words
from tests.terminal import Terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_during_any_docker_call_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    def check(point: str) -> str:
        run = Run(name_of(tmp_path, point))
        fault = run.fake.fault(point, mode="pause", when="after" if "create" in point else "before")
        child = run.begin()
        call = run.fake.wait_for_pause(fault)
        child.send_signal(number)
        run.fake.release(fault)
        _, err = child.communicate(timeout=60)
        want = 128 + number if number == signal.SIGTERM else -number
        if child.returncode != want:
            return f"status {child.returncode}, {err}"
        if number == signal.SIGTERM and run.leftovers():
            return f"left {run.leftovers()}, {err}"
        if not until(lambda: run.leftovers() == [] and gone(call)):
            return f"left {run.leftovers()}, call ended: {gone(call)}"
        return wrong_words(err)

    assert each(points(tmp_path / "first"), check) == []


def test_a_signal_does_not_wait_for_a_copy_in_flight(tmp_path: Path) -> None:
    run = Run(tmp_path)
    fault = run.fake.fault("agent cp", mode="hang")
    child = run.begin()
    call = run.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, run.leftovers(), gone(call)) == (143, [], True), err


@pytest.mark.parametrize("point", ["internal-network create", "agent create", "agent start"])
def test_a_signal_does_not_wait_long_for_an_engine_that_is_elsewhere(tmp_path: Path, point: str) -> None:
    run = Run(tmp_path, {"change": 60.0})
    run.env["DOCKER_HOST"] = "tcp://far:2375"
    fault = run.fake.fault(point, mode="hang")
    child = run.begin()
    call = run.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=40)
    assert (child.returncode, gone(call)) == (143, True), err
    assert until(lambda: run.leftovers() == []), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_working_directory_that_is_gone_does_not_stop_a_teardown(tmp_path: Path, number: signal.Signals) -> None:
    run = Run(tmp_path)
    run.env["TMPDIR"] = "../tmp"
    fault = run.fake.fault("agent exec claude", mode="hang")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    shutil.rmtree(run.cwd)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode in (128 + number, -number), err
    assert until(lambda: run.leftovers() == []), run.leftovers()


def test_a_client_that_was_killed_is_told_by_its_signal(tmp_path: Path) -> None:
    run = Run(tmp_path)
    fault = run.fake.fault("agent exec claude", mode="hang")
    child = run.begin()
    os.kill(run.fake.wait_for_pause(fault), signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (128 + signal.SIGKILL, []), err


def test_ctrl_c_does_not_cut_a_create_in_half(tmp_path: Path) -> None:
    run = Run(tmp_path)
    fault = run.fake.fault("sidecar create", mode="pause", when="after")
    terminal = Terminal(run.words, run.cwd, run.env)
    call = run.fake.wait_for_pause(fault)
    terminal.type("\x03")
    terminal.until("^C")  # the terminal's own echo, after which the signal has been sent
    assert not gone(call)
    run.fake.release(fault)
    assert (terminal.wait(), run.leftovers()) == (130, []), terminal.said
    (create,) = [done for done in run.fake.calls() if done["argv"][0] == "create"]
    assert create["status"] == 0


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.words = ["nohup", *run.words]
    fault = run.fake.fault("agent exec claude", mode="pause")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGHUP)
    run.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err


def ignores(pid: int, number: signal.Signals) -> bool:
    mask = subprocess.run(["ps", "-o", "ignored=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(int(mask.strip() or "0", 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_reaper_is_deaf_to_what_ends_others(tmp_path: Path, number: signal.Signals) -> None:
    run = Run(tmp_path)
    fault = run.fake.fault("sidecar create", mode="pause", when="after")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    listed = subprocess.run(
        ["pgrep", "-P", str(child.pid), "-f", "lib/teardown/reaper.py"], capture_output=True, text=True
    )
    reaper = int(listed.stdout)
    assert until(lambda: ignores(reaper, number))  # it has begun
    child.send_signal(signal.SIGKILL)
    os.kill(reaper, number)
    run.fake.release(fault)
    child.communicate(timeout=60)
    assert until(lambda: run.leftovers() == []), run.leftovers()
