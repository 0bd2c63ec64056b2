"""Bottles on the nodes of a real Swarm: two engines of our own, each in a network of its own (``scripts/swarm``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER
from claude_bottle.lib.far.seat import IMAGE as SEAT_IMAGE

from fixtures.scenery import IMAGE as SCENERY
from fixtures.scenery import TRUSTING_BROKER
from tests.sidecar import SIDECAR
from tests.test_project import git, write

from .conftest import AGENT, ROOT, TOKEN, Desk, checkout, docker, until
from .far import NAME, Far
from .office import BEARER, MESSAGES, MODEL, words

pytestmark = pytest.mark.slow

BASE = "claude-bottle:latest"
TAG = f"cb-placed-{os.getpid()}"
NODES = ("cb-node-1", "cb-node-2")
PROGRAM = str(ROOT / "scripts" / "swarm")


class Swarm:
    """The two engines, and a launcher whose client is a shell.

    Args:
        sockets: of the engines, the manager's first.
        launcher: the program.
    """

    def __init__(self, sockets: list[str], launcher: Path) -> None:
        self.hosts = dict(zip(NODES, (f"unix://{socket}" for socket in sockets), strict=True))
        self.launcher = launcher

    def docker(self, node: str, *words: str) -> str:
        return docker("-H", self.hosts[node], *words)

    def fill(self, image: str, nodes: tuple[str, ...] = NODES) -> None:
        """Put an image of the usual engine on both, or on some."""
        wanted = docker("image", "inspect", "--format", "{{.Id}}", image)
        for node in nodes:
            if wanted not in self.docker(node, "images", "-q", "--no-trunc", image):
                with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
                    load = ["docker", "-H", self.hosts[node], "load", "-q"]
                    subprocess.run(load, stdin=saved.stdout, check=True, timeout=280)

    def boxes(self, node: str) -> list[str]:
        """Return what there is of ours on a node: containers, the seats' among them, and networks."""
        containers = self.docker(node, "ps", "-a", "--format", "{{.Names}}").split()
        return containers + self.docker(node, "network", "ls", "-q", "--filter", "label=claude-bottle.owner").split()

    def seats(self) -> list[str]:
        return self.docker(NODES[0], "service", "ls", "--format", "{{.Name}}").split()

    def left(self) -> list[str]:
        return [*self.seats(), *(thing for node in NODES for thing in self.boxes(node))]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    version = docker("version", "--format", "{{.Server.Version}}").partition(".")[0]
    launcher = checkout(tmp_path_factory.mktemp("checkout") / "clone", TAG, base=BASE)
    sockets = subprocess.run([PROGRAM, "--version", version], capture_output=True, text=True, check=True, timeout=120)
    try:
        made = Swarm(sockets.stdout.split(), launcher)
        made.fill(BASE)
        made.fill(SIDECAR)
        made.fill(TRUSTING_BROKER, NODES[1:])
        made.fill(SCENERY, NODES[1:])
        yield made
    finally:
        subprocess.run([PROGRAM, "stop"], check=True, timeout=120)
        docker("rmi", "-f", TAG)


@pytest.fixture
def placed(swarm: Swarm, desk: Desk) -> Iterator[Desk]:
    """A desk that works with the manager's engine; at its end nothing of its may be on either."""
    desk.launcher = swarm.launcher
    desk.env = {name: value for name, value in desk.env.items() if not name.startswith(("DOCKER_", "BUILDX_"))}
    desk.env |= {"DOCKER_CONFIG": str(desk.home / ".docker"), "DOCKER_CONTEXT": NODES[0]}
    del desk.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]  # so that there is no broker, which would have to be built
    desk.env |= {"CLAUDE_BOTTLE_IMAGE": TAG, "CLAUDE_BOTTLE_BROKER_IMAGE": "none:latest"}
    if "DOCKER_CONFIG" in os.environ:  # the client's plugins
        (desk.home / ".docker").mkdir()
        (desk.home / ".docker" / "cli-plugins").symlink_to(Path(os.environ["DOCKER_CONFIG"], "cli-plugins"))
    for node, host in swarm.hosts.items():
        create = ["docker", "context", "create", node, "--docker", f"host={host}"]
        bare = {name: value for name, value in desk.env.items() if name != "DOCKER_CONTEXT"}
        subprocess.run(create, env=bare, check=True, capture_output=True)
    on(desk)
    done = desk.run("build", "--place")
    assert done.returncode == 0, done.stderr
    yield desk
    until(lambda: swarm.left() == [], 60)


def on(desk: Desk, node: str = "", **limits: object) -> None:
    """Let the desk's bottle be placed, on one of the nodes if one is named."""
    place = {"placement": [f"node.hostname=={node}"]} if node else {}
    desk.manifest({"place": True, "limits": {"memory": "512m", **limits}, **place})


class Session:
    """A start whose client reads what it does from a pipe, up to its first answer."""

    def __init__(self, desk: Desk, *options: str) -> None:
        pipe = subprocess.PIPE
        words = [desk.launcher, "start", "-y", *options, desk.agent]
        with desk.said.open("ab") as said:
            self.child = subprocess.Popen(
                words, cwd=desk.cwd, env=desk.env, stdin=pipe, stdout=pipe, stderr=said, start_new_session=True
            )
        assert self.child.stdin and self.child.stdout
        self.stdin, self.stdout = self.child.stdin, self.child.stdout
        assert self.ask("echo there") == "there", desk.said.read_text()

    def ask(self, command: str) -> str:
        self.stdin.write(f"{command}\n".encode())
        self.stdin.flush()
        return self.stdout.readline().decode().strip()

    def end(self) -> int:
        self.stdin.close()
        self.stdout.close()
        return self.child.wait(timeout=120)


def launch(swarm: Swarm) -> dict[str, str]:
    """Return the labels of the one seat."""
    form = '{{range $name, $value := .Spec.Labels}}{{$name}}={{$value}}{{"\\n"}}{{end}}'
    lines = swarm.docker(NODES[0], "service", "inspect", "--format", form, *swarm.seats()).splitlines()
    return dict(line.removeprefix("claude-bottle.").partition("=")[::2] for line in lines)


def test_the_swarm_spreads_bottles_each_is_whole_on_its_node_and_nothing_is_left(swarm: Swarm, placed: Desk) -> None:
    first = Session(placed)
    second = Session(placed)
    for node in NODES:
        names = " ".join(swarm.boxes(node))
        assert f"claude-bottle-{AGENT}" in names and f"claude-bottle-pipelock-{AGENT}" in names, names
        assert "claude-bottle-seat-" in names
    rows = [line.split("\t") for line in placed.run("list", "active", "--place").stdout.splitlines()]
    assert sorted(row[-1] for row in rows) == list(NODES) and all("Up" in row[2] for row in rows), rows
    assert (first.end(), second.end()) == (0, 0), placed.said.read_text()
    assert swarm.seats() == []
    until(lambda: swarm.left() == [], 30)


def test_a_refusal_leaves_nothing_and_neither_does_a_node_without_the_image(swarm: Swarm, placed: Desk) -> None:
    on(placed, memory="900g")
    done = placed.run("start", "-y", AGENT)
    refusal = "the Swarm has no place: no suitable node (insufficient resources on 2 nodes)"
    assert (done.returncode, swarm.left()) == (1, []) and refusal in done.stderr, done.stderr
    assert "hint: asked for: 902.00g of memory" in done.stderr
    on(placed, NODES[1])
    swarm.docker(NODES[1], "rmi", SEAT_IMAGE)
    done = placed.run("start", "-y", AGENT)
    assert done.returncode == 1 and swarm.seats() == [], done.stderr
    assert f"node '{NODES[1]}' lacks the image that the seat needs: {SEAT_IMAGE}" in done.stderr


def test_a_killed_launchers_reaper_and_else_the_next_command_remove_it_on_both(swarm: Swarm, placed: Desk) -> None:
    on(placed, NODES[1])
    session = Session(placed)
    session.child.send_signal(signal.SIGKILL)
    session.end()
    until(lambda: swarm.left() == [], 60)
    session = Session(placed)
    who = launch(swarm)
    for pid in (who["reaper"], who["launcher"]):
        os.kill(int(pid.split()[0]), signal.SIGKILL)
    session.end()
    done = placed.run("cleanup", "--stale", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"container claude-bottle-{AGENT} on node {NODES[1]}\n" in done.stderr
    until(lambda: swarm.left() == [], 30)


class Api:
    """The scenery's API on the second node, in a network that no bottle is in.

    Args:
        swarm: that the node is of.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.swarm, self.name = swarm, f"cb-placed-api-{os.getpid()}"
        self.seen_by: list[str] = []
        self._docker("network", "create", "--subnet", "198.18.91.0/24", self.name)
        begin = ["run", "-d", "--name", self.name, "--network", self.name, "--network-alias", MODEL]
        self._docker(*begin, "--init", "--tmpfs", "/run", SCENERY, "api")
        self._docker("exec", self.name, "sh", "-c", "until [ -e /run/ready ]; do sleep 0.1; done")

    def _docker(self, *words: str) -> str:
        return self.swarm.docker(NODES[1], *words)

    def is_seen_by(self, box: str) -> None:
        """Let a container reach it."""
        self._docker("network", "connect", self.name, box)
        self.seen_by.append(box)

    def requests(self) -> list[dict[str, Any]]:
        said = map(json.loads, self._docker("exec", self.name, "cat", "/run/records.jsonl").splitlines())
        return [each for each in said if each["kind"] == "request"]

    def close(self) -> None:
        self._docker("rm", "-f", "-v", self.name)
        for box in self.seen_by:  # which a test that has failed leaves there
            docker("-H", self.swarm.hosts[NODES[1]], "network", "disconnect", "-f", self.name, box, check=False)
        self._docker("network", "rm", self.name)


@pytest.fixture
def api(swarm: Swarm, placed: Desk) -> Iterator[Api]:
    made = Api(swarm)
    yield made
    made.close()


LINE = r"%{http_code} %{http_connect}\n"


def test_a_placed_bottle_has_its_broker_its_agents_name_leads_there_and_its_work_comes_home(
    swarm: Swarm, placed: Desk, api: Api
) -> None:
    placed.env |= {"CLAUDE_BOTTLE_OAUTH_TOKEN": TOKEN, "CLAUDE_BOTTLE_BROKER_IMAGE": TRUSTING_BROKER}
    git(placed.cwd, "init", "-q")
    write(placed.cwd, file="from here\n")
    git(placed.cwd, "add", ".")
    git(placed.cwd, "commit", "-qm", "first")
    on(placed, NODES[1])
    session = Session(placed, "--cwd")
    assert f"claude-bottle-broker-{AGENT}" in swarm.boxes(NODES[1])
    api.is_seen_by(f"claude-bottle-pipelock-{AGENT}")
    asked = words(MESSAGES, BEARER, body="{}", form=LINE)
    until(lambda: session.ask(asked) == "200 200", 30)  # the broker asks again where there was no such name before
    assert [each["headers"]["authorization"] for each in api.requests()] == [f"Bearer {TOKEN}"]
    assert TOKEN_PLACEHOLDER not in json.dumps(api.requests())
    assert session.ask(words("https://denied.test/", form=LINE)) == "000 403"
    assert placed.run("exec", AGENT, "cat", "file").stdout == "from here\n"
    denied = placed.run("logs", "--denied", AGENT)
    assert denied.stdout.startswith("denied: denied.test"), denied.stderr
    assert session.ask("echo first >>file; echo done") == "done"
    brought = placed.run("bring", AGENT)
    assert brought.returncode == 0 and f"work came home: claude-bottle/{AGENT}-1/work" in brought.stderr
    assert session.ask("echo second >>file; echo done") == "done"
    stopped = placed.run("stop", AGENT)
    assert (stopped.returncode, session.end()) == (0, 128 + signal.SIGTERM), placed.said.read_text()
    assert git(placed.cwd, "show", f"claude-bottle/{AGENT}-2/work:file") == "from here\nfirst\nsecond\n"
    assert swarm.seats() == []


@pytest.fixture
def afar(swarm: Swarm, placed: Desk, tmp_path: Path) -> Iterator[Far]:
    """An ssh server at the second node's address, which no context leads to any more."""
    far = Far(tmp_path / "far", docker_host=swarm.hosts[NODES[1]])
    config = far.folder / "ssh_config"
    config.write_text(config.read_text().replace(f"Host {NAME}", "Host 192.0.2.2"))
    placed.env["PATH"] = f"{far.folder / 'bin'}:{placed.env['PATH']}"
    subprocess.run(["docker", "context", "rm", NODES[1]], env=placed.env, check=True, capture_output=True)
    until(far.up)
    yield far
    far.close()


def test_a_node_without_a_context_is_reached_by_one_ssh_connection(swarm: Swarm, placed: Desk, afar: Far) -> None:
    on(placed, NODES[1])
    session = Session(placed)
    assert f"claude-bottle-{AGENT}" in swarm.boxes(NODES[1])
    assert afar.logins() <= 2  # it may be asked first where its socket is
    assert session.end() == 0 and swarm.seats() == [], placed.said.read_text()
    session = Session(placed)
    session.child.send_signal(signal.SIGKILL)
    session.end()
    until(lambda: swarm.left() == [], 60)


def test_a_node_that_goes_down_under_a_bottle_ends_it_and_what_it_had_goes_when_it_is_back(
    swarm: Swarm, placed: Desk
) -> None:
    on(placed, NODES[1])
    session = Session(placed)
    subprocess.run([PROGRAM, "stop", "2"], check=True, timeout=120)
    assert session.end() != 0
    assert len(swarm.seats()) == 1 and "could not remove" in placed.said.read_text()
    subprocess.run([PROGRAM, "start", "2"], check=True, timeout=120)
    until(lambda: swarm.left() == [], 120)  # the background has gone on
