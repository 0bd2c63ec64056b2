"""A launcher on the real engine."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pytest

from fixtures import scenery as scenery_program
from fixtures.scenery import Scenery
from tests.checkout import clone
from tests.sidecar import SIDECAR

from . import inventory

ROOT = Path(__file__).resolve().parents[2]
PROJECT = f"cb-scenery-test-{os.getpid()}"
PROMPT = "The magic word is zebra."
TOKEN = "sk-ant-oat01-not-a-real-token-7Yq2"
GIT_HOST = "cb-git-host:latest"
SHELL_IMAGE = f"cb-shell-{os.getpid()}"
CLIENTS_IMAGE = f"{SHELL_IMAGE}-clients"
SHELL_BASE = f"{SHELL_IMAGE}-base"  # every start of every checkout moves the usual tag
CLIENTS = "cb-clients:latest"
BENCH_SIDECAR = "cb-bench-sidecar:latest"  # of scripts/reliability
TRUSTING_BOTTLE = "cb-trusting-bottle:latest"
AMID_SCENERY: dict[str, str] = {}  # a launcher's environment there, once its images are built
SHELL_CLIENT = "#!/bin/sh\nexec /bin/sh\n"
AGENT = f"tester-{os.getpid()}"  # other runs of these tests may share the engine
BEGAN = time.time() - 1
ALL_IT_SAID = 20_000  # characters


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def resize(child: pexpect.spawn) -> None:
    """Give a shell's terminal another size; return when the shell has that."""
    child.setwinsize(33, 77)
    child.sendline("until stty size | grep '33 77'; do sleep 0.1; done")
    child.expect_exact("33 77\r\n")


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "the condition did not come"
        time.sleep(0.05)


class Desk:
    """A user's folder, home and environment, and ways to run the launcher there.

    Args:
        folder: an empty folder.
        agent: the name of the one agent in the manifest, which is its slug too.
    """

    def __init__(self, folder: Path, agent: str = AGENT) -> None:
        self.agent = agent
        self.cwd, self.home, self.tmp = (folder / name for name in ("project", "home", "tmp"))
        for each in (self.cwd, self.home, self.tmp):
            each.mkdir(parents=True)
        self.said = folder / "said"  # by a launcher whose stderr nobody reads meanwhile
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CLAUDE_BOTTLE_")},
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PWD": str(self.cwd),
            "CLAUDE_BOTTLE_PIPELOCK_IMAGE": SIDECAR,
            "CLAUDE_BOTTLE_OAUTH_TOKEN": TOKEN,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        self.launcher = ROOT / "cli.sh"
        self.children: list[pexpect.spawn] = []
        self.manifest({})

    def manifest(self, bottle: dict[str, object], agent: dict[str, object] | None = None) -> None:
        agents = {self.agent: {"bottle": "box", "prompt": "Say hello.", **(agent or {})}}
        self.write(json.dumps({"bottles": {"box": bottle}, "agents": agents}))

    def write(self, text: str) -> None:
        (self.home / "claude-bottle.json").write_text(text)

    def run(
        self, *words: str, stdin: str = "", before: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher to its end, without a terminal; ``before`` stands before it on the command line."""
        return subprocess.run(
            [*before, self.launcher, *words],
            cwd=self.cwd,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
        )

    def terminal(self, *words: str) -> pexpect.spawn:
        child = pexpect.spawn(
            str(self.launcher),
            list(words),
            cwd=str(self.cwd),
            env=self.env,
            encoding="utf-8",
            timeout=120,
            dimensions=(40, 120),
        )
        child.str_last_chars = ALL_IT_SAID  # in a failure
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            child.close(force=True)


NewDesk = Callable[[str], Desk]


def leftovers(desk: Desk) -> list[str]:
    """Return what there still is of the desk's agent."""
    own = re.compile(rf"claude-bottle-(?:(?:pipelock|broker|net|egress)-)?{re.escape(desk.agent)}(?:-\d+)?")
    names = (
        docker("ps", "-a", "--format", "{{.Names}}").split() + docker("network", "ls", "--format", "{{.Name}}").split()
    )
    images = docker("images", "-q", "--filter", f"label=claude-bottle.slug={desk.agent}").split()
    stages = [str(path) for path in desk.tmp.glob("claude-bottle-stage*")]
    return [name for name in names if own.fullmatch(name)] + images + stages


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield from desk_of(tmp_path / "desk", AGENT)


def desk_of(folder: Path, agent: str) -> Iterator[Desk]:
    """Yield a desk; at its end nothing of its agent's may be left."""
    made = Desk(folder, agent)
    yield made
    cleared([made])


def cleared(desks: Sequence[Desk]) -> None:
    """End what desks have started; nothing of their agents' may be left."""
    for each in desks:
        each.close()
    until(lambda: not any(map(leftovers, desks)), 30)


@pytest.fixture
def another_desk(tmp_path: Path) -> Iterator[NewDesk]:
    """A way to more desks, by their agent's name; all are cleared at the end, whatever a test came to."""
    made: list[Desk] = []

    def desk_for(agent: str) -> Desk:
        made.append(Desk(tmp_path / f"another-{len(made)}", agent))
        return made[-1]

    yield desk_for
    cleared(made)


def container(role: str, agent: str = AGENT) -> str:
    """Return the id of the only running container of a role, or an empty text."""
    labels = (f"label=claude-bottle.role={role}", f"label=claude-bottle.slug={agent}")
    return docker("ps", "-q", *(word for label in labels for word in ("--filter", label)))


def client_runs(agent: str = AGENT) -> bool:
    box = container("agent", agent)
    return bool(box) and scenery_program.client_runs(box)


def since(child: pexpect.spawn) -> str:
    """Return what a launcher has printed since the last words that were waited for."""
    child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=1)
    return str(child.before)


def end(child: pexpect.spawn) -> None:
    """End a launcher with TERM, and wait for it."""
    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.wait()


def host_addresses() -> list[str]:
    """Return every IPv4 address of this machine, those of docker's bridges among them."""
    words = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    return [word for word in words if ":" not in word]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listener on every address of this machine."""
    with socket.create_server(("0.0.0.0", 0)) as made:
        made.setblocking(False)
        yield made


def heard(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def engine_places() -> list[str]:
    """Return the folders of this machine in which the engine that is asked keeps anything, in memory too."""
    data = docker("info", "--format", "{{.DockerRootDir}}")
    root = Path(data).parent / "root"  # scripts/engine gives a later engine one of its own
    if not root.is_dir():
        return [data, "/run/docker", "/run/containerd", "/run/claude-bottle-engine", "/tmp/runc-process*"]
    state = Path("/run", root.parent.name)
    return [data, str(root / "tmp"), str(state), f"/proc/{(state / 'dockerd.pid').read_text().strip()}/root/run"]


def found_on_engine(*values: str) -> list[str]:
    """Return the files of the engine that hold one of some texts in clear, and have changed since these tests began.

    When a file has changed is told by the time that no program can set.
    """
    folders = [path for place in engine_places() for path in glob.glob(place)]
    changed = ["find", *folders, "-type", "f", "-newerct", f"@{BEGAN}"]
    grep = ["grep", "-laF", *(word for value in values for word in ("-e", value)), "{}", "+"]
    return subprocess.run([*changed, "-exec", *grep], capture_output=True, text=True).stdout.splitlines()


def build_images() -> None:
    """Build the images that stay: the bottle's, the tests' own, and those that trust the scenery's authority."""
    scenery_program.build_image()
    images = ROOT / "fixtures" / "images"
    docker("build", "-q", "-t", "claude-bottle:latest", str(ROOT))
    docker("build", "-q", "-t", GIT_HOST, str(images / "git"))
    docker("build", "-q", "-t", CLIENTS, str(images / "clients"))
    docker("build", "-q", "-t", BENCH_SIDECAR, str(ROOT / "tests" / "bench" / "sidecar"))
    scenery_program.trusting(CLIENTS, TRUSTING_BOTTLE)
    AMID_SCENERY.update(scenery_program.amid(SIDECAR))


@pytest.fixture(scope="session", autouse=True)
def sharing() -> Iterator[inventory.Sharing]:
    """An engine with compose, and whether it is this run's alone; at the end nothing is there that was not before.

    The images that stay are built first.
    """
    scenery_program.ensure_engine()
    shared = inventory.Sharing(docker("info", "--format", "{{.ID}}"))
    build_images()
    before = inventory.everything()
    yield shared
    left = inventory.new(before, inventory.everything(), shared.alone())
    shared.close()
    assert left == [], "\n".join(left)


@pytest.fixture(autouse=True)
def nothing_stays(sharing: inventory.Sharing) -> Iterator[None]:
    """No test leaves a container, a network or a volume behind."""
    before = inventory.things()
    yield
    left: list[str] = []

    def settled() -> bool:
        left[:] = inventory.new(before, inventory.things(), sharing.alone())
        return not left

    with contextlib.suppress(AssertionError):  # what remains is named instead
        until(settled, 30)
    assert left == [], "\n".join(left)


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(scenery_program.COMPOSE_FILE)


@pytest.fixture(scope="session")
def docker_compose_project_name(sharing: inventory.Sharing) -> str:
    os.environ[scenery_program.SUBNET_VARIABLE] = scenery_program.free_subnet()
    return PROJECT


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Begin with what a killed run of the same name may have left."""
    return ["down -v", "up --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down -v --timeout 1"]


@pytest.fixture(scope="session")
def stopped_in_order(docker_compose_project_name: str) -> Iterator[None]:
    """A test run that is ended with TERM still takes its scenery down, even if compose was doing so and got it too."""
    with scenery_program.sigterm_raises():
        yield
        scenery_program.compose_down(docker_compose_project_name)


@pytest.fixture(scope="session")
def running_scenery(stopped_in_order: None, docker_services: object) -> Iterator[Scenery]:
    scenery_program.await_ready(PROJECT)
    with Scenery(PROJECT, [AGENT]).watching() as running:
        yield running


@pytest.fixture
def scenery(running_scenery: Scenery) -> Scenery:
    """The scenery, with nothing recorded yet."""
    running_scenery.forget()
    return running_scenery


@pytest.fixture
def scene(desk: Desk, scenery: Scenery) -> Desk:
    """A desk whose one agent trusts the fake API."""
    scenery.write_skill(desk.home)
    desk.env.update(AMID_SCENERY)
    desk.write(json.dumps(scenery.manifest(AGENT, PROMPT)))
    return desk


@pytest.fixture
def session(scene: Desk) -> Iterator[pexpect.spawn]:
    """A session on a terminal, up to the client's start."""
    child = scene.terminal("start", AGENT)
    child.expect_exact("launch this agent? [y/N] ")
    child.sendline("y")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    until(client_runs)
    yield child


def checkout(folder: Path, tag: str, lines: str = "USER node\n", base: str = "") -> Path:
    """Return a launcher whose image has a shell in the client's place.

    Args:
        folder: where to; it must not exist.
        tag: of the image.
        lines: of the Dockerfile, run as root.
        base: of the image; empty for the bottle's own.
    """
    if not base:
        docker("build", "-q", "-t", SHELL_BASE, str(ROOT))
    clone(folder)
    (folder / ".venv-run").symlink_to(ROOT / ".venv-run")
    client = " ".join(map(shlex.quote, SHELL_CLIENT.splitlines()))
    (folder / "Dockerfile").write_text(
        f"FROM {base or SHELL_BASE}\nUSER root\nRUN cd /usr/local/bin && rm claude &&"
        f" printf '%s\\n' {client} >claude && chmod 755 claude &&"
        " mkdir -p /home/node/.claude/skills/review && chown node /home/node/.claude/skills/review\n" + lines
    )
    docker("build", "-q", "-t", tag, str(folder))
    return folder / "cli.sh"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield checkout(tmp_path_factory.mktemp("checkout") / "clone", SHELL_IMAGE)
    docker("rmi", "-f", SHELL_IMAGE, SHELL_BASE)


@pytest.fixture(scope="session")
def clients(sharing: inventory.Sharing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A launcher of bottles with what people use in one, amid the scenery, and a shell in the client's place."""
    yield checkout(tmp_path_factory.mktemp("clients") / "clone", CLIENTS_IMAGE, base=TRUSTING_BOTTLE)
    docker("rmi", "-f", CLIENTS_IMAGE)


def client_desk(folder: Path, launcher: Path, agent: str = AGENT) -> Desk:
    """Return a desk of such a launcher.

    Args:
        folder: an empty one.
        launcher: see ``clients``.
        agent: whom the scenery looks after.
    """
    made = Desk(folder, agent)
    made.launcher = launcher
    made.env.update(AMID_SCENERY, CLAUDE_BOTTLE_IMAGE=CLIENTS_IMAGE)
    return made


@pytest.fixture
def shell(desk: Desk, launcher: Path) -> Desk:
    """A desk whose client is a shell that reads what it does from its stdin."""
    desk.launcher = launcher
    desk.env["CLAUDE_BOTTLE_IMAGE"] = SHELL_IMAGE
    return desk
