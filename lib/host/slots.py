"""Bounds how many launchers do at the same time what an engine has trouble with.

About thirty removals at once have wedged the networks of 20.10; fifty starts at once have kept a 28 on two processors
from answering for half a minute. A slot is one of the launcher's own files, locked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host.locks import locked

REMOVALS, STARTS, STARTS_A_CPU = 8, 16, 4
_LIB = Path(__file__).resolve().parents[1]


def removal_slot(until: float, check: Callable[[], float]) -> AbstractContextManager[None]:
    """Return what holds a slot for removals while its block runs; after a time, or without locks, it goes on without.

    Args:
        until: seconds of ``time.monotonic()``.
        check: called before each wait; may raise, and returns when to call it again at the latest.
    """
    return _slot(0, REMOVALS, until, check)


def start_slot(cpus: int, check: Callable[[], float]) -> AbstractContextManager[None]:
    """Return what holds a slot for starts while its block runs; where files cannot be locked, it goes on without.

    Args:
        cpus: of the engine's machine: where there are many, more starts go at once, as far as there are files.
        check: see ``removal_slot``.
    """
    return _slot(REMOVALS, max(STARTS, STARTS_A_CPU * cpus), math.inf, check)


@contextmanager
def _slot(first: int, count: int, until: float, check: Callable[[], float]) -> Iterator[None]:
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(locked(sorted(_LIB.rglob("*.py"))[first : first + count], until, check))
        yield
