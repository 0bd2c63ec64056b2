"""``cleanup``: removes every bottle there is, running or not (shell: cmd_cleanup)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from claude_bottle.lib import log
from claude_bottle.lib.commands import bottles
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.far.seat import seats
from claude_bottle.lib.home import bring
from claude_bottle.lib.host import terminal
from claude_bottle.lib.host.calls import Work, one, perform
from claude_bottle.lib.teardown import elsewhere, inventory, presence, sweep
from claude_bottle.lib.teardown.elsewhere import Elsewhere
from claude_bottle.lib.teardown.inventory import (
    CONTAINER,
    NETWORK,
    TOOLS_LABEL,
    TOOLS_REPOSITORY,
    Item,
    LookFailed,
)
from claude_bottle.lib.teardown.journal import new_launch
from claude_bottle.lib.teardown.owner import dead_launches, owner_here

NO_NAME = "<none>"


def cleanup(everybodys: bool = False) -> int:
    """List containers and networks of ours, ask, and remove them by id (shell: cmd_cleanup).

    Args:
        everybodys: those of other users and machines too.

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    there = [inventory.ours(engine, CONTAINER, "-a"), inventory.ours(engine, NETWORK), perform(seats(engine))]
    containers, networks, taken = (bottles.shown(items, everybodys) for items in there)
    bottles.say_others(sum(map(len, there)) - len(containers) - len(networks) - len(taken))
    placed = perform(elsewhere.find(engine, taken))
    containers, networks = (_unplaced(items, placed) for items in (containers, networks))
    if not _agreed([*_marked(engine, [*containers, *networks]), *_titles(placed)], yes=False):
        return 0
    stays = _clean(engine, containers, networks) if containers or networks else False
    for each in placed:
        stays = _clean_placed(engine, each) or stays
    return int(stays)


def _clean(engine: Engine, containers: list[Item], networks: list[Item]) -> bool:
    """Remove what there is on one engine; say whether some work could not come home."""
    home = _come_home(engine, containers)
    gone = [item for item in containers if item.identity not in home.stay]
    _remove(engine, "docker rm", gone)
    bring.after_removal(gone, ())
    _remove(engine, "docker network rm", networks)
    log.log_info(f"removed {len(gone)} containers and {len(networks)} networks")
    return bool(home.warnings)


def _unplaced(items: Iterable[Item], placed: Iterable[Elsewhere]) -> list[Item]:
    """Return what no seat leads to: a manager is a node too, and what is on it would be there twice."""
    on_nodes = {item.identity for each in placed for item in each.items}
    return [item for item in items if item.identity not in on_nodes]


def _titles(placed: Iterable[Elsewhere]) -> Iterator[str]:
    for each in placed:
        yield from (f"{item.kind} {item.name} on node {each.node}" for item in each.items)
        yield f"{each.seat.kind} {each.seat.name}{f' ({each.problem}: it stays)' if each.problem else ''}"


def _clean_placed(manager: Engine, each: Elsewhere) -> bool:
    """Remove what a launch has on a node, then its seat; say whether something stays."""
    if each.problem:
        log.log_warn(f"could not remove {each.seat.kind} '{each.seat.name}': {each.problem}")
        return True
    boxes, nets = ([item for item in each.items if item.kind == kind] for kind in (CONTAINER, NETWORK))
    stays = bool(each.engine and each.items and _clean(each.engine, boxes, nets))
    _remove(manager, "docker service rm", [each.seat])
    return stays


def cleanup_stale(yes: bool) -> int:
    """List what launches that are provably dead have left, ask, and remove it.

    Args:
        yes: do not ask.

    Returns:
        1 if something could not be removed, or work not come home.

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    presence.forget()
    try:
        items = perform(sweep.find_stale(engine, os.environ.get("TMPDIR", "")))
    except LookFailed as failure:
        inventory.tell(failure)
        raise
    placed = perform(elsewhere.find_stale(engine))
    items = _unplaced(items, placed)
    if not _agreed([*(f"{item.kind} {item.name}" for item in items), *_titles(placed)], yes):
        return 0
    here = not items or perform(sweep.remove(engine, items))
    return int(not (perform(elsewhere.remove(engine, placed)) and here))


def _agreed(things: Iterable[str], yes: bool) -> bool:
    """List what there is to remove, and ask; False where there is nothing.

    Raises:
        BottleError: there is no terminal to ask on.
        Declined: the user said no.
    """
    listed = list(things)
    if not listed:
        log.log_info("nothing to clean up")
        return False
    for thing in listed:
        log.line(f"  {thing}")
    if not yes:
        terminal.confirm("remove all of the above?")
    return True


def _marked(engine: Engine, items: Sequence[Item]) -> Iterator[str]:
    dead = dead_launches(item.owner for item in items) | sweep.lapsed(engine, items)
    for item in items:
        mark = " (kept for its work)" if item.is_kept else " (stale)" * (item.owner.launch in dead)
        yield f"{item.kind} {item.name}{mark}"


def _come_home(engine: Engine, containers: list[Item]) -> bring.Outcome:
    """Bring home the work that is in containers; return what came of it."""
    owner = owner_here(new_launch(), os.getpid())
    outcome = perform(bring.before_removal(engine, containers, owner, bring.PATIENT_SECONDS))
    outcome.tell()
    return outcome


def cleanup_images(yes: bool) -> int:
    """List the images that manifests' Dockerfiles have made and no container has, ask, and remove them.

    Args:
        yes: do not ask.

    Returns:
        0.

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    unused = perform(_unused(engine))
    if not _agreed((f"image {image.name} ({image.size})" for image in unused), yes):
        return 0
    answer = perform(one(engine.call(["image", "rm", *(image.name for image in unused)])))
    if not answer.ok:  # one that a container has got meanwhile, for example
        raise DockerError(f"docker image rm failed: {answer.failure}")
    log.log_info(f"removed {len({image.identity for image in unused})} images")
    return 0


class _Image(NamedTuple):
    """An image under one of its names, which is its id where it has none."""

    identity: str
    name: str
    size: str


def _unused(engine: Engine) -> Work[list[_Image]]:
    """Find the images of Dockerfiles that no container has; one that the user has given a name stays."""
    form = "{{.ID}}\t{{.Repository}}\t{{.Tag}}\t{{.Size}}"
    filters = ["--filter", f"label={TOOLS_LABEL}", "--no-trunc"]
    listed = yield engine.question(["image", "ls", *filters, "--format", form])
    held = yield engine.question(["ps", "-aq", "--no-trunc"])
    for answer in (listed, held):
        if not answer.ok:
            raise DockerError(f"docker {answer.failure}")
    boxes, used = held.text.split(), set[str]()
    if boxes:
        there = yield engine.question(
            [CONTAINER, "inspect", "--format", "{{.Image}}", *boxes]
        )  # one may be gone by now
        used = set(there.text.split())
    return [image for image in _images(listed.text) if image.identity not in used]


def _images(text: str) -> Iterator[_Image]:
    for line in text.splitlines():
        identity, repository, tag, size = line.split("\t")
        if repository == TOOLS_REPOSITORY:
            yield _Image(identity, f"{repository}:{tag}", size)
        elif repository == NO_NAME:
            yield _Image(identity, identity, size)


def _remove(engine: Engine, what: str, items: list[Item]) -> None:
    """Remove things by id, because a name may be somebody else's by the time of the answer."""
    if items:
        removal = perform(inventory.remove(engine, items[0].kind, [item.identity for item in items]))
        if removal.left:
            raise DockerError(f"{what} failed: {removal.failure}")
