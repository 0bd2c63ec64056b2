"""Which hosts the sidecar lets through (shell: the hosts of lib/pipelock.sh; contract section 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host_names import host_problem
from claude_bottle.lib.manifest import Manifest, bottle_part, fail_with
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


def pipelock_check_allowlist(manifest: Manifest, bottle: str) -> None:
    """Fail unless the allowlist can be what it says (shell: pipelock_check_allowlist).

    Raises:
        BottleError: with all entries that are wrong.
    """
    egress = bottle_part(manifest, bottle, "egress")
    if egress is not None and not isinstance(egress, dict):
        raise BottleError(f"bottle '{bottle}': egress must be an object")
    fail_with(_problems(f"bottle '{bottle}': egress.allowlist", (egress or {}).get("allowlist")))


def _problems(what: str, hosts: Any) -> Iterator[str]:
    if hosts is None:
        return
    if not isinstance(hosts, list):
        yield f"{what} must be an array"
        return
    if any(not isinstance(host, str) for host in hosts):
        yield f"{what} entries must be strings"
    for index, host in enumerate(hosts):
        problem = host_problem(host) if isinstance(host, str) else ""
        if problem:
            yield f"{what}[{index}]: {host!a} {problem}"


def allowed_hosts(manifest: Manifest, bottle: str, ssh: Sequence[SshEntry]) -> tuple[str, ...]:
    """Return the effective allowlist: unique, in C order."""
    listed = (bottle_part(manifest, bottle, "egress") or {}).get("allowlist") or ()
    return tuple(sorted({*DEFAULT_HOSTS, *listed, *(entry.hostname for entry in ssh)}))


def pipelock_allowlist_summary(hosts: Sequence[str]) -> str:
    """Return the preflight's line (shell: pipelock_allowlist_summary)."""
    more = f", +{len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
    return f"{len(hosts)} hosts allowed ({', '.join(hosts[:SHOWN])}{more})"
