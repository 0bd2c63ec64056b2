"""The bottles that run, and the one that somebody means by an agent's name or by a container's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.problems import nearest
from claude_bottle.lib.slug import agent_slug
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, Item


def running(engine: Engine) -> list[Item]:
    """Return the agents' containers that run, whoever's; the shell's own are not among them.

    Raises:
        BottleError: the engine gave no answer.
    """
    return [item for item in inventory.ours(engine, CONTAINER) if item.role == AGENT]


def is_mine(item: Item) -> bool:
    """Say whether a bottle was started by this user on this machine: several may share an engine."""
    place = item.owner.place
    return (place.user, place.host) == (str(os.getuid()), os.uname().nodename)


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


def the_one(engine: Engine, word: str) -> Item:
    """Return the running bottle that a word means: by its container's name anybody's, by its agent's this user's.

    Args:
        engine: to ask.
        word: the user's.

    Raises:
        BottleError: there is none, or there are several; which there are is said.
    """
    there = running(engine)
    found = [item for item in there if item.name == word] or _of_agent(there, word)
    if len(found) == 1:
        return found[0]
    if found:
        shown = [f"{item.name} ({item.status})" for item in found]
        raise BottleError(f"{len(found)} bottles of '{word}' run: name the container", shown)
    names = [item.name for item in there]
    running_now = [f"there run: {', '.join(names)}"] if names else []
    raise BottleError(f"no bottle of '{word}' runs", [*nearest(word, names), *running_now])


def _of_agent(there: Sequence[Item], word: str) -> list[Item]:
    slug = agent_slug(word)
    return [item for item in there if item.slug == slug and is_mine(item)]
