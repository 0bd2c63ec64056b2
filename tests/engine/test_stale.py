"""Launcher and reaper killed together on the real engine: the next start, or ``cleanup --stale``, leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.teardown.inventory import PREFIX
from claude_bottle.lib.teardown.owner import Owner, owner_here, place_here, process_mark

from .conftest import AGENT, Desk, NewDesk, client_runs, container, docker, end, leftovers, until

OTHERS = f"{AGENT}-elsewhere"


def made(role: str) -> Callable[[], object]:
    def there() -> str:
        labels = (f"label={PREFIX}role={role}", f"label={PREFIX}slug={AGENT}")
        kind = ["network", "ls"] if role in ("internal", "egress") else ["ps", "-a"]
        return docker(*kind, "-q", *(word for label in labels for word in ("--filter", label)))

    return there


MOMENTS: dict[str, Callable[[], object]] = {
    "network": made("internal"),
    "sidecar": made("sidecar"),
    "agent": made("agent"),
    "session": client_runs,
}


def reaper_of(launcher: int) -> int:
    """Return the pid of the reaper among a launcher's children."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if b"reaper.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no reaper")


def kill_both_at(desk: Desk, moment: str) -> None:
    child = desk.terminal("start", "-y", AGENT)
    until(MOMENTS[moment])
    for pid in (reaper_of(child.pid), child.pid):
        os.kill(pid, signal.SIGKILL)
    child.close(force=True)  # a docker client of its session ends with the terminal
    assert leftovers(desk)


@pytest.fixture
def untouchable() -> Iterator[list[str]]:
    """Networks of a dead launch of another host's, of a living one, and one without any proof."""
    here = place_here()
    dead = "4194304 17"
    elsewhere = Owner("e" * 32, type(here)("elsewhere", here.boot, here.namespaces, here.user), dead, dead)
    living = owner_here("a" * 32, os.getpid())
    names = []
    for number, of in enumerate((elsewhere, living, Owner("b" * 32))):
        facts = {"slug": OTHERS, "role": "internal", **of.facts()}
        labels = [word for name, value in facts.items() if value for word in ("--label", f"{PREFIX}{name}={value}")]
        subnet = f"10.212.{os.getpid() % 250}.{8 * number}/29"
        names.append(docker("network", "create", "--subnet", subnet, *labels, f"cb-untouchable-{AGENT}-{number}"))
    yield names
    docker("network", "rm", *names)


def there(networks: list[str]) -> bool:
    return set(networks) <= set(docker("network", "ls", "-q", "--no-trunc").split())


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_start_leaves_nothing_of_a_launch_killed_with_its_reaper(
    desk: Desk, untouchable: list[str], moment: str
) -> None:
    kill_both_at(desk, moment)
    done = desk.run("start", "-y", AGENT, "--", "--version")
    assert done.returncode == 0 and f"removed what a killed launch of {AGENT} had left: " in done.stderr, done.stderr
    until(lambda: desk.run("cleanup", "--stale", "--yes").returncode == 0 and not leftovers(desk), 90)
    assert there(untouchable)


def test_cleanup_stale_leaves_a_living_bottle_alone(desk: Desk, another_desk: NewDesk, untouchable: list[str]) -> None:
    beside = another_desk(f"{AGENT}-beside")
    living = beside.terminal("start", "-y", beside.agent)
    until(lambda: client_runs(beside.agent))
    kept = leftovers(beside)
    kill_both_at(desk, "session")
    listed = dict(line.split("\t", 1) for line in desk.run("list", "active").stdout.splitlines())
    assert listed[f"claude-bottle-{AGENT}"].endswith(" (stale)")
    assert not listed[f"claude-bottle-{beside.agent}"].endswith(" (stale)")
    done = desk.run("cleanup", "--stale", "--yes")
    assert (done.returncode, leftovers(desk), leftovers(beside)) == (0, [], kept), done.stderr
    assert there(untouchable) and container("agent", beside.agent) and process_mark(living.pid)
    end(living)
    until(lambda: not leftovers(beside))
