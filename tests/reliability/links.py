"""scripts/reliability links: the line to the engine breaks under launches, and is mended when each has had its time."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path

from fixtures.scenery import sigterm_raises
from tests.bench import sides
from tests.bench.launch import GONE, SESSION, look_at
from tests.engine.conftest import GIT_HOST, docker, until
from tests.engine.far import Far
from tests.line import CUT, HOLE, PASS, Line
from tests.projects import WHO
from tests.reliability import kept
from tests.reliability.kept import AFTER, HOME, KEPT, LOST, WITHIN, Broken
from tests.reliability.launches import One, Place, place
from tests.reliability.private import BROKER, Private, private
from tests.reliability.shim import reaper_of
from tests.sidecar import SIDECAR

TCP, TLS, SSH = WAYS = ("tcp", "tls", "ssh")
BREAKS, ACTS = (CUT, HOLE), ("nothing", "TERM", "KILL", "both")
CREATE, LIVE, BRINGING, TEARDOWN = MOMENTS = ("create", "session", "bringing", "teardown")
FAULTS = {
    CREATE: {"point": "create agent", "when": "after", "act": "pause"},
    BRINGING: {"point": "exec work list", "when": "before", "act": "pause"},
    TEARDOWN: {"point": "rm", "when": "before", "act": "pause"},
}
STATUS = {"TERM": (143,), "KILL": (-9,), "both": (-9,)}
BY_ITSELF = {CREATE: (1,), LIVE: (69,), BRINGING: (0, 1), TEARDOWN: (0, 1)}
PATIENCE = 30  # the least that can be asked for
AWAY_SECONDS = {AFTER: 75.0, WITHIN: 15.0}  # how long the line is broken
BUSY_SECONDS = 20.0  # more than what is promised, on a busy machine
ENDS_SECONDS, DEAD_SECONDS = 30.0 + BUSY_SECONDS, PATIENCE + BUSY_SECONDS
NOTICED_SECONDS = {
    CREATE: 60.0,
    LIVE: 30.0,
    BRINGING: 30.0,
    TEARDOWN: 0.0,
}  # where nobody tells the launcher: a call's, and a session's
BEGIN_SECONDS, AT_ONCE = 300.0, 4
CLEAN_SECONDS = 150.0  # who goes on trying may wait for a minute
LABELS = '{{.Label "claude-bottle.role"}} {{.Label "claude-bottle.slug"}}'
GUARDED = ("agent", "broker")
CLIENT = ("#!/bin/sh", "echo made >made", "git add made", f"git {' '.join(WHO)} commit -qm made", *sides.CLIENT[1:])
DOCKERFILE = sides.dockerfile(GIT_HOST, CLIENT)
Names = tuple[str, str, str, str, str]  # way, break, when it is mended, moment, act


def say(text: str) -> None:
    print(f"links: {text}", file=sys.stderr, flush=True)


class Case:
    """A launch over a line of its own; it is begun.

    Args:
        there: to launch from.
        engine: to launch on.
        way: by which it reaches the engine.
        breaks: how the line breaks.
        mended: when it is.
        moment: at which it breaks.
        act: what happens to the launcher then.
    """

    def __init__(
        self, there: Place, engine: Private, way: str, breaks: str, mended: str, moment: str, act: str
    ) -> None:
        self.way, self.breaks, self.mended, self.moment, self.act = way, breaks, mended, moment, act
        self.launcher = there.checkout / "cli.sh"
        self.ended: float | None = None
        self.dead: float | None = None
        self.seconds: float | None = None
        self.left: list[str] = []
        self.unswept = 0
        self.closing = ExitStack()
        if way == SSH:
            far = Far(there.folder / f"far-{there.made}", docker_host=engine.host)
            self.closing.callback(far.close)
            until(far.up)
            self.line = Line(far.port)
            far.go_by(self.line.port)
            env = far.env(os.environ["PATH"])
        else:
            self.line = Line(engine.port if way == TLS else engine.host.removeprefix("unix://"))
            env = {"DOCKER_HOST": f"tcp://127.0.0.1:{self.line.port}"}
            env |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(engine.keys)} if way == TLS else {}
        self.closing.callback(self.line.close)
        # One user's, as is what all of them keep.
        env |= {"CLAUDE_BOTTLE_PATIENCE": str(PATIENCE), "XDG_STATE_HOME": str(there.folder / "state")}
        self.one: One = there.launch(FAULTS.get(moment, {}), env=env, work=True)
        self.closing.callback(self.one.close)

    def __str__(self) -> str:
        return f"{self.way}, {self.breaks}, mended {self.mended}, {self.moment}, {self.act}"

    @property
    def is_there(self) -> bool:
        """Whether it has come to its moment."""
        if self.moment == LIVE:
            return SESSION in self.one.terminal.came
        return (self.one.shim / "hit").exists()

    @property
    def is_over(self) -> bool:
        return GONE in self.one.terminal.came

    def strike(self) -> None:
        """Do to the launcher, and to its reaper, what is to happen to them."""
        (self.one.shim / "go").touch()
        launcher = self.one.terminal.child.pid
        if self.act == "both" and (reaper := reaper_of(launcher)):
            os.kill(reaper, signal.SIGKILL)
        if self.act != "nothing":
            with suppress(ProcessLookupError):
                os.kill(launcher, signal.Signals[f"SIG{'KILL' if self.act == 'both' else self.act}"])

    def next_command(self) -> None:
        """Have the same user's next command remove what it finds."""
        words = [self.launcher, "cleanup", "--stale", "--yes"]
        done = subprocess.run(words, cwd=self.one.desk.cwd, env=self.one.env, capture_output=True, text=True)
        if done.returncode:
            say(f"{self}: the next command: {done.stderr}")

    def outcome(self) -> Broken:
        """Return what has become of it."""
        return Broken(
            *(self.way, self.breaks, self.mended, self.moment, self.act),
            status=self.one.status,
            ended=round(self.ended or 0.0, 1),
            dead=None if self.dead is None else round(self.dead, 1),
            unswept=self.unswept,
            left=self.left,
            seconds=self.seconds,
            work=self.work(),
            wrong=self.wrong(),
        )

    def work(self) -> str:
        """Return where the commit is that was made in its session; an empty text where there was no session."""
        if self.moment == CREATE:
            return ""
        if [files.split().count("made") for files in self.one.came_home()] == [1]:
            return HOME
        records = (json.loads(path.read_text()) for path in Path(self.one.env["XDG_STATE_HOME"]).rglob("session.json"))
        return KEPT if any(each["kept"] for each in records if each["slug"] == self.one.desk.agent) else LOST

    def wrong(self) -> str:
        """Return what is not as it should be, but for leftovers."""
        said = self.one.words_said()
        if self.one.status not in STATUS.get(self.act, BY_ITSELF[self.moment]):
            return f"status {self.one.status}: {said}"
        noticed = NOTICED_SECONDS[self.moment] if self.act == "nothing" else 0.0
        if self.ended is None or self.ended > ENDS_SECONDS + noticed:
            return f"it ended after {self.ended} s: {said}"
        if self.mended == AFTER and (self.dead is None or self.dead > DEAD_SECONDS):
            return "it lived on" if self.dead is None else f"it was dead after {self.dead:.0f} s"
        if "Traceback" in self.one.terminal.said or "internal error" in self.one.terminal.said:
            return said
        if self.act != "both" and not self.one.terminal_is_back():
            return "the terminal is not as before"
        if self.work() == LOST:
            return f"its work is neither home once nor kept: {self.one.came_home()}: {said}"
        return ""


def look(cases: Sequence[Case]) -> None:
    look_at([each.one.terminal for each in cases if not each.is_over])


def come(cases: Sequence[Case], there: Callable[[Case], bool]) -> None:
    """Wait until all have come somewhere."""

    def all_have() -> bool:
        look(cases)
        waiting = [each for each in cases if not there(each)]
        for each in waiting:
            assert not each.is_over, f"{each}: {each.one.words_said()}"
        return not waiting

    until(all_have, BEGIN_SECONDS)


def begin(there: Place, engine: Private, wanted: Sequence[Names], cases: list[Case]) -> None:
    """Bring a launch to each moment, some at a time; those last that wait in a call, for a call has its limit."""
    for each in some([each for each in wanted if each[3] != CREATE]):
        cases += [Case(there, engine, *names) for names in each]
        come(cases, lambda each: SESSION in each.one.terminal.came)
    for each in some([each for each in wanted if each[3] == CREATE]):
        cases += [Case(there, engine, *names) for names in each]
        come(cases[-len(each) :], lambda each: each.is_there)
    for each in cases:
        if each.moment in (BRINGING, TEARDOWN):
            each.one.end_session()
    come(cases, lambda each: each.is_there)


def some(wanted: Sequence[Names]) -> Iterator[Sequence[Names]]:
    """Yield them, a few at a time."""
    for first in range(0, len(wanted), AT_ONCE):
        yield wanted[first : first + AT_ONCE]


def break_all(cases: Sequence[Case], seconds: float) -> None:
    """Break the lines for some time, and see when each launcher ends, and when what it has made is dead; mend them."""
    for each in cases:
        each.line.become(each.breaks)
    began = time.monotonic()
    for each in cases:
        each.strike()
    while (now := time.monotonic() - began) < seconds:
        running = alive()
        for each in cases:
            if each.dead is None and each.one.desk.agent not in running:
                each.dead = now
        note_ends(cases, now)
        look(cases)
    for each in cases:
        each.line.become(PASS)


def note_ends(cases: Sequence[Case], now: float) -> None:
    for each in cases:
        if each.ended is None and each.is_over:
            each.ended = now


def alive() -> set[str]:
    """Return whose agent or broker runs."""
    lines = [line.split() for line in docker("ps", "--format", LABELS).splitlines()]
    return {slug for role, slug in lines if role in GUARDED}


def see_off(cases: Sequence[Case], away: float) -> None:
    """Wait until nothing is left of each, by itself or by its user's next command.

    Args:
        cases: whose lines are mended.
        away: how long they were broken, in seconds.
    """
    began = time.monotonic()
    while (now := time.monotonic() - began) < CLEAN_SECONDS and not all(each.is_over for each in cases):
        look(cases)
        note_ends(cases, away + now)
    note_ends(cases, away + now)
    for each in cases:
        if each.act != "both":
            each.left = each.one.clean_within(max(CLEAN_SECONDS - (time.monotonic() - began), 0))
            each.seconds = round(time.monotonic() - began, 1)
    killed = [each for each in cases if each.act == "both"]
    for each in killed:
        each.unswept = len(each.one.left())
    for each in killed:
        each.next_command()
    for each in killed:
        each.left = each.one.clean_within(BUSY_SECONDS)


def round_of(there: Place, engine: Private, wanted: Sequence[Names]) -> list[Broken]:
    """Do it to launches at every moment at once, and return what became of them.

    A start sweeps up what another one has left, so none begins when the lines are broken.
    """
    cases: list[Case] = []
    try:
        begin(there, engine, wanted, cases)
        say(f"{len(cases)} launches are there")
        away = AWAY_SECONDS[wanted[0][2]]
        break_all(cases, away)
        see_off(cases, away)
        found = [each.outcome() for each in cases]
        for case, each in zip(cases, found, strict=True):
            said = f"left {each.left}" if each.left else each.wrong or "clean"
            say(f"{case}: ended after {each.ended} s, dead after {each.dead} s, gone after {each.seconds} s: {said}")
        return found
    finally:
        for case in cases:
            case.closing.close()


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/reliability links", description="The line breaks under launches.")
    words_of = {"way": WAYS, "break": BREAKS, "mended": (AFTER, WITHIN), "moment": MOMENTS, "act": ACTS}
    for name, every in words_of.items():
        parser.add_argument(f"--{name}", action="append", choices=every, help="only this; may be repeated")
    parser.add_argument("--write", action="store_true", help="keep the outcomes in docs/reliability, write the page")
    return parser.parse_args(words)


def makes_sense(names: Names) -> bool:
    """Say whether there is such a launch: a line that is soon mended does nothing new to one that has no work."""
    return names[2] == AFTER or names[3] != CREATE


def main(words: Sequence[str]) -> int:
    """Run the rounds, print the table, and keep it if asked to; return the status."""
    args = vars(parse(words))
    outcomes: list[Broken] = []
    with sigterm_raises(), tempfile.TemporaryDirectory(prefix="links-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        (folder / "engine").mkdir()
        made, images = folder / "engine", [GIT_HOST]
        with private(made, images, tls=True) as engine, place(folder / "place", BROKER, DOCKERFILE) as there:
            for each in product(args["way"] or WAYS, args["break"] or BREAKS, args["mended"] or AWAY_SECONDS):
                every = product(*([word] for word in each), args["moment"] or MOMENTS, args["act"] or ACTS)
                found = round_of(there, engine, [names for names in every if makes_sense(names)])
                outcomes += found
                if args["write"]:
                    kept.keep_links(SIDECAR, found)
            print(kept.links_table(outcomes), end="")
    return 1 if any(each.left or each.wrong for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
