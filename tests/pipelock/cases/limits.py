"""Limits of time and of rate."""

from __future__ import annotations

import time
from types import SimpleNamespace

from tests.pipelock.checks import (
    between,
    event,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab, Sidecar
from tests.pipelock.table import CORE, DETAIL, case, group

# == limits ====================================================================


@group("limits", 12)
def _(lab: Lab) -> SimpleNamespace:
    config = strict("slow.test")
    config["forward_proxy"].update(max_tunnel_seconds=4, idle_timeout_seconds=2)
    return SimpleNamespace(lab=lab, box=lab.sidecar(config), ca=lab.pki.upstream_ca[1])


@case("limits", "idle", CORE, "an idle tunnel ends after idle_timeout_seconds")
def _(c):
    _reply, wire = c.box.connect("slow.test:2222")
    with wire:
        wire.send(b"a\n")
        wire.until(b"\n")
        between("seconds to close", wire.closed_within(6), 1.5, 3)


@case("limits", "wall-clock", CORE, "a busy tunnel ends after max_tunnel_seconds")
def _(c):
    _reply, wire = c.box.connect("slow.test:2222")
    began = time.monotonic()
    with wire:
        try:
            while time.monotonic() - began < 8:
                wire.send(b"x\n")
                if not wire.until(b"\n"):
                    break
                time.sleep(0.2)
        except OSError:
            pass
        between("seconds to close", time.monotonic() - began, 3.3, 5)


@case("limits", "one-way", CORE, "idle is counted per direction: a download without client bytes is cut")
def _(c):
    with c.box.tls("slow.test:443", c.ca) as wire:
        began = time.monotonic()
        wire.send(b"GET /drip?n=20&ms=300 HTTP/1.1\r\nHost: slow.test\r\n\r\n")
        wire.rest()
        between("seconds to close", time.monotonic() - began, 1.5, 3)


@case("limits", "close-logged", CORE, "the cut is an ordinary tunnel_close")
def _(c):
    for e in c.box.wait_event(event="tunnel_close"):
        same("message", e["message"], "tunnel closed")
    same("tunnel_close events", len(c.box.events(event="tunnel_close")) >= 1, True)


@group("rate", 66)
def _(lab: Lab) -> SimpleNamespace:
    config = strict("limit.test", "*.allowed.test", "other.test")
    config["fetch_proxy"]["monitoring"]["max_requests_per_minute"] = 3
    box = lab.sidecar(config)
    began = time.monotonic()
    return SimpleNamespace(lab=lab, box=box, began=began, first=[box.refused("limit.test:443") for _ in range(4)])


@case("rate", "over", CORE, "the request over the limit is 429, without Retry-After")
def _(c):
    same("statuses", [r.status for r in c.first], [200, 200, 200, 429])
    plain_error(c.first[-1], 429, "CONNECT blocked: rate limit exceeded for limit.test\n")
    same("Retry-After", c.first[-1].header("Retry-After"), None)


@case("rate", "plain", CORE, "CONNECT and plain HTTP share the count")
def _(c):
    plain_error(c.box.get("http://limit.test/"), 429, "blocked: rate limit exceeded for limit.test\n")


@case("rate", "other", CORE, "another domain has its own count")
def _(c):
    same("status", c.box.refused("other.test:443").status, 200)


@case("rate", "registrable", CORE, "hosts of one registrable domain share a count")
def _(c):
    got = [
        c.box.refused(h + ":443")
        for h in ("plain.allowed.test", "allowed.test", "deep.sub.allowed.test", "plain.allowed.test")
    ]
    same("statuses", [g.status for g in got], [200, 200, 200, 429])
    plain_error(got[-1], 429, "CONNECT blocked: rate limit exceeded for plain.allowed.test\n")


@case("rate", "health", CORE, "the sidecar's own endpoints are not limited")
def _(c):
    same("statuses", {c.box.get("/health").status for _ in range(8)}, {200})


@case("rate", "log", CORE, "log line of a 429")
def _(c):
    event(
        c.box,
        {"event": "blocked", "target": "limit.test:443"},
        {"scanner": "ratelimit", "reason": "rate limit exceeded for limit.test", "mitre_technique": "T1030"},
    )


@case("rate", "reset", CORE, "the count is a minute long: refused before, allowed after")
def _(c):
    c.lab.engine.nap(45 - (time.monotonic() - c.began))
    same("after 45 s", c.box.refused("limit.test:443").status, 429)
    c.lab.engine.nap(63 - (time.monotonic() - c.began))
    same("after 63 s", c.box.refused("limit.test:443").status, 200)


@group("default-limits", 4)
def _(lab: Lab) -> SimpleNamespace:
    config = strict()
    del config["fetch_proxy"]
    return SimpleNamespace(lab=lab, config=config, box=lab.sidecar(config))


def _first_refusal(box: Sidecar) -> int:
    return next((i for i in range(70) if box.refused("plain.allowed.test:443").status == 429), -1)


@case("default-limits", "rate", CORE, "60 a minute when nothing is said")
def _(c):
    same("first 429 after", _first_refusal(c.box), 60)


@case("default-limits", "rate-zero", DETAIL, "0 and negative values mean the default, not unlimited, and no error")
def _(c):
    for value in (0, -1):
        box = c.lab.sidecar({**c.config, "fetch_proxy": {"monitoring": {"max_requests_per_minute": value}}})
        same(f"first 429 after, with {value}", _first_refusal(box), 60)
        box.remove()
