"""Which files a git repository tracks, read from its index: git itself would run what the repository configures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from claude_bottle.lib.host import wait

_STAGE, _EXTENDED = 0x3000, 0x4000
_SKIP_WORKTREE = 0x4000  # of the extended flags
_SPLIT = b"link"
_STAT_BYTES = 40  # times, device, inode, mode, owner, size
_LOOK_EVERY = 4096  # entries, between two looks at the signals
_KIND, _GITLINK = 0o170000, 0o160000
_MODE_AT = 24  # in an entry


class Entry(NamedTuple):
    """What an index says of a path.

    Attributes:
        path: from the repository's root on.
        is_submodule: whether it is one.
        is_marked: whether it is in conflict, or already marked skip-worktree.
    """

    path: str
    is_submodule: bool
    is_marked: bool


def tracked(data: bytes, hash_bytes: int = 20) -> list[str]:
    """Return the paths that an index has, without those that are in conflict or already marked skip-worktree.

    Args:
        data: the file.
        hash_bytes: length of the repository's object ids.

    Raises:
        ValueError: see ``entries``.
        Interrupted: a signal asks to stop.
    """
    return [entry.path for entry in entries(data, hash_bytes) if not entry.is_marked]


def entries(data: bytes, hash_bytes: int = 20) -> list[Entry]:
    """Return what an index has; a path in conflict more than once.

    Args:
        data: the file.
        hash_bytes: length of the repository's object ids.

    Raises:
        ValueError: it is not an index, or of a kind that is not read (a split one).
        Interrupted: a signal asks to stop.
    """
    try:
        signature, version, count = struct.unpack_from(">4sII", data)
        if signature != b"DIRC" or version not in (2, 3, 4):
            raise ValueError("not an index of version 2, 3 or 4")
        return _entries(data, version, count, hash_bytes)
    except (struct.error, IndexError):
        raise ValueError("the index ends early") from None


def _entries(data: bytes, version: int, count: int, hash_bytes: int) -> list[Entry]:
    at, path = 12, b""
    found: list[Entry] = []
    for number in range(count):
        if number % _LOOK_EVERY == 0:
            wait.check_signals()
        begin, at = at, at + _STAT_BYTES + hash_bytes
        (mode,), (flags,) = struct.unpack_from(">I", data, begin + _MODE_AT), struct.unpack_from(">H", data, at)
        (more,) = struct.unpack_from(">H", data, at + 2) if flags & _EXTENDED else (0,)
        at += 4 if flags & _EXTENDED else 2
        kept, at = _kept(data, at, path) if version == 4 else (b"", at)
        end = data.find(b"\0", at)
        if end < 0:
            raise IndexError
        path, at = kept + data[at:end], end + 1
        if version < 4:  # padded with one to eight NULs
            at = begin + (end - begin) // 8 * 8 + 8
        is_marked = bool(flags & _STAGE or more & _SKIP_WORKTREE)
        name = path.decode("utf-8", "surrogateescape")
        found.append(Entry(name, mode & _KIND == _GITLINK, is_marked))
    if _SPLIT in _extensions(data, at, hash_bytes):
        raise ValueError("a split index")
    return found


def _kept(data: bytes, at: int, path: bytes) -> tuple[bytes, int]:
    """Return what an entry of version 4 has in common with the one before: a number says what to drop."""
    dropped = data[at] & 127
    while data[at] & 128:
        at += 1
        dropped = ((dropped + 1) << 7) | (data[at] & 127)
    if dropped > len(path):
        raise ValueError("a broken index")
    return path[: len(path) - dropped], at + 1


def _extensions(data: bytes, at: int, hash_bytes: int) -> Iterator[bytes]:
    while at + 8 <= len(data) - hash_bytes:
        name, size = struct.unpack_from(">4sI", data, at)
        yield name
        at += 8 + size
