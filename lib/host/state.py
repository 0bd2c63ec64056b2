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


def state_make(folder: Path) -> None:
    """Make a folder, and those that it lies in, where they are not there.

    Raises:
        OSError: one cannot be made.
    """
    for each in reversed([folder, *folder.parents]):
        each.mkdir(mode=0o700, exist_ok=True)


def state_write(path: Path, text: str) -> None:
    """Write a new file of the folder.

    Raises:
        OSError: it cannot be written, or is there.
    """
    state_make(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(log.encode(text))


def state_replace(path: Path, text: str) -> None:
    """Write a file of the folder, in the place of the one that may be there.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # of a writer that was killed
    state_write(new, text)
    new.replace(path)
