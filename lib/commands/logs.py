"""``logs``: what a running bottle's sidecar lets out, and what it and its broker refuse; beyond the shell."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.commands import bottles
from claude_bottle.lib.egress.refused import (
    Lines,
    Refused,
    Row,
    allow_words,
    denied_words,
    host_of,
    reason_words,
    refusal,
)
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.host.calls import Crew, Work, perform
from claude_bottle.lib.teardown import inventory, presence
from claude_bottle.lib.teardown.inventory import BROKER, CONTAINER, SIDECAR, Item

IN_BROKER = "refused"  # in place of a word that the broker has not
ANY_BOTTLE = "NAME"  # in what would allow a host, where nobody says which bottle it is


@dataclass(frozen=True)
class Entry:
    """One line of a sidecar's log, or its broker's; what it does not say is an empty text.

    Attributes:
        time: when.
        event: the sidecar's word for it.
        method: of the request.
        host: that it is about.
        denied: why it was refused.
        detail: what else there is to say: the sidecar's reason, a status, or an amount; the path that a broker refused.
    """

    time: str
    event: str
    method: str
    host: str
    denied: str
    detail: str

    @property
    def words(self) -> tuple[str, ...]:
        """The fields that people read."""
        if not self.denied:
            return self.time, self.event, self.method, self.host, self.detail
        told = reason_words(self.denied) + f": {self.detail}" * (self.event == IN_BROKER)
        return self.time, "denied", self.method, self.host, told

    def data(self) -> dict[str, str | None]:
        """Return it as it is written for programs."""
        return {name: value or None for name, value in asdict(self).items()}


def logs(word: str, *, denied: bool, follow: bool, as_data: bool) -> int:
    """Print what the sidecar of a running bottle says, or what it has refused.

    Args:
        word: an agent's name or a container's.
        denied: refusals only: each host with how often, or with ``follow`` each one.
        follow: go on until the bottle ends.
        as_data: print each line as JSON.

    Returns:
        0.

    Raises:
        BottleError: there is not one such bottle, docker gave no answer, or the connection to it has broken.
        Interrupted: a signal arrived.
        ReaderGone: nobody reads any more.
    """
    engine, bottle, _ = bottles.the_one(docker_require(os.environ), word)
    said = presence.present(engine.identity).get(bottle.owner.launch)
    if denied and not follow:
        counted = said.refused if said else perform(count(engine, bottle))
        _print_counted(counted, said.bottle if said else ANY_BOTTLE, as_data)
        return 0
    show = _Printer(denied, as_data)
    _read_all(engine, perform(_sources(engine, bottle)), show.follow if follow else show.keep, follow)
    show.kept()
    engine.require_link()
    return 0


def _read_all(engine: Engine, sources: Sequence[Item], take: Callable[[bytes], None], follow: bool) -> None:
    """Read some logs side by side, each by its own lines."""
    crew: Crew[str] = Crew()
    for item in sources:
        crew.begin(item.identity, _read(engine, item, Lines(take).hear, follow))
    try:
        while len(crew):
            for _, outcome in crew.turn():
                outcome.get()
    finally:
        crew.leave([item.identity for item in sources])


def count(engine: Engine, bottle: Item) -> Work[Iterable[Row]]:
    """Count what a bottle was refused in what is kept of its sidecar's log; its launcher alone knows of more.

    Args:
        engine: to ask.
        bottle: its agent's container.

    Raises:
        BottleError: it has no sidecar, or docker gave no answer.
    """
    found = Refused()
    for item in (yield from _sources(engine, bottle)):
        yield from _read(engine, item, Lines(found.count).hear, False)
    return found.rows()


def _sources(engine: Engine, bottle: Item) -> Work[list[Item]]:
    """Find who refuses a bottle something: its sidecar, and its broker where it has one."""
    there = yield from inventory.find(engine, CONTAINER, ["-a", *inventory.of_launch(bottle.owner.launch)])
    if not any(item.role == SIDECAR for item in there):
        raise BottleError(f"{bottle.name} has no sidecar any more")
    return [item for item in there if item.role in (SIDECAR, BROKER)]


def _read(engine: Engine, source: Item, hear: Callable[[str, bytes], None], follow: bool) -> Work[None]:
    words = ["logs", *(["--follow"] if follow else []), source.identity]
    done = yield engine.call(words, seconds=math.inf if follow else None, interruptible=True, heard=hear)
    if not done.ok and not (follow and done.out):
        raise DockerError(f"docker logs failed: {done.failure}")


def _print_counted(rows: Iterable[Row], bottle: str, as_data: bool) -> None:
    for host, reason, times in rows:
        allow = allow_words(host, reason, bottle)
        row = {"host": host or None, "reason": reason, "times": times, "allow": allow or None}
        log.data((json.dumps(row) if as_data else denied_words(host, reason, times, bottle),))


class _Printer:
    """Prints entries.

    Args:
        denied: those of refusals only.
        as_data: as JSON.
    """

    def __init__(self, denied: bool, as_data: bool) -> None:
        self._denied, self._as_data = denied, as_data
        self._kept: list[tuple[str, Entry]] = []
        self._time = ""

    def keep(self, line: bytes) -> None:
        """Keep what a line says, for when every log has been read."""
        entry = entry_of(line)
        if entry and (entry.denied or not self._denied):
            self._time = entry.time or self._time  # what has none stays behind what was before it
            self._kept.append((self._time, entry))

    def follow(self, line: bytes) -> None:
        """Print what a line says."""
        self.keep(line)
        self.kept()

    def kept(self) -> None:
        """Print what was kept, in the order of its times."""
        for _, entry in sorted(self._kept, key=lambda timed: timed[0]):
            log.data((json.dumps(entry.data()),) if self._as_data else entry.words)
        self._kept.clear()


def entry_of(line: bytes) -> Entry | None:
    """Return what a line of a log says, None where it says nothing; a broker says nothing of what it lets through.

    Args:
        line: without its end.
    """
    try:
        event = json.loads(line)
        _, denied = refusal(line) or ("", "")
        if "event" not in event:
            return _of_broker(event, denied) if denied else None
        about = any(event.get(name) for name in ("url", "target", "connect_host"))
        time, kind, method = (_word(event, name) for name in ("time", "event", "method"))
        return Entry(time, kind, method, host_of(event) if about else "", denied, _detail(event))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _of_broker(event: dict[str, Any], denied: str) -> Entry:
    time, method, path = (_word(event, name) for name in ("time", "method", "path"))
    return Entry(time, IN_BROKER, method, host_of(event), denied, path)


def _word(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    return "" if value is None else str(value)


def _detail(event: dict[str, Any]) -> str:
    if "total_bytes" in event:
        return f"{_word(event, 'total_bytes')} bytes in {_word(event, 'duration_ms')} ms"
    return _word(event, "reason") or _word(event, "error") or _word(event, "status_code")
