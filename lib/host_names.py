"""Host names as the sidecar understands them."""

from __future__ import annotations

import re

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*\.?", re.ASCII)


def host_problem(host: str) -> str:
    """Return why the sidecar would never match a host, or an empty text; it says nothing itself."""
    if _HOST.fullmatch(host):
        return ""
    if not host:
        return "is empty"
    if not host.isascii():
        return "is not ASCII; write the name in its xn-- form"
    if "://" in host:
        return "is a URL; write the host name alone"
    if re.fullmatch(r"[^:/]+:[0-9]+", host):
        return "has a port; every port of a listed host is allowed, write the name alone"
    if "*" in host:
        return "may have a * only as a leading '*.'"
    return "is not a host name"
