"""scripts/reliability restarts: the engine ends under launches that are at different calls, and comes back."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fixtures.scenery import sigterm_raises
from tests.bench.launch import SESSION, look_at
from tests.engine.conftest import until
from tests.reliability import kept
from tests.reliability.launches import One, Place, place
from tests.reliability.private import BROKER, Private, private

POINTS = (
    *("build", "network create internal", "create agent", "start sidecar", "create broker", "start broker"),
    *("exec seals", "exec session", "rm"),
)
HOWS = ("restarts", "dies and comes back later")
BEGIN_SECONDS = 180.0
GIVE_UP_SECONDS = 180.0
CLEAN_SECONDS = 90.0


def say(text: str) -> None:
    print(f"restarts: {text}", file=sys.stderr, flush=True)


def begin(there: Place, every: list[One]) -> None:
    """Start a launch for each point, and wait until each has come there: all at once, for a call has its limit."""
    every += [there.launch({"point": each, "when": "before", "act": "pause"}) for each in POINTS]

    def all_there() -> bool:
        look_at([one.terminal for one in every])
        if SESSION in every[-1].terminal.came:
            every[-1].end_session()  # its point is the teardown's
        return all((one.shim / "hit").exists() for one in every)

    until(all_there, BEGIN_SECONDS)


def go(every: Sequence[One]) -> None:
    for one in every:
        (one.shim / "go").touch()


def restart(engine: Private, every: Sequence[One], keeps: bool) -> None:
    engine.end()
    go(every)
    engine.start(keeps=keeps)
    see_off(every)


def die(engine: Private, every: Sequence[One], keeps: bool) -> None:
    engine.end(signal.SIGKILL)
    go(every)
    see_off(every)
    engine.start(keeps=keeps)


def see_off(every: Sequence[One]) -> None:
    for one in every:
        one.run(GIVE_UP_SECONDS)


def round_of(there: Place, engine: Private, how: str, keeps: bool) -> list[list[object]]:
    """Do it to launches at every point; return what became of them."""
    do: Callable[[Private, Sequence[One], bool], None] = restart if how == HOWS[0] else die
    engine.end()
    engine.start(keeps=keeps)
    every: list[One] = []
    try:
        begin(there, every)
        do(engine, every, keeps)
        began = time.monotonic()
        rows: list[list[object]] = []
        for one, point in zip(every, POINTS, strict=True):
            left = one.clean_within(max(CLEAN_SECONDS - (time.monotonic() - began), 0))
            took = round(time.monotonic() - began, 1)
            rows.append([how, keeps, point, one.status, len(left), took])
            say(f"{how}, live-restore {keeps}, at '{point}': status {one.status}, left {left} after {took} s")
            if one.status not in (0, 1):
                say(one.words_said())
        return rows
    finally:
        for one in every:
            one.close()


def main(words: Sequence[str]) -> int:
    """Run the rounds, print the table, and keep it if asked to; return the status."""
    parser = argparse.ArgumentParser(prog="scripts/reliability restarts")
    parser.add_argument("--write", action="store_true", help="keep the outcomes in docs/reliability, write the page")
    parser.add_argument("--live-restore", choices=("off", "on"), help="only this; both without it")
    args = parser.parse_args(words)
    both = [keeps for keeps in (False, True) if args.live_restore in (None, "on" if keeps else "off")]
    with sigterm_raises(), tempfile.TemporaryDirectory(prefix="restarts-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        (folder / "engine").mkdir()
        with private(folder / "engine") as engine, place(folder / "place", BROKER) as there:
            rows = [row for keeps in both for how in HOWS for row in round_of(there, engine, how, keeps)]
            print(kept.restarts_table(rows), end="")
            if args.write:
                kept.keep("restarts", rows)
    return 1 if any(row[4] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
