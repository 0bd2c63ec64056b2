"""``bring``: brings the work of a bottle home while it runs, or what could not come at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from claude_bottle.lib import log
from claude_bottle.lib.commands.bottles import is_container_of
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.far import nodes
from claude_bottle.lib.home import bring, record
from claude_bottle.lib.home.record import RAW, Record
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.slug import agent_slug
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, Item
from claude_bottle.lib.teardown.journal import new_launch
from claude_bottle.lib.teardown.owner import owner_here


class Place(NamedTuple):
    """Where work is: how it is called, its record, the engine, and the container; no id for what was kept in a file."""

    name: str
    record: Record
    engine: Engine
    container: str
    is_kept: bool


def bring_home(agent: str) -> int:
    """Bring home the work of every bottle of an agent, on the nodes of a Swarm too; what runs goes on.

    Args:
        agent: its name, or that of a container.

    Returns:
        1 if some of it could not come.

    Raises:
        BottleError: docker gave no answer, or there is no such bottle.
        LinkLost: some of it could not come, and the connection to the engine has broken.
    """
    engine = docker_require(os.environ)
    engines, all_there = _engines(engine, agent)
    bottles = [(each, item) for each in engines for item in _bottles(each, agent)]
    places = [*_places(bottles), *_in_files(engine, agent_slug(agent))]
    if not places and all_there:
        hint = "a bottle that was started with --cwd, by this user on this machine"
        others = [
            f"'{item.name}' was started under another HOME: run this under that;"
            f" {bring.take_out(item.identity, item.workspace)}"
            for _, item in bottles
            if item.may_have_work
        ]
        raise BottleError(f"no bottle of '{agent}' has work to bring home", [f"looked for: {hint}", *others])
    if all([_bring(place) for place in places]):
        return int(not all_there)
    for each in engines:
        each.require_link()
    return 1


def _engines(engine: Engine, agent: str) -> tuple[list[Engine], bool]:
    """Return the engines where there may be work of an agent, and whether that is all of them.

    They are the one that was asked, and those of the nodes that records tell of; one that is away is a warning.
    """
    found, all_there = [engine], True
    identities = sorted({each.node for each in record.records() if _is_of(each, agent)} - {"", engine.facts.node})
    if not identities or not engine.facts.manages:
        return found, True
    for node in perform(nodes.nodes(engine, identities)).values():
        try:
            found.append(nodes.node_reached(engine, node, os.environ))
        except BottleError as problem:
            log.log_warn(f"no work comes home from node {node.name}: {problem.message}")
            all_there = False
    return found, all_there


def _is_of(found: Record, word: str) -> bool:
    """Say whether a word may mean a bottle that a record is of."""
    return agent_slug(word) == found.slug or is_container_of(word, found.slug) or word == found.kept


def _bottles(engine: Engine, word: str) -> list[Item]:
    there = inventory.ours(engine, CONTAINER, "-a")
    slug, path = agent_slug(word), word.removeprefix(f"{engine.facts.name}/")
    return [item for item in there if item.role == AGENT and (item.slug == slug or item.name in (slug, path))]


def _places(bottles: Iterable[tuple[Engine, Item]]) -> Iterator[Place]:
    for engine, item in bottles:
        found = record.read(item.owner.launch)
        if found:
            yield Place(item.name, found, engine, item.identity, item.is_kept)


def _in_files(engine: Engine, slug: str) -> Iterator[Place]:
    for found in record.records():
        if found.kept == RAW and slug == found.slug:
            yield Place(f"{record.place(found.launch)}/{RAW}", found, engine, "", True)


def _bring(place: Place) -> bool:
    """Bring home what is in one place, and say what came of it; what was only kept for that is removed then."""
    owner, patience = owner_here(new_launch(), os.getpid()), bring.Patience(bring.PATIENT_SECONDS)
    try:
        brought = perform(bring.bring(place.engine, place.record, place.container, owner, patience))
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
    left = perform(inventory.remove(place.engine, CONTAINER, [place.container])).failure if place.container else ""
    if left:
        log.log_warn(f"could not remove container '{place.name}': {left}", lines=True)
        return False
    record.remove(place.record.launch)
    return True
