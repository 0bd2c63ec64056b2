"""The one gateway through which processes start; the only module that knows plumbum.

What runs detached, several at once, is in ``calls``; ``foreground`` is for what owns the terminal. A failure is data;
what it means is the caller's. Docker is called through an ``Engine``, which says which client runs, and how.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from claude_bottle.lib.env import withheld
from claude_bottle.lib.host import wait

QUERY_SECONDS = 30.0  # sixty starts at once: an engine took more than ten
CHANGE_SECONDS = 60.0
SILENT_SECONDS = 600.0  # a build or a pull may take long, but not without a word
SIGNALLED_SECONDS = 5.0
STOP_SECONDS = 5.0

PIPE = subprocess.PIPE
Process = subprocess.Popen[bytes]
Check = Callable[[], float]  # may raise, and returns a time of ``time.monotonic()``


@dataclass(frozen=True)
class Result:
    """How a process ended: its status (128 plus the number after a signal) and its output."""

    status: int
    out: bytes = b""
    err: bytes = b""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def text(self) -> str:
        """Stdout without trailing newlines, as ``$(...)`` gives it."""
        return decode(self.out)

    @property
    def failure(self) -> str:
        """Docker's own words, with the line breaks inside them kept."""
        return decode(self.err)


class Watcher(Protocol):
    """Who is told of every process, so that none outlives a launcher that was killed."""

    @property
    def inherited(self) -> tuple[int, ...]:
        """Descriptors that a detached call holds open until it has ended."""

    def started(self, pid: int) -> None: ...

    def ended(self, pid: int) -> None: ...


watchers: list[Watcher] = []
recent_calls: deque[str] = deque(maxlen=20)  # names of the last docker calls


def watch(watcher: Watcher) -> None:
    """Tell the watcher of every process from now on."""
    watchers[:] = [watcher]


def decode(data: bytes) -> str:
    """Return bytes as text that comes out of ``log`` as it went in, without trailing newlines."""
    return data.decode("utf-8", "surrogateescape").rstrip("\n")


def child_env() -> dict[str, str]:
    """Return the environment of a child: the caller's own, less the token and what else is put in by a broker."""
    return {name: value for name, value in os.environ.items() if name not in withheld}


def _cwd() -> str:
    """Return the working directory, or / where it has been deleted: a teardown must not need it."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def uninterrupted() -> float:
    """Let nothing end a call before its time; a ``Check``."""
    return math.inf


def on_signal() -> float:
    """End a call when a stopping signal arrives; a ``Check``.

    Raises:
        Interrupted: it has arrived.
    """
    wait.check_signals()
    return math.inf


def soon_after_signal() -> Check:
    """Return what ends a call a while after a stopping signal has arrived; for one whose answer may never come.

    It raises ``Interrupted`` then.
    """
    until = math.inf

    def check() -> float:
        nonlocal until
        if until == math.inf and wait.pending_signal() is not None:
            until = time.monotonic() + SIGNALLED_SECONDS
        if time.monotonic() >= until:
            wait.check_signals()
        return until

    return check


def load() -> None:
    """Import what starting a process needs, so that a teardown cannot fail for want of a file."""
    import plumbum  # noqa: F401


def spawn(program: str, words: Sequence[str], env: Mapping[str, str] | None = None, **how: Any) -> Process:
    """Start a process with this gateway's environment.

    Args:
        program: path of the program.
        words: its arguments.
        env: its whole environment, if not ``child_env()``.
        how: as for ``subprocess.Popen``; plumbum's ``new_session`` too.
    """
    from plumbum import LocalPath, local

    assert all(isinstance(word, str) for word in words)  # plumbum drops a None in silence
    if os.path.basename(program) == "docker" and words:
        recent_calls.append(call_name(words))
    wait.wakeup_install()
    local.env.clear()  # plumbum lays our environment over a copy that it took at its import
    command = local[LocalPath(os.path.abspath(program))]  # a path, since for a text plumbum asks for the cwd
    whole = child_env() if env is None else env
    process: Any = command[tuple(words)].popen(**{"env": whole, "cwd": _cwd(), **how})
    for watcher in watchers:
        watcher.started(process.pid)
    return cast(Process, process)


def reap(process: Process) -> int:
    """Return the status of a process that has ended, as a shell counts it."""
    for watcher in watchers:
        watcher.ended(process.pid)
    status = process.wait()
    return status if status >= 0 else 128 - status


def stop(process: Process) -> int:
    """End a process: first politely, then not (nox has the same habit), and return its status.

    Args:
        process: one that ``spawn`` returned.
    """
    for end in (process.terminate, process.kill):
        if process.poll() is None:
            end()
            await_end(process, time.monotonic() + STOP_SECONDS)
    return reap(process)


def await_end(
    process: Process,
    deadline: float | None = None,
    early: Callable[[], bool] = lambda: False,
    turn: Callable[[float | None], object] = lambda deadline: wait.wait_for(deadline=deadline),
) -> bool:
    """Wait until a process has ended.

    Args:
        process: one that ``spawn`` returned.
        deadline: seconds of ``time.monotonic()``, or None.
        early: looked at whenever a signal or the end of a child has arrived; True comes back early.
        turn: waits once, until a deadline at the latest.

    Returns:
        Whether it has ended.
    """
    while True:
        given_up = early()  # may wait itself, and so take the notice of the process's end: look at that afterwards
        if process.poll() is not None:
            return True
        if given_up or (deadline is not None and time.monotonic() >= deadline):
            return False
        turn(deadline)


def call_name(words: Sequence[str]) -> str:
    """Return how a docker call is named in a message: its command, without what it works on."""
    groups = ("network", "container", "image", "service", "node")
    return " ".join(words[:2] if words[0] in groups else words[:1])


def piped(
    program: str,
    words: Sequence[str],
    env: Mapping[str, str],
    *,
    alone: bool,
    stays: bool,
    stdin: int = PIPE,
    stdout: int = PIPE,
) -> Process:
    """Start a program that is fed and listened to through pipes.

    Args:
        program: its path.
        words: its arguments.
        env: its whole environment.
        alone: in a session of its own, so that a Ctrl-C cannot cut a create in half.
        stays: its end is not what a reaper waits for.
        stdin: a descriptor in place of a pipe of ours.
        stdout: likewise.
    """
    inherited = tuple(fd for watcher in watchers for fd in watcher.inherited) if alone and not stays else ()
    return spawn(
        program,
        words,
        env,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        new_session=alone,
        pass_fds=inherited,
    )


def foreground(
    program: str, words: Sequence[str], env: Mapping[str, str], *, no_stdin: bool = False, alone: bool = False
) -> Process:
    """Start a program with our own three streams, in our process group: it has the terminal.

    Args:
        program: its path.
        words: its arguments.
        env: its whole environment.
        no_stdin: keep our stdin from it.
        alone: in a session of its own instead, so that no Ctrl-C reaches it but through us.
    """
    stdin = subprocess.DEVNULL if no_stdin else None
    return spawn(program, words, env, stdin=stdin, stdout=None, stderr=None, new_session=alone)


def forwarding(program: str, words: Sequence[str]) -> tuple[Process, tuple[int, int, int]]:
    """Start a program that stays, in a session of its own.

    Args:
        program: its path.
        words: its arguments.

    Returns:
        It, and the descriptors that its stdin, stdout and stderr lead to, which are the caller's to close.
    """
    theirs, mine = [], []
    for number in range(3):
        read_end, write_end = os.pipe()
        theirs.append(write_end if number else read_end)
        mine.append(read_end if number else write_end)
    try:
        stdin, stdout, stderr = theirs
        process = spawn(program, words, stdin=stdin, stdout=stdout, stderr=stderr, new_session=True, cwd="/")
    except BaseException:
        for fd in mine:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return process, (mine[0], mine[1], mine[2])
