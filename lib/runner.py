"""The runner: begins each step as soon as its needs are made, and tells of them in their order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Crew, Outcome
from claude_bottle.lib.steps import Launch, Step, steps_of

WORTH_TELLING_SECONDS = 0.05
LONG_SECONDS = 2.0


def run_steps(launch: Launch, steps: Sequence[Step] = (), *, timed: bool = False) -> dict[str, Any]:
    """Walk the steps by their needs, many at once.

    When one fails, or a signal arrives, no other is begun; what is before the one that failed goes on to its end, the
    rest ends as soon as it can.

    Args:
        launch: what every step may read.
        steps: in the order in which they are told; those of the plan, if none are given.
        timed: tell how long each took, and what is waited for where it takes long.

    Returns:
        All that was made, by name.

    Raises:
        BottleError: a step failed; the first in their order, if several did.
        Interrupted: a signal arrived.
    """
    steps = steps or steps_of(launch.plan)
    return _Walk(launch, steps, _Story(steps, timed)).run()


class _Story:
    """Has each step speak in its turn, whatever the order of work, and tells of their times.

    Args:
        steps: in their order.
        timed: whether to tell of times.
    """

    def __init__(self, steps: Sequence[Step], timed: bool) -> None:
        self.steps, self.timed = steps, timed
        self.turn = 0  # number of the step that speaks; what later ones say is held back
        self.held: list[list[bytes]] = [[] for _ in steps]
        self.began_at = time.monotonic()
        self.begun: dict[int, float] = {}
        self.seconds: dict[int, float] = {}
        self.told_to_wait: set[int] = set()
        self.shown = (0, 0)  # step and seconds

    def voice(self, number: int) -> AbstractContextManager[Any]:
        """Return the context in which a step speaks."""
        return log.held(self.held[number]) if number > self.turn else nullcontext()

    def begin(self, number: int) -> None:
        self.begun[number] = time.monotonic()

    def end(self, number: int) -> None:
        """Note that a step has ended, and go on to the first one that has not."""
        self.seconds[number] = time.monotonic() - self.begun[number]
        self.advance(next((other for other in range(len(self.steps)) if other not in self.seconds), len(self.steps)))

    def advance(self, number: int) -> None:
        """Say what the steps up to one have said, and have that one speak from now on."""
        while self.turn < number:
            self.tell_time(self.turn)
            self.turn += 1
            for piece in self.held[self.turn] if self.turn < len(self.steps) else ():
                log.write(piece)
        if number == len(self.steps) and self.timed:
            log.log_info(f"ready after {time.monotonic() - self.began_at:.1f} s")

    def tell_time(self, number: int) -> None:
        seconds = self.seconds.get(number, 0.0)
        if self.timed and seconds >= WORTH_TELLING_SECONDS:
            log.log_info(f"  {self.steps[number].title}: {seconds:.1f} s")

    def look(self) -> float:
        """Say what is waited for where that takes long; return when to look again."""
        if not self.timed or self.turn not in self.begun or self.turn in self.told_to_wait:
            return math.inf
        now, due = time.monotonic(), self.begun[self.turn] + LONG_SECONDS
        if now < due:
            return due
        waiting = f"  waiting for the {self.steps[self.turn].title}"
        if log.obeys():
            return self.show_seconds(waiting, int(now - self.begun[self.turn]))
        self.told_to_wait.add(self.turn)
        log.log_info(waiting)
        return math.inf

    def show_seconds(self, waiting: str, seconds: int) -> float:
        if self.shown != (self.turn, seconds):
            self.shown = (self.turn, seconds)
            log.passing(f"{log.PREFIX}{waiting}: {seconds} s")
        return self.begun[self.turn] + seconds + 1


class _Walk:
    def __init__(self, launch: Launch, steps: Sequence[Step], story: _Story) -> None:
        self.launch, self.steps, self.story = launch, steps, story
        self.facts: dict[str, Any] = {}
        self.problems: dict[int, BaseException] = {}
        self.crew: Crew[int] = Crew(story.voice)

    def run(self) -> dict[str, Any]:
        self.begin_ready()
        while len(self.crew):
            for number, outcome in self.crew.turn(self.story.look()):
                self.take(number, outcome)
            if wait.pending_signal() is not None:
                self.crew.leave(range(len(self.steps)))
            elif self.problems:
                self.crew.leave(range(min(self.problems) + 1, len(self.steps)))
            else:
                self.begin_ready()
        wait.check_signals()
        if self.problems:
            first = min(self.problems)
            self.story.advance(first)
            raise self.problems[first]
        return self.facts

    def begin_ready(self) -> None:
        """Begin what can be begun."""
        for number, step in enumerate(self.steps):
            if number not in self.story.begun and self.facts.keys() >= {*step.needs, *step.after}:
                self.story.begin(number)
                self.crew.begin(number, step.work(self.launch, *(self.facts[need] for need in step.needs)))

    def take(self, number: int, outcome: Outcome[Any]) -> None:
        """Note what came of a step."""
        if outcome.problem is not None:
            self.problems[number] = outcome.problem
        else:
            self.facts[self.steps[number].makes] = outcome.value
            self.story.end(number)
