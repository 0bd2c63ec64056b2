"""``bring``: brings the work of a bottle home while it runs, or what could not come at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.home import bring, record
from claude_bottle.lib.home.record import RAW, Record
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.slug import agent_slug
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, Item
from claude_bottle.lib.teardown.journal import new_launch
from claude_bottle.lib.teardown.owner import owner_here


class Place(NamedTuple):
    """Where work is: how it is called, its record, and the container, empty ids for what was kept in a file."""

    name: str
    record: Record
    container: str
    is_kept: bool


def bring_home(agent: str) -> int:
    """Bring home the work of every bottle of an agent; what runs goes on.

    Args:
        agent: its name, or that of a container.

    Returns:
        1 if some of it could not come.

    Raises:
        BottleError: docker gave no answer, or there is no such bottle.
        LinkLost: some of it could not come, and the connection to the engine has broken.
    """
    engine = docker_require(os.environ)
    bottles = _bottles(engine, agent_slug(agent))
    places = list(_places(bottles, agent_slug(agent)))
    if not places:
        hint = "a bottle that was started with --cwd, by this user on this machine"
        others = [
            f"'{item.name}' was started under another HOME: run this under that;"
            f" {bring.take_out(item.identity, item.workspace)}"
            for item in bottles
            if item.may_have_work
        ]
        raise BottleError(f"no bottle of '{agent}' has work to bring home", [f"looked for: {hint}", *others])
    if all([_bring(engine, place) for place in places]):
        return 0
    engine.require_link()
    return 1


def _bottles(engine: Engine, slug: str) -> list[Item]:
    there = inventory.ours(engine, CONTAINER, "-a")
    return [item for item in there if item.role == AGENT and slug in (item.slug, item.name)]


def _places(bottles: Sequence[Item], slug: str) -> Iterator[Place]:
    for item in bottles:
        found = record.read(item.owner.launch)
        if found:
            yield Place(item.name, found, item.identity, item.is_kept)
    for found in record.records():
        if found.kept == RAW and slug == found.slug:
            yield Place(f"{record.place(found.launch)}/{RAW}", found, "", True)


def _bring(engine: Engine, place: Place) -> bool:
    """Bring home what is in one place, and say what came of it; what was only kept for that is removed then."""
    owner, patience = owner_here(new_launch(), os.getpid()), bring.Patience(bring.PATIENT_SECONDS)
    try:
        brought = perform(bring.bring(engine, place.record, place.container, owner, patience))
    except (BottleError, OSError) as problem:
        why = problem.message if isinstance(problem, BottleError) else reason(problem)
        log.log_warn(f"the work in {place.name} did not come home: {why}")
        return False
    if brought.said or not brought.refused:
        log.log_info(brought.said or f"nothing new in {place.name}")
    if brought.refused:
        log.log_warn(f"some of the work in {place.name} did not come home: {brought.refused}")
        return False
    if not place.is_kept:
        return True
    left = perform(inventory.remove(engine, CONTAINER, [place.container])).failure if place.container else ""
    if left:
        log.log_warn(f"could not remove container '{place.name}': {left}", lines=True)
        return False
    record.remove(place.record.launch)
    return True
