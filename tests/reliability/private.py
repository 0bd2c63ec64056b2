"""An engine of the script's own, which it may end: all that it has is the script's, and so is the network it is in."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.engine.conftest import docker, until
from tests.engine.far import free_port
from tests.sidecar import SIDECAR
from tests.tls import CA, CERTIFICATE, KEY, make_keys

LATER = Path("/var/lib/claude-bottle-engine-28/root")  # of scripts/engine
BROKER = "cb-reliability-broker:latest"
IMAGES = ("node:22-slim", SIDECAR, BROKER)
START_SECONDS = 60


class Private:
    """The dockerd that is installed, or in a root of its own where the engine that answers is, with folders of its own.

    Args:
        folder: an empty folder, in one of the script's own.
        tls: have it listen on a port too, to who shows the certificate in ``keys``.
    """

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self.folder, self.keys, self.port = folder, folder / "keys", 0
        if tls:
            self.keys.mkdir()
            make_keys(self.keys)
            self.port = free_port()
        self.rooted = "ENGINE_NETWORK" in os.environ  # as scripts/engine says
        self.host = f"unix://{folder / 'sock'}"
        self.pid_file = folder / "pid"
        self.settings = folder / "settings.json"
        self.settings.write_text("{}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, keeps: bool = False) -> None:
        """Start it, and wait until it answers.

        Args:
            keeps: containers run on without it.
        """
        data, run = self.folder / "data", self.folder / "exec"
        words: list[str | Path] = [*self.program(), "-H", self.host, "--data-root", data, "--exec-root", run]
        words += ["-p", self.pid_file, "--config-file", self.settings, f"--live-restore={str(keeps).lower()}"]
        if self.port:
            words += ["-H", f"tcp://127.0.0.1:{self.port}", "--tlsverify", "--tlscacert", self.keys / CA]
            words += ["--tlscert", self.keys / CERTIFICATE, "--tlskey", self.keys / KEY]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: self.answers() or self.has_ended(), START_SECONDS)
        assert not self.has_ended(), (self.folder / "log").read_text()[-500:]

    def program(self) -> list[str | Path]:
        """Return the words that become it."""
        if not self.rooted:
            return ["dockerd"]
        if not (self.folder / "root").exists():
            (self.folder / "root").symlink_to(LATER)
            (self.folder / "data").mkdir()
        script = f'set -eu; source {ROOT}/scripts/engine; become_dockerd "$@"'
        beside = ["unshare", "--mount", "--propagation", "private"]
        return [*beside, "bash", "-c", script, "dockerd", self.folder, self.folder]

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def answers(self) -> bool:
        return subprocess.run(["docker", "-H", self.host, "info"], capture_output=True).returncode == 0

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it so, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(90)
        for each in (self.folder / "data", self.folder, self.folder.parent) if self.rooted else ():
            with suppress(OSError):  # where it saw what was mounted
                os.rmdir(f"{LATER}{each}")

    def load_images(self, more: Sequence[str] = ()) -> None:
        """Bring what the launches need from the engine that answers; this one has no network to build it in.

        Args:
            more: than every launch needs.
        """
        docker("build", "-q", "-t", BROKER, "-f", str(ROOT / "Dockerfile.broker"), str(ROOT))
        for image in (*IMAGES, *more):
            with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
                subprocess.run(["docker", "-H", self.host, "load", "-q"], stdin=saved.stdout, check=True, stdout=2)

    def processes(self) -> list[int]:
        """Return the engine and its containerd."""
        pids = [int(self.pid_file.read_text())]
        contained = self.folder / "exec" / "containerd" / "containerd.pid"
        return [*pids, int(contained.read_text())]


@contextmanager
def private(folder: Path, images: Sequence[str] = (), tls: bool = False) -> Iterator[Private]:
    """Yield an engine that runs, and is the one that docker's client asks meanwhile.

    Args:
        folder: an empty folder.
        images: see ``Private.load_images``.
        tls: see ``Private``.
    """
    engine = Private(folder, tls)
    before = os.environ.get("DOCKER_HOST")
    try:
        engine.start()
        engine.load_images(images)
        os.environ["DOCKER_HOST"] = engine.host
        yield engine
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if before:
            os.environ["DOCKER_HOST"] = before
        if engine.has_ended():
            engine.start()  # what still runs goes with an engine that ends in order
        engine.end()
