"""The runner: begins each step as soon as its needs are made, and tells of them in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Crew, Outcome
from claude_bottle.lib.steps import STEPS, Launch, Step


def run_steps(launch: Launch, steps: Sequence[Step] = STEPS) -> dict[str, Any]:
    """Walk the steps by their needs, many at once.

    When one fails, or a signal arrives, no other is begun; what is before the one that failed goes on to its end, the
    rest ends as soon as it can.

    Args:
        launch: what every step may read.
        steps: in the order in which they are told.

    Returns:
        All that was made, by name.

    Raises:
        BottleError: a step failed; the first in their order, if several did.
        Interrupted: a signal arrived.
    """
    return _Walk(launch, steps).run()


class _Walk:
    def __init__(self, launch: Launch, steps: Sequence[Step]) -> None:
        self.launch, self.steps = launch, steps
        self.begun: set[str] = set()
        self.facts: dict[str, Any] = {}
        self.problems: dict[int, BaseException] = {}
        self.crew: Crew[int] = Crew(self.voice)
        self.telling = 0  # number of the step that speaks; what later ones say is held back
        self.held: list[list[bytes]] = [[] for _ in steps]

    def run(self) -> dict[str, Any]:
        self.begin_ready()
        while len(self.crew):
            for number, outcome in self.crew.turn():
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
            self.tell_up_to(first)
            raise self.problems[first]
        return self.facts

    def begin_ready(self) -> None:
        """Begin what can be begun."""
        for number, step in enumerate(self.steps):
            if step.makes not in self.begun and self.facts.keys() >= set(step.needs):
                self.begun.add(step.makes)
                self.crew.begin(number, step.work(self.launch, *(self.facts[need] for need in step.needs)))

    def take(self, number: int, outcome: Outcome[Any]) -> None:
        """Note what came of a step, and go on telling."""
        if outcome.problem is not None:
            self.problems[number] = outcome.problem
            return
        self.facts[self.steps[number].makes] = outcome.value
        done = (other for other, step in enumerate(self.steps) if step.makes not in self.facts)
        self.tell_up_to(next(done, len(self.steps) - 1))

    def tell_up_to(self, number: int) -> None:
        """Say what the steps up to one have said, and let that one speak from now on."""
        while self.telling < number:
            self.telling += 1
            self.say(self.held[self.telling])

    def voice(self, number: int) -> AbstractContextManager[Any]:
        return log.held(self.held[number]) if number > self.telling else nullcontext()

    @staticmethod
    def say(pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            log.write(piece)
