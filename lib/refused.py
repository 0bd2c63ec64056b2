"""What a sidecar refuses for its size: counted in its log while that comes, told after the session."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from claude_bottle.lib.host.calls import OUT

LONGEST_LINE = 65536
MOST_LINES = 5
OTHERS = ("others", "")
# What the sidecar says of a request, and of an answer, that is larger than it looks into.
_WAYS = {"request body exceeds max_body_bytes": "sent", "response too large for scanning": "received"}
_MARKS = tuple(reason.encode() for reason in _WAYS)


class Refused:
    """Counts; of the log it keeps an unfinished line, and of the hosts as many as are told.

    Args:
        limits: how many MiB may be ``sent``, and ``received``.
    """

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits, self._rest = limits, b""
        self._counts: Counter[tuple[str, str]] = Counter()

    def hear(self, stream: str, data: bytes) -> None:
        """Take the next piece of the log.

        Args:
            stream: that it came on; the log is on stdout.
            data: the piece.
        """
        if stream != OUT:
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LONGEST_LINE:]
        for line in lines:
            if any(mark in line for mark in _MARKS):
                self._count(line)

    def _count(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            host = urlsplit(event["url"]).hostname or ""
            way = next(way for reason, way in _WAYS.items() if event["reason"].startswith(reason))
            if event["event"] != "blocked":
                return
        except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
            return  # what only mentions one
        known = (host, way) in self._counts or len(self._counts) < MOST_LINES - 1
        self._counts[(host, way) if known else OTHERS] += 1

    def lines(self) -> Iterator[str]:
        """Yield what is to be told: a line for each host, those with the most first."""
        for (host, way), count in sorted(self._counts.items(), key=lambda item: (item[0] == OTHERS, -item[1])):
            size = f" (more than {self._limits[way]} MiB {way})" if way else ""
            yield f"refused for its size: {host}{size}, {'once' if count == 1 else f'{count} times'}"
