"""A tar stream, read piece by piece as it comes and never believed: it may have been made of anybody's files.

It is the form of the engine, with long names either as GNU or as POSIX has them. What is in a file goes by in pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from claude_bottle.lib.errors import BottleError

BLOCK = 512
MOST_NAME = 1 << 16  # bytes of what says a long name
FILE, FOLDER, LINK, SECOND, OTHER = "file", "folder", "link", "second name", "device, pipe or socket"
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": SECOND, b"2": LINK, b"5": FOLDER}
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_NOTHING = b"\0" * BLOCK
_BLANK = b"        "


class Entry(NamedTuple):
    """What the stream says of a file.

    Attributes:
        name: its path.
        kind: one of the five.
        mode: permission bits.
        size: bytes that follow.
        mtime: seconds.
        target: where a link leads, or another name of the same file.
    """

    name: str
    kind: str
    mode: int
    size: int
    mtime: int
    target: str


class Taker(Protocol):
    """Who is told of what is in the stream: a file begins, its content goes by, it ends."""

    def begin(self, entry: Entry) -> None: ...

    def data(self, piece: bytes) -> None: ...

    def end(self) -> None: ...


class Broken(BottleError):
    """What came is no tar stream, or none that is read here."""

    def __init__(self, why: str) -> None:
        super().__init__(f"what the engine sent is no tar stream: {why}")


class Reader:
    """Reads a stream that is fed to it.

    Args:
        taker: is told what is in it.
    """

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._rest = b""  # of a header
        self._left = self._padding = 0  # bytes, of what follows one
        self._held: list[bytes] | None = None  # what follows a header about the next one
        self._about = ""  # kind of that
        self._long: dict[str, str] = {}
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take a piece of the stream.

        Raises:
            Broken: it is none.
        """
        data, at = (self._rest + data if self._rest else data), 0
        self._rest = b""
        while at < len(data) and not self.ended:
            if self._left:
                at += self._content(data[at : at + self._left])
            elif self._padding:
                skipped = min(self._padding, len(data) - at)
                self._padding, at = self._padding - skipped, at + skipped
            elif len(data) - at < BLOCK:
                self._rest, at = data[at:], len(data)
            else:
                self._header(data[at : at + BLOCK])
                at += BLOCK

    def close(self) -> None:
        """Make sure that all of it has come.

        Raises:
            Broken: it ended early.
        """
        if not self.ended:
            raise Broken("it ends early")

    def _content(self, piece: bytes) -> int:
        self._left -= len(piece)
        if self._held is None:
            self._taker.data(piece)
        else:
            self._held.append(piece)
        if not self._left:
            self._finish()
        return len(piece)

    def _finish(self) -> None:
        if self._held is None:
            self._taker.end()
            return
        said, self._held = b"".join(self._held), None
        if self._about == "x":
            self._long |= dict(_records(said))
        elif self._about != "g":
            self._long[self._about] = _text(said)

    def _header(self, block: bytes) -> None:
        if block == _NOTHING:
            self.ended = True
            return
        name, mode, _, _, size, mtime, check, kind, target, magic, _, _, _, _, _, before = _HEADER.unpack(block)
        if _number(check) != sum(block) - sum(check) + sum(_BLANK):
            raise Broken("a header with a wrong sum")
        length = _number(size)
        about = {b"L": "path", b"K": "linkpath", b"x": "x", b"g": "g"}.get(kind)
        if about:
            self._begin_about(about, length)
            return
        path = _text(name)
        if magic.startswith(b"ustar\0") and before.strip(b"\0"):
            path = f"{_text(before)}/{path}"
        found = _KINDS.get(kind, OTHER)
        length = int(self._long.get("size", length)) if found in (FILE, OTHER) else 0
        where = self._long.get("linkpath", _text(target)) if found in (LINK, SECOND) else ""
        entry = Entry(self._long.get("path", path), found, _number(mode) & 0o7777, length, _seconds(mtime), where)
        self._long, self._left, self._padding = {}, length, -length % BLOCK
        self._taker.begin(entry)
        if not length:
            self._taker.end()

    def _begin_about(self, about: str, length: int) -> None:
        if length > MOST_NAME:
            raise Broken("a name that is too long")
        self._about, self._left, self._padding = about, length, -length % BLOCK
        self._held = [] if length else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Return a number, in octal digits, or where the first bit is set in all the others.

    Raises:
        Broken: it is none, or below zero.
    """
    if field[0] & 0x80:
        found = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40 or found > 1 << 62:
            raise Broken("a number that cannot be")
        return found
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise Broken("a number that is none")
    return int(digits or b"0", 8)


def _seconds(field: bytes) -> int:
    """Return a time, 0 for one before 1970."""
    try:
        return _number(field)
    except Broken:
        return 0


def _records(said: bytes) -> Iterator[tuple[str, str]]:
    """Yield what a header in POSIX's form says that matters here.

    Raises:
        Broken: it is not in that form, or tells of a file with holes.
    """
    at = 0
    while at < len(said):
        digits, _, _ = said[at : at + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        line = said[at + len(digits) + 1 : at + length]
        key, equals, value = line[:-1].partition(b"=")
        is_one = len(digits) < length <= len(said) - at and equals and line.endswith(b"\n")
        if not is_one or key.startswith(b"GNU.sparse"):
            raise Broken("a header that is none")
        if key in (b"path", b"linkpath"):
            yield key.decode(), value.decode("utf-8", "surrogateescape")
        elif key == b"size":
            if not value.isdigit() or len(value) > 18:
                raise Broken("a size that is none")
            yield "size", value.decode()
        at += length
