"""What the launcher and its reaper do to themselves before anything else."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress

PR_SET_DUMPABLE = 4
_core_limit: list[tuple[int, int]] = []  # as it was
_at_end: list[Callable[[], None]] = []


def standard_descriptors() -> None:
    """Open what of 0 to 2 is closed, or the next file that is opened would become stdin, stdout or stderr.

    A stdout that was closed stays one that nothing can be written to, so that a list that nobody gets is an error.
    """
    for fd, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)


def forbid_cores() -> None:
    """Let no core file hold a secret. A piped core pattern ignores the limit, but not that we are not dumpable."""
    _core_limit[:] = [resource.getrlimit(resource.RLIMIT_CORE)]
    resource.setrlimit(resource.RLIMIT_CORE, (0, _core_limit[0][1]))
    if sys.platform == "linux":
        with suppress(Exception):  # no libc to be had: the limit has to do
            _forbid_dumps()


def _forbid_dumps() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_cores_back() -> None:
    """Undo the limit in a child that is the user's own program."""
    for limit in _core_limit:
        resource.setrlimit(resource.RLIMIT_CORE, limit)


def at_end(what: Callable[[], None]) -> None:
    """Have something done when the command is over, whatever its end."""
    _at_end.append(what)


def end() -> None:
    """Do what was to be done at the end."""
    while _at_end:
        _at_end.pop()()
