"""``list``: the agents there are, and the bottles that run (shell: list_agents, list_active).

Each imports what it alone needs: the agents are there before docker's modules would be.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from claude_bottle.lib import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from claude_bottle.lib.commands.active import Active
    from claude_bottle.lib.engine import Engine

NONE_ACTIVE = "no active containers"


def list_agents(cwd: str, home: str) -> int:
    """Print each agent and its bottle, in manifest order (shell: list_agents).

    Raises:
        BottleError: a manifest is at fault.
    """
    from claude_bottle.lib.manifest import manifest_load

    agents = manifest_load(cwd, home).agents
    if not agents:
        log.log_info("no agents defined")
    log.data(*((agent.name, agent.bottle or "(none)") for agent in agents.values()))
    return 0


def list_active(as_data: bool = False, everybodys: bool = False, place: bool = False) -> int:
    """Print each running bottle with its image and status, sorted by name (shell: list_active).

    What a launch that is provably dead has left is marked as stale. A terminal gets a table of all that there are.

    Args:
        as_data: print all that is known as JSON.
        everybodys: those of other users and machines too.
        place: the bottles whose machines a Swarm has chosen, with these.

    Raises:
        BottleError: docker gave no answer, or there is no Swarm to be asked for those.
    """
    from claude_bottle.lib.engine import docker_require

    engine = docker_require(os.environ)
    if place:
        return _list_placed(engine, as_data, everybodys)
    if as_data or os.isatty(log.STDOUT):
        return _list_closely(engine, as_data, everybodys)
    from claude_bottle.lib.commands import bottles
    from claude_bottle.lib.teardown import inventory
    from claude_bottle.lib.teardown.owner import dead_launches

    there = [item for item in inventory.ours(engine, inventory.CONTAINER) if item.is_agents]
    active = bottles.shown(there, everybodys)
    bottles.say_others(len(there) - len(active))
    if not active:
        log.log_info(NONE_ACTIVE)
    dead = dead_launches(item.owner for item in active)
    status = {item.identity: f"{item.status}{' (stale)' * (item.owner.launch in dead)}" for item in active}
    log.data(*((item.name, item.image or item.shown_image, status[item.identity]) for item in active))
    return 0


def _list_closely(engine: Engine, as_data: bool, everybodys: bool) -> int:
    from claude_bottle.lib.commands import active, bottles
    from claude_bottle.lib.host.calls import perform
    from claude_bottle.lib.teardown.inventory import LookFailed, tell

    try:
        there = perform(active.find(engine))
    except LookFailed as failure:
        tell(failure)
        raise
    mine = bottles.shown((one.item for one in there if one.item), everybodys)
    found = perform(active.measured(engine, [one for one in there if one.item is None or one.item in mine]))
    bottles.say_others(len(there) - len(found))
    _print_closely(found, as_data)
    return 0


def _list_placed(engine: Engine, as_data: bool, everybodys: bool) -> int:
    from claude_bottle.lib.commands import active, bottles
    from claude_bottle.lib.far.nodes import require_manager
    from claude_bottle.lib.far.seat import seats
    from claude_bottle.lib.host.calls import perform

    require_manager(engine)
    there = perform(seats(engine))
    mine = bottles.shown(there, everybodys)
    bottles.say_others(len(there) - len(mine))
    found = perform(active.find_placed(engine, mine))
    if as_data or os.isatty(log.STDOUT):
        _print_closely(found, as_data)
    elif found:
        images = [one.item.image or one.item.shown_image if one.item else "" for one in found]
        status = [one.item.status if one.item else one.state for one in found]
        log.data(
            *((one.container or one.agent, *rest, one.node) for one, *rest in zip(found, images, status, strict=True))
        )
    else:
        log.log_info(NONE_ACTIVE)
    return 0


def _print_closely(found: Sequence[Active], as_data: bool) -> None:
    from claude_bottle.lib.commands.table import table

    if as_data:
        log.data(*((line,) for line in json.dumps([one.data() for one in found], indent=2).split("\n")))
    elif found:
        log.data(*((line,) for line in table(found)))
    else:
        log.log_info(NONE_ACTIVE)
