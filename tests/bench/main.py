"""scripts/bench: the runs, paired and alternating, and what they come to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fixtures.scenery import sigterm_raises
from tests.bench import figures, page, remote, runs, sides
from tests.bench.figures import FLOOR, PORT, Figures
from tests.bench.launch import Failed
from tests.bench.runs import Values
from tests.bench.sides import LAUNCHERS, SIDES, Sides
from tests.engine.conftest import docker
from tests.engine.inventory import Sharing
from tests.sidecar import SIDECAR

ROWS = "0abcdeknprs"
START_ROWS = {"0": "question", "a": "session", "b": "end"}
SHELLS_MOST = 15  # bottles that an engine as it comes has networks for

Run = Callable[[str], Values]  # of one side


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def number(text: str) -> int:
    """Return a whole number from 1 on."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def numbers(text: str) -> list[int]:
    return [number(word) for word in text.split(",")]


def rows(text: str) -> list[str]:
    """Return the letters of rows."""
    words = text.split(",")
    for word in words:
        if word not in tuple(ROWS):
            raise argparse.ArgumentTypeError(f"'{word}' is no row; there are {', '.join(ROWS)}")
    return words


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="How fast both launchers are, on one engine.")
    parser.add_argument("--pairs", type=number, default=15, help="of rows 0, a, b, c")
    parser.add_argument("--rounds", type=number, default=3, help="of rows d and e")
    parser.add_argument("--rows", type=rows, default=list(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--at-once", type=numbers, default=[1, 5, 15, 20, 50], help="bottles of row d")
    parser.add_argument("--write", action="store_true", help="keep the figures in docs/bench, and write the page")
    return parser.parse_args(words)


def alternate(found: Figures, times: int, every: Sequence[str], run: Run, what: str) -> None:
    """Run all sides so many times, another one first each time; a pair of which one fails does not count."""
    for turn in range(times):
        say(f"{what}: {turn + 1} of {times}")
        first = turn % len(every)
        pair = {side: run(side) for side in (*every[first:], *every[:first])}
        for side, values in pair.items():
            found.add(side, values)


def jobs(found: Figures, place: Sides, args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Yield what was asked for."""
    again = partial(alternate, found)
    wanted = {START_ROWS[row] for row in args.rows if row in START_ROWS}
    if wanted:
        yield lambda: again(args.pairs, SIDES, lambda side: pick(runs.start(place, side), wanted), "start and end")
    if "c" in args.rows:
        yield lambda: again(args.pairs, LAUNCHERS, partial(runs.commands, place), "short commands")
    if "d" in args.rows:
        yield from (partial(crowd, found, place, count, args.rounds) for count in args.at_once)
    if "e" in args.rows:
        yield lambda: again(args.rounds, LAUNCHERS, partial(runs.cleanup, place), "cleanup")
    if "k" in args.rows:
        yield lambda: again(args.pairs, (PORT,), partial(runs.broker, place), "broker")
    if "r" in args.rows:
        yield lambda: again(args.pairs, (PORT,), partial(remote.over_ssh, place), "over ssh")
    if "s" in args.rows:
        yield lambda: again(args.pairs, (PORT,), partial(runs.self_test, place), "self-test")
    if "n" in args.rows:
        yield partial(count_calls, found, place)
    if "p" in args.rows:
        yield partial(time_calls, found, place)


def measure(found: Figures, place: Sides, args: argparse.Namespace) -> bool:
    """Run what was asked for, one thing after the failure of another; return whether none failed."""
    failed = False
    for job in jobs(found, place, args):
        try:
            job()
        except Failed as problem:
            say(str(problem))
            failed = True
    return not failed


def pick(values: Values, wanted: set[str]) -> Values:
    return {name: value for name, value in values.items() if name in wanted}


def crowd(found: Figures, place: Sides, count: int, rounds: int) -> None:
    """Run some bottles at once, then once more for the most memory, whose reading takes time."""
    some = SIDES if count <= SHELLS_MOST else (PORT, FLOOR)
    alternate(found, rounds, some, lambda side: runs.at_once(place, side, count), f"{count} at once")
    for side in some:
        if side != FLOOR:
            found.add(side, runs.most_memory(place, side, count))


def count_calls(found: Figures, place: Sides) -> None:
    for side in LAUNCHERS:
        with tempfile.TemporaryDirectory() as folder:
            found.calls[side] = runs.calls(place, side, Path(folder))


def time_calls(found: Figures, place: Sides) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found.profile = runs.profile(place, Path(folder))


@contextmanager
def laid_out(agents: int) -> Iterator[Sides]:
    """Yield the sides, each run once for its image; nothing of them stays, whatever happens."""
    sharing = Sharing(docker("info", "--format", "{{.ID}}"))
    try:
        with sigterm_raises(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                place = Sides(Path(folder).resolve(), agents)
                say("each once, for its image")
                for side in SIDES:
                    runs.start(place, side)
                yield place
            finally:
                for signum in (signal.SIGINT, signal.SIGHUP):
                    signal.signal(signum, signal.SIG_IGN)  # what is left is removed first
                sides.sweep()
    finally:
        sharing.close()


def main(words: Sequence[str]) -> int:
    """Measure, print, and keep if asked to; return the status."""
    args = parse(words)
    server, client = docker("version", "--format", "{{.Server.Version}} {{.Client.Version}}").split()
    found = Figures(server, client, SIDECAR, os.cpu_count() or 1)
    if os.getloadavg()[0] > found.cores / 2:
        say(f"this machine is busy (load {os.getloadavg()[0]:.1f}): the figures will say little")
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    try:
        with laid_out(max(args.at_once)) as place:
            whole = measure(found, place, args)
    except (Failed, KeyboardInterrupt) as problem:
        say(str(problem) or "interrupted")
        return 1
    print(page.table(found), page.profile(found), sep="", end="")
    if args.write:
        figures.keep(found)
        page.write()
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
