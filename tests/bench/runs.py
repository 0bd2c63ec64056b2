"""The runs: one of a side each, with what was measured in it, by the name of the row."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import launch, memory
from tests.bench.figures import FLOOR, PORT, Timed
from tests.bench.launch import GONE, QUESTION, SESSION, Failed, Launch
from tests.bench.sides import RUN, Sides, agent, image
from tests.engine.conftest import docker

LEFTOVERS = 50  # of each kind
AT_A_TIME = 4
LISTED = re.compile(r"^  (?:container|network) (\S+)", re.MULTILINE)
COUNTING = """#!/bin/sh
case $1 in
    container | image | network) echo "$1 $2" ;;
    *) echo "$1" ;;
esac >>{log}
exec {docker} "$@"
"""

# Notes when a call begins and ends. Not by exec: the end is this script's to note, and Ctrl-C is the client's.
TIMING = """#!/bin/bash
what=$1
case $1 in network) what="$1 $2" ;; esac
for word; do
    case $word in
        claude-bottle.role=*) what="$what ${{word#*=}}" ;;
        -ai) what="$what sidecar" ;;
        *claude-bottle-seals) what="$what seals" ;;
    esac
done
echo "$$ $EPOCHREALTIME $what" >>{log}
{docker} "$@"
status=$?
echo "$$ $EPOCHREALTIME" >>{log}
exit $status
"""

# Keeps what the bottle's self-test says, its own clock among it.
LISTENING = """#!/bin/bash
[[ "$*" == *claude-bottle-seals* ]] || exec {docker} "$@"
{docker} "$@" | tee -a {log}
"""

Values = dict[str, float]


def begin(sides: Sides, side: str, number: int) -> Launch:
    return Launch(sides.start(side, number), sides.desk.cwd, sides.env(side))


def start(sides: Sides, side: str) -> Values:
    """Boot one bottle and end its session at once."""
    with launch.closing([]) as launches:
        boot(sides, side, 1, launches)
        end(launches)
    (one,) = launches
    values = {
        "session": one.came[SESSION] - one.came[QUESTION],
        "end": one.came[GONE] - one.came[SESSION],
    }
    return values if side == FLOOR else {"question": one.came[QUESTION] - one.began, **values}


def broker(sides: Sides, side: str) -> Values:
    """Return what a broker adds to a start: two of these, without and with one."""
    without = start(sides, side)["session"]
    sides.brokered = True
    try:
        return {"broker": start(sides, side)["session"] - without}
    finally:
        sides.brokered = False


def commands(sides: Sides, side: str) -> Values:
    """Run the short commands."""
    every = {
        "help": ["--help"],
        "list": ["list"],
        "info": ["info", agent(1)],
        "dry-run": ["start", "--dry-run", agent(1)],
    }
    return {name: command(sides, side, words) for name, words in every.items()}


def command(sides: Sides, side: str, words: list[str]) -> float:
    """Return how long a command takes that asks nothing.

    Raises:
        Failed: its status is not 0.
    """
    no = subprocess.DEVNULL
    began = time.monotonic()
    child = subprocess.Popen(
        [sides.launchers[side], *words], cwd=sides.desk.cwd, env=sides.env(side), stdin=no, stdout=no, stderr=no
    )
    status = child.wait()
    took = time.monotonic() - began
    if status:
        raise Failed(f"{side}: {' '.join(words)} ended with {status}")
    return took


def at_once(sides: Sides, side: str, count: int) -> Values:
    """Boot some bottles in one moment, and end their sessions in one moment."""
    with launch.closing([]) as launches:
        began = time.monotonic()
        up = boot(sides, side, count, launches) - began
        waiting = memory.measure(pids(launches))
        ended = time.monotonic()
        gone = end(launches) - ended
    values: Values = {f"up {count}": up, f"gone {count}": gone}
    if side != FLOOR:
        values |= {f"memory {count}": waiting.launchers, f"clients {count}": waiting.clients}
    return values


def most_memory(sides: Sides, side: str, count: int) -> Values:
    """Do the same, looking at the memory all the time."""
    with launch.closing([]) as launches:
        peak = memory.Peak(lambda: pids(launches))
        boot(sides, side, count, launches, peak)
        end(launches, peak)
    return {f"peak {count}": peak.most.launchers}


def boot(
    sides: Sides, side: str, count: int, launches: list[Launch], meanwhile: Callable[[], None] = launch.nothing
) -> float:
    """Start some, putting them into the list, and return when the last session was up."""
    for number in range(1, count + 1):
        launches.append(begin(sides, side, number))
    return launch.until(launches, SESSION, meanwhile)


def end(launches: list[Launch], meanwhile: Callable[[], None] = launch.nothing) -> float:
    """End the sessions, and return when the last launcher was gone."""
    for each in launches:
        each.type("\n")
    return launch.until(launches, GONE, meanwhile)


def pids(launches: list[Launch]) -> list[int]:
    return [each.child.pid for each in launches]


def cleanup(sides: Sides, side: str) -> Values:
    """Remove a hundred leftovers.

    Raises:
        Failed: there is something of others too, which stays.
    """
    names = make_leftovers(sides, side)

    def answer(said: str) -> str:
        others = set(LISTED.findall(said)) ^ names
        if others:
            raise Failed(f"cleanup must not remove what others have on this engine: {sorted(others)[0]}")
        return "y\n"

    words: list[str | Path] = [sides.launchers[side], "cleanup"]
    with launch.closing([Launch(words, sides.desk.cwd, sides.env(side), answer)]) as (one,):
        gone = launch.until([one], GONE)
    return {"cleanup": gone - one.began}


def make_leftovers(sides: Sides, side: str) -> set[str]:
    """Make containers and their networks as a killed launcher of the shell's leaves them, and return their names."""

    def make(number: int) -> tuple[str, str]:
        network, container = f"claude-bottle-net-{RUN}-{number}", f"claude-bottle-{RUN}-{number}"
        docker("network", "create", "--internal", "--subnet", str(subnets[number]), network)
        docker("create", "--name", container, "--network", network, image(side), "sleep", "infinity")
        return network, container

    subnets = [next(sides.subnets) for _ in range(LEFTOVERS)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return {name for pair in pool.map(make, range(LEFTOVERS)) for name in pair}


def calls(sides: Sides, side: str, folder: Path) -> list[str]:
    """Return the docker calls of a plain start and teardown.

    Args:
        sides: of the bench.
        side: which.
        folder: an empty one.
    """
    _, lines = _noted(sides, side, folder, COUNTING)
    return lines


def profile(sides: Sides, folder: Path) -> list[Timed]:
    """Return when each docker call of a start and a teardown of the port's began and ended.

    Args:
        sides: of the bench.
        folder: an empty one.
    """
    one, lines = _noted(sides, PORT, folder, TIMING)
    answered = time.time() - (time.monotonic() - one.came[QUESTION])
    began: dict[str, tuple[str, float]] = {}
    found: list[Timed] = []
    for line in lines:
        pid, moment, *what = line.split(" ")
        at = float(moment) - answered
        if what:
            began[pid] = (" ".join(what), at)
        else:
            found.append((began[pid][0], round(began[pid][1], 3), round(at, 3)))
    return sorted(found, key=lambda call: call[1])


def self_test(sides: Sides, side: str) -> Values:
    """Return how long the self-test in the bottle took, by its own clock."""
    with tempfile.TemporaryDirectory() as folder:
        _, lines = _noted(sides, side, Path(folder), LISTENING)
    (seconds,) = (line.split("\t")[1] for line in lines if line.startswith("seconds\t"))
    return {"self-test": float(seconds)}


def _noted(sides: Sides, side: str, folder: Path, script: str) -> tuple[Launch, list[str]]:
    """Boot one bottle, with a script before docker that notes each call; return the lines of its notes."""
    log, client = folder / "log", folder / "docker"
    client.write_text(script.format(log=log, docker=shutil.which("docker")))
    client.chmod(0o755)
    env = sides.env(side)
    env["PATH"] = f"{folder}:{env['PATH']}"
    with launch.closing([Launch(sides.start(side, 1), sides.desk.cwd, env)]) as (one,):
        launch.until([one], SESSION)
        end([one])
    return one, log.read_text().splitlines()
