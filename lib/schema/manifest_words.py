"""What is said of a fault in a manifest: the shell's words, then the place, what is there and what may be."""

from __future__ import annotations

import ipaddress
import re

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.problems import UnseenByShell, nearest
from claude_bottle.lib.schema import schema_check
from claude_bottle.lib.schema.schema_check import Fault, Place, UnknownKey

FILE_NAME = "claude-bottle.json"
OURS = (("limits",), ("runtime",), ("dockerfile",), ("place",), ("placement",), ("credentials",))
EGRESS_OURS = (("egress", "inspect"), ("egress", "dlp"))


def fault_error(fault: Fault, where: str) -> BottleError:
    """Return a fault as an error, without the value.

    Args:
        fault: what is wrong.
        where: its file and JSON path.
    """
    kind = BottleError if _shell_sees(fault) else UnseenByShell
    return kind(_line(fault), [_hint(fault, where)])


def fault_warning(fault: Fault, where: str) -> str:
    """Return a fault as a warning, which is what it is where no command needs the place."""
    return f"{_line(fault)} ({_hint(fault, where)})"


def unknown_warning(unknown: UnknownKey, where: str) -> str:
    """Return a line about a key that means nothing, with the nearest one that does."""
    key = str(unknown.place[-1])
    more = "; ".join([where, *nearest(key, unknown.known)])
    return f"{_owner(unknown.place[:-1])}unknown key '{key}' is ignored ({more})"


def host_error(fault: Fault, host: str, where: str, whole: bool = False) -> BottleError:
    """Return why the sidecar would never match a listed host.

    Args:
        fault: what the schema has against it.
        host: the entry.
        where: its file and JSON path.
        whole: a credential's, which may be a whole name only.
    """
    shown = "" if "@" in host else f" {host!a}"  # a password may stand before an @
    problem = (_whole_problem(host) if whole else "") or host_problem(host)
    line = f"{_owner(fault.place[:2])}{_dotted(list(fault.place[2:]))}:{shown} {problem}"
    return UnseenByShell(line, [_hint(fault, where)])


def host_problem(host: str) -> str:
    """Return in words what is wrong with a host that the schema refuses; not the host itself."""
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
    if is_address(host) or re.fullmatch(r"(.*\.)?localhost\.?", host):
        return "would be an address of the sidecar itself, or one that no other machine has"
    if re.fullmatch(r"(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?", host):
        return "ends like an address; write one as four decimal numbers"
    return "is not a host name"


def _whole_problem(host: str) -> str:
    """Return what of a listed host is wrong in a credential's."""
    if "*" in host:
        return "has a *; a credential goes to whole names only"
    if is_address(host):
        return "is an address; a credential goes to names only"
    plain = host.lower().removesuffix(".")
    return f"must be written as {plain!a}" if plain != host and re.fullmatch("[a-z0-9_.-]+", plain) else ""


def is_address(host: str) -> bool:
    """Say whether a host is an IPv4 literal; whatever else looks like one is a name, as in the shell."""
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _shell_sees(fault: Fault) -> bool:
    inside_ssh_entry = len(fault.place) > 3 and fault.place[2] == "ssh"
    ours = fault.place[2:3] in OURS or fault.place[2:4] in EGRESS_OURS
    return fault.kind in ("type", "name") and not inside_ssh_entry and not ours


def _hint(fault: Fault, where: str) -> str:
    return f"{where}: {fault.found}; allowed: {fault.allowed}"


def _owner(place: Place) -> str:
    """Return how a message begins that is about a place."""
    match place:
        case ("agents" | "bottles" as kind, name, *rest):
            inside = f"{_dotted(rest)}: " if rest else ""
            return f"{str(kind)[:-1]} '{name}': {inside}"
    return f"{FILE_NAME}: "


def _dotted(steps: list[str | int]) -> str:
    return schema_check.json_path(tuple(steps))[2:]


def _line(fault: Fault) -> str:
    """Return the shell's words for a fault, and words like them for a fault that the shell does not see."""
    match fault.place:
        case (key,):
            return f"'{key}' in {FILE_NAME} must be {fault.allowed}"
        case ("agents", name, "skills", *_):
            return f"agent '{name}': skills must be an array of strings"
        case (kind, name):
            return f"{str(kind)[:-1]} '{name}' must be {fault.allowed}"
        case ("bottles", name, "env", variable) if fault.kind == "name":
            return f"bottle '{name}': invalid env name '{variable}'"
        case ("bottles", name, "env", variable) if fault.kind == "type":
            return f"bottle '{name}': env value for '{variable}' must be a string"
        case ("bottles", name, "egress", "allowlist", _) if fault.kind == "type":
            return f"bottle '{name}': egress.allowlist entries must be strings"
    missing = fault.kind == "required"
    rest = _dotted(list(fault.place[2:]))
    return _owner(fault.place[:2]) + (f"{rest} is missing" if missing else f"{rest} must be {fault.allowed}")
