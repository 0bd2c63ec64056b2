"""The two networks of a bottle: an internal one, and the sidecar's way out (shell: lib/network.sh)."""

from __future__ import annotations

from collections.abc import Sequence

from claude_bottle.lib import docker, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.teardown.inventory import EGRESS, INTERNAL, NETWORK, labels
from claude_bottle.lib.teardown.journal import Journal

MAX_NETWORK_NUMBER = 100
# Without it the host listens on the bridge's gateway address even of an internal network.
SEALED = ("--internal", "--opt", "com.docker.network.bridge.inhibit_ipv4=true")


def network_name_for_slug(slug: str) -> str:
    """Return the internal network's name (shell: network_name_for_slug)."""
    return f"claude-bottle-net-{slug}"


def network_egress_name_for_slug(slug: str) -> str:
    """Return the egress network's name (shell: network_egress_name_for_slug)."""
    return f"claude-bottle-egress-{slug}"


def network_create_internal(engine: Engine, journal: Journal, slug: str) -> str:
    """Create the network that the bottle sits on (shell: network_create_internal).

    Returns:
        Its id: names of networks can be ambiguous.

    Raises:
        BottleError: docker refused, or every name is taken.
    """
    return _network_create(engine, journal, slug, INTERNAL, network_name_for_slug(slug), SEALED)


def network_create_egress(engine: Engine, journal: Journal, slug: str) -> str:
    """Create the network that the sidecar reaches out through (shell: network_create_egress).

    Returns:
        Its id.

    Raises:
        BottleError: docker refused, or every name is taken.
    """
    return _network_create(engine, journal, slug, EGRESS, network_egress_name_for_slug(slug), ())


def _network_create(engine: Engine, journal: Journal, slug: str, role: str, base: str, options: Sequence[str]) -> str:
    for number in range(1, MAX_NETWORK_NUMBER + 1):
        name = base if number == 1 else f"{base}-{number}"
        if docker.docker_exists(engine, NETWORK, name):
            continue
        log.log_info(f"creating network {name}")
        marks = labels(journal.owner, slug, role)
        words = ["network", "create", "--ipv6=false", *options, *marks, name]
        made = docker.create(engine, journal, role, name, words)
        if made.ok:
            identity = made.text.strip()
            if _is_first_of_its_name(engine, name, identity):
                return identity
            docker.docker_step(engine, "docker network rm", ["network", "rm", identity])
        elif "already exists" not in made.failure:
            raise DockerError(f"docker network create failed: {made.failure}", _help(made.failure))
    raise BottleError(f"no free network name for '{base}'")


def _help(failure: str) -> list[str]:
    if "address pool" in failure:
        return ["every bottle needs two networks; remove unused ones with: docker network prune"]
    return []


def _is_first_of_its_name(engine: Engine, name: str, identity: str) -> bool:
    """Say whether a network keeps its name: engines give two creates of one moment the same, and the older has it."""
    same = engine.query(["network", "ls", "-q", "--no-trunc", "--filter", f"name=^{name}$"]).text.split()
    if len(same) < 2:
        return True
    ages = engine.query(["network", "inspect", "--format", "{{.Created}} {{.Id}}", *same]).text.splitlines()
    return not ages or min(ages).endswith(identity)
