"""The machines of a Docker Swarm, and the engine of each: its own context's, else the one that ssh leads to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from claude_bottle.lib.engine import SSH, Asking, Engine, context_address
from claude_bottle.lib.errors import BottleError, DockerError, EngineUnfit
from claude_bottle.lib.host.calls import Work

_MANAGERS = "{{if .ManagerStatus}}{{.ManagerStatus.Addr}}{{end}}"
_FORM = f"{{{{.ID}}}}\t{{{{.Description.Hostname}}}}\t{{{{.Status.State}}}}\t{{{{.Status.Addr}}}}\t{_MANAGERS}"
READY = "ready"
_GONE = re.compile(r"no such node|node \S+ not found", re.IGNORECASE)  # the client's words; the engine's


@dataclass(frozen=True)
class Node:
    """A machine of a Swarm.

    Attributes:
        identity: its id there.
        name: its host name.
        state: Swarm's word for it, such as READY or down.
        address: as Swarm knows it.
    """

    identity: str
    name: str
    state: str
    address: str


def require_manager(engine: Engine) -> None:
    """Fail unless an engine can be asked for a place.

    Raises:
        EngineUnfit: it cannot.
    """
    if not engine.facts.manages:
        what = "is no manager of its Swarm" if engine.facts.node else "is in no Swarm"
        hint = "a context or DOCKER_HOST names a manager; 'docker swarm init' makes a Swarm of one machine"
        raise EngineUnfit(f"a place is chosen by a Docker Swarm, and the engine at {engine.where} {what}", [hint])


def nodes_all(manager: Engine) -> Work[list[Node]]:
    """Find all machines of a Swarm, sorted by name.

    Args:
        manager: to ask.

    Raises:
        DockerError: it gave no answer.
    """
    answer = yield manager.question(["node", "ls", "-q"])
    if not answer.ok:
        raise DockerError(f"docker node ls failed: {answer.failure}")
    found = yield from nodes(manager, answer.text.split())
    return sorted(found.values(), key=lambda node: (node.name, node.identity))


def nodes(manager: Engine, identities: Sequence[str]) -> Work[dict[str, Node]]:
    """Find machines by id; those that are in the Swarm no more are not among them.

    Args:
        manager: to ask.
        identities: their ids.

    Raises:
        DockerError: it gave no answer.
    """
    if not identities:
        return {}
    answer = yield manager.question(["node", "inspect", "--format", _FORM, *identities])
    if not answer.ok and not _GONE.search(answer.failure):
        raise DockerError(f"docker node inspect failed: {answer.failure}")
    return {node.identity: node for node in _nodes(answer.text)}


def _nodes(text: str) -> Iterator[Node]:
    for line in text.split("\n"):
        cells = line.split("\t")
        if len(cells) == 5:
            identity, name, state, *addresses = cells
            yield Node(identity, name, state, next(filter(None, map(_host, addresses)), ""))


def _host(address: str) -> str:
    """Return the host of an address, which may have a port; nothing of one that leads nowhere."""
    host = address.rpartition(":")[0] if address.count(":") == 1 or "]:" in address else address
    try:
        known = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return ""
    leads = not (known.is_unspecified or known.is_loopback)  # which managers of old engines say of themselves
    return (str(known) if known.version == 4 else f"[{known}]") if leads else ""


def node_engine(manager: Engine, node: Node) -> Engine:
    """Return a machine's engine, which has not been asked yet: the manager's own, the context's, or that behind ssh.

    Args:
        manager: that knows the machine.
        node: the machine.
    """
    if manager.facts.node == node.identity:
        return manager
    found = replace(manager, host="", context=node.name, identity="", socket="", line=-1)
    if context_address(manager.config, node.name):
        return found
    return replace(found, host=f"{SSH}{node.address}", cert_path="")


def node_asked(manager: Engine, node: Node) -> Work[Engine]:
    """Ask a machine's engine, by docker's own way; it comes to the engine with its id.

    Args:
        manager: that knows the machine.
        node: the machine.

    Raises:
        EngineUnfit: no engine answers, or that of another machine.
    """
    engine = node_engine(manager, node)
    if engine is not manager:
        try:
            engine = yield from engine.ask()
        except EngineUnfit as problem:
            raise _away(engine, node, problem) from None
    return _same(engine, node)


def node_reached(manager: Engine, node: Node, environ: Mapping[str, str]) -> Engine:
    """Return a machine's engine that has answered, by a link of its own where it is behind ssh.

    Args:
        manager: that knows the machine.
        node: the machine.
        environ: the caller's environment.

    Raises:
        EngineUnfit: no engine answers, or that of another machine, or the Swarm says that it is not there.
        Interrupted: a signal arrived.
    """
    engine = node_engine(manager, node)
    if engine is not manager:
        if node.state != READY:
            raise EngineUnfit(f"node '{node.name}' is {node.state}")
        try:
            engine = Asking(environ, engine).get()
        except EngineUnfit as problem:
            raise _away(engine, node, problem) from None
    return _same(engine, node)


def _away(engine: Engine, node: Node, problem: BottleError) -> EngineUnfit:
    hint = f"'docker context create {node.name}' can name another way to it"
    return EngineUnfit(f"cannot reach the engine of node '{node.name}' at {engine.where}", [*_said(problem), hint])


def _said(problem: BottleError) -> list[str]:
    return [problem.message, *problem.hints]


def _same(engine: Engine, node: Node) -> Engine:
    if engine.facts.node != node.identity:
        other = f"node {engine.facts.node} of a Swarm" if engine.facts.node else "in no Swarm"
        says = f"it says that it is {other}, not {node.identity}"
        raise EngineUnfit(f"the engine at {engine.where} is not that of node '{node.name}'", [says])
    return engine
