"""The launcher is told to stop, is killed, or loses its terminal, at nine moments on the real engine."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.traces import MARK, processes

from .conftest import AGENT, ROOT, Desk, client_runs, docker, leftovers, until
from .ways import go

WORKERS = 3
MOMENTS = {  # what is on the screen then
    "question": "launch this agent? [y/N] ",
    "build": "building image",
    "network": "creating network claude-bottle-net",
    "egress": "creating network claude-bottle-egress",
    "sidecar": "starting pipelock",
    "agent": "starting container",
    "copies": "copying prompt",
    "session": "attaching to",
    "teardown": "(Claude Code)",  # what a session prints that ends by itself
}
ENDINGS: dict[str, Callable[[Terminal], None]] = {
    "TERM": lambda terminal: terminal.child.send_signal(signal.SIGTERM),
    "KILL": lambda terminal: terminal.child.send_signal(signal.SIGKILL),
    "INT": lambda terminal: terminal.child.send_signal(signal.SIGINT),
    "HUP": lambda terminal: terminal.child.send_signal(signal.SIGHUP),
    "closed": lambda terminal: terminal.hang_up(),
}
# INT and HUP are heard as TERM is: usually a few moments, of as many kinds of work, do for them.
FEW = ("question", "build", "copies", "session")
REST = tuple(moment for moment in MOMENTS if moment not in FEW)
HERE = [
    *(pytest.param(ending, tuple(MOMENTS), id=ending) for ending in ("TERM", "closed")),
    pytest.param("KILL", tuple(MOMENTS), id="KILL", marks=pytest.mark.smoke),
    *(pytest.param(ending, FEW, id=ending) for ending in ("INT", "HUP")),
    *(pytest.param(ending, REST, id=f"{ending}-rest", marks=pytest.mark.slow) for ending in ("INT", "HUP")),
]
STATUS = {"TERM": 143, "KILL": -9, "INT": 130, "HUP": 129, "closed": 129}


@pytest.fixture(scope="module")
def sibling() -> Iterator[list[str]]:
    """Somebody else's bottle, which nobody here may touch: ids of a container and a network."""
    name = f"{AGENT}-sibling"
    labels = [f"claude-bottle.{key}={value}" for key, value in (("owner", "somebody"), ("slug", name))]
    words = [word for label in labels for word in ("--label", label)]
    network = docker("network", "create", *words, f"claude-bottle-net-{name}")
    made = ("--name", f"claude-bottle-{name}", "--network", network, "node:22-slim", "sleep", "infinity")
    box = docker("run", "-d", *words, *made)
    yield [box, network]
    docker("rm", "-f", "-v", box)
    docker("network", "rm", network)


class Launch:
    """A start on a terminal of its own, brought to a moment.

    Args:
        folder: an empty one.
        moment: of MOMENTS.
        ending: that is to come.
        way: what its environment has of its own, to reach the engine by another way.
    """

    def __init__(self, folder: Path, moment: str, ending: str, way: Mapping[str, str]) -> None:
        self.desk = Desk(folder / moment, f"{AGENT}-{moment}-{ending.lower()}")
        self.mark = uuid.uuid4().hex
        words = ["--", "--version"] if moment == "teardown" else []
        if way:
            go(self.desk, way)
        env = {**self.desk.env, MARK: self.mark}
        self.terminal = Terminal([ROOT / "cli.sh", "start", self.desk.agent, *words], self.desk.cwd, env)
        self.terminal.until(MOMENTS["question"], 120)
        if moment != "question":
            self.terminal.type("y\n")
            self.terminal.until(MOMENTS[moment], 120)
        if moment == "session":
            until(lambda: client_runs(self.desk.agent), 120)
            until(lambda: self.terminal.settings() != self.terminal.before)  # docker's client has made it raw

    def left(self) -> list[str]:
        return leftovers(self.desk) + processes(self.mark)

    def end(self, ending: str) -> str:
        """End it so; return what is not as it should be."""
        ENDINGS[ending](self.terminal)
        status = self.terminal.wait(120)
        if status != STATUS[ending]:
            return f"status {status}: {self.terminal.said}"
        if ending != "KILL" and leftovers(self.desk):
            return f"left {leftovers(self.desk)}: {self.terminal.said}"
        until(lambda: not self.left())
        if ending != "closed":
            until(lambda: self.terminal.settings() == self.terminal.before)
        return ""


def wrong_at_any_moment(
    folder: Path, ending: str, way: Mapping[str, str], moments: Sequence[str] = tuple(MOMENTS)
) -> dict[str, str]:
    """End a launcher so at each moment; return by moment what is not as it should be.

    Args:
        folder: for their own.
        ending: of ENDINGS.
        way: see ``Launch``.
        moments: of MOMENTS.
    """

    def check(moment: str) -> str:
        launch = Launch(folder, moment, ending, way)
        try:
            return launch.end(ending)
        except AssertionError as problem:
            return f"{problem}; left {launch.left()}: {launch.terminal.said}"
        finally:
            launch.terminal.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        return {moment: said for moment, said in zip(moments, pool.map(check, moments), strict=True) if said}


@pytest.mark.parametrize(("ending", "moments"), HERE)
def test_a_launcher_that_ends_at_any_moment_leaves_nothing(
    tmp_path: Path, sibling: list[str], ending: str, moments: tuple[str, ...]
) -> None:
    assert wrong_at_any_moment(tmp_path, ending, {}, moments) == {}
    box, network = sibling
    assert docker("inspect", "-f", "{{.State.Running}}", box) == "true"
    assert docker("network", "inspect", "-f", "{{len .Containers}}", network) == "1"


def other_clients() -> list[str]:
    """Return the docker clients on PATH behind the first, which the launches above had.

    They put a terminal back, or not, each in its own way.
    """
    places = (Path(folder, "docker") for folder in os.environ["PATH"].split(os.pathsep))
    found = dict.fromkeys(str(path.resolve()) for path in places if os.access(path, os.X_OK))
    return list(found)[1:]


@pytest.mark.parametrize("ending", ["TERM", "KILL", "HUP"])
def test_whatever_the_client_the_terminal_is_as_before(desk: Desk, tmp_path: Path, ending: str) -> None:
    path = desk.env["PATH"]
    for number, client in enumerate(other_clients()):
        first = tmp_path / f"first-{number}"
        first.mkdir()
        (first / "docker").symlink_to(client)
        desk.env["PATH"] = f"{first}{os.pathsep}{path}"
        found = shutil.which("docker", path=desk.env["PATH"])
        assert found and Path(found).resolve() == Path(client)
        ended_as_before(desk, ending)


def ended_as_before(desk: Desk, ending: str) -> None:
    """Hold a session's end to what it does to the terminal."""
    terminal = Terminal([ROOT / "cli.sh", "start", "-y", AGENT], desk.cwd, desk.env)
    try:
        until(client_runs, 120)
        until(lambda: terminal.settings() != terminal.before)  # the client has made it raw
        ENDINGS[ending](terminal)
        assert terminal.wait(120) == STATUS[ending], terminal.said
        until(lambda: terminal.settings() == terminal.before)
        until(lambda: not leftovers(desk))
    finally:
        terminal.close()
