"""Two sockets whose words go to each other, as they come; and what a link's two sides have agreed on."""

from __future__ import annotations

import socket
from contextlib import suppress

CHUNK = 262_144
DEFAULT_SOCKET = "/var/run/docker.sock"  # of an engine, before its host has said which
NEAR, FAR = "e", "s"  # names of the sockets: docker's clients connect to the first, ssh listens on the second
SSH, FORWARD, LOST = "ssh", "forward", "lost"  # what failed: to get there, to have the socket, or to keep it
OPEN_SECONDS = 25.0  # less than a question of the launcher's waits
PROBE_SECONDS = 10.0


class Way:
    """One direction of a connection: what comes from one socket goes to another, its end too.

    Args:
        source: to read from.
        sink: to write to.
        data: what has been read already.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, data: bytes = b"") -> None:
        self.source, self.sink, self.data = source, sink, data
        self.ended = self.over = False

    def move(self, ready: set[int]) -> None:
        """Take and give what is possible now.

        Raises:
            OSError: one of the two is gone.
        """
        with suppress(BlockingIOError):
            if self.source.fileno() in ready:
                got = self.source.recv(CHUNK)
                self.ended = not got
                self.data += got
        with suppress(BlockingIOError):
            while self.data:
                self.data = self.data[self.sink.send(self.data) :]
        if self.ended and not self.data and not self.over:
            self.over = True
            self.sink.shutdown(socket.SHUT_WR)

    @property
    def reads(self) -> bool:
        return not self.ended and len(self.data) < CHUNK


class Pair:
    """A docker client and its connection to the engine."""

    def __init__(self, client: socket.socket, engine: socket.socket, said: bytes) -> None:
        self.ways = (Way(client, engine, said), Way(engine, client))
        self.over = False
        self.move(set())

    def move(self, ready: set[int]) -> None:
        """Take and give what is possible now; note the end of both."""
        try:
            for way in self.ways:
                way.move(ready)
            self.over = all(way.over for way in self.ways)
        except OSError:
            self.over = True
        if self.over:
            self.close()

    def close(self) -> None:
        for way in self.ways:
            way.source.close()
