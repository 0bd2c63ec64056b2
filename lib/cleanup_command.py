"""``cleanup``: removes every bottle there is, running or not (shell: cmd_cleanup)."""

from __future__ import annotations

import os

from claude_bottle.lib import docker, log, terminal
from claude_bottle.lib.engine import Engine, docker_require


def cleanup() -> int:
    """List all containers and networks of ours, ask, and remove them by id (shell: cmd_cleanup).

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    containers = _find(engine, ["ps", "-a", "--no-trunc", "--format", "{{.Names}}\t{{.ID}}"])
    networks = _find(engine, ["network", "ls", "--no-trunc", "--format", "{{.Name}}\t{{.ID}}"])
    if not containers and not networks:
        log.log_info("nothing to clean up")
        return 0
    for kind, found in (("container", containers), ("network", networks)):
        for name, _ in found:
            log.line(f"  {kind} {name}")
    terminal.confirm("remove all of the above?")
    if containers:
        docker.docker_step(engine, "docker rm", ["rm", "-f", "-v", *(identity for _, identity in containers)])
    if networks:
        docker.docker_step(engine, "docker network rm", ["network", "rm", *(identity for _, identity in networks)])
    log.log_info(f"removed {len(containers)} containers and {len(networks)} networks")
    return 0


def _find(engine: Engine, words: list[str]) -> list[tuple[str, str]]:
    """Return name and id of each; the id, because a name may be somebody else's by the time of the answer."""
    rows = (line.partition("\t") for line in docker.docker_list_own(engine, words))
    return [(name, identity) for name, _, identity in rows]
