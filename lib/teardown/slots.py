"""Bounds how many launchers of one user remove things from one engine at the same time.

About thirty removals at once have wedged the networks of an engine of 20.10. A slot is a locked file, which the kernel
frees with whoever held it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host import wait
from claude_bottle.lib.host.state import state_folder

SLOTS = 8
RETRY_SECONDS = 0.03


@contextmanager
def removal_slot(engine_id: str, until: float, check: Callable[[], float]) -> Iterator[None]:
    """Hold one of an engine's slots while the block runs; after a time, or where there can be none, go on anyway.

    Args:
        engine_id: the id that the engine gave itself.
        until: seconds of ``time.monotonic()``.
        check: called before each wait; may raise, and returns when to call it again at the latest.
    """
    folder = state_folder(os.environ)
    fd = None if folder is None else _slot(folder / "slots", engine_id, until, check)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _slot(folder: Path, engine_id: str, until: float, check: Callable[[], float]) -> int | None:
    name = hashlib.sha256(engine_id.encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            fd = _free_one([folder / f"{name}-{number}" for number in range(SLOTS)])
            if fd is not None or time.monotonic() >= until:
                return fd
            wait.wait_for(deadline=min(check(), time.monotonic() + RETRY_SECONDS))
    except OSError:
        return None


def _free_one(paths: list[Path]) -> int | None:
    """Return the descriptor of the first file that nobody has locked, locked."""
    for path in paths:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        os.close(fd)
    return None
