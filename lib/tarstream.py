"""Files for a container as a tar stream: any owner and mode, no bind mount, nothing written to the host's disk."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator

CHUNK = 1 << 20
NODE_ID = 1000  # `node` in the image (contract section 10)
END = b"\0" * 1024


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


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


def tree(source: str, name: str, owner: int = NODE_ID) -> Iterator[bytes]:
    """Yield a folder of the host with all that is in it, modes kept, all of it one owner's.

    Args:
        source: the folder on the host.
        name: what it is called in the stream.
        owner: uid and gid.

    Raises:
        OSError: something in it cannot be read.
    """
    yield from _entry(source, name, owner)
    for entry in sorted(os.listdir(source)):
        path, inner = os.path.join(source, entry), f"{name}/{entry}"
        if stat.S_ISDIR(os.lstat(path).st_mode):
            yield from tree(path, inner, owner)
        else:
            yield from _entry(path, inner, owner)


def _entry(path: str, name: str, owner: int) -> Iterator[bytes]:
    what = os.stat(path) if os.path.isdir(path) and not os.path.islink(path) else os.lstat(path)
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.uid, info.gid = stat.S_IMODE(what.st_mode), int(what.st_mtime), owner, owner
    if stat.S_ISDIR(what.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(what.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISREG(what.st_mode):
        yield from _regular(path, info)
        return
    else:  # sockets, pipes and devices mean nothing in another container
        return
    yield _header(info)


def _regular(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a file with exactly the size its header says, even if it changes while it is read."""
    with open(path, "rb") as file:
        info.size = left = os.fstat(file.fileno()).st_size
        yield _header(info)
        while left:
            data = file.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
            left -= len(data)
            yield data
    yield b"\0" * (-info.size % 512)
