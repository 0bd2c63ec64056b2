"""``stop``: ends bottles as their own launchers would; the shell has no such command.

A launcher that lives is told to, and removes what it made. Where none can be proved to live, what it made is removed
from here, as ``cleanup`` does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from claude_bottle.lib import log
from claude_bottle.lib.commands import bottles
from claude_bottle.lib.commands.bottles import Found
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.far.seat import seats
from claude_bottle.lib.home import bring, record
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Work, perform
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import CONTAINER, NETWORK, SERVICE, Item
from claude_bottle.lib.teardown.journal import new_launch
from claude_bottle.lib.teardown.owner import owner_here, place_here

PATIENCE_SECONDS = 180.0  # a launcher brings the work home, and has a minute for its teardown
TALK_SECONDS = 5.0
POLL_SECONDS = 0.1
TRIES = 3
PAUSE_SECONDS = 1.0


def stop(word: str) -> int:
    """End one bottle, or all that are this user's on this engine, or placed by its Swarm, started on this machine.

    Args:
        word: an agent's name or a container's; an empty text means all.

    Returns:
        1 if one still runs, or something of it could not be removed.

    Raises:
        BottleError: the engine gave no answer, or there is not one such bottle.
        Interrupted: a signal arrived; what was told to end does so all the same.
    """
    engine = docker_require(os.environ)
    chosen, all_there = ([bottles.the_one(engine, word)], True) if word else bottles.mine(engine)
    if not chosen and all_there:
        log.log_info("nothing to stop")
    left = end(engine, chosen)
    return int(bool(left) or not all_there)


def end(engine: Engine, found: Sequence[Found]) -> list[str]:
    """End bottles, all at once, and say of each what came of it.

    Args:
        engine: that was asked for them; their seats are on it, if they have any.
        found: them.

    Returns:
        The names of those that still run, or of which something is left.

    Raises:
        LookFailed: the engine gave no answer.
        Interrupted: see ``stop``.
    """
    told, chosen = [], [one.item for one in found]
    for bottle in chosen:
        log.log_info(f"stopping {bottle.name}")
        told += [bottle] if _tell(bottle) else []
    busy = _await(chosen)
    left = [one.item.name for one in found if one.item in busy or perform(_is_left(engine, one))]
    left += [bottle.name for bottle in told if bottle.name not in left and _has_kept_work(bottle)]
    for bottle in chosen:
        if bottle in busy:
            log.log_warn(f"{bottle.name} is still ending: its launcher, or what cleans up after it, is at work")
        elif bottle.name not in left:
            log.log_info(f"stopped {bottle.name}")
    return left


def _tell(bottle: Item) -> bool:
    """End its launcher, if it lives, as with TERM, which one that was stopped hears only when it goes on."""
    launcher, _ = bottle.owner.living(place_here())
    if launcher:
        with suppress(OSError):  # it has ended meanwhile
            os.kill(launcher, signal.SIGTERM)
            os.kill(launcher, signal.SIGCONT)
    return bool(launcher)


def _has_kept_work(bottle: Item) -> bool:
    """Say whether its launcher could not bring the work home, to who does not see that launcher's terminal too."""
    found = record.read(bottle.owner.launch)
    if not found or not found.kept:
        return False
    log.log_warn(f"the work of {found.agent} did not come home; to try again: ./cli.sh bring {found.agent}")
    return True


def _await(chosen: Sequence[Item]) -> list[Item]:
    """Wait until launchers and reapers have ended; return the bottles whose own have not."""
    began, talked, here = time.monotonic(), False, place_here()
    while True:
        busy = [bottle for bottle in chosen if any(bottle.owner.living(here))]
        waited = time.monotonic() - began
        if not busy or waited >= PATIENCE_SECONDS:
            return busy
        if waited >= TALK_SECONDS and not talked:
            talked = True
            log.log_info(f"waiting for {', '.join(bottle.name for bottle in busy)} to end")
        wait.check_signals()
        wait.pause(POLL_SECONDS)


def _is_left(manager: Engine, found: Found) -> Work[bool]:
    """Remove what nobody has removed of a bottle; say whether something is still there, or work not home."""
    engine, bottle, _ = found
    kept = False
    mine = inventory.of_launch(bottle.owner.launch) if bottle.owner.launch else ("--filter", f"id={bottle.identity}")
    for kind, every in ((CONTAINER, ["-a"]), (NETWORK, [])):
        there = yield from inventory.find(engine, kind, [*every, *mine])
        there = [item for item in there if not item.is_kept]
        home = yield from _come_home(engine, there)
        kept = kept or bool(home.warnings)
        there = [item for item in there if item.identity not in home.stay]
        failure = yield from _remove(engine, kind, [item.identity for item in there])
        if failure:
            log.log_warn(f"could not remove what is left of {bottle.name}: {failure}", lines=True)
            return True
        bring.after_removal(there, ())
    failure = yield from inventory.remove_volumes(engine, bottle.owner.launch)
    if failure:
        log.log_warn(f"could not remove a volume of {bottle.name}: {failure}", lines=True)
    failure = failure or (yield from _remove_seat(manager, bottle))
    return bool(failure) or kept


def _remove_seat(manager: Engine, bottle: Item) -> Work[str]:
    """Remove what a Swarm keeps for a bottle that is gone; say why it is still there."""
    taken = yield from seats(manager, inventory.of_launch(bottle.owner.launch))
    failure = (yield from _remove(manager, SERVICE, [seat.identity for seat in taken])) if taken else ""
    if failure:
        log.log_warn(f"could not remove the seat of {bottle.name}: {failure}", lines=True)
    return failure


def _come_home(engine: Engine, items: list[Item]) -> Work[bring.Outcome]:
    """Bring home the work that is in containers; it comes to what came of it."""
    owner = owner_here(new_launch(), os.getpid())
    outcome = yield from bring.before_removal(engine, items, owner, bring.HURRIED_SECONDS)
    outcome.tell()
    return outcome


def _remove(engine: Engine, kind: str, identities: list[str]) -> Work[str]:
    """Remove things, again where somebody else is half way through the same; say why one is still there."""
    removal = inventory.Removal(tuple(identities))
    for number in range(TRIES):
        if not removal.left or removal.timed_out:
            break
        wait.pause(PAUSE_SECONDS * bool(number))
        removal = yield from inventory.remove(engine, kind, removal.left)
    return removal.failure if removal.left else ""
