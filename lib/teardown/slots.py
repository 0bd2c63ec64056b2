"""Bounds how many launchers remove things at the same time: about thirty at once have wedged the networks of 20.10.

A slot is one of the launcher's own files, locked: nothing is left behind, and the kernel frees it with whoever held it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host import wait

SLOTS = 8
RETRY_SECONDS = 0.03
_LIB = Path(__file__).resolve().parents[1]


@contextmanager
def removal_slot(until: float, check: Callable[[], float]) -> Iterator[None]:
    """Hold a slot while the block runs; after a time, or where files cannot be locked, go on without.

    Args:
        until: seconds of ``time.monotonic()``.
        check: called before each wait; may raise, and returns when to call it again at the latest.
    """
    fd = _slot(until, check)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def only_sweep() -> Iterator[bool]:
    """Say whether nobody else of this installation sweeps, and keep others from it while the block runs."""
    fd = None
    with suppress(OSError):
        fd = _free_one([Path(__file__).resolve()])
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def _slot(until: float, check: Callable[[], float]) -> int | None:
    try:
        paths = sorted(_LIB.glob("*.py"))[:SLOTS]
        while True:
            fd = _free_one(paths)
            if fd is not None or time.monotonic() >= until:
                return fd
            wait.wait_for(deadline=min(check(), time.monotonic() + RETRY_SECONDS))
    except OSError:
        return None


def _free_one(paths: list[Path]) -> int | None:
    """Return the descriptor of the first file that nobody has locked, locked."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        os.close(fd)
    return None
