"""What went into a bottle, in a file of the launcher's: so that it knows afterwards what has changed.

It is made of the stream on its way in, and anew of what came home, so that nothing comes twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home.untar import FILE, FOLDER, LINK, OTHER, SECOND, Entry, Reader

FILE_NAME = "went-in"
_FIXED = struct.Struct(">HcHQQ16s")  # length of the path, kind, mode, size, seconds, digest
_LETTERS = {FILE: b"f", SECOND: b"f", FOLDER: b"d", LINK: b"l", OTHER: b"o"}
UNREAD = b"\0" * 16  # the digest of a second name: the content goes by with the first
_BUFFER = 1 << 20


class Known(NamedTuple):
    """What a file was: compared as a whole, but for its time, which stands for a content that did not go by."""

    kind: bytes
    mode: int
    size: int
    mtime: int
    digest: bytes

    def is_same(self, other: Known) -> bool:
        """Say whether nothing has changed that is worth to come home."""
        mine, others = (self.kind, self.mode), (other.kind, other.mode)
        if UNREAD in (self.digest, other.digest):
            return (*mine, self.mtime) == (*others, other.mtime)
        return (*mine, self.digest) == (*others, other.digest)


def known(entry: Entry, digest: bytes) -> Known:
    """Return what there is to know of a file.

    Args:
        entry: that its stream has.
        digest: of its content.
    """
    mode = entry.mode & 0o777 if entry.kind in (FILE, SECOND) else 0
    if entry.kind in (LINK, SECOND):
        digest = digest_of(os.fsencode(entry.target)) if entry.kind == LINK else UNREAD
    return Known(_LETTERS[entry.kind], mode, entry.size, entry.mtime, digest)


def digest_of(data: bytes) -> bytes:
    """Return what stands for a content."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Writer:
    """Writes the file.

    Args:
        path: of it; it is written beside, and takes its place when all is there.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._new = path, path.with_name(f"{path.name}.new")
        self._new.unlink(missing_ok=True)
        fd = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = io.BufferedWriter(io.FileIO(fd, "w"), _BUFFER)

    def add(self, path: str, what: Known) -> None:
        """Note a file."""
        name = os.fsencode(path)
        self._file.write(_FIXED.pack(len(name), *what) + name)

    def done(self) -> None:
        """Put it in its place."""
        self._file.close()
        os.replace(self._new, self._path)

    def drop(self) -> None:
        """Forget it."""
        self._file.close()
        self._new.unlink(missing_ok=True)


class Noting:
    """Notes what is below a folder of a stream (``untar.Taker``).

    Args:
        writer: of the file.
        folder: its name in the stream.
    """

    def __init__(self, writer: Writer, folder: str) -> None:
        self._writer, self._start = writer, f"{folder}/"
        self._entry: Entry | None = None

    def begin(self, entry: Entry) -> None:
        self._entry, self._sum = entry, hashlib.blake2b(digest_size=16)

    def data(self, piece: bytes) -> None:
        self._sum.update(piece)

    def end(self) -> None:
        entry = self._entry
        path = entry.name.removeprefix(self._start).rstrip("/") if entry else ""
        if entry is None or not path or not entry.name.startswith(self._start):
            return
        self._writer.add(path, known(entry, self._sum.digest()))


def noted(pieces: Iterable[bytes], writer: Writer, folder: str) -> Iterator[bytes]:
    """Pass a stream on, and note what is below one of its folders.

    Args:
        pieces: of it.
        writer: of the file; it is done when all has gone by, and dropped when it has not.
        folder: its name in the stream.
    """
    reader = Reader(Noting(writer, folder))
    try:
        for piece in pieces:
            reader.feed(piece)
            yield piece
        writer.done()
    except BaseException:
        writer.drop()
        raise


class Before:
    """What went in, looked up by path.

    Args:
        path: of the file.

    Raises:
        BottleError: it is not there, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._key = path, secrets.token_bytes(16)
        self._all = {self._short(name): what for name, what in self._read()}

    def _short(self, name: bytes) -> bytes:
        """Return what stands for a path, by a key that nobody knows who makes names."""
        return hashlib.blake2b(name, digest_size=8, key=self._key).digest()

    def _read(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            with open(self._path, "rb", buffering=_BUFFER) as file:
                while fixed := file.read(_FIXED.size):
                    name = file.read(struct.unpack_from(">H", fixed)[0])
                    yield name, fixed[2:]
        except (OSError, struct.error):
            raise BottleError(f"cannot read what went in: {self._path}") from None

    def take(self, path: str) -> Known | None:
        """Return what a file was, once; None for one that was not there."""
        what = self._all.pop(self._short(os.fsencode(path)), None)
        return None if what is None else Known(*_FIXED.unpack(b"\0\0" + what)[1:])

    def rest(self) -> Iterator[str]:
        """Yield the paths that nobody has asked for."""
        for name, _ in self._read():
            if self._short(name) in self._all:
                yield os.fsdecode(name)
