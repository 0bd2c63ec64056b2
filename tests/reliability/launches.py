"""Launches of a stub agent on the real engine, each with folders of its own, and what there still is of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench import sides
from tests.bench.launch import GONE, SESSION, Launch, look_at
from tests.checkout import clone
from tests.conftest import ROOT
from tests.engine.conftest import Desk, docker, leftovers, until
from tests.projects import git, repository
from tests.sweep import impatient
from tests.traces import MARK, processes

RUN = f"reliability-{os.getpid()}"  # in every name on the engine: others may use it too
IMAGE = f"cb-{RUN}:latest"
SHIM = Path(__file__).with_name("shim.py")
# Short enough for many runs, long enough for a busy machine.
BOUNDS = {"query": 5.0, "change": 8.0, "silent": 8.0, "teardown": 25.0, "late": 4.0, "healthy": 15.0, "patience": 40.0}
END_SECONDS = 180.0


class Place:
    """A checkout whose agent is a stub, to launch from.

    Args:
        folder: an empty folder.
        broker: an image for it that is there; without one each launch builds it.
        dockerfile: of the agent's image.
    """

    def __init__(self, folder: Path, broker: str = "", dockerfile: str = sides.DOCKERFILE) -> None:
        self.folder = folder
        self.broker = broker
        folder.mkdir(exist_ok=True)
        self.checkout = clone(folder / "checkout")
        if (ROOT / ".venv-run").is_dir():
            (self.checkout / ".venv-run").symlink_to((ROOT / ".venv-run").resolve())
        (self.checkout / "Dockerfile").write_text(dockerfile)
        self.made = 0

    def launch(
        self,
        fault: dict[str, str] | None = None,
        *,
        patient: bool = True,
        tmp: Path | None = None,
        env: Mapping[str, str] | None = None,
        work: bool = False,
    ) -> One:
        """Begin a start.

        Args:
            fault: for the shim; without one the real client runs.
            patient: have the launcher's own limits, else short ones.
            tmp: the folder for temporary files, if not one of its own.
            env: what of its environment is another.
            work: give it a project.
        """
        self.made += 1
        return One(self, self.made, fault, patient, tmp, env or {}, work)

    def processes(self) -> list[str]:
        """Return what runs of any launch."""
        return processes(RUN)

    def words(self, patient: bool) -> list[str | Path]:
        return [self.checkout / "cli.sh"] if patient else [*impatient(**BOUNDS)[:-1], str(self.checkout)]


class One:
    """One start, on a terminal of its own.

    Args:
        place: to launch from.
        number: of the launch.
        fault: for the shim.
        patient: with the launcher's own limits.
        tmp: the folder for temporary files, if not one of its own.
        env: what of its environment is another.
        work: give it a project.
    """

    def __init__(
        self,
        place: Place,
        number: int,
        fault: dict[str, str] | None,
        patient: bool,
        tmp: Path | None,
        env: Mapping[str, str],
        work: bool,
    ) -> None:
        self.folder = place.folder / f"launch-{number}"
        self.desk = Desk(self.folder, f"{RUN}-{number}")
        self.mark = f"{RUN}-{number}-"  # no other one begins so
        self.desk.manifest({"egress": {"inspect": {"api.anthropic.com": False}}})  # the stub opens no TLS
        self.shim = self.folder / "bin"
        self.env = {**self.desk.env, MARK: self.mark, "CLAUDE_BOTTLE_IMAGE": IMAGE, **env}
        if place.broker:
            self.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = place.broker
        if tmp:
            self.env["TMPDIR"] = str(tmp)
        if fault is not None:
            lay_shim(self.shim, fault)
            self.env["PATH"] = f"{self.shim}:{self.env['PATH']}"
        words: list[str | Path] = [*place.words(patient), "start"]
        if work:
            self.desk.cwd.rmdir()
            repository(self.desk.cwd)
            words.append("--cwd")
        self.terminal = Launch([*words, self.desk.agent], self.desk.cwd, self.env)

    def run(self, seconds: float = END_SECONDS) -> int | None:
        """See the launcher to its end, ending its session as soon as that is up; return its status."""
        self.to(SESSION, seconds)
        if self.terminal.child.returncode is None:
            self.end_session()
        self.to(GONE, seconds)
        return self.status

    def to(self, point: str, seconds: float = END_SECONDS) -> bool:
        """Wait until the launcher has come to a point, or to its end; return whether it came there."""
        end = time.monotonic() + seconds
        while not {point, GONE} & set(self.terminal.came) and time.monotonic() < end:
            look_at([self.terminal])
        return point in self.terminal.came

    def looked_at(self) -> bool:
        """Take in what has come on the screen, and answer a question."""
        look_at([self.terminal])
        return True

    def end_session(self) -> None:
        self.terminal.type("\n")

    @property
    def status(self) -> int | None:
        return self.terminal.child.returncode

    def left(self) -> list[str]:
        """Return what there is of it: on the engine, in the temporary folder, processes, routes."""
        return [*leftovers(self.desk), *self.files(), *processes(self.mark), *self.routes()]

    def files(self) -> list[str]:
        return [path.name for path in self.desk.tmp.iterdir() if not path.name.startswith("claude-bottle-stage")]

    def routes(self) -> list[str]:
        """Return the routes of this machine to its networks; the shim has seen their addresses."""
        asked = [json.loads(path.read_text()) for path in (self.shim / "calls").glob("network create*")]
        wanted = {words[words.index("--subnet") + 1] for words in asked}
        if not wanted:
            return []
        routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
        return [line for line in routes.splitlines() if line.split()[0] in wanted]

    def came_home(self) -> list[str]:
        """Return the files of each branch that has come home, one text for each."""
        found = git(self.desk.cwd, "for-each-ref", "--format=%(refname)", "refs/heads/claude-bottle").split()
        return [git(self.desk.cwd, "ls-tree", "-r", "--name-only", each) for each in found]

    def clean_within(self, seconds: float) -> list[str]:
        """Return what is still there after some time at most."""
        try:
            until(lambda: not self.left(), seconds)
        except AssertionError:
            return self.left()
        return []

    def calls(self) -> list[str]:
        """Return the names of its docker calls, in the order in which they began."""
        every = (self.shim / "calls").iterdir()
        return [path.name for path in sorted(every, key=lambda path: path.stat().st_mtime_ns)]

    def words_said(self) -> str:
        return self.terminal.last_words()

    def terminal_is_back(self) -> bool:
        return self.terminal.settings() == self.terminal.before

    def close(self) -> None:
        """Close the terminal, and remove what this one has left, whoever should have."""
        self.terminal.close()
        remove(self.desk.agent)
        shutil.rmtree(self.folder, ignore_errors=True)


def lay_shim(folder: Path, fault: dict[str, str]) -> None:
    """Put the shim before the client, with a fault; an empty one means that it only notes the calls."""
    folder.mkdir()
    client = shutil.which("docker")
    (folder / "settings.json").write_text(json.dumps({"client": client, "fault": fault or None}))
    (folder / "docker").write_text(f"#!{sys.executable} -IS\n{SHIM.read_text()}")
    (folder / "docker").chmod(0o755)


def remove(slug: str) -> None:
    """Remove what is labelled with a slug of ours."""
    of = ("--filter", f"label=claude-bottle.slug={slug}")
    for look, away in ((("ps", "-aq"), ("rm", "-f", "-v")), (("network", "ls", "-q"), ("network", "rm"))):
        if names := docker(*look, *of).split():
            docker(*away, *names, check=False)


@contextmanager
def place(folder: Path, broker: str = "", dockerfile: str = sides.DOCKERFILE) -> Iterator[Place]:
    """Yield a place whose image is built; the image goes afterwards, and so do launches that are left.

    Args:
        folder: an empty folder, or none yet.
        broker: see ``Place``.
        dockerfile: likewise.
    """
    for number in (signal.SIGINT, signal.SIGHUP):  # what runs in the background may ignore them, and its children too
        signal.signal(number, signal.default_int_handler)
    made = Place(folder.resolve(), broker, dockerfile)
    try:
        first = made.launch()
        try:
            assert first.run() == 0, first.words_said()
        finally:
            first.close()
        yield made
    finally:
        docker("rmi", "-f", IMAGE, check=False)
