"""The user's state folder: what outlives a command, and may be read by its user only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from claude_bottle.lib import log


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder, which need not exist; None where there is no home for it."""
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(state):
        return Path(state, "claude-bottle")
    return Path(home, ".local", "state", "claude-bottle") if os.path.isabs(home) else None


def state_write(path: Path, text: str) -> None:
    """Write a new file of the folder.

    Raises:
        OSError: it cannot be written, or is there.
    """
    for folder in reversed([path.parent, *path.parent.parents]):
        folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(log.encode(text))
