"""``logs``: what a running bottle's sidecar has let out and refused; the shell has no such command."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from claude_bottle.lib import bottles, log
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.host.calls import Work, perform
from claude_bottle.lib.refused import Lines, Refused, Row, allow_words, denied_words, host_of, reason_words, refusal
from claude_bottle.lib.teardown import inventory, presence
from claude_bottle.lib.teardown.inventory import CONTAINER, SIDECAR, Item

ANY_BOTTLE = "NAME"  # in what would allow a host, where nobody says which bottle it is


@dataclass(frozen=True)
class Entry:
    """One line of a sidecar's log; what it does not say is an empty text.

    Attributes:
        time: when.
        event: the sidecar's word for it.
        method: of the request.
        host: that it is about.
        denied: why it was refused.
        detail: what else there is to say: the sidecar's reason, a status, or an amount.
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
        kind = "denied" if self.denied else self.event
        return self.time, kind, self.method, self.host, reason_words(self.denied) if self.denied else self.detail

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
        BottleError: there is not one such bottle, or docker gave no answer.
        Interrupted: a signal arrived.
        ReaderGone: nobody reads any more.
    """
    engine = docker_require(os.environ)
    bottle = bottles.the_one(engine, word)
    said = presence.present(engine.identity).get(bottle.owner.launch)
    if denied and not follow:
        counted = said.refused if said else perform(count(engine, bottle))
        _print_counted(counted, said.bottle if said else ANY_BOTTLE, as_data)
        return 0
    perform(_read(engine, bottle, Lines(lambda line: _print_line(line, denied, as_data)).hear, follow))
    return 0


def count(engine: Engine, bottle: Item) -> Work[Iterable[Row]]:
    """Count what a bottle was refused in what is kept of its sidecar's log; its launcher alone knows of more.

    Args:
        engine: to ask.
        bottle: its agent's container.

    Raises:
        BottleError: it has no sidecar, or docker gave no answer.
    """
    found = Refused()
    yield from _read(engine, bottle, found.hear, False)
    return found.rows()


def _read(engine: Engine, bottle: Item, hear: Callable[[str, bytes], None], follow: bool) -> Work[None]:
    there = yield from inventory.find(engine, CONTAINER, ["-a", *inventory.of_launch(bottle.owner.launch)])
    sidecar = next((item for item in there if item.role == SIDECAR), None)
    if sidecar is None:
        raise BottleError(f"{bottle.name} has no sidecar any more")
    words = ["logs", *(["--follow"] if follow else []), sidecar.identity]
    done = yield engine.call(words, seconds=math.inf if follow else None, interruptible=True, heard=hear)
    if not done.ok and not (follow and done.out):
        raise DockerError(f"docker logs failed: {done.failure}")


def _print_counted(rows: Iterable[Row], bottle: str, as_data: bool) -> None:
    for host, reason, times in rows:
        allow = allow_words(host, reason, bottle)
        row = {"host": host or None, "reason": reason, "times": times, "allow": allow or None}
        log.data((json.dumps(row) if as_data else denied_words(host, reason, times, bottle),))


def _print_line(line: bytes, denied: bool, as_data: bool) -> None:
    entry = entry_of(line)
    if entry and (entry.denied or not denied):
        log.data((json.dumps(entry.data()),) if as_data else entry.words)


def entry_of(line: bytes) -> Entry | None:
    """Return what a line of a sidecar's log says, None where it says nothing.

    Args:
        line: without its end.
    """
    try:
        event = json.loads(line)
        about = any(event.get(name) for name in ("url", "target", "connect_host"))
        _, denied = refusal(line) or ("", "")
        time, kind, method = (_word(event, name) for name in ("time", "event", "method"))
        return Entry(time, kind, method, host_of(event) if about else "", denied, _detail(event))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _word(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    return "" if value is None else str(value)


def _detail(event: dict[str, Any]) -> str:
    if "total_bytes" in event:
        return f"{_word(event, 'total_bytes')} bytes in {_word(event, 'duration_ms')} ms"
    return _word(event, "reason") or _word(event, "error") or _word(event, "status_code")
