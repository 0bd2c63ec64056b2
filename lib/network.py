"""The two networks of a bottle: an internal one, and the sidecar's way out (shell: lib/network.sh)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network

from claude_bottle.lib import docker, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.env import SUBNET_POOL_VARIABLE
from claude_bottle.lib.errors import BottleError, DockerError, EngineUnfit
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.subnets import subnets, subnets_of
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import EGRESS, INTERNAL, NETWORK, Item, LookFailed, labels
from claude_bottle.lib.teardown.journal import Journal

MAX_NETWORK_NUMBER = 100
Routes = Collection[IPv4Network]
# Without it the host listens on the bridge's gateway address even of an internal network.
SEALED = ("--internal", "--opt", "com.docker.network.bridge.inhibit_ipv4=true")
_OPTIONS = {INTERNAL: SEALED, EGRESS: ()}
TAKEN = ("already exists", docker.AMBIGUOUS)  # of the name, once or more often
OVERLAP = "Pool overlaps with other one on this address space"


def network_name_for_slug(slug: str) -> str:
    """Return the internal network's name (shell: network_name_for_slug)."""
    return f"claude-bottle-net-{slug}"


def network_egress_name_for_slug(slug: str) -> str:
    """Return the egress network's name (shell: network_egress_name_for_slug)."""
    return f"claude-bottle-egress-{slug}"


@dataclass(frozen=True)
class Network:
    """A network that was made: its id, since names can be ambiguous, its name, and its addresses."""

    identity: str
    name: str
    subnet: IPv4Network


def network_create_internal(
    engine: Engine, journal: Journal, slug: str, pool: IPv4Network, taken: Routes
) -> Work[Network]:
    """Create the network that the bottle sits on (shell: network_create_internal).

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        pool: the block that its subnet is cut from.
        taken: networks that the engine's host itself reaches.

    Raises:
        BottleError: docker refused, every name is taken, or the block has no room.
    """
    return _network_create(engine, journal, slug, INTERNAL, network_name_for_slug(slug), pool, taken)


def network_create_egress(
    engine: Engine, journal: Journal, slug: str, pool: IPv4Network, taken: Routes
) -> Work[Network]:
    """Create the network that the sidecar reaches out through (shell: network_create_egress).

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        pool: the block that its subnet is cut from.
        taken: networks that the engine's host itself reaches.

    Raises:
        BottleError: docker refused, every name is taken, or the block has no room.
    """
    return _network_create(engine, journal, slug, EGRESS, network_egress_name_for_slug(slug), pool, taken)


def _network_create(
    engine: Engine, journal: Journal, slug: str, role: str, base: str, pool: IPv4Network, taken: Routes
) -> Work[Network]:
    words = ["network", "create", "--ipv6=false", *_OPTIONS[role], *labels(journal.owner, slug, role)]
    for number in range(1, MAX_NETWORK_NUMBER + 1):
        name = base if number == 1 else f"{base}-{number}"
        made = yield from _on_a_free_subnet(engine, journal, role, name, words, pool, taken)
        if made:
            return made
    raise BottleError(f"no free network name for '{base}'")


def _on_a_free_subnet(
    engine: Engine, journal: Journal, role: str, name: str, words: list[str], pool: IPv4Network, taken: Routes
) -> Work[Network | None]:
    """Make the network; it comes to None where its name is taken: the create call is the arbiter of both.

    Of two creates of one name and moment an engine may refuse neither, but it gives their common subnet to one only:
    the name's first. Who does not get that leaves the name to who did, who may not be seen by that name yet.
    """
    first, order = next(subnets(pool, name, ())), list(subnets(pool, name, taken))
    if first in taken and not (yield from _is_anothers(engine, name, first)):  # a bridge that has just come
        return None
    for subnet in order:
        made = yield from docker.create(engine, journal, role, name, [*words, "--subnet", str(subnet), name])
        if made.ok and (subnet == first or (yield from _is_alone(engine, name, made.text.strip()))):
            log.log_info(f"creating network {name}")
            return Network(made.text.strip(), name, subnet)
        if made.ok or any(said in made.failure for said in TAKEN):
            return None
        if OVERLAP not in made.failure:
            log.log_info(f"creating network {name}")
            raise DockerError(f"docker network create failed: {made.failure}")
        if subnet == first and not (yield from _is_anothers(engine, name, first)):
            return None
    log.log_info(f"creating network {name}")
    raise _no_room(name, len(order))


def _is_anothers(engine: Engine, name: str, subnet: IPv4Network) -> Work[bool]:
    """Find out whether a network of another name is seen to have a subnet, and none of this one.

    One that is being made has its subnet, and its bridge, for a while before it is seen.
    """
    there = yield from _seen(engine)
    if any(item.name == name for item in there):
        return False
    others = yield from subnets_of(engine, [item.identity for item in there])
    return any(map(subnet.overlaps, others))


def _is_alone(engine: Engine, name: str, identity: str) -> Work[bool]:
    """Find out whether a network is the only one of its name, and remove it where it is not."""
    if len((yield from _seen(engine, "--filter", f"name=^{name}$"))) > 1:
        yield from inventory.remove(engine, NETWORK, [identity])
        return False
    return True


def _seen(engine: Engine, *only: str) -> Work[list[Item]]:
    """Find networks, whoever made them.

    Raises:
        DockerError: the engine gave no answer.
    """
    try:
        return (yield from inventory.find(engine, NETWORK, only))
    except LookFailed as failed:
        raise DockerError(f"docker network ls failed: {failed.answer.failure}") from None


def _no_room(name: str, tried: int) -> EngineUnfit:
    reason = f"no free subnet for network '{name}': all of the {tried} that were tried are in use"
    if not tried:
        reason = f"no free subnet for network '{name}': this machine has routes to all that were looked at"
    return EngineUnfit(reason, [f"{SUBNET_POOL_VARIABLE} names the block they are taken from"])
