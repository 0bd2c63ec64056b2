"""Which hosts' traffic the sidecar opens, and why it does not open the rest."""

from __future__ import annotations

from dataclasses import dataclass


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
