"""Inside a raw tunnel."""

from __future__ import annotations

import time
from types import SimpleNamespace

from tests.pipelock.checks import (
    GITHUB,
    between,
    established,
    event,
    handshake_dies,
    same,
    strict,
    tls_get,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, case, group
from tests.pipelock.wire import read_reply

# == inside a tunnel ===========================================================


@group("tunnel", 14)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(
        lab=lab, box=lab.sidecar(strict("plain.allowed.test", "other.test")), ca=lab.pki.upstream_ca[1]
    )


@case("tunnel", "tls", CORE, "TLS end to end, upstream's own certificate")
def _(c):
    same(
        "body",
        tls_get(c.box.tls("plain.allowed.test:443", c.ca), "plain.allowed.test"),
        "hello from https plain.allowed.test\n",
    )


@case("tunnel", "sni-case", DETAIL, "case of the SNI does not matter")
def _(c):
    tls_get(c.box.tls("plain.allowed.test:443", c.ca, sni="PLAIN.allowed.TEST"), "plain.allowed.test")


@case("tunnel", "sni-none", DETAIL, "TLS without SNI passes")
def _(c):
    same("body", tls_get(c.box.tls("plain.allowed.test:443", c.ca, sni=""), "x"), "hello from https x\n")


@case("tunnel", "sni-unlisted", CORE, "SNI of an unlisted host: silent close")
def _(c):
    handshake_dies(lambda: c.box.tls("plain.allowed.test:443", c.ca, sni="evil.test"))
    event(
        c.box,
        {"event": "sni_mismatch", "sni_host": "evil.test"},
        {
            "level": "warn",
            "connect_host": "plain.allowed.test",
            "category": "mismatch",
            "mitre_technique": "T1090.004",
            "message": "SNI verification failed",
        },
    )


@case("tunnel", "sni-other-listed", CORE, "SNI of another listed host: silent close too")
def _(c):
    handshake_dies(lambda: c.box.tls("plain.allowed.test:443", c.ca, sni="other.test"))


@case("tunnel", "sni-broken", DETAIL, "a broken ClientHello: immediate close")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:2222")
    with wire:
        wire.send(b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c" + b"\xff" * 12)
        between("seconds to close", wire.closed_within(4), 0, 2)


@case("tunnel", "not-tls", CORE, "bytes that are not TLS pass when the client speaks first")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:2222")
    with wire:
        wire.send(b"hello\n")
        same("echo", wire.until(b"\n"), b"hello\n")


@case("tunnel", "ssh-like", CORE, "an ssh client (which sends its banner at once) gets the server's banner")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:22")
    with wire:
        wire.send(b"SSH-2.0-client\r\n")
        same("banner came", b"SSH-2.0-upstream" in wire.until(b"upstream\r\n"), True)


@case("tunnel", "server-first", CORE, "a client that waits for the server's greeting gets nothing and is cut after 5 s")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:22")
    with wire:
        between("seconds to close", wire.closed_within(9), 4.5, 6.5)
        same("bytes received", wire.buf, b"")
    event(
        c.box, {"event": "sni_mismatch", "category": "timeout"}, {"connect_host": "plain.allowed.test", "sni_host": ""}
    )


@case("tunnel", "early-data", DETAIL, "bytes sent together with the CONNECT are passed on")
def _(c):
    with c.box.open() as wire:
        wire.send(b"CONNECT plain.allowed.test:2222 HTTP/1.1\r\nHost: plain.allowed.test:2222\r\n\r\nearly\n")
        established(read_reply(wire, connect=True))
        same("echo", wire.until(b"\n"), b"early\n")


@case("tunnel", "inner-host", DETAIL, "the Host header inside a tunnel is not looked at")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:80")
    with wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
        same("body", read_reply(wire).text, "hello from http evil.test\n")


@case("tunnel", "secret-inside", CORE, "without interception nothing inside a tunnel is scanned")
def _(c):
    same("status", c.box.https(f"https://plain.allowed.test/echo?k={GITHUB}", c.ca).status, 200)


@case("tunnel", "log", CORE, "log lines of a tunnel")
def _(c):
    tls_get(c.box.tls("other.test:443", c.ca), "other.test")
    opened = event(
        c.box,
        {"event": "tunnel_open", "target": "other.test:443"},
        {"level": "info", "agent": "anonymous", "message": "tunnel opened"},
    )
    closed = event(
        c.box,
        {"event": "tunnel_close", "request_id": opened["request_id"]},
        {"level": "info", "target": "other.test:443", "message": "tunnel closed"},
    )
    same("numbers", all(isinstance(closed.get(k), (int, float)) for k in ("total_bytes", "duration_ms")), True)


@case("tunnel", "log-short", DETAIL, "a tunnel dropped before the first byte has no tunnel_open")
def _(c):
    before = len(c.box.events(event="tunnel_open"))
    c.box.refused("plain.allowed.test:443")
    time.sleep(0.5)
    same("tunnel_open events", len(c.box.events(event="tunnel_open")), before)


@group("no-sni", 9)
def _(lab: Lab) -> SimpleNamespace:
    config = strict()
    config["forward_proxy"]["sni_verification"] = False
    return SimpleNamespace(lab=lab, box=lab.sidecar(config))


@case("no-sni", "server-first", DETAIL, "sni_verification: false lets the server speak first, however late")
def _(c):
    _reply, wire = c.box.connect("plain.allowed.test:2200", timeout=12)
    with wire:
        same("banner", wire.until(b"\r\n"), b"SSH-2.0-upstream\r\n")
