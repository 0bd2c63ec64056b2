"""Bounds how many launchers do at the same time what an engine has trouble with.

About thirty removals at once have wedged the networks of 20.10; fifty starts at once have kept a 28 on two processors
from answering for half a minute. A slot is one of the launcher's own files, locked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host.locks import locked

REMOVALS, STARTS, STARTS_A_CPU = 8, 16, 4
_LIB = Path(__file__).resolve().parents[1]


@contextmanager
def removal_slot(until: float, check: Callable[[], float]) -> Iterator[None]:
    """Hold a slot for removals while the block runs; after a time, or where files cannot be locked, go on without.

    Args:
        until: seconds of ``time.monotonic()``.
        check: called before each wait; may raise, and returns when to call it again at the latest.
    """
    with _slot(0, REMOVALS, until, check):
        yield


@contextmanager
def start_slot(cpus: int, check: Callable[[], float]) -> Iterator[None]:
    """Hold a slot for starts while the block runs; where files cannot be locked, go on without.

    Args:
        cpus: of the engine's machine: where there are many, more starts go at once.
        check: see ``removal_slot``.
    """
    with _slot(REMOVALS, max(STARTS, STARTS_A_CPU * cpus), math.inf, check):
        yield


@contextmanager
def _slot(first: int, count: int, until: float, check: Callable[[], float]) -> Iterator[None]:
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(locked(sorted(_LIB.glob("*.py"))[first : first + count], until, check))
        yield
