"""The bottle's ssh entries: what they must have, and where their keys are (shell: lib/ssh.sh)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from claude_bottle.lib import schema_check
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest, bottle_part
from claude_bottle.lib.problems import fail_with


@dataclass(frozen=True)
class SshEntry:
    """One host that a bottle may reach by ssh."""

    host: str
    identity_file: str
    hostname: str
    user: str
    port: str
    known_host_key: str


def ssh_load(manifest: Manifest, bottle: str) -> tuple[SshEntry, ...]:
    """Return a bottle's entries (shell: ssh_load).

    Raises:
        BottleError: with all required fields that are missing, and all wrong types.
    """
    entries = bottle_part(manifest, bottle, "ssh")
    if entries is None:
        return ()
    missing = (
        BottleError(line, [manifest.where(("bottles", bottle, "ssh", index))])
        for index, entry in enumerate(entries if isinstance(entries, list) else ())
        for line in _missing_fields(entry)
    )
    wrong = (fault for fault in manifest.faults_at("bottles", bottle, "ssh") if fault.kind != "required")
    fail_with((*missing, *map(manifest.problem, wrong)))
    return ssh_entries(manifest, bottle)


def ssh_entries(manifest: Manifest, bottle: str) -> tuple[SshEntry, ...]:
    """Return a bottle's entries but for those with a field that is missing or of a wrong type."""
    entries = bottle_part(manifest, bottle, "ssh")
    faults = (fault for fault in manifest.faults_at("bottles", bottle, "ssh") if fault.kind != "form")
    broken = {step for fault in faults for step in fault.place[3:4]}
    return tuple(
        _entry(entry) for index, entry in enumerate(entries if isinstance(entries, list) else ()) if index not in broken
    )


def _missing(value: Any) -> bool:
    return value is None or value == ""


def _missing_fields(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict) or _missing(entry.get("Host")):
        text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
        yield f"ssh entry missing required field 'Host': {text}"
        return
    for field in schema_check.required("ssh_entry"):
        if _missing(entry.get(field)):
            yield f"ssh entry for host '{entry['Host']}' missing required field '{field}'"


def _entry(entry: dict[str, Any]) -> SshEntry:
    host, identity_file, hostname, user, port = (str(entry[field]) for field in schema_check.required("ssh_entry"))
    return SshEntry(host, identity_file, hostname, user, port, str(entry.get("KnownHostKey") or ""))


def ssh_key_path(cwd: str, home: str, identity_file: str) -> str:
    """Return where a key is on the host (shell: ssh_key_path)."""
    if identity_file == "~" or identity_file.startswith("~/"):
        return home + identity_file[1:]
    return identity_file if identity_file.startswith("/") else f"{cwd.rstrip('/')}/{identity_file}"


def ssh_check_keys(cwd: str, home: str, entries: Iterable[SshEntry]) -> None:
    """Fail unless every key file is there (shell: ssh_check_keys).

    Raises:
        BottleError: with all that are not.
    """
    paths = ((entry.host, ssh_key_path(cwd, home, entry.identity_file)) for entry in entries)
    fail_with(f"ssh key file not found for host '{h}': {p}" for h, p in paths if not os.path.isfile(p))
