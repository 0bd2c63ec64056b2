"""What on the engine is ours, told by labels alone, and the one way to remove it.

The list, the cleanup, the teardown and the reaper all read and remove through here, with one idea of "gone": what
docker says it has removed, and what a look-up by id does not find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine, moment
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work, perform
from claude_bottle.lib.teardown.owner import FACTS, Owner, owner_from

PREFIX = "claude-bottle."
CONTAINER = "container"
NETWORK = "network"
SERVICE = "service"
IMAGE_LABEL = f"{PREFIX}image"
WORKSPACE_LABEL = f"{PREFIX}workspace"  # where in a bottle work is that is to come home
TOOLS_LABEL = f"{PREFIX}tools"  # of the images that manifests' Dockerfiles have made
TOOLS_REPOSITORY = "claude-bottle-tools"

PROBE = "probe"  # looks at an image, or from the bottle's network, and ends
AGENT = "agent"
SIDECAR = "sidecar"
BROKER = "broker"
PACKER = "packer"  # opens what is left of a bottle
INTERNAL = "internal"
EGRESS = "egress"
SEAT = "seat"  # books a place for the rest, which may be on another engine
KINDS = {
    PROBE: CONTAINER,
    AGENT: CONTAINER,
    BROKER: CONTAINER,
    SIDECAR: CONTAINER,
    PACKER: CONTAINER,
    INTERNAL: NETWORK,
    EGRESS: NETWORK,
    SEAT: SERVICE,  # last: it says where the rest is
}
ROLES = tuple(KINDS)  # in the order in which they are removed
LAPSED = 75  # the status of a guard that nobody has renewed
KEPT_PREFIX = "claude-bottle-kept."  # of what holds work that is to come home yet; no agent's name has a dot
SHELL_NAMES = "claude-bottle-"  # how the names of the shell's own things begin, which have no labels
SHELL_SIDECARS = f"{SHELL_NAMES}pipelock-"

_LABELS = ("slug", "role", "image", "workspace", *FACTS)
_NAMES = {
    CONTAINER: ("{{.Names}}", "{{.Image}}", "{{.Status}}", "{{.CreatedAt}}"),
    NETWORK: ("{{.Name}}", "", "", "{{.CreatedAt}}"),
}
_LISTS = {CONTAINER: ("ps",), NETWORK: ("network", "ls")}
_REMOVES = {CONTAINER: ("rm", "-f", "-v"), NETWORK: ("network", "rm"), SERVICE: ("service", "rm")}


@dataclass(frozen=True)
class Item:
    """A container, a network or a service on the engine; a label that it does not have is an empty text."""

    kind: str
    identity: str
    name: str
    shown_image: str
    status: str
    created: str
    slug: str
    role: str
    image: str
    workspace: str
    owner: Owner

    @property
    def created_at(self) -> float | None:
        """When the engine has made it, by its own clock, in seconds of the epoch; None where that is not to be told."""
        return moment(self.created)

    @property
    def has_lapsed(self) -> bool:
        """Whether it is a bottle that has ended by itself: nobody was there any more to remove it."""
        return self.role == AGENT and self.status.startswith(f"Exited ({LAPSED}) ")

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self.status.startswith(("Up", "Restarting"))

    @property
    def ours(self) -> bool:
        """Whether it is the launcher's, or has a name like those of the shell's own things."""
        return bool(self.role) or self.name.startswith(SHELL_NAMES)

    @property
    def is_kept(self) -> bool:
        """Whether it holds work that could not come home: only who has asked for it removes it."""
        return self.role == AGENT and self.name.startswith(KEPT_PREFIX)

    @property
    def may_have_work(self) -> bool:
        """Whether it may hold work that is to come home: it says so, and has run."""
        return self.role == AGENT and bool(self.workspace) and not self.status.startswith("Created")

    @property
    def is_agents(self) -> bool:
        """Whether it is an agent's container: its label decides, for an agent may be called pipelock-x."""
        return self.role == AGENT if self.role else not self.name.startswith(SHELL_SIDECARS)


def labels(owner: Owner, slug: str, role: str) -> list[str]:
    """Return the options that say whose a thing is; it has them from its create call on."""
    pairs = {"slug": slug, "role": role, **owner.facts()}
    return [word for name, value in pairs.items() if value for word in ("--label", f"{PREFIX}{name}={value}")]


def owner_label(launch: str) -> str:
    """Return the label of what one launch has made."""
    return f"{PREFIX}owner={launch}"


def of_launch(launch: str) -> tuple[str, str]:
    """Return the filter for what one launch has made."""
    return ("--filter", f"label={owner_label(launch)}")


def look(engine: Engine, kind: str, words: Sequence[str]) -> list[Item]:
    """Return what the engine has of a kind; see ``find``."""
    return perform(find(engine, kind, words))


def find(engine: Engine, kind: str, words: Sequence[str]) -> Work[list[Item]]:
    """Find what the engine has of a kind.

    Args:
        engine: to ask.
        kind: CONTAINER, NETWORK or SERVICE.
        words: docker's further options, filters for example.

    Raises:
        LookFailed: the engine gave no answer.
    """
    if kind == SERVICE:
        return (yield from _services(engine, words))
    columns = ("{{.ID}}", *_NAMES[kind], *(f'{{{{.Label "{PREFIX}{name}"}}}}' for name in _LABELS))
    call = [*_LISTS[kind], *words, "--no-trunc", "--format", "\t".join(columns)]
    answer = yield engine.question(call)
    if not answer.ok:
        raise LookFailed(call[0], answer)
    return _items(kind, answer.text, len(columns))


def _services(engine: Engine, words: Sequence[str]) -> Work[list[Item]]:
    """Find services, of which a list says no label."""
    call = [SERVICE, "ls", "-q", *words]
    listed = yield engine.question(call)
    if not listed.ok:
        raise LookFailed(call[0], listed)
    if not listed.text:
        return []
    own = (f'{{{{index .Spec.Labels "{PREFIX}{name}"}}}}' for name in _LABELS)
    columns = ("{{.ID}}", "{{.Spec.Name}}", "", "", "{{.CreatedAt}}", *own)
    call = [SERVICE, "inspect", "--format", "\t".join(columns), *listed.text.split()]
    answer = yield engine.question(call)
    if not answer.ok and "no such service" not in answer.failure.lower():  # one may be gone by now
        raise LookFailed(call[0], answer)
    return _items(SERVICE, answer.text, len(columns))


def _items(kind: str, text: str, columns: int) -> list[Item]:
    rows = (line.split("\t") for line in text.split("\n") if line)
    found = [_item(kind, row) for row in rows if len(row) == columns]
    return sorted(found, key=lambda item: log.encode(item.name))


def _item(kind: str, row: list[str]) -> Item:
    identity, name, image, status, created, slug, role, tag, workspace, *facts = row
    owner = owner_from(dict(zip(FACTS, facts, strict=True)))
    return Item(kind, identity, name, image, status, created, slug, role, tag, workspace, owner)


class LookFailed(DockerError):
    """The engine did not say what it has.

    Args:
        command: the docker command.
        answer: how the call ended.
    """

    def __init__(self, command: str, answer: run.Result) -> None:
        super().__init__(f"docker {command} failed")
        self.answer = answer


def ours(engine: Engine, kind: str, *words: str) -> list[Item]:
    """Return all of a kind that is ours, the shell's own things among it.

    Raises:
        LookFailed: the engine gave no answer; docker's own words have been printed, as in the shell.
    """
    try:
        return [item for item in look(engine, kind, words) if item.ours]
    except LookFailed as failure:
        tell(failure)
        raise


def tell(failure: LookFailed) -> None:
    """Print docker's own words, as the shell does."""
    for said in failure.answer.failure.split("\n"):
        log.line(said)


@dataclass(frozen=True)
class Removal:
    """What a removal came to.

    Attributes:
        left: ids of what is still there, or may be.
        failure: docker's words.
        timed_out: whether docker gave no answer.
    """

    left: tuple[str, ...] = ()
    failure: str = ""
    timed_out: bool = False


def removed(engine: Engine, kind: str, identities: Sequence[str]) -> Work[list[str]]:
    """Remove things by id, in one call; it comes to those that docker says it has removed.

    Args:
        engine: to ask.
        kind: of all of them.
        identities: their ids.
    """
    _, rest = yield from _ask_to_remove(engine, kind, identities)
    return [identity for identity in identities if identity not in rest]


def _ask_to_remove(engine: Engine, kind: str, identities: Sequence[str]) -> Work[tuple[run.Result, list[str]]]:
    """Remove things by id; it comes to docker's answer, and to the ids that it does not say it has removed."""
    answer = yield engine.call([*_REMOVES[kind], *identities])
    done = answer.text.split()
    return answer, [identity for identity in identities if identity not in done]


def remove(engine: Engine, kind: str, identities: Sequence[str]) -> Work[Removal]:
    """Remove things by id; what is gone already counts as removed (shell: docker_rm, network_remove).

    Args:
        engine: to ask.
        kind: of all of them.
        identities: their ids.
    """
    answer, rest = yield from _ask_to_remove(engine, kind, identities)
    if not rest:
        return Removal()
    filters = [word for identity in rest for word in ("--filter", f"id={identity}")]
    every = ["-a"] if kind == CONTAINER else []
    try:
        there = {item.identity for item in (yield from find(engine, kind, [*every, *filters]))}
    except LookFailed as failure:
        return Removal(tuple(rest), answer.failure or failure.answer.failure, True)
    left = tuple(identity for identity in rest if identity in there)
    silent = f"docker {run.call_name(_REMOVES[kind])} did nothing and gave no reason"
    return Removal(left, answer.failure or silent, answer.timed_out) if left else Removal()


def remove_volumes(engine: Engine, launch: str) -> Work[str]:
    """Remove a launch's volumes that no container has: who removes one by hand leaves its volume.

    Args:
        engine: to ask.
        launch: whose.

    Returns:
        Why one is still there, or an empty text.
    """
    there = yield engine.question(["volume", "ls", "-q", "--filter", "dangling=true", *of_launch(launch)])
    if not there.ok or not there.text:
        return "" if there.ok else there.failure
    answer = yield engine.call(["volume", "rm", *there.text.split()])
    return "" if answer.ok else answer.failure
