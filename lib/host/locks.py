"""Locks on files and folders that are there anyway: nothing stays behind, and a lock goes with its holder."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host import wait

RETRY_SECONDS = 0.03


@contextmanager
def locked(paths: Sequence[Path], until: float = 0.0, check: Callable[[], float] = lambda: math.inf) -> Iterator[bool]:
    """Hold the first of some files that nobody else has locked while the block runs.

    Args:
        paths: of the files.
        until: how long to wait for one, in seconds of ``time.monotonic()``; they are looked at once in any case.
        check: called before each wait; may raise, and returns when to call it again at the latest.

    Returns:
        Whether there was one.

    Raises:
        OSError: a file cannot be opened or locked.
    """
    while True:
        fd = free_one(paths)
        if fd is not None or time.monotonic() >= until:
            break
        wait.wait_for(deadline=min(check(), time.monotonic() + RETRY_SECONDS))
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def free_one(paths: Sequence[Path]) -> int | None:
    """Return the descriptor of the first file that nobody has locked, locked.

    Raises:
        OSError: a file cannot be opened or locked.
    """
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        os.close(fd)
    return None
