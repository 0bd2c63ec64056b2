"""What is told of requests and answers that the sidecar has refused for their size."""

from __future__ import annotations

import json

import pytest
from claude_bottle.lib.egress.refused import LONGEST_LINE, MOST_KEPT, Refused

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
    for _ in range(3):
        found.hear("out", b"x" * LONGEST_LINE)
    assert len(found._rest) == LONGEST_LINE
    found.hear("out", b"\n" + event("api.test"))
    assert len(list(found.lines())) == 1


def denied(host: str, scanner: str = "allowlist", reason: str = "domain not in allowlist: x", **more: object) -> bytes:
    line = {"event": "blocked", "method": "CONNECT", "target": f"{host}:443", "scanner": scanner, "reason": reason}
    return json.dumps({**line, **more}).encode() + b"\n"


def heard(*pieces: bytes) -> Refused:
    found = Refused({"sent": 34, "received": 16})
    for piece in pieces:
        found.hear("out", piece)
    return found


def test_a_denied_host_has_a_line_with_how_often_and_what_would_allow_it() -> None:
    found = heard(*[denied("Registry.Example")] * 12, denied("other.test"))
    assert found.denied("my.bottle") == [
        'denied: registry.example (12 times); to allow: bottles["my.bottle"].egress.allowlist += "registry.example"',
        'denied: other.test (once); to allow: bottles["my.bottle"].egress.allowlist += "other.test"',
    ]
    assert found.denied("")[1].endswith('to allow: a bottle for the agent, with egress.allowlist ["other.test"]')


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (denied("a.test", "core_dlp", "core DLP match: GitHub Token (critical)"), "looked like a secret"),
        (denied("a.test", event="body_dlp", action="block"), "looked like a secret"),
        (denied("a.test", "subdomain_entropy", "high entropy"), "looked like one that carries a secret"),
        (denied("a.test", "ssrf", "SSRF blocked: a.test resolves to internal IP 10.0.0.5"), "private address"),
        (denied("a.test", "ssrf", "SSRF check failed: DNS resolution error for a.test"), "leads nowhere"),
        (denied("a.test", "ratelimit", "rate limit exceeded for a.test"), "too often"),
        (denied("a.test", "tls_handshake_error", "remote error"), "did not take the bottle's certificate"),
        (denied("", event="sni_mismatch", category="mismatch", connect_host="a.test", target=None), "another host"),
        (
            denied("a.test", "tls_authority_mismatch", "authority mismatch: a.test vs b.test:443"),
            "behind the name of another",
        ),
        (denied("a.test", "a scanner to come", "harm"), "took it for harmful"),
    ],
)
def test_what_no_list_would_allow_is_told_with_its_reason(line: bytes, why: str) -> None:
    (told,) = heard(line).denied("b")
    assert told.startswith("denied: a.test (once): ") and why in told


@pytest.mark.parametrize(
    "line",
    [
        denied("f00.claude-bottle.invalid"),  # the self-test's own question
        denied("a.test", event="sni_mismatch", category="timeout", connect_host="a.test"),
        denied("a.test", event="header_dlp", action="warn"),
        denied("a.test", "sse_stream", "context canceled"),
        denied("a.test", event="anomaly"),
        denied("a.test", reason=7),
    ],
)
def test_what_was_not_refused_counts_for_nothing(line: bytes) -> None:
    assert heard(line).rows() == []


@pytest.mark.parametrize("host", ["12345", "x.localhost", 'a"b', "127.0.0.1"])
def test_what_no_list_could_hold_is_not_recommended(host: str) -> None:
    (told,) = heard(denied(host)).denied("b")
    assert "to allow" not in told


def test_many_hosts_are_five_lines_a_bounded_list_and_the_whole_count() -> None:
    found = heard(*(denied(f"{number}.{'x' * 4000}.test") for number in range(9000)), *[denied("loop.test")] * 1000)
    assert found.times == 10000
    assert len(found.rows()) <= MOST_KEPT + 1 and max(len(host) for host, _, _ in found.rows()) <= 255
    told = found.denied("b")
    assert len(told) == 5 and told[-1].startswith("denied: others (") and sum(row[2] for row in found.rows()) == 10000


def by_broker(host: str, status: int = 403, end: str = "PR", **more: object) -> bytes:
    line = {"time": "2026-01-02T03:04:05Z", "host": host, "method": "GET", "path": "/v1/files", "status": status}
    return json.dumps({**line, "end": end, "in": 1, "out": 2, "ms": 3, **more}, separators=(",", ":")).encode() + b"\n"


def test_what_the_broker_refuses_is_told_as_what_it_is_and_with_nothing_that_would_allow_it() -> None:
    found = heard(*[by_broker("api.test")] * 3, by_broker("other.test", 421), by_broker("-", 421))
    others = [(host, "another host", 1) for host in ("other.test", "a hidden host")]
    assert found.rows() == [("api.test", "credential", 3), *others]
    told = found.denied("b")
    assert told[0].startswith("denied: api.test (3 times): it was asked without the credential that is put in there")
    assert not [line for line in told if "to allow" in line]


@pytest.mark.parametrize(
    "line",
    [
        by_broker("a.test", 403, "--"),  # the host's own answer
        by_broker("a.test", 400),  # no request
        by_broker("a.test", 503, "SC"),
        by_broker("a.test").replace(b"403", b"null"),
        by_broker("a.test").replace(b'"a.test"', b"7"),
    ],
)
def test_what_the_broker_has_not_refused_counts_for_nothing(line: bytes) -> None:
    assert heard(line).rows() == []


def test_a_refusal_counts_however_long_its_line_is() -> None:
    line = denied("a.test", reason="\\u0001" * (1 << 20))
    assert heard(*(line[at : at + 65536] for at in range(0, len(line), 65536))).rows() == [("a.test", "not listed", 1)]
