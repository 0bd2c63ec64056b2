"""The version of this program."""

from __future__ import annotations

from pathlib import Path

_NAME = "claude-bottle"


def launcher_version() -> str:
    """Return the version of this program, in a checkout or installed."""
    from configparser import ConfigParser
    from importlib import metadata

    checkout = ConfigParser()
    checkout.read(Path(__file__).resolve().parent.parent / "setup.cfg", "utf-8")
    return checkout.get("metadata", "version", fallback="") or metadata.version(_NAME)
