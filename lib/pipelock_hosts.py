"""Which hosts the sidecar lets through (shell: the hosts of lib/pipelock.sh; contract section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest, bottle_part
from claude_bottle.lib.problems import UnseenByShell, fail_with
from claude_bottle.lib.ssh import SshEntry

DEFAULT_HOSTS = (
    "api.anthropic.com",
    "claude.ai",
    "downloads.claude.ai",
    "platform.claude.com",
    "raw.githubusercontent.com",
    "sentry.io",
    "statsig.anthropic.com",
)
SHOWN = 3


def host_problem(host: str) -> str:
    """Return in words why the sidecar would never match a host that the schema refuses; not the host itself."""
    if not host:
        return "is empty"
    if not host.isascii():
        return "is not ASCII; write the name in its xn-- form"
    if "@" in host:
        return "has a user name in it; write the host name alone"
    if "://" in host:
        return "is a URL; write the host name alone"
    if re.fullmatch(r"[^:/]+:[0-9]+", host):
        return "has a port; every port of a listed host is allowed, write the name alone"
    if "*" in host:
        return "may have a * only as a leading '*.'"
    return "is not a host name"


def pipelock_check_allowlist(manifest: Manifest, bottle: str) -> None:
    """Fail unless the allowlist can be what it says (shell: pipelock_check_allowlist).

    Raises:
        BottleError: with all entries that are wrong.
    """
    fail_with(_problems(manifest, bottle))


def _problems(manifest: Manifest, bottle: str) -> Iterator[BottleError]:
    for fault in manifest.faults_at("bottles", bottle, "egress"):
        problem = manifest.problem(fault)
        if fault.kind == "form":
            index = fault.place[-1]
            host = bottle_part(manifest, bottle, "egress")["allowlist"][index]
            shown = "" if "@" in host else f" {host!a}"  # a password may stand before an @
            line = f"bottle '{bottle}': egress.allowlist[{index}]:{shown} {host_problem(host)}"
            problem = UnseenByShell(line, problem.hints)
        yield problem


def allowed_hosts(manifest: Manifest, bottle: str, ssh: Sequence[SshEntry]) -> tuple[str, ...]:
    """Return the effective allowlist: unique, in C order."""
    listed = (bottle_part(manifest, bottle, "egress") or {}).get("allowlist") or ()
    return tuple(sorted({*DEFAULT_HOSTS, *listed, *(entry.hostname for entry in ssh)}))


def pipelock_allowlist_summary(hosts: Sequence[str]) -> str:
    """Return the preflight's line (shell: pipelock_allowlist_summary)."""
    more = f", +{len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
    return f"{len(hosts)} hosts allowed ({', '.join(hosts[:SHOWN])}{more})"
