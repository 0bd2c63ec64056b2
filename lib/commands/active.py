"""The bottles that there are now, whoever's: how far each is, what it takes, and what it was refused.

Everything is asked for at once: one call finds the containers, one measures all of them, and what this user's launches
say of themselves is in the state folder.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.egress.refused import Row, refused_data
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, EngineUnfit
from claude_bottle.lib.far import nodes
from claude_bottle.lib.far.seat import seated
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.teardown import inventory, presence
from claude_bottle.lib.teardown.inventory import CONTAINER, Item
from claude_bottle.lib.teardown.owner import dead_launches
from claude_bottle.lib.teardown.presence import RUNNING, STARTING, Present

STATS_SECONDS = 10.0  # docker looks twice, a second apart
STALE, STOPPED, KEPT, AWAY = "stale", "stopped", "kept", "away"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True)
class Usage:
    """What a bottle takes: hundredths of a processor, and bytes."""

    processor: float
    memory: int


@dataclass(frozen=True)
class Active:
    """One bottle; what is not known of it is None.

    Attributes:
        agent: the agent's name, its slug where only that is known.
        item: the agent's container; None before there is one.
        state: how far it is.
        age: in seconds.
        present: what its launch says of itself, if it is this user's.
        usage: what it takes.
        node: name of the machine that a Swarm has chosen for it, empty where that was not asked for.
    """

    agent: str
    item: Item | None
    state: str
    age: int | None
    present: Present | None
    usage: Usage | None = None
    node: str = ""

    @property
    def container(self) -> str:
        """The name of its container, empty before there is one."""
        return self.item.name if self.item else ""

    @property
    def refused(self) -> Sequence[Row] | None:
        """What its sidecar has refused."""
        return self.present.refused if self.present else None

    @property
    def denied(self) -> int | None:
        """How often its sidecar has refused anything."""
        return None if self.refused is None else sum(count for _, _, count in self.refused)

    def data(self) -> dict[str, Any]:
        """Return it as it is written for programs."""
        return {
            "agent": self.agent,
            "container": self.container or None,
            "id": self.item.identity if self.item else None,
            "image": (self.item.image or self.item.shown_image) if self.item else None,
            "state": self.state,
            "status": self.item.status if self.item else None,
            "age": self.age,
            "processor": self.usage.processor if self.usage else None,
            "memory": self.usage.memory if self.usage else None,
            "denied": None if self.refused is None else refused_data(self.refused),
            "folder": self.present.folder if self.present else None,
            **({"node": self.node} if self.node else {}),
        }


def find(engine: Engine) -> Work[list[Active]]:
    """Find the bottles that there are, in the order of their containers' names; those without one come last.

    Args:
        engine: to ask, with its id.

    Raises:
        LookFailed: the engine gave no answer.
    """
    there = yield from inventory.find(engine, CONTAINER, ["-a"])
    agents = [item for item in there if item.ours and item.is_agents]
    said = presence.present(engine.identity)
    dead = dead_launches(item.owner for item in agents)
    found = [_of_container(item, said.get(item.owner.launch), item.owner.launch in dead) for item in agents]
    early = said.keys() - {item.owner.launch for item in agents}
    coming = presence.alive(said[launch] for launch in sorted(early))
    return found + [Active(one.agent, None, one.state, _since(one.begun), one) for one in coming]


def find_placed(manager: Engine, taken: Sequence[Item]) -> Work[list[Active]]:
    """Find the bottles whose machines a Swarm has chosen, and what they take, sorted by node.

    Args:
        manager: to ask.
        taken: their seats.

    Raises:
        BottleError: it gave no answer.
    """
    by_node: dict[nodes.Node, list[Item]] = {}
    for each in (yield from seated(manager, taken)):
        if each.node:
            by_node.setdefault(each.node, []).append(each.item)
    found: list[Active] = []
    for node in sorted(by_node, key=lambda node: (node.name, node.identity)):
        found += yield from _on_node(manager, node, by_node[node])
    return found


def _on_node(manager: Engine, node: nodes.Node, taken: Sequence[Item]) -> Work[list[Active]]:
    """Find the bottles of some seats; where their machine cannot be asked there is no more than the seats."""
    try:
        if node.state != nodes.READY:
            raise EngineUnfit(f"node {node.name} is {node.state}")
        engine = yield from nodes.node_asked(manager, node)
        there = yield from find(engine)
        launches = {seat.owner.launch for seat in taken}
        mine = [one for one in there if _launch(one) in launches]
        mine = yield from measured(engine, mine)
    except BottleError as problem:
        log.log_warn(f"cannot list what is on node {node.name}: {problem.message}")
        mine = [Active(seat.slug, None, AWAY, _since(seat.created_at), None) for seat in taken]
    return [replace(one, node=node.name) for one in mine]


def _launch(one: Active) -> str:
    owner = one.item.owner if one.item else one.present.owner if one.present else None
    return owner.launch if owner else ""


def measured(engine: Engine, found: Iterable[Active]) -> Work[list[Active]]:
    """Find what bottles take; where docker does not say it in time nothing is known of it.

    Args:
        engine: to ask.
        found: the bottles.
    """
    bottles = list(found)
    running = [one.item.identity for one in bottles if one.item and one.item.status.startswith("Up")]
    if not running:
        return bottles
    form = "{{.ID}}\t{{.CPUPerc}}\t{{.MemUsage}}"
    words = ["stats", "--no-stream", "--no-trunc", "--format", form, *running]
    answer = yield engine.call(words, seconds=STATS_SECONDS, interruptible=True)
    usage = dict(filter(None, map(_usage, answer.text.split("\n"))))
    return [replace(one, usage=usage.get(one.item.identity) if one.item else None) for one in bottles]


def _of_container(item: Item, said: Present | None, dead: bool) -> Active:
    agent = said.agent if said else item.slug or item.name.removeprefix(inventory.SHELL_NAMES)
    return Active(agent, item, _state(item, said, dead), _since(item.created_at), said)


def _state(item: Item, said: Present | None, dead: bool) -> str:
    if item.is_kept:
        return KEPT
    if dead or item.has_lapsed:
        return STALE
    if said:
        return said.state
    return RUNNING if item.is_up else STARTING if item.status.startswith("Created") else STOPPED


def _since(begun: float | None) -> int | None:
    return None if begun is None else max(0, int(time.time() - begun))


def _usage(line: str) -> tuple[str, Usage] | None:
    """Return what a line of docker's says, None where it says nothing, as of a container that has just ended."""
    identity, _, rest = line.partition("\t")
    said = re.match(r"([\d.]+)%\t([\d.]+)([KMGT]?i?B) /", rest)
    if not said or said[3] not in _UNITS:
        return None
    return identity, Usage(float(said[1]), int(float(said[2]) * _UNITS[said[3]]))
