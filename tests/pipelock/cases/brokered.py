"""A host that a broker answers for, on a loopback address of the sidecar's own namespace; and what a tunnel carries."""

from __future__ import annotations

from types import SimpleNamespace

from tests.pipelock.checks import interception, same, strict
from tests.pipelock.lab import CONFIG_PATH, PORT, Lab
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
    address = str(lab.public_net[-6])  # the engine gives out the first ones
    alone = {**how, "create": (*how["create"], "--ip", address)}
    argv = ("run", "--config", CONFIG_PATH, "--listen", f"{address}:{PORT}")
    return SimpleNamespace(
        lab=lab,
        box=lab.sidecar(config, **how),
        alone=lab.sidecar(config, argv=argv, **alone),
        ca=lab.pki.mitm_ca[1],
    )


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


@case("brokered", "alone", CORE, "a sidecar that listens on one address of its own works there")
def _(c):
    same("health", c.alone.get("/health").status, 200)
    same("reply", c.alone.https("https://inspect.test/", c.ca).status, 200)


@case("brokered", "alone-connect", CORE, "and a brokered name does not lead to it: CONNECT")
def _(c):
    same("reply", [c.alone.refused(f"{BROKERED}:{port}").status for port in (PORT, 9091, 443, 22)], [502] * 4)


@case("brokered", "alone-plain", CORE, "and a brokered name does not lead to it: plain")
def _(c):
    asked = (c.alone.get(f"http://{BROKERED}:{port}/stats") for port in (PORT, 9091, 80))
    same("reply", [reply.status for reply in asked], [502] * 3)


@case("brokered", "alone-itself", CORE, "nor does its own address, which is no allowed host")
def _(c):
    same("reply", c.alone.refused(f"{c.alone.ip}:{PORT}").status, 403)


@case("brokered", "compressed-answer", CORE, "an answer compressed unasked is refused")
def _(c):
    reply = c.box.https("https://inspect.test/gzip", c.ca)
    same("reply", (reply.status, reply.text), (403, "blocked: compressed response cannot be scanned\n"))
