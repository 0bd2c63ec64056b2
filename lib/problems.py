"""What is wrong with a user's input, gathered so that one round of mending is enough (contract 14.5, 14.15)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from types import TracebackType

from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.host import wait


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return a hint with the known name most like this one, if any is."""
    wait.check_signals()  # among thousands of names this takes a while
    found = difflib.get_close_matches(name, list(known), 1)
    return [f"did you mean '{found[0]}'?"] if found else []


class UnseenByShell(BottleError):
    """A problem that the shell does not look for: it is told after those that the shell would have named."""


class Problems(BottleError):
    """Several problems in one error.

    Args:
        parts: the problems, in the order in which they are told.
        hints: what may help with any of them.
    """

    def __init__(self, parts: Sequence[BottleError], hints: Iterable[str] = ()) -> None:
        said: dict[str, None] = {}  # keeps the order, drops what is said already
        for problem in parts:
            said.update(dict.fromkeys([problem.message, *problem.hints]))
        messages = {problem.message for problem in parts}
        line, *others = said
        super().__init__(line, [*(f"also: {other}" if other in messages else other for other in others), *hints])
        self.parts = tuple(parts)


class Gathered:
    """Lets independent checks all have their say, then fails once.

    A check runs under ``with gathered:``; its error is kept instead of ending the command. An engine that does not
    answer is no problem to gather: it ends the command at once.
    """

    def __init__(self) -> None:
        self._problems: list[BottleError] = []

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, BottleError) or isinstance(error, DockerError):
            return False
        self._problems.extend(error.parts if isinstance(error, Problems) else [error])
        return True

    def __bool__(self) -> bool:
        return bool(self._problems)

    def fail(self, hints: Iterable[str] = ()) -> None:
        """Fail with the first problem, the shell's; what helps with it and the other problems follow as hints.

        Args:
            hints: what may help with any of them.

        Raises:
            BottleError: there is any.
        """
        if self:
            raise Problems(sorted(self._problems, key=lambda problem: isinstance(problem, UnseenByShell)), hints)


def fail_with(problems: Iterable[BottleError | str]) -> None:
    """Fail with the first problem, the shell's; the others follow as hints.

    Raises:
        BottleError: there is any.
    """
    gathered = Gathered()
    for problem in problems:
        with gathered:
            raise problem if isinstance(problem, BottleError) else BottleError(problem)
    gathered.fail()
