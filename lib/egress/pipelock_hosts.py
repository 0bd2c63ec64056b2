"""Which hosts the sidecar lets through (shell: the hosts of lib/pipelock.sh; contract section 8)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from claude_bottle.lib.manifest import Manifest, manifest_bottle
from claude_bottle.lib.problems import fail_with
from claude_bottle.lib.schema.manifest_parse import SshEntry
from claude_bottle.lib.schema.manifest_words import is_address

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
PRIVATE_NETWORKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")))
# Nobody can register a name below these (RFC 6761, 6762, 8375; ICANN's .internal).
PRIVATE_DOMAINS = (".corp", ".home", ".home.arpa", ".internal", ".intranet", ".lan", ".local", ".private")
MOST_CHARACTERS = 16  # different ones in a label: with more it may have over 4.0 bits a character, the sidecar's limit


def pipelock_check_allowlist(manifest: Manifest, bottle: str) -> None:
    """Fail unless the allowlist can be what it says (shell: pipelock_check_allowlist).

    Raises:
        BottleError: with all entries that are wrong.
    """
    fail_with(manifest.checks.problems("bottles", bottle, "egress"))


def listed_hosts(manifest: Manifest, bottle: str) -> tuple[str, ...]:
    """Return the hosts of a bottle's own allowlist."""
    return tuple(listed.host for listed in manifest_bottle(manifest, bottle).allowlist)


def allowed_hosts(
    manifest: Manifest, bottle: str, ssh: Sequence[SshEntry], brokered: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the effective allowlist: unique, in C order."""
    own = listed_hosts(manifest, bottle)
    return tuple(sorted({*DEFAULT_HOSTS, *own, *(entry.hostname for entry in ssh), *brokered}))


def _is_private(address: str) -> bool:
    return any(ipaddress.IPv4Address(address) in network for network in PRIVATE_NETWORKS)


def _lies_inside(host: str) -> bool:
    name = host.lower().removesuffix(".")
    return "." not in name or name.endswith(PRIVATE_DOMAINS)


def private_hosts(listed: Iterable[str]) -> list[str]:
    """Return the listed hosts that can only be of a private network: by their address, or by their name.

    Nothing is looked up: that would tell a resolver the names of a manifest that nobody has agreed to yet, could hang,
    and asks another resolver than the sidecar's.
    """
    hosts = (host for host in listed if not host.startswith("*."))
    return sorted({host for host in hosts if (_is_private(host) if is_address(host) else _lies_inside(host))})


def trusted_names(listed: Iterable[str], ssh_hosts: Iterable[str]) -> list[str]:
    """Return the names that may have a private address: of ssh, and those listed whole, since that is on purpose.

    Not the names below a wildcard: who may make one there, may point it anywhere.
    """
    own = (host for host in listed if not host.startswith("*.") and host not in DEFAULT_HOSTS)
    return sorted({host for host in (*own, *ssh_hosts) if not is_address(host)})


def trusted_addresses(listed: Iterable[str], ssh_hosts: Iterable[str]) -> list[str]:
    """Return the literals that may be private, as networks of one address."""
    own = (host for host in listed if is_address(host) and _is_private(host))
    return sorted({f"{host}/32" for host in (*own, *ssh_hosts) if is_address(host)})


def random_looking(hosts: Iterable[str]) -> list[str]:
    """Return the hosts that the sidecar's check for random labels could refuse, though they are allowed."""
    return sorted({host for host in hosts if _may_look_random(host)})


def _may_look_random(host: str) -> bool:
    if host.startswith("*."):
        return "." in host[2:].removesuffix(".")  # the sidecar excludes nothing below a single label
    labels = host.lower().removesuffix(".").split(".")[:-2]
    return any(len(set(label)) > MOST_CHARACTERS for label in labels)


def pipelock_allowlist_summary(hosts: Sequence[str]) -> str:
    """Return the preflight's line (shell: pipelock_allowlist_summary)."""
    more = f", +{len(hosts) - SHOWN} more" if len(hosts) > SHOWN else ""
    return f"{len(hosts)} hosts allowed ({', '.join(hosts[:SHOWN])}{more})"
