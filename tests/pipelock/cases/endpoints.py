"""What the sidecar answers itself."""

from __future__ import annotations

import socket
from types import SimpleNamespace

from tests.pipelock.checks import (
    HEALTH_FIELDS,
    HTTP,
    TOKEN,
    event,
    json_error,
    like,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, Differs, case, group

# == endpoints of the sidecar itself ===========================================


@group("endpoints", 6)
def _(lab: Lab) -> SimpleNamespace:
    closed = strict(metrics_listen="127.0.0.1:9091", kill_switch={"api_listen": "127.0.0.1:9090", "api_token": TOKEN})
    off = strict()
    off["forward_proxy"] = {"enabled": False}
    return SimpleNamespace(lab=lab, box=lab.sidecar(strict()), closed=lab.sidecar(closed), off=lab.sidecar(off))


@case("endpoints", "health", CORE, "/health: 200, JSON, these fields and values")
def _(c):
    reply = c.box.get("/health")
    same("status and type", (reply.status, reply.header("Content-Type")), (200, "application/json"))
    health = reply.json()
    same("fields", set(health), HEALTH_FIELDS)
    same(
        "values",
        {k: v for k, v in health.items() if k not in ("version", "uptime_seconds")},
        {
            "status": "healthy",
            "mode": "strict",
            "dlp_patterns": 48,
            "response_scan_enabled": True,
            "git_protection_enabled": False,
            "rate_limit_enabled": True,
            "forward_proxy_enabled": True,
            "websocket_proxy_enabled": False,
            "request_body_scan_enabled": True,
            "tls_interception_enabled": False,
            "kill_switch_active": False,
        },
    )


@case("endpoints", "health-follows", CORE, "/health follows the config")
def _(c):
    same("forward_proxy_enabled", c.off.get("/health").json()["forward_proxy_enabled"], False)


@case("endpoints", "health-head", DETAIL, "/health answers HEAD and POST too")
def _(c):
    same("statuses", [c.box.get("/health", method=m).status for m in ("HEAD", "POST")], [200, 200])


@case("endpoints", "unknown", DETAIL, "unknown paths are 404")
def _(c):
    for path in ("/", "/health/", "/nope"):
        plain_error(c.box.get(path), 404, "404 page not found\n")


@case("endpoints", "stats", DETAIL, "/stats: JSON with these fields")
def _(c):
    reply = c.box.get("/stats")
    same("status and type", (reply.status, reply.header("Content-Type")), (200, "application/json"))
    stats = reply.json()
    same(
        "fields",
        set(stats) - {"agents"},
        {
            "uptime_seconds",
            "requests",
            "tunnels",
            "websockets",
            "top_blocked_domains",
            "top_scanners",
            "sessions",
            "cross_request_detection",
        },
    )
    same("requests", set(stats["requests"]), {"total", "allowed", "blocked", "block_rate"})


@case("endpoints", "metrics", DETAIL, "/metrics: Prometheus text with the pipelock_ prefix")
def _(c):
    reply = c.box.get("/metrics")
    like("type", reply.header("Content-Type") or "", r"^text/plain; version=0\.0\.4")
    same(
        "families",
        [n for n in ("pipelock_active_tunnels", "pipelock_info", "pipelock_kill_switch_active") if n not in reply.text],
        [],
    )


@case("endpoints", "fetch-denied", CORE, "/fetch obeys the allowlist")
def _(c):
    json_error(
        c.box.get("/fetch?url=http%3A%2F%2Fevil.test%2F"),
        403,
        {
            "url": "http://evil.test/",
            "agent": "anonymous",
            "blocked": True,
            "block_reason": "domain not in allowlist: evil.test",
        },
    )


@case("endpoints", "fetch", DETAIL, "/fetch of a listed host, and without a url")
def _(c):
    json_error(
        c.box.get("/fetch?url=http%3A%2F%2Fplain.allowed.test%2F"),
        200,
        {
            "url": "http://plain.allowed.test/",
            "agent": "anonymous",
            "status_code": 200,
            "content_type": "text/plain",
            "content": "hello from http plain.allowed.test\n",
            "blocked": False,
        },
    )
    json_error(c.box.get("/fetch"), 400, {"url": "", "error": "missing 'url' query parameter", "blocked": False})


@case("endpoints", "ws", DETAIL, "/ws is off by default")
def _(c):
    plain_error(c.box.get("/ws?url=x"), 404, "WebSocket proxy not enabled\n")


@case("endpoints", "admin", CORE, "the admin API does nothing without a token in the config")
def _(c):
    plain_error(
        c.box.get("/api/v1/killswitch", method="POST", body=b'{"active":true}'),
        503,
        "kill switch API not configured (no api_token)\n",
    )
    same("still open", c.box.refused("plain.allowed.test:443").status, 200)
    same("sessions", c.box.get("/api/v1/sessions").status, 404)


@case("endpoints", "closable", CORE, "metrics_listen and api_listen take /stats, /metrics and /api off the proxy port")
def _(c):
    same(
        "statuses",
        [
            c.closed.get(p).status
            for p in ("/stats", "/metrics", "/api/v1/killswitch", "/api/v1/killswitch/status", "/health")
        ],
        [404, 404, 404, 404, 200],
    )


@case("endpoints", "closed-loopback", CORE, "and a loopback metrics_listen is not reachable from outside")
def _(c):
    try:
        socket.create_connection((c.closed.ip, 9091), 2).close()
    except OSError:
        return
    raise Differs("connection to the metrics port", "refused", "accepted")


@case("endpoints", "proxy-off", CORE, "forward_proxy.enabled: false gives 405")
def _(c):
    plain_error(c.off.refused("plain.allowed.test:443"), 405, "CONNECT not supported\n")
    plain_error(c.off.get(HTTP + "/"), 405, "forward proxy not enabled\n")


@case("endpoints", "detect-only", DETAIL, "enforce: false lets an unlisted host pass, but no private address")
def _(c):
    box = c.lab.sidecar({**strict(), "enforce": False}, private=True)
    same("unlisted", box.refused("other.test:443").status, 200)
    plain_error(box.refused("private.test:443"), 502, "tunnel dial failed\n")
    event(box, {"event": "anomaly", "target": "other.test:443"}, {"scanner": "allowlist"})
    box.remove()
