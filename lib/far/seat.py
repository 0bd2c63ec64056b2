"""A seat: the place that a Docker Swarm keeps for one bottle, on the machine that it has chosen.

It is a service of one container that does nothing, and books what agent, sidecar and broker may take together. The
bottle itself is none of Swarm's: the machine's own engine makes it, as everywhere. So nothing of it spans two machines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claude_bottle.lib import docker, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.far import nodes
from claude_bottle.lib.far.nodes import Node
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Work, perform
from claude_bottle.lib.teardown.inventory import PREFIX, SEAT, SERVICE, Item, find, labels
from claude_bottle.lib.teardown.journal import Journal

# Swarm asks a tag's registry before the machine's own images. On the machine itself there is none, and nobody else can
# put there what would be run; the client builds it with the bottle's image, `build --place`.
IMAGE = "localhost/claude-bottle-seat:latest"
COMMAND = ("--entrypoint", "/bin/sleep", IMAGE, "infinity")
CONFINEMENT = ("--cap-drop", "ALL", "--user", "65534:65534", "--read-only", "--limit-memory", "16m", "--no-healthcheck")
SERVICE_OPTIONS = ("-d", "-q", "--no-resolve-image", "--replicas", "1", "--restart-condition", "none")
END = ("--stop-signal", "SIGKILL")  # it is the first process of its container, which heeds no other
SECONDS = 30.0  # for Swarm to choose, and for the seat to run
POLL_SECONDS = 0.1
MOST_SLUG = 30  # characters: a service's name has 63 at most
GIB = 1024**3
_FORM = "{{.Name}}\t{{.Node}}\t{{.CurrentState}}\t{{.Error}}"  # the name is the service's id, a dot and a number
_RUNNING = "running"
_ON_THE_WAY = ("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting")


@dataclass(frozen=True)
class Booking:
    """What a bottle asks of the machine that it is to run on.

    Attributes:
        memory: bytes of its containers together.
        cpus: processors, 0 for any.
        placement: constraints in Swarm's words.
    """

    memory: int
    cpus: float
    placement: tuple[str, ...]

    @property
    def described(self) -> str:
        """What is asked for, in words."""
        cpus = [f"{self.cpus:g} cpus"] if self.cpus else []
        return ", ".join([f"{self.memory / GIB:.2f}g of memory", *cpus, *self.placement])

    @property
    def options(self) -> list[str]:
        """The same as docker has it."""
        cpus = ["--reserve-cpu", f"{self.cpus:.3f}"] if self.cpus else []
        constraints = [word for text in self.placement for word in ("--constraint", text)]
        return ["--reserve-memory", str(self.memory), *cpus, *constraints]


@dataclass(frozen=True)
class Seat:
    """A seat that was taken: its id, who keeps it, its machine, and that one's own engine."""

    identity: str
    manager: Engine
    node: Node
    engine: Engine


@dataclass(frozen=True)
class Task:
    """What Swarm says of a seat: the id of its machine if it has one, how far it is, and what is wrong."""

    node: str
    state: str
    error: str


def take(manager: Engine, journal: Journal, slug: str, booking: Booking, environ: Mapping[str, str]) -> Seat:
    """Have the Swarm choose a machine, and reach its engine; the journal has that from then on.

    Args:
        manager: to ask.
        journal: of the launch.
        slug: of the agent.
        booking: what is asked of the machine.
        environ: the caller's environment.

    Raises:
        BottleError: Swarm refused, or the machine's engine cannot be reached, or lacks the seat's image.
        Interrupted: a signal arrived.
    """
    nodes.require_manager(manager)
    identity = perform(_create(manager, journal, slug, booking))
    node = perform(_chosen(manager, identity, booking))
    log.log_info(f"the Swarm has chosen node {node.name}")
    engine = nodes.node_reached(manager, node, environ)
    journal.moves_to(engine)
    perform(_require_image(engine, node))
    return Seat(identity, manager, node, engine)


def _create(manager: Engine, journal: Journal, slug: str, booking: Booking) -> Work[str]:
    name = f"claude-bottle-seat-{slug[:MOST_SLUG]}-{journal.owner.launch[:8]}"
    words = [*SERVICE_OPTIONS, "--name", name, *labels(journal.owner, slug, SEAT), *booking.options]
    made = yield from docker.create(
        manager, journal, SEAT, name, ["service", "create", *words, *CONFINEMENT, *END, *COMMAND]
    )
    if not made.ok:
        raise DockerError(f"docker service create failed: {made.failure}", [f"asked for: {booking.described}"])
    return made.text.strip()


def _chosen(manager: Engine, identity: str, booking: Booking) -> Work[Node]:
    """Wait until Swarm has chosen."""
    until = time.monotonic() + SECONDS
    while True:
        task = yield from _task(manager, identity)
        there = yield from nodes.nodes(manager, [task.node] if task.node else [])
        if there:
            return there[task.node]
        if task.error or time.monotonic() >= until:
            why = task.error or f"it has not chosen within {SECONDS:.0f} s"
            raise BottleError(f"the Swarm has no place: {why}", [f"asked for: {booking.described}"])
        _wait_a_moment()


def _wait_a_moment() -> None:
    wait.check_signals()
    wait.pause(POLL_SECONDS)


def _task(manager: Engine, identity: str) -> Work[Task]:
    tasks = yield from _tasks(manager, [identity])
    return tasks.get(identity, Task("", "new", ""))


def _tasks(manager: Engine, identities: Sequence[str]) -> Work[dict[str, Task]]:
    """Find what Swarm says of seats, the newest word of each; of those that are gone it says nothing."""
    if not identities:
        return {}
    answer = yield manager.question(["service", "ps", "--no-trunc", "--no-resolve", "--format", _FORM, *identities])
    if not answer.ok and "no such service" not in answer.failure.lower():
        raise DockerError(f"docker service ps failed: {answer.failure}")
    found: dict[str, Task] = {}
    for line in answer.text.split("\n"):
        if line.count("\t") == 3:
            name, node, state, error = line.split("\t")
            task = Task(node, state.partition(" ")[0].lower(), error.strip('"'))
            found.setdefault(name.partition(".")[0], task)
    return found


def _require_image(engine: Engine, node: Node) -> Work[None]:
    answer = yield engine.question(["image", "inspect", "--format", "{{.Id}}", IMAGE])
    if not answer.ok:
        hints = ["./cli.sh build --place builds it on every node", answer.failure]
        raise BottleError(f"node '{node.name}' lacks the image that the seat needs: {IMAGE}", hints)


def require(seat: Seat) -> None:
    """Fail unless a seat is kept: Swarm books nothing for one that does not run.

    Args:
        seat: that has been taken.

    Raises:
        BottleError: it does not run, or not in time.
        Interrupted: a signal arrived.
    """
    until = time.monotonic() + SECONDS
    while (task := perform(_task(seat.manager, seat.identity))).state != _RUNNING:
        if task.state not in _ON_THE_WAY or time.monotonic() >= until:
            raise BottleError(f"the seat on node '{seat.node.name}' is not kept: {task.state} {task.error}".rstrip())
        _wait_a_moment()


@dataclass(frozen=True)
class Seated:
    """A seat that somebody has taken, and its machine, None where it has none."""

    item: Item
    node: Node | None


def seats(manager: Engine, words: Sequence[str] = ()) -> Work[list[Item]]:
    """Find seats.

    Args:
        manager: to ask; one that manages nothing has none.
        words: docker's further options, filters for example.

    Raises:
        DockerError: it gave no answer.
    """
    if not manager.facts.manages:
        return []
    return (yield from find(manager, SERVICE, ["--filter", f"label={PREFIX}owner", *words]))


def seated(manager: Engine, found: Sequence[Item]) -> Work[list[Seated]]:
    """Find the machines of seats.

    Args:
        manager: to ask.
        found: the seats.

    Raises:
        DockerError: it gave no answer.
    """
    tasks = yield from _tasks(manager, [item.identity for item in found])
    there = yield from nodes.nodes(manager, sorted({task.node for task in tasks.values() if task.node}))
    on = {identity: there.get(task.node) for identity, task in tasks.items()}
    return [Seated(item, on.get(item.identity)) for item in found]


def build_everywhere(manager: Engine, tag: str, broker_tag: str) -> int:
    """Build the images of the bottle and of the broker on every node of a Swarm, docker's output untouched.

    Args:
        manager: to ask.
        tag: of the bottle's image, which is the seat's too.
        broker_tag: of the broker's.

    Returns:
        Docker's own status, of the first that failed; 1 where a node could not be asked.

    Raises:
        BottleError: it manages no Swarm, or gave no answer.
        Interrupted: a signal stopped it.
    """
    nodes.require_manager(manager)
    statuses = [_build_on(manager, node, tag, broker_tag) for node in perform(nodes.nodes_all(manager))]
    return next(filter(None, statuses), 0)


def _build_on(manager: Engine, node: Node, tag: str, broker_tag: str) -> int:
    try:
        if node.state != nodes.READY:
            raise BottleError(f"it is {node.state}")
        engine = perform(nodes.node_asked(manager, node))
    except BottleError as problem:
        log.log_warn(f"nothing is built on node {node.name}: {problem.message}")
        return 1
    log.log_info(f"building on node {node.name}")
    return docker.docker_build_plain(engine, tag, broker_tag, [IMAGE])
