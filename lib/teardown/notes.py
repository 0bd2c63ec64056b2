"""What a process that nobody listens to has to say: kept in the user's state folder until the next command says it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from claude_bottle.lib import log
from claude_bottle.lib.host.state import state_folder, state_write

LONGEST = 65536  # bytes of one note


def _folder() -> Path | None:
    state = state_folder(os.environ)
    return state and state / "notes"


def leave(lines: Iterable[str]) -> None:
    """Keep lines for the next command; none leave nothing.

    Args:
        lines: what is to be said.
    """
    import secrets  # slow to import, and most commands have nothing to leave

    text = "".join(f"{' '.join(line.splitlines())}\n" for line in lines)
    folder = _folder()
    if text and folder:
        with suppress(OSError):  # there is nobody to tell
            state_write(folder / secrets.token_hex(8), text[:LONGEST])


def show() -> None:
    """Say what was left to be said, once."""
    folder = _folder()
    if folder is None:
        return
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with suppress(OSError):  # another user's, of a command under sudo for example
            _show(path)


def _show(path: Path) -> None:
    with open(path, "rb") as file:
        lines = file.read(LONGEST).decode("utf-8", "surrogateescape").splitlines()
    path.unlink()
    for line in lines:
        log.log_warn(f"an earlier start {line}")
