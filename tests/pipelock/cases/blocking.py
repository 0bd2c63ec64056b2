"""What is blocked in plain HTTP: small limits, and the action block."""

from __future__ import annotations

import base64
from types import SimpleNamespace

from tests.pipelock.checks import (
    ANTHROPIC,
    GITHUB,
    HTTP,
    INJECTION,
    TEXT,
    arrivals,
    between,
    blocked,
    body_block,
    event,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, case, group


@group("small", 6)
def _(lab: Lab) -> SimpleNamespace:
    config = strict(
        response_scanning={"enabled": False},
        request_body_scanning={"enabled": True, "action": "warn", "max_body_bytes": 1000},
    )
    config["fetch_proxy"].update(max_response_mb=1, timeout_seconds=2)
    return SimpleNamespace(lab=lab, box=lab.sidecar(config))


@case("small", "truncated", DETAIL, "a plain response over max_response_mb is cut short without an error")
def _(c):
    reply = c.box.get(HTTP + "/big?bytes=1200000", timeout=60)
    same("status and size", (reply.status, len(reply.body)), (200, 1048576))


@case("small", "sse-buffered", DETAIL, "with response_scanning off even an event stream is held back")
def _(c):
    with c.box.open() as wire:
        times = arrivals(wire, HTTP + "/sse?n=3&ms=300", b"data: tick")
    same("events", len(times), 3)
    between("seconds from first to last", times[-1], 0, 0.25)


blocked(
    "body-size-warn",
    CORE,
    "a body over the limit is refused under warn too",
    HTTP + "/echo",
    "blocked: request body exceeds max_body_bytes (1000)\n",
    grp="small",
    headers=("Content-Type: text/plain",),
    method="POST",
    body=b"x" * 1001,
)
blocked(
    "timeout",
    DETAIL,
    "an upstream slower than timeout_seconds",
    HTTP + "/slow?ms=4000",
    "forward proxy fetch failed\n",
    502,
    grp="small",
)
blocked(
    "timeout-body",
    DETAIL,
    "a body that takes longer than timeout_seconds",
    HTTP + "/drip?n=10&ms=400",
    "blocked: response read error\n",
    grp="small",
)
blocked(
    "scan-off",
    DETAIL,
    "response_scanning off is stricter than warn: core patterns block",
    f"{HTTP}/page?text={INJECTION}",
    "blocked: response contains injection\n",
    grp="small",
)


# == block actions =============================================================


@group("block", 5)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(
        lab=lab,
        box=lab.sidecar(
            strict(
                request_body_scanning=body_block(max_body_bytes=1000),
                response_scanning={"enabled": True, "action": "block"},
                explain_blocks=True,
            )
        ),
    )


for _row in (
    (
        "body",
        CORE,
        "a secret in a body",
        HTTP + "/echo",
        "blocked: request body contains secret: GitHub Token\n",
        {"headers": TEXT, "method": "POST", "body": b"x " + GITHUB.encode()},
    ),
    (
        "body-base64",
        DETAIL,
        "a base64 secret in a body",
        HTTP + "/echo",
        "blocked: request body contains secret: GitHub Token\n",
        {"headers": TEXT, "method": "POST", "body": base64.b64encode(GITHUB.encode())},
    ),
    (
        "body-two",
        DETAIL,
        "two secrets in a body",
        HTTP + "/echo",
        "blocked: request body contains secret: GitHub Token, Anthropic API Key\n",
        {"headers": TEXT, "method": "POST", "body": f"{GITHUB} {ANTHROPIC}".encode()},
    ),
    (
        "body-size",
        CORE,
        "a body over the limit",
        HTTP + "/echo",
        "blocked: request body exceeds max_body_bytes (1000)\n",
        {"headers": TEXT, "method": "POST", "body": b"x" * 1001},
    ),
    (
        "header-auth",
        CORE,
        "a secret in Authorization",
        HTTP + "/echo",
        "blocked: request header contains secret\n",
        {"headers": (f"Authorization: Bearer {GITHUB}",)},
    ),
    (
        "header-api-key",
        CORE,
        "a secret in x-api-key",
        HTTP + "/echo",
        "blocked: request header contains secret\n",
        {"headers": (f"x-api-key: {ANTHROPIC}",)},
    ),
    (
        "response",
        DETAIL,
        "an injection in a response",
        f"{HTTP}/page?text={INJECTION}",
        "blocked: response contains injection\n",
        {},
    ),
):
    blocked(*_row[:5], grp="block", **_row[5])


@case("block", "header-other", DETAIL, "a header that is not on the list of sensitive ones passes")
def _(c):
    same("status", c.box.get(HTTP + "/echo", (f"X-Custom: {GITHUB}",)).status, 200)


@case("block", "connect-header", CORE, "a secret in the CONNECT headers")
def _(c):
    plain_error(
        c.box.refused("plain.allowed.test:443", (f"Proxy-Authorization: Bearer {GITHUB}",)),
        403,
        "CONNECT blocked: header DLP match\n",
    )


@case("block", "hint", DETAIL, "explain_blocks adds a hint header")
def _(c):
    same(
        "X-Pipelock-Hint",
        c.box.refused("evil.test:443").header("X-Pipelock-Hint"),
        "Domain not on the allowlist. In strict mode, only allowlisted domains are reachable.",
    )


@case("block", "log", CORE, "body and header blocks are logged under their own event, not as blocked")
def _(c):
    c.box.get(HTTP + "/echo?own=1", TEXT, "POST", GITHUB.encode())
    found = event(c.box, {"event": "body_dlp", "url": HTTP + "/echo?own=1"}, {"action": "block"})
    c.box.get(HTTP + "/echo?own=2", (f"Cookie: s={GITHUB}",))
    event(c.box, {"event": "header_dlp", "url": HTTP + "/echo?own=2"}, {"action": "block", "header": "Cookie"})
    same("blocked events of that request", c.box.events(event="blocked", request_id=found["request_id"]), [])
