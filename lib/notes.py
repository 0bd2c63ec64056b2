"""What a process that nobody listens to has to say: kept in the user's state folder until the next command says it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from claude_bottle.lib import log

LONGEST = 65536  # bytes of one note; nobody else writes there, but it is read before any check


def _folder(environ: Mapping[str, str]) -> Path | None:
    """Return where notes are kept; None where there is no home to keep them in."""
    state = environ.get("XDG_STATE_HOME", "")
    home = environ.get("HOME", "")
    if os.path.isabs(state):
        return Path(state, "claude-bottle", "notes")
    return Path(home, ".local", "state", "claude-bottle", "notes") if os.path.isabs(home) else None


def leave(lines: Iterable[str]) -> None:
    """Keep lines for the next command; none leave nothing.

    Args:
        lines: what is to be said.
    """
    text = "".join(f"{line}\n" for line in lines)
    folder = _folder(os.environ)
    if not text or folder is None:
        return
    with suppress(OSError):  # there is nobody to tell
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / secrets.token_hex(8), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(log.encode(text)[:LONGEST])


def show() -> None:
    """Say what was left to be said, once."""
    folder = _folder(os.environ)
    if folder is None:
        return
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with open(path, "rb") as file:
                lines = file.read(LONGEST).decode("utf-8", "surrogateescape").splitlines()
            path.unlink()
            for line in lines:
                log.log_warn(f"an earlier start {line}")
