"""``cleanup``: removes every bottle there is, running or not (shell: cmd_cleanup)."""

from __future__ import annotations

import os

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.home import bring
from claude_bottle.lib.host import terminal
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.teardown import inventory, presence, sweep
from claude_bottle.lib.teardown.inventory import CONTAINER, NETWORK, Item, LookFailed
from claude_bottle.lib.teardown.journal import new_launch
from claude_bottle.lib.teardown.owner import dead_launches, owner_here


def cleanup() -> int:
    """List all containers and networks of ours, ask, and remove them by id (shell: cmd_cleanup).

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    containers = inventory.ours(engine, CONTAINER, "-a")
    networks = inventory.ours(engine, NETWORK)
    if not containers and not networks:
        log.log_info("nothing to clean up")
        return 0
    dead = dead_launches(item.owner for item in (*containers, *networks))
    for item in (*containers, *networks):
        mark = " (kept for its work)" if item.is_kept else " (stale)" * (item.owner.launch in dead)
        log.line(f"  {item.kind} {item.name}{mark}")
    terminal.confirm("remove all of the above?")
    stay = _come_home(engine, containers)
    gone = [item for item in containers if item.identity not in stay]
    _remove(engine, "docker rm", gone)
    bring.after_removal(gone, ())
    _remove(engine, "docker network rm", networks)
    log.log_info(f"removed {len(gone)} containers and {len(networks)} networks")
    return int(bool(stay))


def cleanup_stale(yes: bool) -> int:
    """List what launches that are provably dead have left, ask, and remove it.

    Args:
        yes: do not ask.

    Returns:
        1 if something could not be removed.

    Raises:
        BottleError: docker failed, or there is no terminal to ask on.
        Declined: the user said no.
    """
    engine = docker_require(os.environ)
    presence.forget()
    try:
        items = perform(sweep.find_stale(engine, os.environ.get("TMPDIR", "")))
    except LookFailed as failure:
        inventory.tell(failure)
        raise
    if not items:
        log.log_info("nothing to clean up")
        return 0
    for item in items:
        log.line(f"  {item.kind} {item.name}")
    if not yes:
        terminal.confirm("remove all of the above?")
    return int(bool(perform(sweep.remove(engine, items))))


def _come_home(engine: Engine, containers: list[Item]) -> set[str]:
    """Bring home the work that is in containers; return the ids of those that stay, since it could not come."""
    owner = owner_here(new_launch(), os.getpid())
    outcome = perform(bring.before_removal(engine, containers, owner, bring.PATIENT_SECONDS))
    outcome.tell()
    return outcome.stay


def _remove(engine: Engine, what: str, items: list[Item]) -> None:
    """Remove things by id, because a name may be somebody else's by the time of the answer."""
    if items:
        removal = perform(inventory.remove(engine, items[0].kind, [item.identity for item in items]))
        if removal.left:
            raise DockerError(f"{what} failed: {removal.failure}")
