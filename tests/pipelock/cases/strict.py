"""The image, and strict mode: who may be reached."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tests.pipelock.checks import (
    ANTHROPIC,
    RANDOM,
    established,
    event,
    internal,
    like,
    not_listed,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, add, case, group

# == the image =================================================================


@group("image", 1)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(
        lab=lab, config=json.loads(lab.engine.out("image", "inspect", "-f", "{{json .Config}}", lab.image))
    )


@case("image", "entrypoint", CORE, "entrypoint is /pipelock, so argv starts at the command")
def _(c):
    same("Entrypoint", c.config["Entrypoint"], ["/pipelock"])


@case("image", "cmd", DETAIL, "default command listens on all addresses")
def _(c):
    same("Cmd", c.config["Cmd"], ["run", "--listen", "0.0.0.0:8888"])


@case("image", "port-user", DETAIL, "8888 is exposed, no user is set")
def _(c):
    same("ExposedPorts, User", (list(c.config["ExposedPorts"]), c.config.get("User", "")), (["8888/tcp"], ""))


@case("image", "healthcheck", DETAIL, "the image has its own health check")
def _(c):
    check = c.config.get("Healthcheck") or {}
    same(
        "Healthcheck",
        (
            check.get("Test"),
            check.get("Interval"),
            check.get("Timeout"),
            check.get("StartPeriod"),
            check.get("Retries"),
        ),
        (["CMD", "/pipelock", "healthcheck"], 10**10, 3 * 10**9, 5 * 10**9, 3),
    )


# == strict mode: who may be reached ===========================================


@group("strict", 8)
def _(lab: Lab) -> SimpleNamespace:
    hosts = [
        "plain.allowed.test",
        "UPPER.wild.TEST",
        "*.wild.test",
        "dotted.test.",
        "other.test:443",
        "blocked.test",
        "nxdomain.test",
        lab.public_ip,
        lab.private_ip,
        *lab.ZONE,
        *lab.PRIVATE_HOSTS,
    ]
    config = strict(*hosts)
    config["fetch_proxy"]["monitoring"]["blocklist"] = ["blocked.test"]
    return SimpleNamespace(lab=lab, box=lab.sidecar(config, private=True))


def _connect(slug: str, klass: str, title: str, target: str, status: int, body: str = "") -> None:
    def run(c: SimpleNamespace) -> None:
        names = {"public": c.lab.public_ip, "private": c.lab.private_ip}
        reply = c.box.refused(target.format(**names))
        if status == 200:
            established(reply)
        else:
            plain_error(reply, status, body.format(**names))

    add("strict", slug, klass, title, run)


for _row in (
    ("exact", CORE, "listed host", "plain.allowed.test:443", 200),
    ("upper-target", CORE, "case of the target does not matter", "PLAIN.Allowed.TEST:443", 200),
    ("trailing-dot", DETAIL, "a trailing dot does not matter", "plain.allowed.test.:443", 200),
    ("no-port", DETAIL, "a target without a port means 443", "plain.allowed.test", 200),
    ("any-port", CORE, "the port is not policed", "plain.allowed.test:2222", 200),
    ("listed-ip", CORE, "a listed public IP (198.18/15 is not private)", "{public}:443", 200),
    ("wildcard-sub", CORE, "*.x matches a subdomain", "api.wild.test:443", 200),
    ("wildcard-deep", CORE, "*.x matches at any depth", "a.b.wild.test:443", 200),
    ("wildcard-apex", CORE, "*.x matches x itself", "wild.test:443", 200),
    ("lookalike", CORE, "*.x does not match nx", "notwild.test:443", 403, not_listed("notwild.test")),
    ("unlisted", CORE, "unlisted host", "evil.test:443", 403, not_listed("evil.test")),
    (
        "unlisted-upper",
        DETAIL,
        "the refusal names the host in lower case",
        "EVIL.test:443",
        403,
        not_listed("evil.test"),
    ),
    ("unlisted-ip", CORE, "unlisted public IP", "198.51.100.7:443", 403, not_listed("198.51.100.7")),
    (
        "unlisted-private-ip",
        CORE,
        "unlisted private IP: the allowlist speaks first",
        "10.0.0.6:443",
        403,
        not_listed("10.0.0.6"),
    ),
    ("localhost", CORE, "the sidecar itself by name", "localhost:8888", 403, not_listed("localhost")),
    ("loopback", CORE, "the sidecar itself by loopback IP", "127.0.0.1:8888", 403, not_listed("127.0.0.1")),
    ("loopback6", DETAIL, "IPv6 loopback, named without brackets", "[::1]:8888", 403, not_listed("::1")),
    (
        "entry-with-port",
        CORE,
        "an allowlist entry with a port matches nothing",
        "other.test:443",
        403,
        not_listed("other.test"),
    ),
    (
        "blocklist",
        DETAIL,
        "blocklist beats allowlist",
        "blocked.test:443",
        403,
        "CONNECT blocked: domain blocked: blocked.test matches blocked.test\n",
    ),
    ("down", CORE, "listed host that refuses the connection", "plain.allowed.test:9", 502, "tunnel dial failed\n"),
    (
        "random-label",
        CORE,
        "random label under a wildcard",
        "q7x2k9m4z8w1v5b3n6j0.wild.test:443",
        403,
        'CONNECT blocked: high entropy subdomain label "q7x2k9m4z8w1v5b3n6j0" (4.32 > 4.00 threshold)\n',
    ),
    (
        "secret-label",
        DETAIL,
        "a secret as a label",
        f"{ANTHROPIC}.wild.test:443",
        403,
        "CONNECT blocked: DLP match: Anthropic API Key (critical)\n",
    ),
    (
        "private-literal",
        CORE,
        "a listed private IP is still refused",
        "{private}:443",
        403,
        internal("{private}", "{private}"),
    ),
    (
        "private-name",
        CORE,
        "a listed name with a private address on the sidecar's own network",
        "private.test:443",
        403,
        internal("private.test", "{private}"),
    ),
    ("resolves-10", CORE, "name to 10/8", "ten.test:443", 403, internal("ten.test", "10.1.2.3")),
    (
        "resolves-172",
        CORE,
        "name to 172.16/12",
        "oneseventwo.test:443",
        403,
        internal("oneseventwo.test", "172.20.1.1"),
    ),
    (
        "resolves-192",
        CORE,
        "name to 192.168/16",
        "oneninetwo.test:443",
        403,
        internal("oneninetwo.test", "192.168.7.7"),
    ),
    ("resolves-cgnat", CORE, "name to 100.64/10", "cgnat.test:443", 403, internal("cgnat.test", "100.64.1.1")),
    (
        "resolves-linklocal",
        CORE,
        "name to the metadata address",
        "linklocal.test:80",
        403,
        internal("linklocal.test", "169.254.169.254"),
    ),
    ("resolves-loopback", CORE, "name to loopback", "loop.test:8888", 403, internal("loop.test", "127.0.0.1")),
    ("resolves-zero", DETAIL, "name to 0/8", "zero.test:443", 403, internal("zero.test", "0.0.0.1")),
    (
        "resolves-multicast",
        DETAIL,
        "name to multicast",
        "multicast.test:443",
        403,
        internal("multicast.test", "224.0.0.1"),
    ),
):
    _connect(*_row)


@case("strict", "entry-upper", CORE, "case of the allowlist entry does not matter")
def _(c):
    # The name does not resolve: it must get past the allowlist to find that out.
    like("body", c.box.refused("upper.wild.test:443").text, r"DNS resolution error for upper\.wild\.test")


@case("strict", "entry-dot", DETAIL, "a trailing dot in the allowlist entry does not matter")
def _(c):
    like("body", c.box.refused("dotted.test:443").text, r"DNS resolution error for dotted\.test")


@case("strict", "no-address", CORE, "listed name without an address: 403, not 502")
def _(c):
    reply = c.box.refused("nxdomain.test:443")
    same("status", reply.status, 403)
    like("body", reply.text, r"^CONNECT blocked: SSRF check failed: DNS resolution error for nxdomain\.test: lookup ")


@case("strict", "no-dns-for-unlisted", CORE, "an unlisted name causes no DNS query")
def _(c):
    c.box.refused("never-asked.test:443")
    c.box.get("http://never-asked.test/")
    asked = c.box.get("http://plain.allowed.test/dns").json()
    same("queries for an unlisted name", asked.get("never-asked.test", 0), 0)


@case("strict", "empty-target", DETAIL, "CONNECT without a target")
def _(c):
    plain_error(c.box.refused(""), 400, "missing target host\n")


@case("strict", "log-denied", CORE, "log line of a denied CONNECT")
def _(c):
    c.box.refused("log-denied.test:8443")
    found = event(
        c.box,
        {"event": "blocked", "target": "log-denied.test:8443"},
        {
            "level": "warn",
            "component": "pipelock",
            "method": "CONNECT",
            "scanner": "allowlist",
            "reason": "domain not in allowlist: log-denied.test",
            "agent": "anonymous",
            "mitre_technique": "T1071.001",
            "message": "request blocked",
        },
        absent=("url",),
    )
    like("request_id", found["request_id"], r"^req-\d+$")
    like("time", found["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
    like("client_ip", found["client_ip"], r"^198\.18\.")


@case("strict", "log-ssrf", CORE, "log line of an SSRF refusal")
def _(c):
    c.box.refused("ten.test:4443")
    event(
        c.box,
        {"event": "blocked", "target": "ten.test:4443"},
        {
            "scanner": "ssrf",
            "reason": "SSRF blocked: ten.test resolves to internal IP 10.1.2.3",
            "mitre_technique": "T1046",
        },
    )


@case("strict", "log-down", DETAIL, "log line of a failed dial")
def _(c):
    c.box.refused("plain.allowed.test:9")
    found = event(
        c.box,
        {"event": "error", "target": "plain.allowed.test:9"},
        {"level": "error", "method": "CONNECT", "message": "request error"},
    )
    like("error", found["error"], "^dial tcp ")


@case("strict", "stats-hide-connect", DETAIL, "/stats does not count denied CONNECTs")
def _(c):
    before = c.box.get("/stats").json()["requests"]["blocked"]
    c.box.refused("evil.test:443")
    same("requests.blocked", c.box.get("/stats").json()["requests"]["blocked"], before)


# == hosts that may look random ================================================


LABEL = "q7x2k9m4z8w1v5b3n6j0"


@group("excluded", 4)
def _(lab: Lab) -> SimpleNamespace:
    config = strict("*.wild.test", f"{LABEL}.sub.allowed.test", f"{LABEL}.other.test")
    config["fetch_proxy"]["monitoring"]["subdomain_entropy_exclusions"] = [
        "*.wild.test",
        f"{LABEL.upper()}.sub.allowed.test.",
    ]
    return SimpleNamespace(lab=lab, box=lab.sidecar(config))


@case("excluded", "exact", CORE, "a random label of a host that is excluded by its whole name")
def _(c):
    established(c.box.refused(f"{LABEL}.sub.allowed.test:443"))


@case("excluded", "wildcard", CORE, "a random label below an excluded wildcard")
def _(c):
    established(c.box.refused(f"{LABEL}.wild.test:443"))


@case("excluded", "other", CORE, "a random label of a listed host that is not excluded")
def _(c):
    reply = c.box.refused(f"{LABEL}.other.test:443")
    reason = f'CONNECT blocked: high entropy subdomain label "{LABEL}" (4.32 > 4.00 threshold)\n'
    plain_error(reply, 403, reason)


@case("excluded", "unlisted", CORE, "excluded is not allowed: the allowlist speaks first")
def _(c):
    plain_error(c.box.refused(f"{LABEL}.evil.test:443"), 403, not_listed(f"{LABEL}.evil.test"))


@case("excluded", "path", DETAIL, "a random path of an excluded host passes in plain HTTP")
def _(c):
    same("status", c.box.get(f"http://api.wild.test/{RANDOM}").status, 200)


@case("excluded", "query", DETAIL, "a random query of an excluded host is refused all the same")
def _(c):
    reply = c.box.get(f"http://api.wild.test/?k={RANDOM}")
    plain_error(reply, 403, 'blocked: high entropy query param "k" (5.17 > 4.50 threshold)\n')
