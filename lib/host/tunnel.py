"""One ssh connection to an engine's socket, for all docker calls of a launch; runs as a script of its own.

Docker's own way opens a connection for every call. Here one ssh forwards the engine's socket, and this process stands
before it: docker's clients connect to a socket that stays, whatever becomes of the connection. When that ends it is
opened again, and serves only when the same engine answers. Two round trips of every call are saved: the engine's answer
to a ping is kept, and connections are there before they are asked for.

It ends when nobody holds the other end of its line: the launcher, and the reaper, which inherits it.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run by path: make the package known, as cli/__main__.py does
    package = types.ModuleType("claude_bottle")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["claude_bottle"] = package

from claude_bottle.lib.errors import ANOTHER_ENGINE
from claude_bottle.lib.host import process, run, wait
from claude_bottle.lib.host.relay import (
    CHUNK,
    DEFAULT_SOCKET,
    FAR,
    FORWARD,
    LOST,
    NEAR,
    OPEN_SECONDS,
    PROBE_SECONDS,
    SSH,
    Pair,
)
from claude_bottle.lib.host.ssh_client import Ssh
from claude_bottle.lib.host.ssh_words import ssh_words

# How long a call is held while there is no connection, and how long after one was lost any is: a client asks three
# times before it gives up, and a launcher more than once before it says so.
HOLD_SECONDS = 20.0
LONGEST_PAUSE_SECONDS = 10.0
READY = 6  # connections to the engine that are there before they are asked for
_FORWARDABLE = re.compile(r"/[\w./@+-]+", re.ASCII)
_PING = b"HEAD /_ping HTTP/1.1\r\n"
_END = b"\r\n\r\n"
_ASK_PING = _PING + b"Host: docker\r\n\r\n"


class Tunnel:
    """The connection, and all who use it.

    Args:
        spec: what the launcher says: ``ssh``, ``folder``, ``title``, and the target's ``user``, ``host``, ``port`` and
            ``path``, of the engine's socket where the user has said it.
        listener: that docker's clients connect to.
        line: to the launcher, and its reaper.
        ssh: the first one, which the launcher has begun.
    """

    def __init__(self, spec: Mapping[str, str], listener: socket.socket, line: socket.socket, ssh: Ssh) -> None:
        self.spec, self.listener, self.line = spec, listener, line
        self.near = os.path.join(spec["folder"], FAR)
        self.far = spec["path"] or DEFAULT_SOCKET
        self.words = ssh_words(spec, self.near, self.far)  # of the last one that was begun
        self.waiting: dict[socket.socket, tuple[bytes, float]] = {}  # clients: what they said, how long they wait
        self.pairs: list[Pair] = []
        self.ready: list[socket.socket] = []
        self.ssh: Ssh | None = ssh
        self.identity = self.pong = self.why = ""
        self.up = self.was_up = self.refuses = self.given_up = self.told = False
        self.until, self.again_at = time.monotonic() + OPEN_SECONDS, math.inf
        self.pause, self.held_until, self.tries = 1.0, math.inf, 0
        for each in (listener, line):
            each.setblocking(False)

    def run(self) -> None:
        """Serve until nobody holds the line."""
        while self.turn():
            pass
        self.close()

    def open(self) -> None:
        """Begin to connect anew: to another socket here, as a connection of the user's may still hold the last one."""
        self.cancel()
        self.tries += 1
        self.near = os.path.join(self.spec["folder"], f"{FAR}{self.tries}")
        self.again_at, self.until = math.inf, time.monotonic() + OPEN_SECONDS
        try:
            self.words = ssh_words(self.spec, self.near, self.far)
            self.ssh = Ssh.begin(self.spec["ssh"], self.words)
        except OSError as problem:
            self.failed(str(problem))

    def turn(self) -> bool:
        """Wait once, and do what can be done then; return whether anybody still holds the line."""
        ways = [way for pair in self.pairs for way in pair.ways]
        reading = {way.source.fileno() for way in ways if way.reads}
        reading |= {client.fileno() for client, (said, _) in self.waiting.items() if len(said) < CHUNK}
        reading |= {each.fileno() for each in (self.line, self.listener, *self.ready)}
        reading |= self.ssh.open if self.ssh else set()
        ready, _ = wait.wait_for(reading, {way.sink.fileno() for way in ways if way.data}, self.wake_at())
        if self.line.fileno() in ready and not self.hear():
            return False
        self.look_at_ssh()
        self.look_at_clients(ready)
        for pair in self.pairs:
            if not pair.over:
                pair.move(ready)
        self.pairs = [pair for pair in self.pairs if not pair.over]
        return True

    def hear(self) -> bool:
        """Learn which engine the launcher goes by; return whether anybody still holds the line."""
        try:
            said = self.line.recv(CHUNK)
        except OSError:  # gone before it has read what we said
            return False
        self.identity += run.decode(said)
        return bool(said)

    def wake_at(self) -> float:
        held = [] if self.up else [until for _, until in self.waiting.values()]
        return min([self.until, self.again_at, *held])

    def look_at_ssh(self) -> None:
        """See whether it has come up, has ended, or is to be tried again."""
        now = time.monotonic()
        if self.ssh:
            self.ssh.listen()
            if self.ssh.ended:
                self.failed(self.ssh.last_words)
            elif not self.up and self.ssh.endpoint:
                self.come_up(*self.ssh.endpoint)
            elif now >= self.until:
                self.failed(f"no answer within {OPEN_SECONDS:.0f} s")
        elif now >= self.again_at:
            self.open()

    def come_up(self, scheme: str, path: str) -> None:
        """Serve from now on, if it is the engine's socket that has been forwarded, and the same engine behind it."""
        if not self.spec["path"] and not self.was_up:
            if scheme != "unix" or not _FORWARDABLE.fullmatch(path):
                self.failed(f"its docker uses {scheme}://{path}")
                return
            if path != self.far:
                self.far = path
                self.drop()
                self.open()
                return
        try:
            self.ask()
        except (OSError, ValueError) as problem:
            self.failed(f"{self.far} there cannot be reached ({problem})")
            return
        if self.pong:
            if not self.was_up:
                self.say("")
            self.up, self.was_up, self.refuses, self.until, self.pause = True, True, False, math.inf, 1.0
            self.fill()

    def ask(self) -> None:
        """Ask who is there, and what it answers to a ping.

        Raises:
            OSError: nobody answers.
            ValueError: it is no engine, or another one.
        """
        if self.identity:
            now = self.engine_id()
            if now != self.identity:
                self.refuses = True
                raise ValueError(f"{ANOTHER_ENGINE} {self.spec['title']}: {now} instead of {self.identity}")
        with self.connect() as asked:
            asked.settimeout(PROBE_SECONDS)
            asked.sendall(_ASK_PING)
            said = b""
            while _END not in said:
                got = asked.recv(CHUNK)
                if not got:
                    raise ConnectionError("connection closed")
                said += got
        if not said.startswith(b"HTTP/1.1 200"):
            raise ValueError(run.decode(said.splitlines()[0]))
        self.pong = said.decode("latin-1")

    def engine_id(self) -> str:
        """Return the id that the engine gives itself."""
        from http.client import HTTPConnection, HTTPException

        asked = HTTPConnection("docker")
        asked.sock = self.connect()
        asked.sock.settimeout(PROBE_SECONDS)
        try:
            asked.request("GET", "/info")
            said: Any = json.load(asked.getresponse())
        except HTTPException as problem:
            raise ValueError(str(problem)) from None
        finally:
            asked.close()
        return str(said.get("ID")) if isinstance(said, dict) else ""

    def connect(self) -> socket.socket:
        """Return a new connection to the engine.

        Raises:
            OSError: ssh is gone.
        """
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(self.near)
        except OSError:
            made.close()
            raise
        return made

    def fill(self) -> None:
        """Have connections there before they are asked for."""
        with suppress(OSError):
            while len(self.ready) < READY:
                self.ready.append(self.connect())
                self.ready[-1].setblocking(False)

    def take(self) -> socket.socket:
        """Return a connection to the engine, one that is there already if it still lives."""
        while self.ready:
            taken = self.ready.pop(0)
            try:
                taken.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return taken
            except OSError:
                pass
            taken.close()
        made = self.connect()
        made.setblocking(False)
        return made

    def failed(self, why: str) -> None:
        """Note that there is no connection, and when to try again: never where there has been none."""
        kind = FORWARD if os.path.lexists(self.near) else SSH  # ssh listens when it has been let in
        if self.up:
            self.held_until = time.monotonic() + HOLD_SECONDS
        self.drop()
        self.why = why if self.refuses else f"the ssh connection to {self.spec['title']} is lost: {why}"
        if self.was_up:
            if not self.told:  # once, for nobody reads it before the end
                self.told = True
                self.say(LOST, self.why)
            self.again_at = time.monotonic() + self.pause
            self.pause = min(self.pause * 2, LONGEST_PAUSE_SECONDS)
        elif not self.given_up:
            self.given_up = self.refuses = True
            self.say(kind, why)

    def drop(self) -> None:
        """End ssh, and with it every connection."""
        self.up, self.until = False, math.inf
        if self.ssh:
            self.ssh.end()
        self.ssh = None
        while self.ready:
            self.ready.pop().close()

    def say(self, failed: str, why: str = "") -> None:
        """Tell the launcher how the first try has ended, and that what had come up was lost."""
        with suppress(OSError):
            self.line.send(json.dumps({"failed": failed, "why": why}).encode() + b"\n")

    def look_at_clients(self, ready: set[int]) -> None:
        """Take what new clients say, and give them what they want."""
        if self.listener.fileno() in ready:
            with suppress(OSError):
                client, _ = self.listener.accept()
                client.setblocking(False)
                self.waiting[client] = (b"", math.inf)
        gone = [each for each in self.ready if each.fileno() in ready]
        for each in gone:
            self.ready.remove(each)
            each.close()
        for client in list(self.waiting):
            try:
                self.look_at(client, ready)
            except OSError:
                self.waiting.pop(client, None)
                client.close()

    def look_at(self, client: socket.socket, ready: set[int]) -> None:
        said, until = self.waiting[client]
        if client.fileno() in ready:
            got = client.recv(CHUNK)
            if not got:
                raise ConnectionError
            said += got
            until = min(until, time.monotonic() + HOLD_SECONDS, self.held_until)
            self.waiting[client] = (said, until)
        if self.up and said.startswith(_PING) and _END in said:
            client.send(self.pong.encode("latin-1"))
            said = said[said.index(_END) + len(_END) :]
            self.waiting[client] = (said, math.inf)
        if not said or (_PING.startswith(said[: len(_PING)]) and _END not in said):
            return
        if self.up:
            try:
                engine = self.take()
            except OSError as problem:  # ssh has just gone
                self.failed(str(problem))
                return
            del self.waiting[client]
            self.pairs.append(Pair(client, engine, said))
            self.fill()
        elif self.refuses or time.monotonic() >= until:
            client.send(self.refusal())
            raise ConnectionError

    def refusal(self) -> bytes:
        """Return an answer as an engine's, whose words docker shows."""
        body = json.dumps({"message": self.why or f"no ssh connection to {self.spec['title']} yet"}).encode()
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def close(self) -> None:
        """Leave nothing: neither ssh, nor the folder, nor what a connection of the user's may forward for us."""
        self.drop()
        for pair in self.pairs:
            pair.close()
        for each in (*self.waiting, self.listener):
            each.close()
        self.cancel()
        with suppress(OSError):
            os.unlink(os.path.join(self.spec["folder"], NEAR))
        with suppress(OSError):
            os.rmdir(self.spec["folder"])

    def cancel(self) -> None:
        """Remove the socket that ssh listens on, and have a connection of the user's forward it no more."""
        with suppress(OSError):
            os.unlink(self.near)
        no = subprocess.DEVNULL
        with suppress(OSError):
            words = ["-O", "cancel", *self.words[:-1]]
            run.spawn(self.spec["ssh"], words, stdin=no, stdout=no, stderr=no, cwd="/", new_session=True)


def main(said: str, *numbers: str) -> None:
    """Serve as the launcher says.

    Args:
        said: see ``Tunnel``.
        numbers: descriptors of the listener, the line, and ssh's stdin, stdout and stderr; then ssh's id.
    """
    listener, line, *pipes, pid = map(int, numbers)
    process.forbid_cores()
    wait.signals_install()  # and heeds none: ignored ones ssh would ignore too
    Tunnel(json.loads(said), socket.socket(fileno=listener), socket.socket(fileno=line), Ssh(pid, pipes)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
