"""Writes a file of the user's in one rename, so that nobody ever reads half of it."""

from __future__ import annotations

import os
import tempfile


def replace(target: str, data: bytes) -> None:
    """Write a file, or write it anew; one that was there keeps its mode.

    Args:
        target: its path, no symbolic link.
        data: all of it.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    fd, new = tempfile.mkstemp(prefix=".claude-bottle.", dir=os.path.dirname(target))
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, _mode(target))
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise


def _mode(target: str) -> int:
    if os.path.exists(target):
        return os.stat(target).st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
