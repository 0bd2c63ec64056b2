"""The one gateway through which processes start; the only module that knows plumbum.

Four ways to run a program: ``capture`` for calls whose words we read, ``stream`` for long ones whose output the user
watches, ``foreground`` for what owns the terminal, ``beside`` for what runs meanwhile. A failure is data here; what it
means is the caller's. Docker is called through an ``Engine``, which says which client runs and with which environment.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from claude_bottle.lib import log
from claude_bottle.lib.env import TOKEN_VARIABLE
from claude_bottle.lib.host import wait

QUERY_SECONDS = 10.0
CHANGE_SECONDS = 60.0
SILENT_SECONDS = 600.0  # a build or a pull may take long, but not without a word
STOP_SECONDS = 5.0
CHUNK = 65536
LAST_BYTES = 16384  # of a long call's output, kept for who reads its last words

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


_watcher: list[Watcher] = []
recent_calls: deque[str] = deque(maxlen=20)  # names of the last docker calls


def watch(watcher: Watcher) -> None:
    """Tell the watcher of every process from now on."""
    _watcher[:] = [watcher]


def decode(data: bytes) -> str:
    """Return bytes as text that comes out of ``log`` as it went in, without trailing newlines."""
    return data.decode("utf-8", "surrogateescape").rstrip("\n")


def child_env() -> dict[str, str]:
    """Return the environment of a child: the caller's own, less the token, which no child needs."""
    return {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}


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
    for watcher in _watcher:
        watcher.started(process.pid)
    return cast(Process, process)


def _reap(process: Process) -> int:
    """Return the status of a process that has ended, as a shell counts it."""
    for watcher in _watcher:
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
    return _reap(process)


def await_end(process: Process, deadline: float | None = None, early: Callable[[], bool] = lambda: False) -> bool:
    """Wait until a process has ended.

    Args:
        process: one that ``spawn`` returned.
        deadline: seconds of ``time.monotonic()``, or None.
        early: looked at whenever a signal or the end of a child has arrived; True comes back early.

    Returns:
        Whether it has ended.
    """
    while True:
        given_up = early()  # may wait itself, and so take the notice of the process's end: look at that afterwards
        if process.poll() is not None:
            return True
        if given_up or (deadline is not None and time.monotonic() >= deadline):
            return False
        wait.wait_for(deadline=deadline)


class _Pipes:
    """Feeds a process and takes what it says, one ready descriptor at a time."""

    def __init__(self, process: Process, data: Iterable[bytes]) -> None:
        self.process = process
        self.data: Iterator[bytes] = iter(data)
        self.unsent = b""
        self.out = process.stdout.fileno() if process.stdout else -1
        self.err = process.stderr.fileno() if process.stderr else -1
        self.taken: dict[int, list[bytes]] = {fd: [] for fd in (self.out, self.err) if fd >= 0}
        self.open = set(self.taken)
        if process.stdin:
            os.set_blocking(process.stdin.fileno(), False)

    def turn(self, deadline: float) -> bool:
        """Wait once; return whether anything moved."""
        stdin = self.process.stdin
        writable = [stdin.fileno()] if stdin and not stdin.closed else []
        ready, writing = wait.wait_for(self.open, writable, deadline)
        for fd in ready:
            self._take(fd)
        if writing:
            self._feed()
        return bool(ready or writing)

    def _take(self, fd: int) -> None:
        data = os.read(fd, CHUNK)
        if not data:
            self.open.discard(fd)
        self.taken[fd].append(data)

    def _feed(self) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        try:
            if not self.unsent:
                self.unsent = next(self.data)
            self.unsent = self.unsent[os.write(stdin.fileno(), self.unsent) :]
        except (StopIteration, BrokenPipeError):  # all is said, or nobody listens any more
            stdin.close()
        except BlockingIOError:
            pass

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()

    def read(self, fd: int) -> bytes:
        return b"".join(self.taken.get(fd, []))


def capture(
    program: str,
    words: Sequence[str],
    env: Mapping[str, str],
    *,
    seconds: float,
    stdin: Iterable[bytes],
    check: Check,
) -> Result:
    """Run docker detached from the terminal and return what it said.

    In a session of its own, so that a Ctrl-C cannot cut a create in half.

    Args:
        program: path of the docker client.
        words: docker's arguments.
        env: the call's whole environment.
        seconds: the longest it may be silent; what it did not finish by then it is made to stop.
        stdin: pieces of what it reads.
        check: called before each wait. It may end the call by raising, and returns when to call it again at the latest.
    """
    inherited = tuple(fd for watcher in _watcher for fd in watcher.inherited)
    process = spawn(
        program,
        words,
        env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        new_session=True,
        pass_fds=inherited,
    )
    return _converse(words, process, stdin, seconds, check)


def _converse(
    words: Sequence[str],
    process: Process,
    stdin: Iterable[bytes],
    seconds: float,
    check: Check,
    heard: Callable[[_Pipes], None] = lambda pipes: None,
) -> Result:
    """Feed a process and take what it says until it ends; it is ended where that fails, or where it falls silent."""
    pipes = _Pipes(process, stdin)
    deadline = time.monotonic() + seconds
    try:
        while (pipes.open or process.poll() is None) and time.monotonic() < deadline:
            if pipes.turn(min(deadline, check())):
                heard(pipes)
                deadline = time.monotonic() + seconds
        timed_out = process.poll() is None
        status = stop(process) if timed_out else _reap(process)
    except BaseException:  # a signal, or what feeds it has failed
        stop(process)
        raise
    finally:
        pipes.close()
    return _result(words, status, pipes.read(pipes.out), pipes.read(pipes.err), timed_out, seconds)


def _result(words: Sequence[str], status: int, out: bytes, err: bytes, timed_out: bool, seconds: float) -> Result:
    if timed_out:
        err += f"docker {call_name(words)} gave no answer within {seconds:.0f} s".encode()
        status = status or 1
    return Result(status, out, err, timed_out)


def call_name(words: Sequence[str]) -> str:
    """Return how a docker call is named in a message: its command, without what it works on."""
    groups = ("network", "container", "image")
    return " ".join(words[:2] if words[0] in groups else words[:1])


def stream(program: str, words: Sequence[str], env: Mapping[str, str], *, stdin: bytes, quiet_errors: bool) -> Result:
    """Run a long docker call and let the user watch: all its output goes to our stderr.

    It stays in our process group, where Ctrl-C reaches it. Of what was shown the result has the end.

    Args:
        program: path of the docker client.
        words: docker's arguments.
        env: the call's whole environment.
        stdin: what it reads.
        quiet_errors: keep its stderr for the result's ``err`` alone.

    Raises:
        Interrupted: a stopping signal arrived; the process has been ended.
    """
    process = spawn(program, words, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown = {"out": b"", "err": b""}

    def show(pipes: _Pipes) -> None:
        for name, fd in (("out", pipes.out), ("err", pipes.err)):
            if name == "out" or not quiet_errors:
                said = pipes.read(fd)
                log.write(said)
                shown[name] = (shown[name] + said)[-LAST_BYTES:]
                pipes.taken[fd].clear()

    result = _converse(words, process, [stdin] if stdin else (), SILENT_SECONDS, on_signal, show)
    return replace(result, out=shown["out"] + result.out, err=shown["err"] + result.err)


def foreground(program: str, words: Sequence[str], env: Mapping[str, str], *, no_stdin: bool = False) -> Process:
    """Start a program with our own three streams, in our process group: it has the terminal.

    Args:
        program: its path.
        words: its arguments.
        env: its whole environment.
        no_stdin: keep our stdin from it.
    """
    return spawn(program, words, env, stdin=subprocess.DEVNULL if no_stdin else None, stdout=None, stderr=None)


def beside(program: str, words: Sequence[str], env: Mapping[str, str]) -> Process:
    """Start a process that runs beside a foreground one, in a session of its own and without streams."""
    nothing = subprocess.DEVNULL
    return spawn(program, words, env, stdin=nothing, stdout=nothing, stderr=nothing, new_session=True)


def finish(process: Process, needless: Callable[[], bool] = lambda: False) -> int:
    """Wait for a foreground process; a stopping signal ends it with TERM.

    Args:
        process: one that ``spawn`` returned.
        needless: looked at whenever a child has ended; True ends the process too.

    Returns:
        Its status, 128 plus the number if a signal ended it.

    Raises:
        Interrupted: a stopping signal arrived; the process has been ended.
    """
    if await_end(process, early=lambda: wait.pending_signal() is not None or needless()):
        return _reap(process)
    status = stop(process)
    wait.check_signals()
    return status
