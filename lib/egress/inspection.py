"""Which hosts' traffic the sidecar opens, and why it does not open the rest.

Opening costs: what comes down or goes up is looked through at about a third of a MiB a second, no more than some MiB
of it at once, nothing that is compressed, and nothing but HTTP. So what carries much, or no HTTP, is passed through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GIT = "git"  # git compresses what it asks for, which cannot be looked into; packs are large
PACKAGES = "packages"  # registries: what is fetched is large
FILES = "files"  # releases, raw files, buckets, downloads: large
SSH = "ssh"  # has no TLS to open
WEBSOCKET = "websocket"  # would lose its upgrade
MANIFEST = "manifest"  # egress.inspect says so

# A name, or what begins or ends with a star: a forge that somebody runs for themselves is known by its first label.
_TABLE = (
    ("github.com", GIT),
    ("gist.github.com", GIT),
    ("gitlab.com", GIT),
    ("bitbucket.org", GIT),
    ("codeberg.org", GIT),
    ("dev.azure.com", GIT),
    ("*.visualstudio.com", GIT),
    ("git.*", GIT),
    ("gitlab.*", GIT),
    ("gitea.*", GIT),
    ("forgejo.*", GIT),
    ("gerrit.*", GIT),
    ("huggingface.co", GIT),
    ("registry.*", PACKAGES),
    ("npm.pkg.github.com", PACKAGES),
    ("maven.pkg.github.com", PACKAGES),
    ("npm.jsr.io", PACKAGES),
    ("jsr.io", PACKAGES),
    ("pypi.org", PACKAGES),
    ("*.pypi.org", PACKAGES),
    ("files.pythonhosted.org", PACKAGES),
    ("conda.anaconda.org", PACKAGES),
    ("repo.anaconda.com", PACKAGES),
    ("crates.io", PACKAGES),
    ("index.crates.io", PACKAGES),
    ("static.crates.io", PACKAGES),
    ("rubygems.org", PACKAGES),
    ("*.rubygems.org", PACKAGES),
    ("proxy.golang.org", PACKAGES),
    ("sum.golang.org", PACKAGES),
    ("repo.maven.apache.org", PACKAGES),
    ("repo1.maven.org", PACKAGES),
    ("plugins.gradle.org", PACKAGES),
    ("services.gradle.org", PACKAGES),
    ("api.nuget.org", PACKAGES),
    ("repo.packagist.org", PACKAGES),
    ("repo.hex.pm", PACKAGES),
    ("cache.nixos.org", PACKAGES),
    ("deb.debian.org", PACKAGES),
    ("security.debian.org", PACKAGES),
    ("archive.ubuntu.com", PACKAGES),
    ("security.ubuntu.com", PACKAGES),
    ("dl-cdn.alpinelinux.org", PACKAGES),
    ("ghcr.io", PACKAGES),
    ("registry-1.docker.io", PACKAGES),
    ("production.cloudflare.docker.com", PACKAGES),
    ("codeload.github.com", FILES),
    ("uploads.github.com", FILES),
    ("*.githubusercontent.com", FILES),
    ("downloads.claude.ai", FILES),
    ("nodejs.org", FILES),
    ("static.rust-lang.org", FILES),
    ("go.dev", FILES),
    ("dl.google.com", FILES),
    ("storage.googleapis.com", FILES),
    ("*.amazonaws.com", FILES),
    ("*.blob.core.windows.net", FILES),
    ("*.r2.cloudflarestorage.com", FILES),
    ("cdn.*", FILES),
    ("downloads.*", FILES),
    ("unpkg.com", FILES),
    ("ws.*", WEBSOCKET),
    ("wss.*", WEBSOCKET),
    ("wss-primary.slack.com", WEBSOCKET),
    ("wss-backup.slack.com", WEBSOCKET),
    ("gateway.discord.gg", WEBSOCKET),
)


@dataclass(frozen=True)
class Watched:
    """One host of the effective allowlist.

    Attributes:
        host: as the allowlist has it, wildcards too.
        inspected: whether the sidecar opens its TLS.
        reason: why it does not, in a word or two; empty where it does.
    """

    host: str
    inspected: bool
    reason: str = ""


def watched(hosts: Iterable[str], ssh_hosts: Iterable[str], wishes: Mapping[str, bool]) -> tuple[Watched, ...]:
    """Return what becomes of each host's traffic, in the hosts' order.

    The sidecar has no exceptions below a wildcard that it passes through: there it is the wildcard that is the reason.

    Args:
        hosts: the effective allowlist.
        ssh_hosts: those of them that are reached by ssh.
        wishes: the manifest's own word, by host.
    """
    listed, tunnels = tuple(hosts), {plain(host) for host in ssh_hosts}
    asked = {plain(host): wish for host, wish in wishes.items()}
    reasons = {host: _reason(plain(host), tunnels, asked) for host in listed}
    closed = {plain(host): reason for host, reason in reasons.items() if reason}
    for host in (host for host in listed if not reasons[host]):
        reasons[host] = next((above for above in wildcards(plain(host)) if above in closed), "")
    return tuple(Watched(host, not reasons[host], reasons[host]) for host in listed)


def plain(host: str) -> str:
    """Return a host in the one form in which two are compared, as the sidecar does."""
    return host.lower().removesuffix(".")


def _reason(host: str, tunnels: set[str], asked: Mapping[str, bool]) -> str:
    """Return why a host's traffic is not opened, for its own sake."""
    if host in tunnels:
        return SSH
    if host in asked:
        return "" if asked[host] else MANIFEST
    rows = (host, f"{host.partition('.')[0]}.*", *wildcards(host))
    return next((_ROWS[row] for row in rows if row in _ROWS), "") or _COVERING.get(host, "")


def wildcards(host: str) -> tuple[str, ...]:
    """Return the wildcards that stand for a name, or for all that a wildcard does: the narrowest first."""
    labels = host.removeprefix("*.").split(".")
    return tuple("*." + ".".join(labels[at:]) for at in range(len(labels)))


_ROWS = dict(_TABLE)
# A wildcard is about every row that it stands for; what lies below it cannot be told apart.
_COVERING = {
    wildcard: reason for row, reason in reversed(_TABLE) if not row.endswith(".*") for wildcard in wildcards(row)
}
