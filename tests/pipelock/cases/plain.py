"""Plain HTTP through the proxy."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

from tests.pipelock.checks import (
    ANTHROPIC,
    GITHUB,
    HTTP,
    INJECTION,
    RANDOM,
    arrivals,
    between,
    blocked,
    event,
    like,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import PORT, Lab
from tests.pipelock.table import CORE, DETAIL, case, group
from tests.pipelock.wire import read_reply

# == plain HTTP through the proxy ==============================================


@group("plain", 6)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(
        lab=lab,
        box=lab.sidecar(strict("plain.allowed.test", "other.test", "private.test", "nxdomain.test"), private=True),
    )


@case("plain", "ok", CORE, "a listed host: status, body and headers come through")
def _(c):
    reply = c.box.get(HTTP + "/")
    same(
        "reply",
        (reply.status, reply.text, reply.header("X-Upstream")),
        (200, "hello from http plain.allowed.test\n", "yes"),
    )


@case("plain", "status", CORE, "an upstream error status comes through")
def _(c):
    reply = c.box.get(HTTP + "/status?code=503")
    same("reply", (reply.status, reply.text, reply.header("X-Upstream")), (503, "status 503\n", "yes"))


@case("plain", "post", CORE, "a request body arrives")
def _(c):
    seen = c.box.get(HTTP + "/echo", ("Content-Type: application/json",), "POST", b'{"a":1}').json()
    same("upstream saw", (seen["method"], seen["body"]), ("POST", '{"a":1}'))


@case("plain", "headers", DETAIL, "hop-by-hop and forwarding headers are dropped, others kept")
def _(c):
    seen = c.box.get(
        HTTP + "/echo",
        (
            "X-Forwarded-For: 1.2.3.4",
            "Via: 1.0 x",
            "Forwarded: for=x",
            "Keep-Alive: 5",
            "Proxy-Authorization: Basic abc",
            "X-Pipelock-Agent: z",
            "X-Custom: keep",
            "User-Agent: me",
        ),
    ).json()["headers"]
    gone = [
        h
        for h in ("x-forwarded-for", "via", "forwarded", "keep-alive", "proxy-authorization", "x-pipelock-agent")
        if h in seen
    ]
    same("dropped, kept", (gone, seen.get("x-custom"), seen.get("user-agent")), ([], "keep", "me"))


@case("plain", "agent-parameter", DETAIL, "the agent= query parameter is taken out")
def _(c):
    same("url", c.box.get(HTTP + "/echo?agent=bob&x=1").json()["url"], "/echo?x=1")


for _row in (
    ("unlisted", CORE, "unlisted host", "http://evil.test/", "blocked: domain not in allowlist: evil.test\n"),
    (
        "private",
        CORE,
        "name to a private address",
        "http://private.test/",
        "blocked: SSRF blocked: private.test resolves to internal IP {private}\n",
    ),
    (
        "secret-core",
        CORE,
        "a GitHub token in the URL",
        f"{HTTP}/?k={GITHUB}",
        "blocked: core DLP match: GitHub Token (critical)\n",
    ),
    (
        "secret-path",
        CORE,
        "a GitHub token in the path",
        f"{HTTP}/{GITHUB}",
        "blocked: core DLP match: GitHub Token (critical)\n",
    ),
    (
        "secret-url",
        CORE,
        "an Anthropic key in the URL",
        f"{HTTP}/?k={ANTHROPIC}",
        "blocked: DLP match: Anthropic API Key (critical)\n",
    ),
    (
        "entropy-value",
        DETAIL,
        "random query value",
        f"{HTTP}/?k={RANDOM}",
        'blocked: high entropy query param "k" (5.17 > 4.50 threshold)\n',
    ),
    (
        "entropy-path",
        DETAIL,
        "random path segment",
        f"{HTTP}/{RANDOM}",
        "blocked: high entropy path segment (5.17 > 4.50 threshold)\n",
    ),
    (
        "entropy-key",
        DETAIL,
        "random query key",
        f"{HTTP}/?{RANDOM}=1",
        f'blocked: high entropy query key "{RANDOM}" (5.17 > 4.50 threshold)\n',
    ),
    (
        "long-url",
        DETAIL,
        "URL over 2048 bytes",
        f"{HTTP}/{'abcd/' * 500}",
        "blocked: URL length 2526 exceeds maximum 2048\n",
    ),
    ("traversal", DETAIL, "path traversal", f"{HTTP}/../../etc/passwd", "blocked: path traversal sequence in URL\n"),
    ("crlf", DETAIL, "encoded line break", f"{HTTP}/%0d%0aX:1", "blocked: CRLF injection sequence in URL\n"),
    (
        "redirect-unlisted",
        CORE,
        "redirect to an unlisted host",
        f"{HTTP}/redirect?to=http://evil.test/",
        "blocked: redirect blocked: domain not in allowlist: evil.test\n",
    ),
    (
        "redirect-private",
        CORE,
        "redirect to a private address",
        f"{HTTP}/redirect?to=http://private.test/",
        "blocked: redirect blocked: SSRF blocked: private.test resolves to internal IP {private}\n",
    ),
    (
        "down",
        CORE,
        "listed host that refuses the connection",
        "http://plain.allowed.test:9/",
        "forward proxy fetch failed\n",
        502,
    ),
    (
        "image-type",
        DETAIL,
        "an image type that is not let through",
        f"{HTTP}/page?type=image/gif&text=x",
        'blocked: media_policy: image type "image/gif" not in allowed list\n',
    ),
):
    blocked(*_row)


@case("plain", "no-address", CORE, "listed name without an address")
def _(c):
    reply = c.box.get("http://nxdomain.test/")
    same("status", reply.status, 403)
    like("body", reply.text, r"^blocked: SSRF check failed: DNS resolution error for nxdomain\.test: lookup ")


@case("plain", "redirect", CORE, "the proxy follows a redirect itself")
def _(c):
    reply = c.box.get(HTTP + "/redirect?to=http://other.test/")
    same("reply", (reply.status, reply.text), (200, "hello from http other.test\n"))


@case("plain", "keep-alive", CORE, "a connection survives a refusal")
def _(c):
    got = []
    with c.box.open() as wire:
        for host in ("plain.allowed.test", "evil.test", "plain.allowed.test"):
            wire.send(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            got.append(read_reply(wire).status)
    same("statuses", got, [200, 403, 200])


@case("plain", "sse", DETAIL, "server-sent events are passed on one by one over plain HTTP too")
def _(c):
    with c.box.open() as wire:
        times = arrivals(wire, HTTP + "/sse?n=4&ms=400", b"data: tick")
    same("events", len(times), 4)
    between("seconds from first to last", times[-1], 0.8, 3)


@case("plain", "self", CORE, "the sidecar's own health URL through the proxy is refused")
def _(c):
    plain_error(c.box.get(f"http://{c.box.ip}:{PORT}/health"), 403, f"blocked: domain not in allowlist: {c.box.ip}\n")


@case("plain", "body-warn", CORE, "default: a secret in a body passes and is logged")
def _(c):
    reply = c.box.get(HTTP + "/echo?w=1", ("Content-Type: text/plain",), "POST", b"x " + GITHUB.encode())
    same("status", reply.status, 200)
    event(
        c.box,
        {"event": "body_dlp"},
        {
            "level": "warn",
            "method": "POST",
            "action": "warn",
            "match_count": 1,
            "patterns": ["GitHub Token"],
            "mitre_technique": "T1048",
        },
    )


@case("plain", "header-warn", CORE, "default: a secret in Authorization passes and is logged")
def _(c):
    same("status", c.box.get(HTTP + "/echo", (f"Authorization: Bearer {GITHUB}",)).status, 200)
    event(
        c.box,
        {"event": "header_dlp"},
        {"level": "warn", "method": "GET", "action": "warn", "header": "Authorization", "patterns": ["GitHub Token"]},
    )


@case("plain", "compressed-body", CORE, "a compressed request body is refused whatever the action")
def _(c):
    plain_error(
        c.box.get(HTTP + "/echo", ("Content-Encoding: gzip",), "POST", gzip.compress(b"hello")),
        403,
        'blocked: request body uses Content-Encoding "gzip"; compressed bodies cannot be scanned for secrets\n',
    )


@case("plain", "bad-json", DETAIL, "a body that claims to be JSON and is not")
def _(c):
    plain_error(
        c.box.get(HTTP + "/echo", ("Content-Type: application/json",), "POST", b"{bad"),
        403,
        "blocked: invalid JSON body\n",
    )


@case("plain", "injection-warn", DETAIL, "default: an injection in a response passes")
def _(c):
    same("status", c.box.get(f"{HTTP}/page?text={INJECTION}").status, 200)


@case("plain", "log-allowed", CORE, "log line of an allowed request")
def _(c):
    c.box.get(HTTP + "/?log=allowed")
    found = event(
        c.box,
        {"event": "forward_http", "url": HTTP + "/?log=allowed"},
        {
            "level": "info",
            "method": "GET",
            "status_code": 200,
            "size_bytes": 35,
            "agent": "anonymous",
            "message": "forward proxy request",
        },
        absent=("target", "scanner"),
    )
    same("duration is a number", isinstance(found.get("duration_ms"), (int, float)), True)


@case("plain", "log-denied", CORE, "log line of a denied request")
def _(c):
    c.box.get("http://evil.test/log")
    event(
        c.box,
        {"event": "blocked", "url": "http://evil.test/log"},
        {
            "level": "warn",
            "method": "GET",
            "scanner": "allowlist",
            "reason": "domain not in allowlist: evil.test",
            "mitre_technique": "T1071.001",
            "message": "request blocked",
        },
        absent=("target",),
    )


@case("plain", "log-redacts", DETAIL, "the URL of a DLP refusal is redacted in the log")
def _(c):
    c.box.get(f"{HTTP}/?k={ANTHROPIC}")
    event(c.box, {"event": "blocked", "scanner": "dlp"}, {"url": HTTP + "/[redacted]"})
    same("secret in the log", ANTHROPIC in c.box.logs()[0], False)


@case("plain", "stats", DETAIL, "/stats counts denied plain requests by host and scanner")
def _(c):
    c.box.get("http://counted.test/")
    stats = c.box.get("/stats").json()
    same("top_blocked_domains", {"name": "counted.test", "count": 1} in stats["top_blocked_domains"], True)
    same("allowlist among top_scanners", "allowlist" in [s["name"] for s in stats["top_scanners"]], True)
