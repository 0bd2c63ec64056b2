"""Files for a container as a tar stream: any owner and mode, no bind mount, nothing written to the host's disk."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping

from claude_bottle.lib.files.walk import Choose, Entry, everything, named, plain_file, walk

CHUNK = 1 << 16
NODE_ID = 1000  # `node` in the image (contract section 10)
END = b"\0" * 1024
MAX_PATH = 4095  # no engine can make a longer one
CUT = b""  # a piece that says that what follows may as well be another stream


_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s167x")
_CHECK = slice(148, 156)  # in a header
_LONGEST, _MOST = 100, 8**11  # what fits


def _header(info: tarfile.TarInfo) -> bytes:
    """Return a file's header: in a project of 200,000 files the library takes half of the time for it."""
    name, target = (each.encode("utf-8", "surrogateescape") for each in (info.name, info.linkname))
    if info.isdir():
        name += b"/"
    if len(name) > _LONGEST or len(target) > _LONGEST or info.size >= _MOST or not 0 <= info.mtime < _MOST:
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    owner, size, mtime = b"%07o" % info.uid, b"%011o" % info.size, b"%011o" % int(info.mtime)
    fields = (name, b"%07o" % info.mode, owner, owner, size, mtime, b" " * 8, info.type, target, tarfile.GNU_MAGIC)
    block = bytearray(_HEADER.pack(*fields, b"", b"", b"", b""))
    block[_CHECK] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, data: bytes, mode: int = 0o600, owner: int = NODE_ID) -> Iterator[bytes]:
    """Yield one file.

    Args:
        name: path relative to where the stream is unpacked.
        data: its content.
        mode: permission bits.
        owner: uid and gid.
    """
    info = _new(name, mode, owner)
    info.size = len(data)
    yield _header(info) + data + b"\0" * (-len(data) % 512)


def folder(name: str, mode: int = 0o755, owner: int = NODE_ID) -> Iterator[bytes]:
    """Yield one folder."""
    info = _new(name, mode, owner)
    info.type = tarfile.DIRTYPE
    yield _header(info)


def _new(name: str, mode: int, owner: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = mode, owner, owner, int(time.time())
    return info


def contents(stream: bytes) -> dict[str, bytes]:
    """Return what a stream holds: each name, and a file's content, which is empty for anything else.

    Something that is no such stream holds nothing.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
            files = ((info.name, archive.extractfile(info) if info.isreg() else None) for info in archive)
            return {name: file.read() if file else b"" for name, file in files}
    except tarfile.TarError:
        return {}


def tree(
    source: str,
    name: str,
    *,
    choose: Choose = everything,
    links: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    mode: int | None = None,
) -> Iterator[bytes]:
    """Yield a folder of the host with what is in it: modes and links kept, all of it node's.

    Args:
        source: the folder on the host.
        name: what it is called in the stream.
        choose: says what goes in.
        links: where some links are to lead instead.
        files: links that become files, each with the path of its content.
        mode: of the folder itself, if not its own.

    Raises:
        OSError: something in it cannot be read.
        Interrupted: a signal asks to stop.
    """
    links, files = links or {}, files or {}
    seen: dict[tuple[int, int], str] = {}
    yield from folder(name, stat.S_IMODE(os.stat(source).st_mode) if mode is None else mode)
    for entry in walk(source, choose):
        try:
            with named(source, entry.path):
                info = _info(f"{name}/{entry.path}", entry.what)
                if entry.path in files and stat.S_ISLNK(entry.what.st_mode):
                    yield from _regular(files[entry.path], None, info, {})
                else:
                    yield from _entry(entry, info, links.get(entry.path), seen)
            yield CUT
        except FileNotFoundError:  # it has vanished; but what the plan has shown must come
            if entry.path in files:
                raise


def _entry(
    entry: Entry, info: tarfile.TarInfo, target: str | None, seen: dict[tuple[int, int], str]
) -> Iterator[bytes]:
    name, kind = os.path.basename(entry.path), entry.what.st_mode
    if stat.S_ISDIR(kind):
        info.type = tarfile.DIRTYPE
        yield _header(info)
    elif stat.S_ISLNK(kind):
        info.type, info.linkname = tarfile.SYMTYPE, target or os.readlink(name, dir_fd=entry.above)
        yield _header(info)
    elif stat.S_ISREG(kind):  # sockets, pipes and devices mean nothing in another container
        yield from _regular(name, entry.above, info, seen)


def _info(name: str, what: os.stat_result) -> tarfile.TarInfo:
    if len(os.fsencode(name)) >= MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    info = _new(name, stat.S_IMODE(what.st_mode), NODE_ID)
    info.mtime = int(what.st_mtime)
    return info


def _regular(path: str, above: int | None, info: tarfile.TarInfo, seen: dict[tuple[int, int], str]) -> Iterator[bytes]:
    """Yield a file, or a link to the one that has another of its names."""
    with plain_file(path, above) as file:
        what = os.fstat(file.fileno())
        info.mode, known = stat.S_IMODE(what.st_mode), seen.get((what.st_dev, what.st_ino))
        if known is not None:
            info.type, info.linkname = tarfile.LNKTYPE, known
            yield _header(info)
            return
        if what.st_nlink > 1:
            seen[what.st_dev, what.st_ino] = info.name
        info.size = what.st_size
        yield _header(info)
        yield from exactly(file, info.size)


def exactly(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    """Yield a file's content with the size that its header says, even if it changes while it is read."""
    left = size
    while left:
        data = file.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
        left -= len(data)
        yield data
    yield b"\0" * (-size % 512)


def parts(pieces: Iterable[bytes], most: int) -> Iterator[Iterator[bytes]]:
    """Yield a stream as several, each whole, and to be taken to its end before the next one is asked for.

    Args:
        pieces: of it, without its end.
        most: bytes after which a stream ends where it may be cut.
    """
    rest, more = iter(pieces), [True]

    def part() -> Iterator[bytes]:
        size = 0
        for piece in rest:
            yield piece
            size += len(piece)
            if size >= most and piece == CUT:
                break
        else:
            more.clear()
        yield END

    while more:
        yield part()


def packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces put together to some that are worth a write each."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
