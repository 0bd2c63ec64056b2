"""Private addresses and their exemptions."""

from __future__ import annotations

from types import SimpleNamespace

from tests.pipelock.checks import (
    established,
    internal,
    like,
    not_listed,
    plain_error,
    strict,
)
from tests.pipelock.lab import Lab
from tests.pipelock.table import CORE, DETAIL, add, case, group

# == private addresses and their exemptions ====================================


@group("exempt", 5)
def _(lab: Lab) -> SimpleNamespace:
    hosts = [
        "private.test",
        "sub.trusted.test",
        "trusted.test",
        "listed.test",
        "ten.test",
        "nxdomain.test",
        lab.private_ip,
    ]
    named = strict(
        *hosts, trusted_domains=["PRIVATE.test", "*.trusted.test", "nxdomain.test", "evil.test", lab.private_ip]
    )
    by_ip = strict(*hosts, ssrf={"ip_allowlist": [lab.private_ip + "/32"]})
    return SimpleNamespace(lab=lab, named=lab.sidecar(named, private=True), by_ip=lab.sidecar(by_ip, private=True))


def _exempt(slug: str, klass: str, title: str, box: str, target: str, body: str | None = None) -> None:
    def run(c: SimpleNamespace) -> None:
        reply = getattr(c, box).refused(target.format(private=c.lab.private_ip))
        if body is None:
            established(reply)
        else:
            plain_error(reply, 403, body.format(private=c.lab.private_ip))

    add("exempt", slug, klass, title, run)


for _row in (
    ("trusted-name", CORE, "trusted_domains lets a name resolve to a private address", "named", "private.test:22"),
    ("trusted-wildcard", CORE, "a wildcard there", "named", "sub.trusted.test:22"),
    ("trusted-apex", DETAIL, "the wildcard matches the apex too", "named", "trusted.test:22"),
    (
        "trusted-other",
        CORE,
        "another name at the same address is still refused",
        "named",
        "listed.test:22",
        internal("listed.test", "{private}"),
    ),
    (
        "trusted-literal",
        CORE,
        "an IP in trusted_domains exempts nothing",
        "named",
        "{private}:22",
        internal("{private}", "{private}"),
    ),
    (
        "trusted-unlisted",
        CORE,
        "trusted is not allowed: strict still wants it listed",
        "named",
        "evil.test:22",
        not_listed("evil.test"),
    ),
    ("ip-literal", CORE, "ssrf.ip_allowlist lets the IP literal through", "by_ip", "{private}:22"),
    ("ip-name", CORE, "and every listed name that resolves to it", "by_ip", "private.test:22"),
    ("ip-other", CORE, "and no other private address", "by_ip", "ten.test:22", internal("ten.test", "10.1.2.3")),
):
    _exempt(*_row)


@case("exempt", "trusted-no-address", DETAIL, "a trusted name without an address is still 403")
def _(c):
    like("body", c.named.refused("nxdomain.test:22").text, "^CONNECT blocked: SSRF check failed: DNS resolution error")


@group("balanced", 3)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(lab=lab, box=lab.sidecar({"mode": "balanced", "forward_proxy": {"enabled": True}}))


for _slug, _target, _name, _ip in (
    ("literal-10", "10.0.0.5", "10.0.0.5", "10.0.0.5"),
    ("literal-172", "172.31.255.1", "172.31.255.1", "172.31.255.1"),
    ("literal-192", "192.168.1.1", "192.168.1.1", "192.168.1.1"),
    ("literal-cgnat", "100.64.0.1", "100.64.0.1", "100.64.0.1"),
    ("literal-metadata", "169.254.169.254", "169.254.169.254", "169.254.169.254"),
    ("literal-v6", "[::1]", "::1", "::1"),
    ("literal-ula", "[fd00::1]", "fd00::1", "fd00::1"),
    ("literal-hex", "0x0a000005", "10.0.0.5", "10.0.0.5"),
    ("literal-integer", "167772165", "10.0.0.5", "10.0.0.5"),
    ("literal-octal", "012.0.0.5", "10.0.0.5", "10.0.0.5"),
    ("localhost", "localhost", "localhost", "127.0.0.1"),
):
    add(
        "balanced",
        _slug,
        CORE if _slug.startswith(("literal-1", "literal-m")) else DETAIL,
        f"{_target} is refused without an allowlist too",
        lambda c, t=_target, n=_name, i=_ip: plain_error(c.box.refused(t + ":443"), 403, internal(n, i)),
    )


@case("balanced", "open", DETAIL, "balanced mode reaches any public host")
def _(c):
    established(c.box.refused("other.test:443"))
