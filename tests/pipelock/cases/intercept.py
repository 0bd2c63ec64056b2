"""TLS interception."""

from __future__ import annotations

import gzip
import ssl
from types import SimpleNamespace

from tests.pipelock.checks import (
    ANTHROPIC,
    GITHUB,
    INJECTION,
    RANDOM,
    TEXT,
    arrivals,
    between,
    body_block,
    event,
    handshake_dies,
    interception,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, Differs, add, case, group
from tests.pipelock.wire import read_reply

# == TLS interception ==========================================================


@group("intercept", 12)
def _(lab: Lab) -> SimpleNamespace:
    hosts = ["inspect.test", "pass.test", "*.pass.test", "other.test"]
    block, how = interception(lab, passthrough_domains=["pass.test"])
    warn = lab.sidecar(strict(*hosts, tls_interception=block), **how)
    block, how = interception(lab, passthrough_domains=["*.pass.test"], max_response_bytes=2000)
    deny = lab.sidecar(
        strict(
            *hosts,
            tls_interception=block,
            request_body_scanning=body_block(max_body_bytes=1000),
            response_scanning={"enabled": True, "action": "block"},
        ),
        **how,
    )
    return SimpleNamespace(lab=lab, box=deny, warn=warn, ca=lab.pki.mitm_ca[1], upstream_ca=lab.pki.upstream_ca[1])


HTTPS = "https://inspect.test"


@case("intercept", "ok", CORE, "a client that trusts the CA gets through")
def _(c):
    reply = c.warn.https(HTTPS + "/", c.ca)
    same(
        "reply", (reply.status, reply.text, reply.header("X-Upstream")), (200, "hello from https inspect.test\n", "yes")
    )
    same("/health", c.warn.get("/health").json()["tls_interception_enabled"], True)


@case("intercept", "leaf", CORE, "the leaf names the host and is signed by the CA")
def _(c):
    with c.warn.tls("inspect.test:443", c.ca) as wire:
        cert = wire.sock.getpeercert()
    same("names", cert["subjectAltName"], (("DNS", "inspect.test"),))
    same("issuer", cert["issuer"], ((("commonName", "interception test CA"),),))


@case("intercept", "untrusting-client", CORE, "a client that does not trust the CA fails, and the log says blocked")
def _(c):
    try:
        c.warn.tls("other.test:443", c.upstream_ca).close()
        raise Differs("handshake", "certificate error", "went through")
    except ssl.SSLCertVerificationError:
        pass
    event(
        c.warn,
        {"event": "blocked", "target": "other.test:443"},
        {"scanner": "tls_handshake_error", "mitre_technique": "T1573"},
    )


def _inner(
    slug: str, klass: str, title: str, path: str, text: str, status: int = 403, box: str = "box", **how: object
) -> None:
    add(
        "intercept",
        slug,
        klass,
        title,
        lambda c: plain_error(getattr(c, box).https(HTTPS + path, c.ca, **how), status, text),
    )


for _row in (
    ("url", CORE, "a secret in the URL", f"/?k={GITHUB}", "blocked: core DLP match: GitHub Token (critical)\n", {}),
    (
        "body",
        CORE,
        "a secret in the body, action block",
        "/echo",
        "blocked: request body contains secret: GitHub Token\n",
        {"method": "POST", "headers": TEXT, "body": GITHUB.encode()},
    ),
    (
        "header",
        CORE,
        "a secret in a header, action block",
        "/echo",
        "blocked: request header contains secret\n",
        {"headers": (f"x-api-key: {ANTHROPIC}",)},
    ),
    (
        "body-size",
        CORE,
        "a body over the limit",
        "/echo",
        "blocked: request body exceeds max_body_bytes (1000)\n",
        {"method": "POST", "headers": TEXT, "body": b"x" * 1001},
    ),
    (
        "response-size",
        CORE,
        "a response over the limit",
        "/big?bytes=2001",
        "blocked: response too large for scanning\n",
        {},
    ),
    (
        "response",
        DETAIL,
        "an injection in a response, action block",
        f"/page?text={INJECTION}",
        "blocked: response contains injection\n",
        {},
    ),
    (
        "compressed",
        CORE,
        "a compressed request body, action warn",
        "/echo",
        'blocked: request body uses Content-Encoding "gzip"; compressed bodies cannot be scanned for secrets\n',
        {"box": "warn", "method": "POST", "headers": ("Content-Encoding: gzip",), "body": gzip.compress(b"x")},
    ),
    (
        "authority",
        CORE,
        "another Host inside",
        "/",
        "authority mismatch: blocked\n",
        {"box": "warn", "host": "evil.test"},
    ),
):
    _inner(*_row[:5], **_row[5])


@case("intercept", "warn", CORE, "action warn: body and header secrets pass, logged as anomaly")
def _(c):
    seen = c.warn.https(HTTPS + "/echo", c.ca, TEXT, "POST", GITHUB.encode())
    same("body", (seen.status, seen.json()["body"]), (200, GITHUB))
    same("header", c.warn.https(HTTPS + "/echo", c.ca, (f"x-api-key: {ANTHROPIC}",)).status, 200)
    event(c.warn, {"event": "anomaly", "scanner": "body_dlp"}, {"url": "https://inspect.test:443/echo"})
    event(c.warn, {"event": "anomaly", "scanner": "header_dlp"}, {"method": "GET"})


@case("intercept", "upstream-untrusted", CORE, "an upstream certificate nobody vouches for")
def _(c):
    plain_error(c.warn.https("https://inspect.test:9443/", c.ca), 502, "upstream error\n")


@case("intercept", "passthrough", CORE, "a passthrough host shows its own certificate and is not scanned")
def _(c):
    same("status", c.warn.https(f"https://pass.test/echo?k={GITHUB}", c.upstream_ca).status, 200)
    event(c.warn, {"event": "tunnel_open", "target": "pass.test:443"}, {"level": "info"})


@case("intercept", "passthrough-exact", CORE, "an exact passthrough entry does not cover subdomains")
def _(c):
    same("status", c.warn.https("https://sub.pass.test/", c.ca).status, 200)


@case("intercept", "passthrough-wildcard", CORE, "a wildcard passthrough entry covers subdomains but not the apex")
def _(c):
    same("subdomain", c.box.https("https://sub.pass.test/", c.upstream_ca).status, 200)
    same("apex", c.box.https("https://pass.test/", c.ca).status, 200)


@case("intercept", "redirect", CORE, "redirects are handed to the client, not followed")
def _(c):
    reply = c.warn.https(HTTPS + "/redirect?to=https://evil.test/", c.ca)
    same("reply", (reply.status, reply.header("Location")), (302, "https://evil.test/"))


@case("intercept", "not-tls", CORE, "bytes that are not TLS are cut off")
def _(c):
    _reply, wire = c.warn.connect("inspect.test:2222")
    with wire:
        wire.send(b"SSH-2.0-client\r\n")
        between("seconds to close", wire.closed_within(4), 0, 2)
        same("bytes received", wire.buf, b"")


@case("intercept", "not-tls-passthrough", CORE, "except to a passthrough host")
def _(c):
    _reply, wire = c.warn.connect("pass.test:2222")
    with wire:
        wire.send(b"SSH-2.0-client\r\n")
        same("echo", wire.until(b"\n"), b"SSH-2.0-client\r\n")


@case("intercept", "sni", CORE, "a foreign SNI is cut off here too")
def _(c):
    handshake_dies(lambda: c.warn.tls("inspect.test:443", c.ca, sni="other.test"))


@case("intercept", "down", CORE, "an upstream that is down is 502 at the CONNECT")
def _(c):
    plain_error(c.warn.refused("inspect.test:9"), 502, "tunnel dial failed\n")


@case("intercept", "sse", CORE, "server-sent events are passed on one by one")
def _(c):
    with c.warn.tls("inspect.test:443", c.ca) as wire:
        times = arrivals(wire, "/sse?n=4&ms=400", b"data: tick", "inspect.test")
    same("events", len(times), 4)
    between("seconds from first to last", times[-1], 0.8, 3)


@case("intercept", "sse-block", DETAIL, "an injection inside an event stream ends it silently, by default")
def _(c):
    with c.warn.tls("inspect.test:443", c.ca) as wire:
        wire.send(
            f"GET /sse?n=4&ms=100&evil=2&text={INJECTION} HTTP/1.1\r\nHost: inspect.test\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        reply = read_reply(wire)
    same("reply", (reply.status, reply.text), (200, "data: tick 1\n\n"))
    event(c.warn, {"event": "blocked", "scanner": "sse_stream"}, {"method": "GET"})


@case("intercept", "buffered", DETAIL, "any other stream is held back until it is complete")
def _(c):
    with c.warn.tls("inspect.test:443", c.ca) as wire:
        times = arrivals(wire, "/drip?n=3&ms=300", b"chunk", "inspect.test")
    same("pieces", len(times), 3)
    between("seconds from first to last", times[-1], 0, 0.25)


@case("intercept", "log", CORE, "an intercepted tunnel logs one tls_intercept anomaly and no tunnel_open")
def _(c):
    c.warn.https("https://other.test:8443/", c.ca)
    event(
        c.warn,
        {"event": "anomaly", "target": "other.test:8443"},
        {"scanner": "tls_intercept", "score": 0, "mitre_technique": "T1557"},
    )
    same("tunnel_open", c.warn.events(event="tunnel_open", target="other.test:8443"), [])


@case("intercept", "log-inner", CORE, "log line of an inner refusal")
def _(c):
    c.box.https(f"{HTTPS}/{RANDOM}", c.ca)
    event(
        c.box,
        {"event": "blocked", "scanner": "entropy"},
        {
            "method": "GET",
            "url": f"https://inspect.test:443/{RANDOM}",
            "reason": "high entropy path segment (5.17 > 4.50 threshold)",
        },
    )


@case("intercept", "log-inner-body", CORE, "an inner body or header block is a blocked event here")
def _(c):
    c.box.https(HTTPS + "/echo?logged=1", c.ca, TEXT, "POST", GITHUB.encode())
    event(
        c.box,
        {"event": "blocked", "scanner": "body_dlp", "reason": "request body contains secret: GitHub Token"},
        {"method": "POST", "url": "https://inspect.test:443/[redacted]", "mitre_technique": "T1048"},
    )
    c.box.https(HTTPS + "/echo", c.ca, (f"Cookie: s={GITHUB}",))
    event(c.box, {"event": "blocked", "scanner": "header_dlp"}, {"reason": "request header contains secret"})
