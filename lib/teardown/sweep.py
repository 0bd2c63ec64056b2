"""What launches that are provably dead have left, launcher and reaper killed together: found and removed."""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.env import DEFAULT_PATIENCE, read_settings
from claude_bottle.lib.errors import reason
from claude_bottle.lib.home import bring, record
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.host.locks import locked
from claude_bottle.lib.host.state import state_folder, state_make
from claude_bottle.lib.teardown import inventory, presence
from claude_bottle.lib.teardown.cleanup import remove_folder
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, NETWORK, PREFIX, SERVICE, Item, LookFailed
from claude_bottle.lib.teardown.journal import STAGE, new_launch
from claude_bottle.lib.teardown.owner import (
    Owner,
    Place,
    dead_launches,
    login_here,
    owner_from,
    owner_here,
    place_here,
)

FOLDER = "folder"
STAGE_PREFIX = "claude-bottle-stage."
OWNER_FILE = "owner"  # of a stage dir
LOCK = "sweep"  # not the state folder itself: who remembers an approval waits for that, and removal may take long
SILENT_SECONDS = 10.0  # of docker, in a start's sweep
TRIES = 3
_LABELLED = ("--filter", f"label={PREFIX}owner")
_LONGEST = 4096  # bytes of an owner file


def find_stale(engine: Engine, parent: str) -> Work[list[Item]]:
    """Find what dead launches have left: containers, networks, then stage dirs.

    Args:
        engine: to ask.
        parent: the folder that stage dirs are made in, empty for /tmp.

    Raises:
        LookFailed: the engine gave no answer.
    """
    found = yield from inventory.find(engine, CONTAINER, ["-a", *_LABELLED])
    found += yield from inventory.find(engine, NETWORK, _LABELLED)
    left = lapsed(engine, found)
    found += stages(parent)
    dead = dead_launches(item.owner for item in found)
    return [item for item in found if is_stale(item, dead, left) and not bring.stays(item)]


def is_stale(item: Item, dead: Set[str], left: Set[str]) -> bool:
    """Say whether what there is of ours may be swept.

    Args:
        item: the thing.
        dead: launches that are provably dead.
        left: see ``lapsed``.
    """
    if item.owner.launch in dead:
        return True
    # Where its work goes is known to the machine that it was launched from, and to no other.
    unknown = item.may_have_work and record.read(item.owner.launch) is None
    return item.owner.launch in left and item.kind != FOLDER and not unknown


def lapsed(engine: Engine, found: Iterable[Item]) -> set[str]:
    """Return the launches of this user, on whatever machine, whose bottles have ended since nobody was there any more.

    A bottle's own status proves that. Where there is none that runs, a launch of another machine's is over when all
    that it has made is older than any bottle may be without a word, by the engine's own clock.

    Args:
        engine: that was asked what it has.
        found: all that it has of ours.

    Raises:
        BottleError: the environment's own patience is none.
    """
    oldest = engine.facts.clock - max(DEFAULT_PATIENCE, read_settings(os.environ).patience)
    login, here = login_here(), place_here()
    launches: dict[Owner, list[Item]] = {}
    for item in found:
        if login and item.owner.launch and item.owner.login == login and not any(item.owner.living(here)):
            launches.setdefault(item.owner, []).append(item)
    return {owner.launch for owner, items in launches.items() if _has_lapsed(oldest, here, owner, items)}


def _has_lapsed(oldest: float, here: Place, owner: Owner, items: list[Item]) -> bool:
    if any(item.has_lapsed for item in items):
        return True
    if here.is_certainly(owner.place) or any(item.role == AGENT and item.is_up for item in items):
        return False
    return all(item.created_at is not None and item.created_at < oldest for item in items)


def stages(parent: str) -> Iterator[Item]:
    """Return our own user's stage dirs that say whose they are; see ``find_stale``."""
    for path in sorted(Path(parent or "/tmp").glob(f"{STAGE_PREFIX}*")):
        facts = _owner_file(path)
        if facts:
            name, slug = str(path), facts.get("slug", "")
            yield Item(FOLDER, name, name, "", "", "", slug, STAGE, "", "", owner_from(facts))


def _owner_file(folder: Path) -> dict[str, str]:
    """Return what the owner file of a folder of our own user says, nothing where there is none to be believed."""
    try:
        seen = folder.lstat()
        fd = os.open(folder / OWNER_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            facts: Any = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    ours = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and isinstance(facts, dict)
    return {name: value for name, value in facts.items() if isinstance(value, str)} if ours else {}


def owner_text(owner: Owner, slug: str) -> str:
    """Return what the owner file of a launch's stage dir says."""
    return json.dumps({**owner.facts(), "slug": slug})


def remove(engine: Engine, items: list[Item]) -> Work[bool]:
    """Remove what was found, and say of each launch what went, and of each thing why it stayed.

    Args:
        engine: to ask.
        items: of dead launches.

    Returns:
        Work that comes to whether all is gone, and the work in it home.
    """
    home = yield from bring.before_removal(engine, items, owner_here(new_launch(), os.getpid()), bring.HURRIED_SECONDS)
    home.tell()
    if math.isfinite(engine.until):  # what came home has its own time
        engine = engine.bounded(time.monotonic() + SILENT_SECONDS, engine.check)
    items = [item for item in items if item.identity not in home.stay]
    kept: dict[str, str] = {}
    for kind in (CONTAINER, NETWORK, SERVICE):
        identities = [item.identity for item in items if item.kind == kind]
        if identities:
            kept |= yield from _remove(engine, kind, identities)
    for item in items:
        problem = remove_folder(item.name) if item.kind == FOLDER else ""
        kept |= {item.identity: problem} if problem else {}
    bring.after_removal(items, kept)
    _tell(items, kept)
    return not kept and not home.warnings


def _remove(engine: Engine, kind: str, identities: list[str]) -> Work[dict[str, str]]:
    """Try until all is gone; it comes to why something is not. Another sweep may be half way through the same."""
    for _ in range(TRIES):
        removal = yield from inventory.remove(engine, kind, identities)
        if not removal.left or removal.timed_out:
            break
    return dict.fromkeys(removal.left, removal.failure)


def _tell(items: list[Item], kept: dict[str, str]) -> None:
    launches = {item.owner.launch: item.slug for item in items}
    for launch, slug in launches.items():
        kinds = [item.kind for item in items if item.owner.launch == launch and item.identity not in kept]
        counts = {kind: kinds.count(kind) for kind in kinds}
        if counts:
            told = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items())
            log.log_info(f"removed what a killed launch of {slug} had left: {told}")
    for item in items:
        if item.identity in kept:
            log.log_warn(f"could not remove {item.kind} '{item.name}': {kept[item.identity]}", lines=True)


def sweep(engine: Engine, parent: str) -> Work[None]:
    """Find and remove what dead launches have left, beside a start that does not depend on it.

    A failure is a warning. Where another start of this user's removes already, this one leaves it to that.

    Args:
        engine: to ask.
        parent: see ``find_stale``.
    """
    presence.forget()
    patient = engine.bounded(time.monotonic() + SILENT_SECONDS, run.on_signal)
    try:
        items = yield from find_stale(patient, parent)
        if items:
            with alone() as is_alone:
                if is_alone:
                    yield from remove(patient, items)
    except (LookFailed, OSError) as problem:
        why = problem.answer.failure if isinstance(problem, LookFailed) else reason(problem)
        log.log_warn(f"could not look for what killed launches have left: {why}", lines=True)


@contextmanager
def alone() -> Iterator[bool]:
    """Say whether no other start of this user's removes, and keep others from it while the block runs.

    Without a folder to lock it goes on: two that remove the same do so twice, and no more.
    """
    folder, is_alone = state_folder(os.environ), True
    with ExitStack() as held:
        with suppress(OSError):
            if folder:
                state_make(folder / LOCK)
                is_alone = held.enter_context(locked([folder / LOCK]))
        yield is_alone
