"""Says to the guards of a launch's containers that somebody is still there to remove them (``guard.pl``).

One open call for each: a byte now and then, which is answered. Where it ends or falls silent another one is opened. It
is looked after beside whatever its process waits for: see ``wait.beside``.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from claude_bottle.lib.engine import Engine
from claude_bottle.lib.host import run

EVERY_SECONDS = 10.0  # the shortest patience is three of these
AGAIN_SECONDS = 5.0  # after a call that has ended
SILENT_SECONDS = 25.0
# A short start has no need of it. Where the engine is elsewhere, it also is what notices that nothing gets there.
FIRST_SECONDS, FIRST_AFAR_SECONDS = 10.0, 2.0
_GONE, _EARLY = b"No such container", b"is not running"


class Lease:
    """Of one container, which runs or is about to.

    Args:
        engine: that it is on.
        words: docker's, of what renews it.
    """

    def __init__(self, engine: Engine, words: Sequence[str]) -> None:
        self._engine, self._words = engine, words
        self._process: run.Process | None = None
        self._due = time.monotonic() + (FIRST_SECONDS if engine.is_local else FIRST_AFAR_SECONDS)
        self._heard = self._begun = math.inf  # when it was answered last, and when this call began
        self._is_over = False

    @property
    def was_opened(self) -> bool:
        return self._heard < math.inf

    @property
    def is_silent(self) -> bool:
        """Whether nothing has been heard from there for a while."""
        return not self._is_over and time.monotonic() >= self._heard + SILENT_SECONDS

    def fds(self) -> list[int]:
        """Return what it listens to."""
        return [self._process.stdout.fileno()] if self._process and self._process.stdout else []

    def turn(self) -> float:
        """Do what is to be done by now; return when there is more."""
        self._listen()
        now = time.monotonic()
        if self._is_over or now < self._due:
            return math.inf if self._is_over else self._next()
        if self._process and now > max(self._heard, self._begun) + SILENT_SECONDS:
            self.close()
        self._due = now + EVERY_SECONDS
        with suppress(OSError):  # no client, or no process can be had, or it has just ended
            if not self._process:
                self._open()
            self._say()
        return self._next()

    def _next(self) -> float:
        """Return when there is more to do, or to be said."""
        return self._due if self.is_silent else min(self._due, self._heard + SILENT_SECONDS)

    def _open(self) -> None:
        engine = self._engine.reachable()
        pipe, env = subprocess.PIPE, engine.environment()
        self._begun = time.monotonic()
        self._heard = min(self._heard, self._begun)
        self._process = run.spawn(
            engine.client, self._words, env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, new_session=True
        )
        for stream in self._streams():
            os.set_blocking(stream.fileno(), False)

    def _streams(self) -> list[IO[bytes]]:
        process = self._process
        return [stream for stream in (process.stdin, process.stdout, process.stderr) if stream] if process else []

    def _say(self) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.write(b".")

    def _listen(self) -> None:
        if not self._process or not self._process.stdout or not self._process.stderr:
            return
        said, now = self._process.stdout.read(512), time.monotonic()
        if said:
            self._heard = now
        elif said is not None or self._process.poll() is not None:  # its end
            why = self._process.stderr.read(4096) or b""
            self._is_over = _GONE in why
            self._heard = now if _EARLY in why else self._heard
            self._due = now + AGAIN_SECONDS
            self.close()

    def close(self) -> None:
        """End the call, if there is one."""
        if self._process:
            streams = self._streams()
            self._process.kill()
            run.reap(self._process)
            for stream in streams:
                stream.close()
            self._process = None


class Leases:
    """All of a launch.

    Args:
        engine: that its containers are on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases: list[Lease] = []

    def take(self, every: Sequence[Sequence[str]]) -> None:
        """Look after those that are new.

        Args:
            every: for each, docker's words of what renews it.
        """
        self._leases += [Lease(self._engine, words) for words in every[len(self._leases) :]]

    @property
    def were_opened(self) -> bool:
        return any(lease.was_opened for lease in self._leases)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has been heard of one for a while."""
        return any(lease.is_silent for lease in self._leases)

    def turn(self) -> tuple[list[int], float]:
        """Do what is to be done by now; return what they listen to, and when there is more (``wait.beside``)."""
        due = min((lease.turn() for lease in self._leases), default=math.inf)
        return [fd for lease in self._leases for fd in lease.fds()], due

    def close(self) -> None:
        """End all calls."""
        for lease in self._leases:
            lease.close()
