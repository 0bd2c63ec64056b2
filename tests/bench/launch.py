"""Launches on terminals of their own, each with the moments at which it came to a point, seen from outside."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.sides import UP
from tests.terminal import Terminal

QUESTION, SESSION, GONE = "question", "session", "gone"
ASKS = "[y/N] "
SECONDS = 300.0  # for all to come to a point
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.25
LINES = 8


class Failed(Exception):
    """A run that says nothing about speed."""


def yes(said: str) -> str:
    return "y\n"


class Launch(Terminal):
    """A launcher that is answered as soon as it asks.

    Args:
        words: its command line.
        cwd: where it runs.
        env: its environment.
        answer: returns what is typed, given what stands on the screen.
    """

    def __init__(
        self, words: Sequence[str | Path], cwd: Path, env: Mapping[str, str], answer: Callable[[str], str] = yes
    ) -> None:
        self.answer = answer
        self.came: dict[str, float] = {}
        self.began = time.monotonic()
        super().__init__(words, cwd, env)
        self.ends = os.pidfd_open(self.child.pid)

    def look(self) -> None:
        """Take in what has come, and note the time of a point that is reached."""
        ended = bool(select.select([self.ends], [], [], 0)[0])
        now = time.monotonic()
        while self._read(0):
            pass
        if ASKS in self.said and QUESTION not in self.came:
            self.came[QUESTION] = now
            self.type(self.answer(self.said))
        if UP in self.said:
            self.came.setdefault(SESSION, now)
        if ended and GONE not in self.came:
            self.came[GONE] = now
            self.child.wait()

    def problem(self, point: str) -> str:
        """Return why the point will not be reached, or was not as it should be; empty if neither."""
        status = self.child.returncode
        if status is None or (status == 0 and point in self.came):
            return ""
        return f"{self} ended with {status}: {self.last_words()}"

    def __str__(self) -> str:
        path = Path(self.words[0])
        return f"{path.parent.name}/{path.name}"

    def last_words(self) -> str:
        """Return the end of what stands on the screen."""
        return "\n".join(self.said.splitlines()[-LINES:])

    def close(self) -> None:
        super().close()
        os.close(self.ends)


def nothing() -> None:
    pass


def until(launches: Sequence[Launch], point: str, meanwhile: Callable[[], None] = nothing) -> float:
    """Wait until every launch has come to a point.

    Args:
        launches: to look after; each begins to be read here.
        point: QUESTION, SESSION or GONE.
        meanwhile: called again and again.

    Returns:
        When the last of them did.

    Raises:
        Failed: one ended before, or with a failure; or it takes too long.
    """
    end = time.monotonic() + SECONDS
    while waiting := [each for each in launches if point not in each.came]:
        if time.monotonic() > end:
            raise Failed(f"{waiting[0]}: no {point} in {SECONDS:.0f} s: {waiting[0].last_words()}")
        look_at(waiting)
        if problems := list(filter(None, (each.problem(point) for each in waiting))):
            raise Failed(problems[0])
        meanwhile()
    return max(each.came[point] for each in launches)


def look_at(launches: Sequence[Launch]) -> None:
    """Take in what comes next, from whichever launch it does."""
    ready = select.select([fd for each in launches for fd in (each.master, each.ends)], [], [], LOOK_SECONDS)[0]
    for each in launches:
        if each.master in ready or each.ends in ready:
            each.look()


@contextlib.contextmanager
def closing(launches: list[Launch]) -> Iterator[list[Launch]]:
    """Yield the launches; those that still run afterwards are ended, politely first, and with all that they started."""
    try:
        yield launches
    finally:
        for each in launches:
            if GONE not in each.came:
                each.child.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for each in launches:
            while GONE not in each.came and time.monotonic() < end:
                look_at([each])
            with contextlib.suppress(ProcessLookupError):  # its group is its own
                os.killpg(each.child.pid, signal.SIGKILL)
            each.close()
