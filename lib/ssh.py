"""The bottle's ssh entries and their keys (shell: lib/ssh.sh)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest, manifest_bottle
from claude_bottle.lib.problems import Gathered, fail_with
from claude_bottle.lib.schema.manifest_parse import SshEntry
from claude_bottle.lib.ssh_key import ssh_read_key


def ssh_load(manifest: Manifest, bottle: str) -> tuple[SshEntry, ...]:
    """Return a bottle's entries (shell: ssh_load).

    Raises:
        BottleError: with all required fields that are missing, and all wrong types.
    """
    fail_with(manifest.checks.ssh(bottle))
    return ssh_entries(manifest, bottle)


def ssh_entries(manifest: Manifest, bottle: str) -> tuple[SshEntry, ...]:
    """Return a bottle's entries but for those with a field that is missing or of a wrong type."""
    return manifest_bottle(manifest, bottle).ssh


def ssh_key_path(cwd: str, home: str, identity_file: str) -> str:
    """Return where a key is on the host (shell: ssh_key_path)."""
    if identity_file == "~" or identity_file.startswith("~/"):
        return home + identity_file[1:]
    return identity_file if identity_file.startswith("/") else f"{cwd.rstrip('/')}/{identity_file}"


def ssh_check_keys(cwd: str, home: str, entries: Iterable[SshEntry]) -> None:
    """Fail unless every key file is there (shell: ssh_check_keys), and is what ssh-add takes.

    Raises:
        BottleError: with all that are not.
    """
    gathered = Gathered()
    for entry in entries:
        with gathered:
            _check_key(entry.host, ssh_key_path(cwd, home, entry.identity_file))
    gathered.fail()


def _check_key(host: str, path: str) -> None:
    if not os.path.isfile(path):
        raise BottleError(f"ssh key file not found for host '{host}': {path}")
    ssh_read_key(host, path)
