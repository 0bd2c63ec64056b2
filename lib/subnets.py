"""The addresses of a bottle's networks: a /29 each out of one private block, not out of the engine's own few.

The order in which a block's subnets are tried follows from the network's name. So two starts that race for one name
try the same subnet, which engines give away once only, while they may give one name twice.
"""

from __future__ import annotations

import hashlib
import ipaddress
import sys
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

from claude_bottle.lib.engine import Engine
from claude_bottle.lib.env import SUBNET_POOL_VARIABLE
from claude_bottle.lib.errors import EngineUnfit
from claude_bottle.lib.host.calls import Work

PREFIX = 29
SHORTEST, LONGEST = 8, 28
# What the sidecar counts as private: nothing outside it is reached by mistake.
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
MOST_TRIES = 64
MOST_LOOKS = 4096
_ROUTES = Path("/proc/net/route")


def subnet_pool(text: str, taken: Collection[IPv4Network]) -> IPv4Network:
    """Return the block that networks are cut from.

    Args:
        text: what the setting says.
        taken: networks that the engine's host itself reaches.

    Raises:
        EngineUnfit: it is no private block of a usable size, or has a route to all of it.
    """
    pool = _usable_block(text)
    if pool is None:
        allowed = f"a block from /{SHORTEST} to /{LONGEST} inside {', '.join(map(str, PRIVATE))}"
        raise EngineUnfit(f"{SUBNET_POOL_VARIABLE} must be {allowed}, not '{text}'")
    if any(map(pool.subnet_of, taken)):
        reason = f"this machine has a route to all of {pool}"
        raise EngineUnfit(reason, [f"{SUBNET_POOL_VARIABLE} names another block"])
    return pool


def _usable_block(text: str) -> IPv4Network | None:
    try:
        block = IPv4Network(text)
    except ValueError:
        return None
    return block if SHORTEST <= block.prefixlen <= LONGEST and any(map(block.subnet_of, PRIVATE)) else None


def subnets(pool: IPv4Network, name: str, taken: Collection[IPv4Network]) -> Iterator[IPv4Network]:
    """Yield the subnets to try for a network, at most ``MOST_TRIES``.

    Args:
        pool: the block.
        name: the network's.
        taken: networks that the host itself reaches, which none may overlap.
    """
    looked_at = islice(_order(pool, name), MOST_LOOKS)
    return islice((subnet for subnet in looked_at if not any(map(subnet.overlaps, taken))), MOST_TRIES)


def _order(pool: IPv4Network, name: str) -> Iterator[IPv4Network]:
    """Yield all subnets of a block, once each."""
    count = 1 << (PREFIX - pool.prefixlen)
    drawn = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:16])
    stride = drawn >> 64 | 1  # odd, so that it comes by every one of a power of two
    for turn in range(count):
        offset = (drawn + turn * stride) % count
        yield IPv4Network((int(pool.network_address) + (offset << (32 - PREFIX)), PREFIX))


def sidecar_address(subnet: IPv4Network) -> str:
    """Return the sidecar's address; the first one is the engine's, or nobody's."""
    return str(subnet[2])


def agent_address(subnet: IPv4Network) -> str:
    """Return the agent's address."""
    return str(subnet[3])


def host_routes(engine: Engine) -> tuple[IPv4Network, ...]:
    """Return the networks that the engine's host has a route to, but for the default; none where that cannot be told.

    Args:
        engine: whose host is asked only where it is this machine.
    """
    if not engine.is_local or sys.platform != "linux":
        return ()
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return ()
    rows = (line.split() for line in lines)
    pairs = ((_address(row[1]), _address(row[7])) for row in rows if len(row) > 7)
    # A shorter one is a default route, whole or in two halves, as a tunnel for everything sets it.
    return tuple(IPv4Network((address, str(mask))) for address, mask in pairs if int(mask).bit_count() >= SHORTEST)


def subnets_of(engine: Engine, identities: Sequence[str]) -> Work[list[IPv4Network]]:
    """Find the subnets of networks; of one that is gone by now there are none.

    Args:
        engine: to ask.
        identities: their ids.
    """
    if not identities:
        return []
    form = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"
    answer = yield engine.question(["network", "inspect", "--format", form, *identities])
    return [IPv4Network(word) for word in answer.text.split() if ":" not in word]


def _address(word: str) -> ipaddress.IPv4Address:
    """Return an address as the kernel prints it, in the machine's byte order."""
    return ipaddress.IPv4Address(int(word, 16).to_bytes(4, sys.byteorder))
