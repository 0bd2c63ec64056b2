"""The bottles that run, and the one that somebody means by an agent's name or by a container's.

They are on the engine that a command works with, and where that manages a Swarm on the nodes that it has chosen too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.far import nodes
from claude_bottle.lib.far.seat import Seated, seated, seats
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.problems import nearest
from claude_bottle.lib.slug import agent_slug
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, PREFIX, SHELL_NAMES, Item
from claude_bottle.lib.teardown.owner import login_here


class Found(NamedTuple):
    """A bottle that runs: its agent's container, the engine that it is on, and the name of that one's machine."""

    engine: Engine
    item: Item
    machine: str

    @property
    def path(self) -> str:
        """Its name, where another machine may have the same."""
        return f"{self.machine}/{self.item.name}"


def running(engine: Engine) -> list[Item]:
    """Return the agents' containers that run, whoever's; the shell's own are not among them.

    Raises:
        BottleError: the engine gave no answer.
    """
    return [item for item in inventory.ours(engine, CONTAINER) if item.role == AGENT]


def is_mine(item: Item) -> bool:
    """Say whether a bottle was started by this user on this machine: several may share an engine."""
    place = item.owner.place
    same = (place.user, place.host) == (str(os.getuid()), os.uname().nodename)
    return same and item.owner.login in ("", login_here())


def shown(items: Iterable[Item], everybodys: bool) -> list[Item]:
    """Return those that a list has: this user's of this machine, and what does not say whose it is, or all.

    Args:
        items: what there is.
        everybodys: whether others' are wanted.
    """
    return [item for item in items if everybodys or is_mine(item) or not _says_whose(item)]


def _says_whose(item: Item) -> bool:
    place = item.owner.place
    return bool(place.user and place.host)


def say_others(number: int) -> None:
    """Say that there is more than a list has.

    Args:
        number: how much.
    """
    if number:
        log.log_info(f"{number} more of other users or machines: --all has them too")


def mine(engine: Engine) -> tuple[list[Found], bool]:
    """Return the bottles that run and this user has started from this machine, and whether all nodes could be seen.

    A node that cannot be reached is a warning.

    Args:
        engine: to ask.

    Raises:
        BottleError: it gave no answer.
    """
    found, all_there = [one for one in _here(engine) if is_mine(one.item)], True
    filters = ["--filter", f"label={PREFIX}host={os.uname().nodename}"]
    taken = [seat for seat in perform(seats(engine, filters)) if is_mine(seat)]
    for node, launches in _by_node(engine, perform(seated(engine, taken))).items():
        try:
            found += _on_node(engine, node, launches)
        except BottleError as problem:
            log.log_warn(f"cannot see what is on node {node.name}: {problem.message}")
            all_there = False
    return found, all_there


def the_one(engine: Engine, word: str) -> Found:
    """Return the running bottle that a word means: by its container's name anybody's, by its agent's this user's.

    What the engine itself has by that name comes first; behind a node's name and a slash it is that node's.

    Args:
        engine: to ask.
        word: the user's.

    Raises:
        BottleError: there is none, or there are several, which are said; or the machine of one cannot be reached.
    """
    there = _here(engine)
    found = [one for one in there if one.item.name == word]
    if not found:
        there += _placed(engine, word)
        found = [one for one in there if word in (one.path, one.item.name)] or _of_agent(there, word)
    if len(found) == 1:
        return found[0]
    names = [one.path if one.engine is not engine else one.item.name for one in found or there]
    if found:
        shown = [f"{name} ({one.item.status})" for name, one in zip(names, found, strict=True)]
        raise BottleError(f"{len(found)} bottles of '{word}' run: name the container", shown)
    running_now = [f"there run: {', '.join(names)}"] if names else []
    raise BottleError(f"no bottle of '{word}' runs", [*nearest(word, names), *running_now])


def is_container_of(word: str, slug: str) -> bool:
    """Say whether a word is the name of a container that an agent's bottle may have, of whatever machine.

    Args:
        word: the user's.
        slug: of the agent.
    """
    return bool(re.fullmatch(rf"{SHELL_NAMES}{re.escape(slug)}(-\d+)?", word.rpartition("/")[2]))


def _may_mean(word: str, seat: Item) -> bool:
    """Say whether a word may name the bottle of a seat: its agent, if the seat is this user's, or its container."""
    return (is_mine(seat) and agent_slug(word) == seat.slug) or is_container_of(word, seat.slug)


def _slugs(word: str) -> list[str]:
    """Return the slugs of the agents that a word may mean, or a container of whose it may name."""
    _, is_name, rest = word.rpartition("/")[2].partition(SHELL_NAMES)
    return list(dict.fromkeys([agent_slug(word), *([rest, re.sub(r"-\d+$", "", rest)] if is_name else [])]))


def _here(engine: Engine) -> list[Found]:
    return [Found(engine, item, engine.facts.name) for item in running(engine)]


def _placed(manager: Engine, word: str) -> list[Found]:
    """Find the running bottles that a word may mean on other machines of a Swarm than the manager's own."""
    filters = [["--filter", f"label={PREFIX}slug={slug}"] for slug in _slugs(word)]  # there may be thousands of others
    taken = [seat for words in filters for seat in perform(seats(manager, words)) if _may_mean(word, seat)]
    there = perform(seated(manager, taken))
    machine = word.rpartition("/")[0]
    named = [one for one in there if one.node and one.node.name == machine]
    by_node = _by_node(manager, named or there)
    return [one for node, launches in by_node.items() for one in _on_node(manager, node, launches)]


def _by_node(manager: Engine, there: Iterable[Seated]) -> dict[nodes.Node, list[str]]:
    """Return the launches of seats on other machines than the manager's own."""
    found: dict[nodes.Node, list[str]] = {}
    for one in there:
        if one.node and one.node.identity != manager.facts.node:
            found.setdefault(one.node, []).append(one.item.owner.launch)
    return found


def _on_node(manager: Engine, node: nodes.Node, launches: Collection[str]) -> list[Found]:
    engine = nodes.node_reached(manager, node, os.environ)
    return [Found(engine, item, node.name) for item in running(engine) if item.owner.launch in launches]


def _of_agent(there: Sequence[Found], word: str) -> list[Found]:
    slug = agent_slug(word)
    return [one for one in there if one.item.slug == slug and is_mine(one.item)]
