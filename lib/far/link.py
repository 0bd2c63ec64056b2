"""The launcher's side of the one ssh connection to an engine that is elsewhere (``host/tunnel`` is the connection)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from claude_bottle.lib.errors import EngineUnfit
from claude_bottle.lib.host import process, relay, run, wait
from claude_bottle.lib.host.ssh_words import ssh_words

PREFIX = "claude-bottle-link."
WORD_SECONDS = relay.OPEN_SECONDS + relay.PROBE_SECONDS
END_SECONDS = 1.0
MOST_SAID = 65536  # bytes of a word of the connection's
PYTHON = ("-I", "-X", "utf8")
MOST_PARENT = 70  # bytes of the folder's parent: macOS takes 104 of a socket's path
_PROGRAM = Path(relay.__file__).resolve().with_name("tunnel.py")
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # of a path: ssh gives other characters a meaning


@dataclass(frozen=True)
class Target:
    """Where ssh goes to: user, host and port, and the path of the engine's socket; empty where nobody says it."""

    user: str
    host: str
    port: str
    path: str

    @property
    def words(self) -> list[str]:
        """How a user goes there."""
        user, port = ["-l", self.user] if self.user else [], ["-p", self.port] if self.port else []
        return ["ssh", *user, *port, self.host]


def link_target(host: str) -> Target | None:
    """Return where an address of docker's leads to, None where it is not over ssh, or docker has to say what is wrong.

    Args:
        host: such as ``ssh://me@big``.
    """
    try:
        url = urlsplit(host)
        port = url.port
    except ValueError:
        return None
    if url.scheme != "ssh" or not url.hostname or url.password or url.query or url.fragment:
        return None
    path = "" if url.path == "/" else url.path
    if path and not _PLAIN.fullmatch(path):
        return None
    netloc = url.netloc.rpartition("@")[2].partition(":")[0]  # as it is spelt: a name of the user's configuration
    spelt = url.hostname if url.netloc.rpartition("@")[2].startswith("[") else netloc
    user = unquote(url.username or "")  # as docker's own way does
    if spelt.startswith("-") or user.startswith("-"):
        return None
    return Target(user, spelt, str(port or ""), path)


class Link:
    """The connection of one command; it lives until its ends are closed, the reaper's too.

    Args:
        target: where to.
        title: how the engine is named in a message.
        ssh: path of the program.
        parent: of the folder that its sockets are in.

    Raises:
        OSError: no folder, socket or process can be had.
    """

    def __init__(self, target: Target, title: str, ssh: str, parent: str) -> None:
        folder = _folder(parent)
        self.target, self.title = target, title
        self.socket = os.path.join(folder, relay.NEAR)
        listener = _listener(self.socket)
        self._line, theirs = socket.socketpair()
        spec = {**asdict(target), "ssh": ssh, "folder": folder, "title": title}
        near, far = os.path.join(folder, relay.FAR), target.path or relay.DEFAULT_SOCKET
        self._ssh, pipes = run.forwarding(ssh, ssh_words(spec, near, far))  # on its way while the process begins
        no, fds = subprocess.DEVNULL, (listener.fileno(), theirs.fileno(), *pipes)
        try:
            self._process = run.spawn(
                sys.executable,
                [*PYTHON, str(_PROGRAM), json.dumps(spec), *map(str, (*fds, self._ssh.pid))],
                stdin=no,
                stdout=no,
                stderr=no,
                new_session=True,  # a Ctrl-C at the terminal is not for it
                cwd="/",
                pass_fds=fds,
            )
        finally:
            for each in (listener, theirs):
                each.close()
            for fd in pipes:
                os.close(fd)
        process.at_end(self.close)

    @property
    def held(self) -> int:
        """The descriptor that keeps it, for a process that is to inherit it."""
        return self._line.fileno()

    def require(self) -> str:
        """Wait until it has come up, or has not; return why it forwards nothing, an empty text where it does.

        Raises:
            EngineUnfit: ssh does not get there.
            Interrupted: a signal arrived.
        """
        said = self._word()
        if said.get("failed") == relay.SSH:
            asked = shlex.join([*self.target.words, "docker", "version"])
            hints = [said.get("why", ""), f"nothing can be asked for in it, no password either; try: {asked}"]
            raise EngineUnfit(f"cannot reach the Docker daemon (ssh to '{self.target.host}' failed)", hints)
        return said.get("why", "")

    def _word(self) -> dict[str, str]:
        until = time.monotonic() + WORD_SECONDS
        while time.monotonic() < until:
            wait.check_signals()
            ready, _ = wait.wait_for([self._line.fileno()], deadline=until)
            said = self._line.recv(MOST_SAID) if ready else b""  # it says one thing, once
            if said:
                found: dict[str, str] = json.loads(said.splitlines()[0])
                return found
            if ready:
                break
        return {"failed": relay.FORWARD, "why": "the process that keeps the connection has ended"}

    def pin(self, identity: str) -> None:
        """Say which engine it leads to: none but that is served from now on.

        Args:
            identity: the id that the engine has given itself.
        """
        with suppress(OSError):
            self._line.sendall(identity.encode())

    def close(self) -> None:
        """Let it end, where nobody else holds it, and give it a moment for that."""
        if self._line.fileno() != -1:
            self._line.close()
            until = time.monotonic() + END_SECONDS
            for each in (self._process, self._ssh):
                run.await_end(each, until)


def link_open(host: str, title: str, environ: Mapping[str, str]) -> Link | None:
    """Begin to connect to an engine, None where that is not over ssh, or nothing of ours can be had for it.

    Args:
        host: docker's address of it.
        title: how the engine is named in a message.
        environ: the caller's environment.
    """
    target, ssh = link_target(host), shutil.which("ssh", path=environ.get("PATH", ""))
    if not target or not ssh:
        return None
    try:
        return Link(target, title, os.path.abspath(ssh), environ.get("TMPDIR") or "/tmp")
    except OSError:
        return None


def _folder(parent: str) -> str:
    """Make the folder of the sockets, mode 700; those of links that were killed go first.

    Args:
        parent: where to, if its path is one that ssh and every system take.

    Raises:
        OSError: it cannot be made.
    """
    if not _PLAIN.fullmatch(parent) or len(parent) > MOST_PARENT or not os.path.isabs(parent):
        parent = "/tmp"
    for old in Path(parent).glob(f"{PREFIX}*"):
        with suppress(OSError):
            near, seen = old / relay.NEAR, old.lstat()
            ours = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid()
            if ours and near.is_socket() and not link_alive(str(near)):
                shutil.rmtree(old)
    return tempfile.mkdtemp(prefix=PREFIX, dir=parent)


def _listener(path: str) -> socket.socket:
    """Return a socket that listens; it has its name only then, so that nobody takes it for one that was left.

    Raises:
        OSError: none can be had.
    """
    made, early = socket.socket(socket.AF_UNIX), f"{path}-"
    try:
        made.bind(early)
        made.listen(128)
        os.rename(early, path)
    except OSError:
        made.close()
        raise
    return made


def link_lost(line: int) -> str:
    """Return why a link that had come up has broken since, an empty text where it has not.

    Args:
        line: its descriptor.
    """
    with socket.socket(fileno=os.dup(line)) as asked:
        try:
            said = asked.recv(MOST_SAID, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except OSError:  # nothing was said
            return ""
    lines = said.splitlines()
    return str(json.loads(lines[0]).get("why")) if lines else "the process that keeps it has ended"


def link_alive(path: str) -> bool:
    """Say whether there is somebody at a link's socket.

    Args:
        path: of the socket.
    """
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(path)
        except OSError:
            return False
    return True
