"""The user's own ssh as a process: how it is told to forward a socket, and what it says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from claude_bottle.lib.host import run
from claude_bottle.lib.host.relay import CHUNK

MOST_SAID = 4096  # bytes kept of what ssh says
OPTIONS = {
    "BatchMode": "yes",  # nobody is there to be asked
    "ConnectTimeout": "20",
    "ControlMaster": "no",  # it may use a connection that the user has, and never becomes one for others
    "ExitOnForwardFailure": "no",  # the user's own forwards are no reason to fail; ours is looked at
    "RemoteCommand": "none",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "4",
    "StreamLocalBindUnlink": "yes",
}
# Stays until its stdin ends; the user's own shell there runs it.
SAY_ENDPOINT = "docker context inspect --format '{{.Endpoints.docker.Host}}' && exec cat"
_ENDPOINT = re.compile(rb"^([a-z]+)://(\S*)\r?\n", re.MULTILINE)


def ssh_words(target: Mapping[str, str], near: str, far: str) -> list[str]:
    """Return ssh's arguments up to its host.

    Args:
        target: user, host and port; empty where ssh's own configuration is to say it.
        near: path of the socket that it listens on.
        far: path of the engine's.
    """
    options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
    whom = [
        word for flag in ("user", "port") if target[flag] for word in (f"-{flag[0].replace('u', 'l')}", target[flag])
    ]
    return ["-T", "-a", "-x", *options, *whom, "-L", f"{near}:{far}", "--", target["host"]]


class Ssh:
    """The ssh process and what it has said.

    Args:
        program: its path.
        words: its arguments.
    """

    def __init__(self, program: str, words: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = run.spawn(program, words, stdin=pipe, stdout=pipe, stderr=pipe, cwd="/")
        assert self.process.stdout and self.process.stderr
        self._said = {self.process.stdout.fileno(): b"", self.process.stderr.fileno(): b""}
        self._out, self._err = self._said
        self.open = set(self._said)
        for fd in self.open:
            os.set_blocking(fd, False)

    def listen(self) -> None:
        """Take what it has said."""
        for fd in list(self.open):
            with suppress(BlockingIOError):
                while data := os.read(fd, CHUNK):
                    self._said[fd] = (self._said[fd] + data)[-MOST_SAID:]
                self.open.discard(fd)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

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
        run.stop(self.process)
        self.listen()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        self.open.clear()
