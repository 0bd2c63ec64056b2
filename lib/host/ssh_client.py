"""The user's own ssh as a process: what it says, and its end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from claude_bottle.lib.host import run
from claude_bottle.lib.host.relay import CHUNK

MOST_SAID = 4096  # bytes kept of what ssh says
_ENDPOINT = re.compile(rb"^([a-z]+)://(\S*)\r?\n", re.MULTILINE)


class Ssh:
    """The ssh process and what it has said. The first one is the launcher's child, so its end shows by its stdout's.

    Args:
        pid: its id.
        pipes: what its stdin, stdout and stderr lead to; they are closed with it.
        reap: called when it has been ended.
    """

    def __init__(self, pid: int, pipes: Sequence[int], reap: Callable[[], object] = lambda: None) -> None:
        self._pid, self._pipes, self._reap = pid, pipes, reap
        _, self._out, self._err = pipes
        self._said = {self._out: b"", self._err: b""}
        self.open = set(self._said)
        for fd in self.open:
            os.set_blocking(fd, False)

    @classmethod
    def begin(cls, program: str, words: Sequence[str]) -> Ssh:
        """Start another one.

        Args:
            program: its path.
            words: its arguments.

        Raises:
            OSError: no process can be had.
        """
        process, pipes = run.forwarding(program, words)
        return cls(process.pid, pipes, lambda: run.stop(process))

    def listen(self) -> None:
        """Take what it has said."""
        for fd in list(self.open):
            with suppress(BlockingIOError):
                while data := os.read(fd, CHUNK):
                    self._said[fd] = (self._said[fd] + data)[-MOST_SAID:]
                self.open.discard(fd)

    @property
    def ended(self) -> bool:
        return self._out not in self.open

    @property
    def endpoint(self) -> tuple[str, str] | None:
        """Where the far side's docker says that its engine is, None before it has."""
        found = _ENDPOINT.search(self._said[self._out])
        return (run.decode(found[1]), run.decode(found[2])) if found else None

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in run.decode(self._said[self._err]).splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")

    def end(self) -> None:
        """End it, and take its last words."""
        if not self.ended:  # its id is its own for as long as it lives
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
        self._reap()
        self.listen()
        for fd in self._pipes:
            os.close(fd)
        self.open.clear()
