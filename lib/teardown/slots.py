"""Bounds how many launchers remove things at the same time: about thirty at once have wedged the networks of 20.10.

A slot is one of the launcher's own files, locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from claude_bottle.lib.host.locks import locked

SLOTS = 8
_LIB = Path(__file__).resolve().parents[1]


@contextmanager
def removal_slot(until: float, check: Callable[[], float]) -> Iterator[None]:
    """Hold a slot while the block runs; after a time, or where files cannot be locked, go on without.

    Args:
        until: seconds of ``time.monotonic()``.
        check: called before each wait; may raise, and returns when to call it again at the latest.
    """
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(locked(sorted(_LIB.glob("*.py"))[:SLOTS], until, check))
        yield
