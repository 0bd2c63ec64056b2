"""An ssh server on the loopback, with throw-away keys, and what a user has who goes there: this machine, from afar."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

NAME = "far"
HOST = f"ssh://{NAME}"
SSHD_PLACES = ":/usr/sbin:/usr/local/sbin"
SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
SetEnv {environment}
"""
CLIENT = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking yes
"""


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


class Far:
    """The server, until it is closed.

    Args:
        folder: an empty one.
        options: lines of its configuration, which count before the usual ones.
        docker_host: what docker goes by there; empty for what it does here.
    """

    def __init__(self, folder: Path, *options: str, docker_host: str = "") -> None:
        folder.mkdir(parents=True)
        self.folder, self.port, self.log = folder, free_port(), folder / "log"
        for name in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        there = {name: os.environ[name] for name in ("PATH", "DOCKER_CONFIG", "DOCKER_HOST") if name in os.environ}
        there |= {"DOCKER_HOST": docker_host} if docker_host else {}
        environment = " ".join(f'"{name}={value}"' for name, value in there.items())
        said = SERVER.format(port=self.port, folder=folder, environment=environment)
        (folder / "sshd_config").write_text("".join(f"{line}\n" for line in options) + said)
        self.trust((folder / "host.pub").read_text())
        self.go_by(self.port)
        ssh = folder / "bin" / "ssh"
        ssh.parent.mkdir()
        # Ssh takes its configuration from the user's entry in the system's list, whatever HOME says.
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        ssh.chmod(0o755)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # it separates its privileges there
        sshd = shutil.which("sshd", path=os.environ["PATH"] + SSHD_PLACES)
        assert sshd, "sshd is missing; the tests need it"
        with self.log.open("wb") as log:
            self.server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)

    def trust(self, key: str) -> None:
        """Have the user know a host key as the server's."""
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}")

    def go_by(self, port: int) -> None:
        """Have the user go there by another port."""
        said = CLIENT.format(name=NAME, port=port, user=getpass.getuser(), folder=self.folder)
        (self.folder / "ssh_config").write_text(f"{said}  HostKeyAlias [127.0.0.1]:{self.port}\n")

    def env(self, path: str) -> dict[str, str]:
        """Return what a launcher needs to go there.

        Args:
            path: the other PATH.
        """
        return {"PATH": f"{self.folder / 'bin'}:{path}", "DOCKER_HOST": HOST}

    def up(self) -> bool:
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey")

    def connections(self) -> list[int]:
        """Return the processes that serve connections."""
        pid = self.server.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def cut(self) -> None:
        """End every connection, as a broken line does."""
        for pid in self.connections():
            subprocess.run(["pkill", "-KILL", "-P", str(pid)])
            with suppress(ProcessLookupError):  # it was about to end
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.cut()
        self.server.terminate()
        self.server.wait()
