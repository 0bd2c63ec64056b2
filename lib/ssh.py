"""The bottle's ssh entries: what they must have, and where their keys are (shell: lib/ssh.sh)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host_names import host_problem
from claude_bottle.lib.manifest import Manifest, bottle_part, fail_with

REQUIRED = ("IdentityFile", "Hostname", "User", "Port")


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
        BottleError: with all required fields that are missing.
    """
    entries = bottle_part(manifest, bottle, "ssh")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BottleError(f"bottle '{bottle}': ssh must be an array")
    fail_with(problem for entry in entries for problem in _problems(entry))
    return tuple(_entry(entry) for entry in entries)


def _missing(value: Any) -> bool:
    return value is None or value == ""


def _problems(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict) or _missing(entry.get("Host")):
        text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
        yield f"ssh entry missing required field 'Host': {text}"
        return
    who = f"ssh entry for host '{entry['Host']}'"
    for field in REQUIRED:
        if _missing(entry.get(field)):
            yield f"{who} missing required field '{field}'"
    for field in ("Host", *REQUIRED, "KnownHostKey"):
        value = entry.get(field)
        wrong = "" if _missing(value) else _wrong(field, value)
        if wrong:
            yield f"{who}: {field} {wrong}"


def _wrong(field: str, value: Any) -> str:
    """Return what is wrong with a field that is there; what would break ssh's files is refused here."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float) if field in ("Host", "Port") else str):
        return "must be a string"
    text = str(value)
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return "must not contain control characters"
    if field == "Port" and not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        return f"must be a port number from 1 to 65535, not '{text}'"
    if field == "Hostname" and (text.startswith("*") or host_problem(text)):
        return f"must be a host name or an IPv4 address, not {text!a}"
    if field == "User" and any(c.isspace() for c in text):
        return "must not contain blanks"
    return ""


def _entry(entry: dict[str, Any]) -> SshEntry:
    host, identity_file, hostname, user, port = (str(entry[field]) for field in ("Host", *REQUIRED))
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
