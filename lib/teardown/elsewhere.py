"""What launches have left on the machines of a Swarm: their seats, and on the seats' machines the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.far.nodes import READY, node_asked
from claude_bottle.lib.far.seat import Seated, seated, seats
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.teardown import inventory, sweep
from claude_bottle.lib.teardown.inventory import CONTAINER, NETWORK, PREFIX, Item
from claude_bottle.lib.teardown.owner import dead_launches, login_here, place_here


@dataclass(frozen=True)
class Elsewhere:
    """What one launch has on a Swarm.

    Attributes:
        seat: its seat.
        node: name of the machine, empty where Swarm names none: then there is only the seat.
        engine: the machine's, if it could be asked.
        items: what is on it.
        problem: why it could not be asked; the seat has to stay then, since it says where the rest is.
    """

    seat: Item
    node: str = ""
    engine: Engine | None = None
    items: tuple[Item, ...] = ()
    problem: str = ""


def find(manager: Engine, taken: Sequence[Item]) -> Work[list[Elsewhere]]:
    """Find what launches have on a Swarm; of those that no time is left to look for, there is nothing.

    Args:
        manager: to ask.
        taken: their seats.

    Raises:
        DockerError: it gave no answer.
    """
    found = []
    for each in (yield from seated(manager, taken)):
        if time.monotonic() < manager.until:
            found.append((yield from _look(manager, each)))
    return found


def find_stale(manager: Engine) -> Work[list[Elsewhere]]:
    """Find what launches of this user have left on a Swarm that are dead, or over as ``sweep.lapsed`` has it.

    Args:
        manager: to ask.

    Raises:
        DockerError: it gave no answer.
    """
    here, login = place_here(), login_here()
    mine = f"label={PREFIX}login={login}" if login else f"label={PREFIX}host={here.host}"
    taken = yield from seats(manager, ["--filter", mine])
    dead = dead_launches(item.owner for item in taken)
    unsure = [item for item in taken if item.owner.launch in dead or not here.is_certainly(item.owner.place)]
    found = yield from find(manager, unsure)
    return [each for each in found if each.seat.owner.launch in dead or _is_over(manager, each)]


def _is_over(manager: Engine, each: Elsewhere) -> bool:
    every = [*each.items, each.seat]
    left = sweep.lapsed(each.engine or manager, every)
    if not any(item.has_lapsed for item in each.items):
        left &= sweep.lapsed(manager, [each.seat])  # its age is by another clock than theirs
    return not each.problem and all(sweep.is_stale(item, set(), left) for item in every)


def _look(manager: Engine, one: Seated) -> Work[Elsewhere]:
    seat, node = one.item, one.node
    if not node:
        return Elsewhere(seat)
    if node.state != READY:
        return Elsewhere(seat, node.name, problem=f"its node {node.name} is {node.state}")
    try:
        engine = yield from node_asked(manager, node)
        mine = inventory.of_launch(seat.owner.launch)
        items = yield from inventory.find(engine, CONTAINER, ["-a", *mine])
        items += yield from inventory.find(engine, NETWORK, mine)
    except BottleError as problem:
        return Elsewhere(seat, node.name, problem="; ".join([problem.message, *problem.hints[:1]]))
    return Elsewhere(seat, node.name, engine, tuple(item for item in items if not item.is_kept))


def remove(manager: Engine, left: Iterable[Elsewhere]) -> Work[bool]:
    """Remove what dead launches have left; a seat goes when nothing of its launch is on its machine any more.

    Args:
        manager: that the seats are on.
        left: what was found.

    Returns:
        Work that comes to whether all is gone, and the work in it home.
    """
    all_gone = True
    for each in left:
        problem = each.problem
        if each.engine and each.items and not (yield from sweep.remove(each.engine, list(each.items))):
            problem = f"something of its launch is still on node {each.node}"
        if problem:
            log.log_warn(f"could not remove {each.seat.kind} '{each.seat.name}': {problem}")
        gone = not problem and (yield from sweep.remove(manager, [each.seat]))
        all_gone = all_gone and gone
    return all_gone


def sweep_up(manager: Engine) -> Work[None]:
    """Find and remove what dead launches have left on a Swarm, beside a start that does not depend on it.

    Args:
        manager: to ask.
    """
    if not manager.facts.manages:
        return
    patient = manager.bounded(time.monotonic() + sweep.SILENT_SECONDS, run.on_signal)
    try:
        left = yield from find_stale(patient)
        if left:
            with sweep.alone() as is_alone:
                if is_alone:
                    yield from remove(patient, left)
    except DockerError as problem:
        log.log_warn(f"could not look for what killed launches have left on the Swarm: {problem.message}")
