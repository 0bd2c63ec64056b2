"""Docker calls as values, and the one place that waits for many of them at once.

A piece of work is a generator: what it wants of docker it yields as a ``Call``, and it goes on with the ``Result``. So
pieces of work run side by side in one thread, each written as if it were alone. ``perform`` does a single one.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from claude_bottle.lib import log
from claude_bottle.lib.host import run, wait
from claude_bottle.lib.host.run import Process, Result

CHUNK = 65536
LAST_BYTES = 16384  # kept of the output of what runs long, for who reads its last words
ON_ITS_WAY_SECONDS = 0.05
OUT, ERR = "out", "err"
_UNREAD = (-signal.SIGPIPE, 128 + signal.SIGPIPE)


def keep_the_end(_name: str, _data: bytes) -> None:
    """Hear what a call says, so that only its end is kept: it may come from an image of others'."""


@dataclass(frozen=True)
class Call:
    """A docker call that has not begun.

    Attributes:
        program: path of the docker client.
        words: docker's arguments.
        env: its whole environment.
        seconds: the longest it may be silent; what it did not finish by then it is made to stop.
        stdin: pieces of what it reads.
        check: called before each wait. It may end the call by raising, and returns when to call it again at the latest.
        interruptible: it changes nothing, or only what is removed afterwards: nobody has to wait for its end.
        shown: names of the streams that the user watches; then it stays in our process group, where Ctrl-C reaches it.
        needless: looked at before each wait; True ends the call.
        heard: gets the name of a stream and each piece of what it says; the answer then has only the end of that.
    """

    program: str
    words: Sequence[str]
    env: Mapping[str, str]
    seconds: float
    stdin: Iterable[bytes] = ()
    check: run.Check = run.uninterrupted
    interruptible: bool = False
    shown: Collection[str] = ()
    needless: Callable[[], bool] = lambda: False
    heard: Callable[[str, bytes], None] | None = None


@dataclass(frozen=True)
class Pipe:
    """Two calls that have not begun, the first of which says to the second what nobody holds in memory.

    Attributes:
        source: its stdout is not listened to.
        sink: what reads that, or the descriptor of a file that takes it; both calls may be as long as their own bounds
            let them.
    """

    source: Call
    sink: Call | int


class Talk:
    """A call under way: fed, and listened to, one ready descriptor at a time.

    Args:
        call: to begin.
        attached: it stays: its first word on stdout is its answer, and of what it says later only the end is kept.
        word: that is its answer, in place of the first.
        stdin: a descriptor that it reads, in place of what it is fed.
        stdout: a descriptor that it writes to, in place of being listened to.
    """

    def __init__(
        self,
        call: Call,
        attached: bool = False,
        word: bytes = b"",
        *,
        stdin: int = run.PIPE,
        stdout: int = run.PIPE,
    ) -> None:
        self.call = call
        self.problem: BaseException | None = None
        self._attached, self._word, self._spoken, self._late = attached, word, False, False
        self._data, self._unsent = iter(call.stdin), b""
        self.process: Process = run.piped(
            call.program, call.words, call.env, alone=not call.shown, stays=attached, stdin=stdin, stdout=stdout
        )
        self._begin()

    def _begin(self) -> None:
        if self.process.stdin:
            os.set_blocking(self.process.stdin.fileno(), False)
        streams = {OUT: self.process.stdout, ERR: self.process.stderr}
        self._names = {stream.fileno(): name for name, stream in streams.items() if stream}
        self._open = set(self._names)
        self._said = {OUT: b"", ERR: b""}
        self._pieces: dict[str, list[bytes]] = {OUT: [], ERR: []}
        self._line = {OUT: b"", ERR: b""}  # the last one, which has no end yet
        self._deadline = time.monotonic() + self.call.seconds

    @property
    def ended(self) -> bool:
        """Whether it has ended, and all it said is here."""
        return not self._open and self.process.poll() is not None

    @property
    def answered(self) -> bool:
        """Whether nobody has to wait any more."""
        over = self.problem is not None or self.ended or self._late
        return over or self._spoken or self.call.needless()

    @property
    def ruined(self) -> bool:
        """Whether it will not end well."""
        return self.problem is not None or self._late or bool(self.ended and self.process.poll())

    @property
    def unread(self) -> bool:
        """Whether it has ended because nobody took what it says, so that another one knows the reason."""
        status = self.process.poll() if self.ended else 0
        return bool(status) and (status in _UNREAD or b"broken pipe" in self.said(ERR).lower())

    def look(self) -> float:
        """Run the check; return when to look again at the latest."""
        if self.problem is None:
            try:
                return min(self._deadline, self.call.check())
            except BaseException as problem:
                self.problem = problem
        return 0.0

    def wants(self) -> tuple[set[int], list[int]]:
        """Return the descriptors to read from, and to write to."""
        stdin = self.process.stdin
        return self._open, [stdin.fileno()] if stdin and not stdin.closed else []

    def move(self, ready: set[int], writing: set[int]) -> None:
        """Take and give what is possible now; a failure of what feeds it is kept as its problem."""
        try:
            mine = self._open & ready
            for fd in mine:
                self._take(fd)
            feeding = [fd for fd in self.wants()[1] if fd in writing]
            if feeding:
                self._feed()
            if mine or feeding:
                self._deadline = math.inf if self._spoken else time.monotonic() + self.call.seconds
            self._late = time.monotonic() >= self._deadline  # after a look at what it has said meanwhile
        except Exception as problem:
            self.problem = problem

    def _take(self, fd: int) -> None:
        data = os.read(fd, CHUNK)
        if not data:
            self._open.discard(fd)
        name = self._names[fd]
        self._pieces[name].append(data)
        if self.call.heard:
            self.call.heard(name, data)
        if self._attached or self.call.heard:
            self._keep_the_end()
        if self._attached:
            self._spoken = self._spoken or (bool(self._said[OUT]) and self._word in self._said[OUT])

    def _feed(self) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        try:
            if not self._unsent:
                self._unsent = next(self._data)
            self._unsent = self._unsent[os.write(stdin.fileno(), self._unsent) :]
        except (StopIteration, BrokenPipeError):  # all is said, or nobody listens any more
            stdin.close()
        except BlockingIOError:
            pass

    def show(self) -> None:
        """Write what the user watches, in whole lines: two may talk at once.

        While a reader of ours pauses, nobody counts its silence.
        """
        if self.call.shown:
            began = time.monotonic()
            for name in self.call.shown:
                self._show(name)
            self._deadline += time.monotonic() - began
            self._keep_the_end()

    def _show(self, name: str) -> None:
        said = self._line[name] + b"".join(self._pieces[name])
        is_open = any(self._names[fd] == name for fd in self._open)
        end = said.rfind(b"\n") + 1 if is_open and len(said) < CHUNK else len(said)
        self._line[name] = said[end:]
        log.write(said[:end])

    def _keep_the_end(self) -> None:
        for name, pieces in self._pieces.items():
            self._said[name] = (self._said[name] + b"".join(pieces))[-LAST_BYTES:]
            pieces.clear()

    def said(self, name: str) -> bytes:
        """Return what it said on one of its streams; of what runs long, the end."""
        return self._said[name] + b"".join(self._pieces[name])

    def close(self) -> Result:
        """End what has not ended, and return how it did; what stays, and has spoken, goes on."""
        if self._spoken and not self.ended:
            return Result(0)
        timed_out = self.process.poll() is None and self._late
        status = run.reap(self.process) if self.process.poll() is not None else run.stop(self.process)
        self._open.clear()
        self.show()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                stream.close()
        err = self.said(ERR)
        if timed_out:
            err += f"{self._title} gave no answer within {self.call.seconds:.0f} s".encode()
        return Result(status or int(timed_out), self.said(OUT), err, timed_out)

    @property
    def _title(self) -> str:
        program = os.path.basename(self.call.program)
        return f"docker {run.call_name(self.call.words)}" if program == "docker" else program

    def kill(self) -> None:
        """End it without a word: politely asked, an attached client would pass the signal on."""
        if self.process.poll() is None:
            self.process.kill()
        self._spoken = False
        self.close()


class Joined:
    """The two calls of a pipe under way; it answers when both have, or one fails.

    Args:
        pipe: to begin.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.call = pipe.source
        if isinstance(pipe.sink, int):
            self._talks = [Talk(pipe.source, stdout=pipe.sink)]
            return
        read_end, write_end = os.pipe()
        try:
            self._talks = [Talk(pipe.source, stdout=write_end)]
            self._talks.append(Talk(pipe.sink, stdin=read_end))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(read_end)
            os.close(write_end)

    @property
    def problem(self) -> BaseException | None:
        return next((talk.problem for talk in self._talks if talk.problem), None)

    @property
    def ended(self) -> bool:
        return all(talk.ended for talk in self._talks)

    @property
    def answered(self) -> bool:
        """Whether nobody has to wait any more: the source of a sink that has ended has nobody to talk to.

        One may see that before the sink's own end is seen, which says why.
        """
        ruined = [talk for talk in self._talks if talk.ruined and not talk.unread]
        return bool(ruined) or all(talk.answered for talk in self._talks)

    def look(self) -> float:
        """Run the checks; return when to look again at the latest."""
        return min(talk.look() for talk in self._talks)

    def wants(self) -> tuple[set[int], list[int]]:
        """Return the descriptors to read from, and to write to."""
        wants = [talk.wants() for talk in self._talks]
        return set[int]().union(*(fds for fds, _ in wants)), [fd for _, fds in wants for fd in fds]

    def move(self, ready: set[int], writing: set[int]) -> None:
        """Take and give what is possible now."""
        for talk in self._talks:
            talk.move(ready, writing)

    def show(self) -> None:
        """Write nothing: nobody watches what goes through a pipe."""

    def close(self) -> Result:
        """End what has not ended; the answer is a failure where one of the two is, with the words of both."""
        talks = [*reversed(self._talks)]  # the sink first
        culprits = [talk for talk in talks if talk.ruined]  # the other one is only ended
        results = {talk: talk.close() for talk in talks}
        told = [results[talk] for talk in culprits or talks]
        err = b"\n".join(result.err.rstrip() for result in told if result.err.strip())
        status = next((result.status for result in (*told, *results.values()) if result.status), 0)
        return Result(status, results[talks[0]].out, err, any(result.timed_out for result in told))


def begin(wish: Call | Pipe) -> Talk | Joined:
    """Begin what has been yielded."""
    return Joined(wish) if isinstance(wish, Pipe) else Talk(wish)


T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Wish = Call | Pipe | Talk
Work = Generator[Wish, Result, T]  # what does several calls, and comes to something

_attached: list[Talk] = []


def attach(call: Call, word: bytes = b"") -> Talk:
    """Begin a call that stays under way while others come and go.

    Args:
        call: to begin.
        word: that it answers with when work has yielded it; whichever comes first, if none is given.
    """
    talk = Talk(call, attached=True, word=word)
    _attached.append(talk)
    return talk


def detach_all() -> None:
    """End what is attached."""
    while _attached:
        _attached.pop().kill()


def catch_up() -> None:
    """Take what is attached has said by now; it may be a moment on its way."""
    end = time.monotonic() + ON_ITS_WAY_SECONDS
    while time.monotonic() < end:
        _serve((), end)


def _serve(talks: Collection[Talk | Joined], deadline: float = math.inf) -> None:
    """Wait once, for any of some talks or for a deadline; what is attached is served with them."""
    if any([talk.answered for talk in talks]):
        return
    latest = min([deadline, *(talk.look() for talk in talks)])
    every = [*talks, *(talk for talk in _attached if not talk.ended and talk not in talks)]
    wants = [talk.wants() for talk in every]
    readable, writable = set[int]().union(*(fds for fds, _ in wants)), [fd for _, fds in wants for fd in fds]
    ready, writing = wait.wait_for(readable, writable, latest)
    for talk in every:
        talk.move(ready, writing)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a piece of work."""

    value: T
    problem: BaseException | None = None

    def get(self) -> T:
        """Return it; raise what the work raised."""
        if self.problem is not None:
            raise self.problem
        return self.value


class Crew(Generic[Key]):
    """Pieces of work side by side; each waits for one call at a time, and goes on when that has answered.

    Args:
        voice: the context in which a piece of work, by its key, says something.
    """

    def __init__(self, voice: Callable[[Key], AbstractContextManager[Any]] = lambda key: nullcontext()) -> None:
        self._voice = voice
        self._under_way: dict[Key, tuple[Work[Any], Talk | Joined]] = {}
        self._leaving: set[Key] = set()
        self._ended: list[tuple[Key, Outcome[Any]]] = []

    def __len__(self) -> int:
        return len(self._under_way) + len(self._ended)

    def begin(self, key: Key, work: Work[Any]) -> None:
        """Begin a piece of work.

        Args:
            key: names it.
            work: not yet begun.
        """
        self._resume(key, work, partial(next, work))

    def turn(self, deadline: float = math.inf) -> list[tuple[Key, Outcome[Any]]]:
        """Wait once, until a deadline at the latest; return what came of the works that have ended meanwhile."""
        if not self._ended:
            _serve([talk for _, talk in self._under_way.values()], deadline)
        for key, (work, talk) in list(self._under_way.items()):
            with self._voice(key):
                talk.show()
            if talk.answered:
                self._answer(key, work, talk)
        ended, self._ended = self._ended, []
        return ended

    def _answer(self, key: Key, work: Work[Any], talk: Talk | Joined) -> None:
        del self._under_way[key]
        result = talk.close()
        self._resume(
            key, work, partial(work.send, result) if talk.problem is None else partial(work.throw, talk.problem)
        )

    def leave(self, keys: Iterable[Key]) -> None:
        """Let works end as soon as they can: where a call may be interrupted at once, else when it has answered."""
        for key in keys:
            work, talk = self._under_way.get(key, (None, None))
            if work is None or talk is None:
                continue
            self._leaving.add(key)
            if talk.call.interruptible:
                del self._under_way[key]
                talk.close()
                work.close()

    def _resume(self, key: Key, work: Work[Any], go_on: Callable[[], Wish]) -> None:
        try:
            with self._voice(key):
                wish = go_on()
                while key not in self._leaving:
                    try:
                        self._under_way[key] = (work, wish if isinstance(wish, Talk) else begin(wish))
                        return
                    except Exception as problem:  # no process can be had
                        wish = work.throw(problem)
                work.close()
        except StopIteration as end:
            self._ended.append((key, Outcome(end.value)))
        except BaseException as problem:
            self._ended.append((key, Outcome(None, problem)))


class Begun(Generic[T]):
    """One piece of work whose first call is under way already, while its caller does something else.

    Args:
        work: not yet begun.
    """

    def __init__(self, work: Work[T]) -> None:
        self._crew: Crew[str] = Crew()
        self._crew.begin("", work)

    def get(self) -> T:
        """Wait for its end; return what it comes to, or raise what it raises."""
        ended: list[tuple[str, Outcome[T]]] = []
        while not ended:
            ended = self._crew.turn()
        return ended[0][1].get()

    def leave(self) -> None:
        """Let it end as soon as it can, if it has not: nobody wants it any more."""
        self._crew.leave([""])


def perform(work: Work[T]) -> T:
    """Do one piece of work; return what it comes to, or raise what it raises.

    Args:
        work: not yet begun.
    """
    return Begun(work).get()


def one(call: Call) -> Work[Result]:
    """Return the work that is a single call."""
    return (yield call)


def finish(
    process: Process, needless: Callable[[], bool] = lambda: False, look: Callable[[], float] = lambda: math.inf
) -> int:
    """Wait for a foreground process; a stopping signal ends it with TERM.

    Args:
        process: one that ``run.spawn`` returned.
        needless: looked at whenever a child has ended; True ends the process too.
        look: called before each wait; returns when to call it again at the latest.

    Returns:
        Its status, 128 plus the number if a signal ended it.

    Raises:
        Interrupted: a stopping signal arrived; the process has been ended.
    """

    def given_up() -> bool:
        return wait.pending_signal() is not None or needless()

    if run.await_end(process, early=given_up, turn=lambda deadline: _serve((), min(deadline or math.inf, look()))):
        return run.reap(process)
    status = run.stop(process)
    wait.check_signals()
    return status
