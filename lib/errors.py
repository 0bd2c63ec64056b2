"""Every way in which a command can end other than well; each class owns its words and its exit status."""

from __future__ import annotations

from collections.abc import Sequence

ANOTHER_ENGINE = "another engine answers at"  # than the one that a launch has begun with


class BottleError(Exception):
    """An error the user can act on: one line after ``claude-bottle: error:``, exit status 1.

    Args:
        message: the line, the shell's own words wherever the shell has the case.
        hints: further help, one ``claude-bottle: hint:`` line each.
    """

    status = 1
    for_doctor = False  # whether a check of ``doctor`` explains it

    def __init__(self, message: str, hints: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hints = tuple(hints)


def reason(problem: Exception) -> str:
    """Return why something failed, of a system call without the path, which the message has."""
    return (problem.strerror if isinstance(problem, OSError) else "") or str(problem)


class UsageError(BottleError):
    """Wrong words on the command line: the error line, then the usage line, exit status 2.

    Args:
        message: what is wrong, for example ``unknown option: --nope``.
        usage: the words after the program's name in the usage line.
    """

    status = 2

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class EngineUnfit(BottleError):
    """The engine, or this machine, is not there or has no room for what is asked of it; ``doctor`` looks closer."""

    for_doctor = True


class DockerError(BottleError):
    """A docker call that failed or did not answer in time."""

    for_doctor = True


class EngineAway(BottleError):
    """The engine gives no answer; it may give one later."""


class SidecarLost(BottleError):
    """The sidecar, or the broker beside it, ended before the session did."""

    status = 69  # EX_UNAVAILABLE; a session's own is seldom that


class LinkLost(BottleError):
    """The connection to the engine broke: docker may have taken what it cut off for done."""

    status = SidecarLost.status


class Interrupted(Exception):
    """A signal asked the launcher to stop; the status is 128 plus its number.

    Args:
        number: the first signal that arrived.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number


class ReaderGone(Exception):
    """Nobody reads stdout any more, as behind ``| head``: the end is silent, with the status that SIGPIPE gives."""

    status = 141


class Declined(Exception):
    """The user said no; nothing was made and the status is 0."""

    status = 0
