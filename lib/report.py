"""Turns whatever ended a command into its message and its exit status."""

from __future__ import annotations

import traceback

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError, Declined, Interrupted, UsageError


def report(problem: BaseException, program: str) -> int:
    """Print what the user should know and return the exit status.

    Args:
        problem: what ended the command.
        program: the name it was invoked by.
    """
    if isinstance(problem, (Declined, Interrupted)):
        return problem.status
    if not isinstance(problem, BottleError):
        where = traceback.extract_tb(problem.__traceback__)[-1]
        log.log_error(f"internal error: {type(problem).__name__} at {where.name}, line {where.lineno}")
        log.log_hint("this is a defect of claude-bottle; please report it with the line above")
        return 1
    log.log_error(problem.message)
    if isinstance(problem, UsageError):
        log.line(f"usage: {program} {problem.usage}")
    for hint in problem.hints:
        log.log_hint(hint)
    return problem.status
