"""What a sidecar and its broker refuse: counted in their logs as these come, told after the session and to who asks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from claude_bottle.lib.host.calls import OUT
from claude_bottle.lib.schema import schema_check

LONGEST_LINE = 8 << 20  # a request line of a MiB, each character of it spelt out
LONGEST_HOST = 255  # characters; no name that resolves is longer
MOST_LINES = 5
MOST_KEPT = 256  # hosts, each with a reason; a bottle may ask for as many as it likes
UNLISTED = "not listed"
SENT, RECEIVED = "too much sent", "too much received"
CREDENTIAL, MISDIRECTED = "credential", "another host"
# What the sidecar says of a request, and of an answer, that is larger than it looks into.
_SIZES = {"request body exceeds max_body_bytes": SENT, "response too large for scanning": RECEIVED}
_SCANNERS = {
    "allowlist": UNLISTED,
    "dlp": "secret",
    "core_dlp": "secret",
    "body_dlp": "secret",
    "header_dlp": "secret",
    "redaction": "secret",
    "entropy": "looks random",
    "subdomain_entropy": "looks random",
    "ssrf": "private address",
    "core_ssrf": "private address",
    "ratelimit": "too often",
    "databudget": "too often",
    "tls_handshake_error": "certificate",
    "tls_authority_mismatch": MISDIRECTED,
}
_NO_NAME = "SSRF check failed"
_BY_BROKER = {403: CREDENTIAL, 421: MISDIRECTED}  # by the status that it refuses with
_WORDS = {
    "secret": "what it sent looked like a secret",
    "looks random": "its address looked like one that carries a secret",
    "private address": "it leads to a private address",
    "no address": "its name leads nowhere",
    "too often": "it was asked too often in a minute",
    "certificate": "its client did not take the bottle's certificate (see egress.inspect)",
    "another name": "its client asked for another host behind it",
    CREDENTIAL: "it was asked without the credential that is put in there, with another one, or off its paths",
    MISDIRECTED: "it was asked for behind the name of another host",
    SENT: "more was sent at once than the sidecar looks into",
    RECEIVED: "more was received at once than the sidecar looks into",
    "other": "the sidecar took it for harmful",
}
Row = tuple[str, str, int]  # a host, why it was refused, and how often
_MARKS = (b"blocked", b"_dlp", b"sni_mismatch", b'"end":"PR"')
_PORT = re.compile(r":[0-9]+\Z")
_OF_THE_SELF_TEST = ".claude-bottle.invalid"


class Lines:
    """Takes a log in pieces, and hands on its lines; it keeps no more than one that has no end yet, nor all of that.

    Args:
        take: gets each line, without its end.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take, self._rest = take, b""

    def hear(self, stream: str, data: bytes) -> None:
        """Take the next piece of the log.

        Args:
            stream: that it came on; the log is on stdout.
            data: the piece.
        """
        if stream == OUT:
            *lines, rest = (self._rest + data).split(b"\n")
            self._rest = rest[-LONGEST_LINE:]
            for line in lines:
                self._take(line)


class Refused(Lines):
    """Counts, and keeps so many of the hosts that they fit.

    Args:
        limits: how many MiB may be ``sent``, and ``received``.
    """

    def __init__(self, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__(self.count)
        self._limits = {SENT: (limits.get("sent", 0), "sent"), RECEIVED: (limits.get("received", 0), "received")}
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def times(self) -> int:
        """How often anything was refused."""
        return self._counts.total()

    def count(self, line: bytes) -> None:
        """Count what a line tells of.

        Args:
            line: of the sidecar's log, or of its broker's, without its end.
        """
        found = refusal(line)
        if found:
            known = found in self._counts or len(self._counts) < MOST_KEPT
            self._counts[found if known else ("", found[1])] += 1

    def rows(self) -> list[Row]:
        """Return host, reason and how often, those with the most first; without a name are those that did not fit."""
        found = [(host, reason, count) for (host, reason), count in self._counts.items()]
        return sorted(found, key=lambda row: (not row[0], -row[2]))

    def denied(self, bottle: str) -> list[str]:
        """Return what is told of hosts that were denied: a line each, and how to allow it where that is all it takes.

        Args:
            bottle: the manifest's name of it, empty where the agent has none.
        """
        rows = [row for row in self.rows() if row[1] not in self._limits]
        if len(rows) > MOST_LINES:
            rows[MOST_LINES - 1 :] = [("", "", sum(count for _, _, count in rows[MOST_LINES - 1 :]))]
        return [denied_words(*row, bottle) for row in rows]

    def lines(self) -> Iterator[str]:
        """Yield what is told of sizes: a line for each host, those with the most first."""
        rows = [row for row in self.rows() if row[1] in self._limits]
        if len(rows) > MOST_LINES or any(not host for host, _, _ in rows):
            named, others = rows[: MOST_LINES - 1], rows[MOST_LINES - 1 :]
            rows = [*named, ("others", "", sum(count for _, _, count in others))]
        for host, reason, count in rows:
            most, way = self._limits.get(reason, (0, ""))
            size = f" (more than {most} MiB {way})" if way else ""
            yield f"refused for its size: {host}{size}, {often(count)}"


def refused_data(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as they are written for programs; several hosts that had no room have no name."""
    return [{"host": host or None, "reason": reason, "times": count} for host, reason, count in rows]


def often(count: int) -> str:
    """Return how often something was."""
    return "once" if count == 1 else f"{count} times"


def denied_words(host: str, reason: str, count: int, bottle: str) -> str:
    """Return what is told of a host that was denied.

    Args:
        host: its name, empty for several.
        reason: one of this module's.
        count: how often.
        bottle: see ``Refused.denied``.
    """
    told, allow = f"denied: {host or 'others'} ({often(count)})", allow_words(host, reason, bottle)
    why = f"; to allow: {allow}" if allow else f": {reason_words(reason)}" * (reason in _WORDS)
    return told + why


def reason_words(reason: str) -> str:
    """Return a reason as it is told; that a host is not listed says itself."""
    return _WORDS.get(reason, reason)


def allow_words(host: str, reason: str, bottle: str) -> str:
    """Return what has to be in a manifest so that a host is allowed, an empty text where nothing would do."""
    if not host or reason != UNLISTED or not schema_check.is_host(host):
        return ""
    name = json.dumps(host, ensure_ascii=False)
    if not bottle:
        return f"a bottle for the agent, with egress.allowlist [{name}]"
    return f"{schema_check.json_path(('bottles', bottle, 'egress', 'allowlist'))[2:]} += {name}"


def refusal(line: bytes) -> tuple[str, str] | None:
    """Return host and reason where a line of a log tells of a refusal, None where it tells of none.

    Args:
        line: one line of the sidecar's, or of its broker's, without its end.
    """
    if not any(mark in line for mark in _MARKS):
        return None
    try:
        event = json.loads(line)
        reason = _BY_BROKER.get(event["status"], "") if _is_brokers(event) else _reason(event)
        host = host_of(event)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # what only mentions one
    return (host, reason) if reason and not host.endswith(_OF_THE_SELF_TEST) else None


def _is_brokers(event: Mapping[str, Any]) -> bool:
    """Say whether a line is the broker's, of a request that itself has answered."""
    return "event" not in event and event["end"] == "PR"


def _reason(event: Mapping[str, Any]) -> str:
    kind = event["event"]
    if kind == "sni_mismatch":  # a client that has only connected is one too, with another category
        return "another name" if event["category"] in ("mismatch", "malformed_tls") else ""
    if kind in ("body_dlp", "header_dlp"):
        return "secret" if event.get("action") == "block" else ""
    if kind != "blocked":
        return ""
    said, scanner = event["reason"], event.get("scanner", "")
    size = next((reason for start, reason in _SIZES.items() if said.startswith(start)), "")
    if scanner == "sse_stream" and "context canceled" in said:  # a client that has left
        return ""
    if scanner == "ssrf" and said.startswith(_NO_NAME):
        return "no address"
    return size or _SCANNERS.get(scanner, "other")


def host_of(event: Mapping[str, Any]) -> str:
    """Return the host that an event is about; a bottle may have asked for one that is no name at all.

    Raises:
        ValueError: it has an address that is none.
    """
    target = event.get("target") or event.get("connect_host") or ""
    if "event" not in event:  # the broker's, with a sign where nobody was asked for
        target = event["host"].removeprefix("-")
    host = _PORT.sub("", target).strip("[]").lower()
    host = host or urlsplit(event.get("url", "")).hostname or "a hidden host"
    return host[:LONGEST_HOST]
