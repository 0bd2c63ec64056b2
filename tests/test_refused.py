"""What is told of requests and answers that the sidecar has refused for their size."""

from __future__ import annotations

import json

import pytest
from claude_bottle.lib.refused import LONGEST_LINE, Refused

SENT, RECEIVED = "request body exceeds max_body_bytes (35651584)", "response too large for scanning"


def event(host: str, reason: str = SENT, **more: object) -> bytes:
    line = {"event": "blocked", "url": f"https://{host}:443/[redacted]", "reason": reason, **more}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def told(*pieces: bytes) -> list[str]:
    found = Refused({"sent": 34, "received": 16})
    for piece in pieces:
        found.hear("out", piece)
    return list(found.lines())


def test_each_host_has_a_line_with_the_limit_and_how_often() -> None:
    log = event("api.test") + event("big.test", RECEIVED) + event("api.test")
    assert told(log) == [
        "refused for its size: api.test (more than 34 MiB sent), 2 times",
        "refused for its size: big.test (more than 16 MiB received), once",
    ]


def test_a_log_may_come_in_any_pieces() -> None:
    log = event("api.test") + b"not a line of ours\n" + event("api.test")
    assert told(*(log[at : at + 1] for at in range(len(log)))) == told(log)


@pytest.mark.parametrize(
    "line",
    [
        event("a.test", "domain not in allowlist: " + RECEIVED),
        event("a.test", event="anomaly"),
        event("a.test", url=7),
        event("a.test", url="https://[a/"),
        json.dumps([SENT]).encode() + b"\n",
        SENT.encode() + b"\n",
        event("a.test")[:-1],  # not at its end yet
    ],
)
def test_what_only_mentions_a_size_counts_for_nothing(line: bytes) -> None:
    assert told(line) == []


def test_no_more_than_five_lines_are_told_whatever_is_asked_for() -> None:
    lines = told(*(event(f"{number}.test") for number in range(50)))
    assert len(lines) == 5 and lines[-1] == "refused for its size: others, 46 times"


def test_a_line_without_an_end_is_not_kept() -> None:
    found = Refused({"sent": 34, "received": 16})
    for _ in range(100):
        found.hear("out", b"x" * LONGEST_LINE)
    assert len(found._rest) == LONGEST_LINE
    found.hear("out", b"\n" + event("api.test"))
    assert len(list(found.lines())) == 1
