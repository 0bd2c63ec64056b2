"""Signals as flags, and the one function in which the launcher ever blocks.

A handler only notes its number: an exception raised from one may surface anywhere, and has been seen to lose a resource
between its creation and its record. Whatever can take time waits in ``wait_for`` instead, which every signal and every
ending child wakes; so neither a question nor a docker call can swallow a Ctrl-C.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from claude_bottle.lib.errors import Interrupted

STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)

Turn = Callable[[], tuple[list[int], float]]  # comes to descriptors to read from, and when to be called again

_pending: list[int] = []
_beside: list[Turn] = []
_wakeup: list[int] = []  # the read end of the descriptor that signals write to; empty until installed


def _note(number: int, _frame: FrameType | None) -> None:
    _pending.append(number)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; the signal still reaches the wakeup descriptor."""


def wakeup_install() -> None:
    """Make the end of a child wake ``wait_for``. A second call does nothing."""
    if _wakeup:
        return
    read_end, write_end = os.pipe()
    for fd in (read_end, write_end):
        os.set_blocking(fd, False)
    _wakeup.append(read_end)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)


def signals_install() -> None:
    """Register the handlers; call it before the first resource exists.

    A signal that was ignored when the launcher started, as under nohup, stays ignored.
    """
    wakeup_install()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)


def signals_ignore() -> None:
    """Ignore the stopping signals for good; for a process that must outlive a terminal."""
    signals_install()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Leave Ctrl-C and Ctrl-\\ to a child that has the terminal, an editor for example, for as long as the block runs.

    The handlers do nothing, rather than being SIG_IGN, which the child would inherit.
    """
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pending_signal() -> int | None:
    """Return the first stopping signal that arrived, or None."""
    return _pending[0] if _pending else None


def signals_seen() -> tuple[int, ...]:
    """Return all stopping signals that arrived, in their order."""
    return tuple(_pending)


def check_signals() -> None:
    """Stop making things when a signal asks for it.

    Raises:
        Interrupted: a stopping signal has arrived.
    """
    if _pending:
        raise Interrupted(_pending[0])


def wait_for(
    readable: Iterable[int] = (), writable: Iterable[int] = (), deadline: float | None = None
) -> tuple[set[int], set[int]]:
    """Block until a descriptor is ready, a signal or the end of a child arrives, or the deadline passes.

    The caller looks again at what it waits for after every return; a return promises nothing.

    Args:
        readable: descriptors to read from.
        writable: descriptors to write to.
        deadline: seconds of ``time.monotonic()``, or None for no bound.

    Returns:
        The descriptors that are ready to be read, and those ready to be written.
    """
    latest, others = math.inf if deadline is None else deadline, list[int]()
    for turn in _beside:
        fds, due = turn()
        others, latest = [*others, *fds], min(latest, due)
    timeout = None if latest == math.inf else max(0.0, latest - time.monotonic())
    ready, writing = _select([*_wakeup, *others, *readable], list(writable), timeout)
    if _wakeup and _wakeup[0] in ready:
        _drain(_wakeup[0])
    if ready.intersection(others):  # what the caller looks at may hang on it
        for turn in _beside:
            turn()
    return ready.difference(_wakeup, others), writing


def beside(turn: Turn) -> None:
    """Have something looked after beside whatever is waited for, as long as the process lives.

    Args:
        turn: called before each wait, and where it has something to read; it does not wait itself.
    """
    _beside.append(turn)


def _select(readable: list[int], writable: list[int], timeout: float | None) -> tuple[set[int], set[int]]:
    """Wait with select, since poll on macOS does not know terminals; with poll where a number is too high for it."""
    try:
        ready, writing, _ = select.select(readable, writable, [], timeout)
        return set(ready), set(writing)
    except ValueError:
        return _poll(readable, writable, timeout)


def _poll(readable: list[int], writable: list[int], timeout: float | None) -> tuple[set[int], set[int]]:
    poll = select.poll()
    wanted = dict.fromkeys(readable, select.POLLIN)
    for fd in writable:
        wanted[fd] = wanted.get(fd, 0) | select.POLLOUT
    for fd, events in wanted.items():
        poll.register(fd, events)
    found = {fd for fd, _ in poll.poll(None if timeout is None else math.ceil(timeout * 1000))}
    return found.intersection(readable), found.intersection(writable)  # an error too ends a wait, as select has it


def pause(seconds: float) -> None:
    """Let some time pass.

    Args:
        seconds: how much.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wait_for(deadline=end)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
