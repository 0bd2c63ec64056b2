"""A host that a broker answers for, on a loopback address of the sidecar's own namespace; and what a tunnel carries."""

from __future__ import annotations

from types import SimpleNamespace

from tests.pipelock.checks import interception, same, strict
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, case, group

BROKERED = "brokered.test"


@group("brokered", 8)
def _(lab: Lab) -> SimpleNamespace:
    block, how = interception(lab)
    how["create"] = (*how["create"], "--add-host", f"{BROKERED}:127.0.0.2")
    config = strict(
        BROKERED,
        "inspect.test",
        trusted_domains=[BROKERED],
        tls_interception=block,
        metrics_listen="127.0.0.1:9091",
        seed_phrase_detection={"enabled": False},
    )
    return SimpleNamespace(lab=lab, box=lab.sidecar(config, **how), ca=lab.pki.mitm_ca[1])


@case("brokered", "metrics-connect", CORE, "a brokered name opens no listener on the sidecar's loopback: CONNECT")
def _(c):
    same("reply", c.box.refused(f"{BROKERED}:9091").status, 502)


@case("brokered", "metrics-plain", CORE, "a brokered name opens no listener on the sidecar's loopback: plain")
def _(c):
    same("reply", c.box.get(f"http://{BROKERED}:9091/stats").status, 502)


@case("brokered", "no-broker", CORE, "with no broker there, its name answers 502")
def _(c):
    same("reply", c.box.refused(f"{BROKERED}:443").status, 502)


@case("brokered", "one-request", CORE, "an opened HTTP/1.1 tunnel serves one request, and is closed without saying so")
def _(c):
    with c.box.tls("inspect.test:443", c.ca) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: inspect.test\r\n\r\n")
        seen = b""
        while wire.fill():
            seen, wire.buf = seen + wire.buf, b""
    head = seen.partition(b"\r\n\r\n")[0].lower()
    same("status", head.split(b"\r\n")[0], b"http/1.1 200 ok")
    same("Connection: close", b"connection: close" in head, False)


@case("brokered", "proxy-plain", CORE, "the proxy's own port, by a brokered name, plain: it answers, without figures")
def _(c):
    same("reply", c.box.get(f"http://{BROKERED}:8888/stats").status, 404)


@case("brokered", "proxy-connect", CORE, "the proxy's own port, by a brokered name, CONNECT: the tunnel opens")
def _(c):
    same("reply", c.box.refused(f"{BROKERED}:8888").status, 200)


@case("brokered", "compressed-answer", CORE, "an answer compressed unasked is refused")
def _(c):
    reply = c.box.https("https://inspect.test/gzip", c.ca)
    same("reply", (reply.status, reply.text), (403, "blocked: compressed response cannot be scanned\n"))
