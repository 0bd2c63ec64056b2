"""What a launch says of itself while it lasts, in the user's state folder: for lists, and for nothing that is done."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_bottle.lib.egress.refused import Row
from claude_bottle.lib.host.state import state_folder, state_replace
from claude_bottle.lib.teardown.journal import Journal
from claude_bottle.lib.teardown.owner import Owner, dead_launches, owner_from, place_here

STARTING, RUNNING, ENDING = "starting", "running", "ending"
ROLE = "presence"
EVERY_SECONDS = 1.0
LONGEST = 1 << 20  # bytes of what one says
_FOLDER = "launch-"  # and then the launch
_FILE = "presence.json"


@dataclass(frozen=True)
class Present:
    """What a launch says of itself.

    Attributes:
        owner: whose it is.
        engine: the id of the engine that it is on.
        agent: the agent's name.
        bottle: the manifest's name of the agent's bottle.
        folder: the host's folder that it was started in.
        container: name of the agent's container, empty before it is made.
        state: STARTING, RUNNING or ENDING.
        begun: when, in seconds of the epoch.
        refused: what its sidecar refused; without a host is what had no room.
    """

    owner: Owner
    engine: str
    agent: str
    bottle: str
    folder: str
    container: str
    state: str
    begun: int
    refused: tuple[Row, ...]


class Presence:
    """One launch's word; where it cannot be kept the launch goes on without.

    Args:
        journal: of the launch.
        engine: id of the engine.
        agent: the agent's name.
        bottle: the manifest's name of the agent's bottle.
        folder: the host's folder that it was started in.
    """

    def __init__(self, journal: Journal, engine: str, agent: str, bottle: str, folder: str) -> None:
        state = state_folder(os.environ)
        self._folder = state / f"{_FOLDER}{journal.owner.launch}" if state else None
        self._said: dict[str, Any] = {"owner": journal.owner.facts(), "engine": engine, "agent": agent}
        self._said |= {"bottle": bottle, "folder": folder, "begun": int(time.time())}
        self._refused: Callable[[], list[Row]] = list
        self._written: tuple[float, list[Row]] = (0.0, [])
        if self._folder:
            journal.intend(ROLE, str(self._folder))

    def say(self, state: str, container: str = "") -> None:
        """Say how far the launch is.

        Args:
            state: STARTING, RUNNING or ENDING.
            container: name of the agent's, if it has one.
        """
        self._said |= {"state": state, "container": container or self._said.get("container", "")}
        self._write()

    def counting(self, refused: Callable[[], list[Row]]) -> None:
        """Say from now on what is refused, too.

        Args:
            refused: tells of it.
        """
        self._refused = refused

    def look(self) -> float:
        """Say what has been refused meanwhile, not more than once in a while; return when to look again."""
        written_at, written = self._written
        if self._refused() == written:
            return math.inf
        due = written_at + EVERY_SECONDS
        if time.monotonic() < due:
            return due
        self._write()
        return math.inf

    def _write(self) -> None:
        rows = self._refused()
        self._written = (time.monotonic(), rows)
        if self._folder is None:
            return
        with suppress(OSError):
            state_replace(self._folder / _FILE, json.dumps({**self._said, "refused": rows}, ensure_ascii=False))


def present(engine: str) -> dict[str, Present]:
    """Return what our user's launches on an engine say of themselves, by launch.

    Args:
        engine: its id.
    """
    return {launch: said for launch, said in _all() if said.engine == engine}


def alive(launches: Iterable[Present]) -> list[Present]:
    """Return those whose launcher can be seen from here and is not provably dead."""
    some = list(launches)
    if not some:
        return []
    here, dead = place_here(), dead_launches(one.owner for one in some)
    return [one for one in some if here.is_certainly(one.owner.place) and one.owner.launch not in dead]


def forget() -> None:
    """Remove what launches have left here that are provably dead, or of an earlier boot of this machine."""
    every = dict(_all())
    if not every:
        return
    here, dead = place_here(), dead_launches(one.owner for one in every.values())
    for launch, one in every.items():
        place = one.owner.place
        if launch in dead or (place.host == here.host and place.boot and here.boot and place.boot != here.boot):
            shutil.rmtree(_root() / f"{_FOLDER}{launch}", ignore_errors=True)


def _root() -> Path:
    return state_folder(os.environ) or Path("/nonexistent")


def _all() -> Iterator[tuple[str, Present]]:
    with suppress(OSError):
        for path in sorted(_root().glob(f"{_FOLDER}*")):
            said = _read(path / _FILE)
            if said and f"{_FOLDER}{said.owner.launch}" == path.name:
                yield said.owner.launch, said


def _read(path: Path) -> Present | None:
    """Return what a file says, None where it is not to be understood."""
    try:
        with open(path, "rb") as file:
            said = json.loads(file.read(LONGEST).decode("utf-8", "surrogateescape"))
        return Present(
            owner_from(said["owner"]),
            **{name: str(said[name]) for name in ("engine", "agent", "bottle", "folder", "container", "state")},
            begun=int(said["begun"]),
            refused=tuple((str(host), str(reason), int(count)) for host, reason, count in said["refused"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
