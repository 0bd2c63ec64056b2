"""Turns whatever ended a command into its message and its exit status."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError, Declined, DockerError, Interrupted, ReaderGone, UsageError

INTERNAL_STATUS = 70
ROOT = Path(__file__).resolve().parents[2]
DEFECT = "this is a defect of claude-bottle; please report it with "


def report(problem: BaseException, program: str) -> int:
    """Print what the user should know and return the exit status.

    Args:
        problem: what ended the command.
        program: the name it was invoked by.
    """
    log.hurry()
    if isinstance(problem, (Declined, Interrupted, ReaderGone)):
        return problem.status
    if isinstance(problem, OSError) and problem.errno in (errno.EMFILE, errno.ENFILE):
        problem = BottleError("too many open files", ["raise the limit (ulimit -n), or close what this inherits"])
    if not isinstance(problem, BottleError):
        return _internal_error(problem)
    log.log_error(problem.message, lines=isinstance(problem, DockerError))
    if isinstance(problem, UsageError):
        log.line(f"usage: {program} {problem.usage}")
    for hint in problem.hints:
        log.log_hint(hint)
    if problem.for_doctor:
        log.log_hint(f"'{program} doctor' looks at what a start depends on")
    return problem.status


def _internal_error(problem: BaseException) -> int:
    from claude_bottle.lib.host.redact import redact  # what follows is for a case that never comes

    log.log_error(redact(f"internal error: {_place(problem)}: {type(problem).__name__}: {problem}"))
    path = ""
    with suppress(OSError):
        path = _write_file(redact("\n".join(_details(problem)) + "\n"))
    log.log_hint(DEFECT + (path or "the line above"))
    return INTERNAL_STATUS


def _place(problem: BaseException) -> str:
    """Return the last line of our own on the way to the problem."""
    import traceback

    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if ROOT in Path(frame.filename).parents]
    names = [f"{Path(frame.filename).relative_to(ROOT)}, line {frame.lineno}" for frame in own]
    return names[-1] if names else "unknown place"


def _details(problem: BaseException) -> Iterator[str]:
    """Yield what helps to mend it: no value of a variable and no argument of a call."""
    import platform
    import traceback

    from claude_bottle.lib.host import run

    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(f"{name} {_version(name)}" for name in ("claude-bottle", "plumbum", "click", "jsonschema"))
    yield "docker calls, the last one last: " + (", ".join(run.recent_calls) or "none")
    yield "".join(traceback.format_exception(problem)).rstrip("\n")


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of a checkout" if name == "claude-bottle" else "unknown"


def _write_file(text: str) -> str:
    """Write a report and return its path, an empty text where there is no place for it."""
    import time

    from claude_bottle.lib.host.state import state_folder, state_write

    folder = state_folder(os.environ)
    if folder is None:
        return ""
    path = folder / f"report-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    state_write(path, text)
    return str(path)
