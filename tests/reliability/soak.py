"""scripts/reliability soak: many starts and stops at once, random kills among them; what an engine has afterwards."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fixtures.scenery import sigterm_raises
from tests.bench.launch import SESSION
from tests.engine.conftest import docker, until
from tests.reliability import kept
from tests.reliability.launches import One, Place, place
from tests.reliability.private import BROKER, Private, private
from tests.reliability.shim import reaper_of

VICTIMS = ("nobody", "nobody", "nobody", "launcher", "reaper", "both", "client", "sidecar")
LATEST_SECONDS = 6.0  # of a kill, after the start
SETTLE_SECONDS = 30.0
SWEEPS = 20
DESCRIPTORS = "open descriptors of dockerd and containerd"
SLACK = 16  # descriptors: of connections that an engine keeps for the next one who asks
MEMORY = "memory of the engine (MiB)"

Figures = dict[str, int]


def say(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


def count(engine: Private, there: Place) -> Figures:
    """Return how much there is of everything that a launch could leave."""
    pids = engine.processes()
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    kinds = {"containers": ("ps", "-aq"), "networks": ("network", "ls", "-q"), "volumes": ("volume", "ls", "-q")}
    found = {name: len(docker(*words).split()) for name, words in kinds.items()}
    found["processes"] = len(there.processes())
    found["temporary files"] = len(list(there.folder.glob("tmp/*")))
    found["bridges"] = sum(line.startswith("br-") for line in links)
    found["veth"] = sum(line.startswith("veth") for line in links)
    found["routes"] = len(subprocess.run(["ip", "-4", "route"], capture_output=True, text=True).stdout.splitlines())
    found[DESCRIPTORS] = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    found[MEMORY] = sum(map(memory, pids)) // 1024
    return found


def memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def strike(one: One, victim: str, chance: random.Random) -> None:
    """Kill it, if it is there."""
    launcher = one.terminal.child.pid
    if victim == "sidecar":
        of = ("--filter", f"label=claude-bottle.slug={one.desk.agent}", "--filter", "label=claude-bottle.role=sidecar")
        docker("kill", *docker("ps", "-q", *of).split() or ["none"], check=False)
        return
    pids = {"launcher": [launcher], "reaper": [reaper_of(launcher)], "both": [reaper_of(launcher), launcher]}
    for pid in filter(None, pids.get(victim) or clients(launcher, chance)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def clients(launcher: int, chance: random.Random) -> list[int]:
    """Return one of the launcher's docker clients, if it has any now."""
    said = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(launcher)], capture_output=True, text=True).stdout
    every = [int(line.split()[0]) for line in said.splitlines() if line.split()[1] == "docker"]
    return every and [chance.choice(every)]


def one_start(there: Place, number: int, seed: int) -> tuple[str, int | None]:
    """Start, perhaps kill something at some moment, and see it off; return who was killed, and the status."""
    chance = random.Random(f"{seed} {number}")
    victim, moment = chance.choice(VICTIMS), chance.uniform(0, LATEST_SECONDS)
    one = there.launch(tmp=there.folder / "tmp")
    if victim == "nobody":
        return victim, one.run()
    one.to(SESSION, moment)
    if one.status is None:
        strike(one, victim, chance)
    status = one.run()
    one.terminal.close()
    return victim, status


def soak(there: Place, starts: int, at_once: int, seed: int) -> Counter[tuple[str, int | None]]:
    pool = ThreadPoolExecutor(at_once)
    try:
        return Counter(pool.map(lambda number: one_start(there, number, seed), range(starts)))
    finally:
        pool.shutdown(cancel_futures=True)


def settled(engine: Private, there: Place, before: Figures, sweeps: int) -> Figures:
    """Return what there is in the end, after as many further starts as it takes: each one sweeps up.

    A reaper whose launch lost an answer of docker's looks for an hour for what may still come.
    """
    found: Figures = {}

    def same() -> bool:
        found.update(count(engine, there))
        return not grown(before, found)

    for _ in range(sweeps):
        last = there.launch(tmp=there.folder / "tmp")
        last.run()
        last.close()
        with suppress(AssertionError):
            until(same, SETTLE_SECONDS)
            break
        say(f"still more: {grown(before, found)}")
    return found


def grown(before: Figures, after: Figures) -> list[str]:
    """Return what has become more, but for memory, which an engine takes as it likes."""
    allowed = {**before, DESCRIPTORS: before[DESCRIPTORS] + SLACK, MEMORY: after[MEMORY]}
    return [name for name in before if after[name] > allowed[name]]


def main(words: Sequence[str]) -> int:
    """Do it, print the figures, and keep them if asked to; return the status."""
    parser = argparse.ArgumentParser(prog="scripts/reliability soak")
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="further starts at most")
    parser.add_argument("--write", action="store_true", help="keep the figures in docs/reliability, write the page")
    args = parser.parse_args(words)
    say(f"{args.starts} starts, {args.at_once} at once, --seed {args.seed}")
    with sigterm_raises(), tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        (folder / "engine").mkdir()
        with private(folder / "engine") as engine, place(folder / "place", BROKER) as there:
            (there.folder / "tmp").mkdir()
            before = count(engine, there)
            began = time.monotonic()
            ends = soak(there, args.starts, args.at_once, args.seed)
            took = round(time.monotonic() - began)
            unswept = count(engine, there)
            after = settled(engine, there, before, args.sweeps)
            figures = {
                **{"starts": args.starts, "at once": args.at_once, "seed": args.seed, "seconds": took},
                "ends": sorted([victim, status, number] for (victim, status), number in ends.items()),
                "figures": {name: [before[name], unswept[name], after[name]] for name in before},
            }
            print(kept.soak_table(figures), end="")
            if args.write:
                kept.keep("soak", figures)
    more = grown(before, after)
    say(f"more than before: {', '.join(more) or 'nothing'}")
    failed = sum(number for (victim, status), number in ends.items() if victim == "nobody" and status != 0)
    if failed:
        say(f"{failed} starts did not end well, though nobody was killed")
    return 1 if more or failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
