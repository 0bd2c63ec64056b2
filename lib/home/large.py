"""Files that LFS keeps come home beside the branches that point to them, each only if it is what its name says."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import closing, suppress

from claude_bottle.lib import docker
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home.landing import Landing, NotTaken
from claude_bottle.lib.home.quarantine import Bounds
from claude_bottle.lib.home.record import Record
from claude_bottle.lib.home.untar import FILE, Entry, Reader
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import OUT, Work

STORE = "lfs/objects"
MOST_SAID = 8 << 20  # bytes of a list
_LINE = re.compile(rb"^([0-9a-f]{64})$", re.MULTILINE)
# With an end of its own: docker takes what a broken connection has cut off for all that there was.
_LIST = '/usr/bin/find "$1" -type f -printf "%f\\n"; echo end'
_END = b"end\n"


def place_of(identity: str) -> str:
    """Return where LFS keeps a file, from its store on."""
    return f"{identity[:2]}/{identity[2:4]}/{identity}"


def bring_large(engine: Engine, container: str, record: Record, bounds: Bounds) -> Work[int]:
    """Bring home the files of LFS's that the host's repository has not; it comes to how many.

    Args:
        engine: to ask.
        container: id of the one that has the workspace, and runs.
        record: of the bottle.
        bounds: how much may come.

    Raises:
        BottleError: they cannot be had, or there is too much of it.
        OSError: they cannot be written.
    """
    wanted = [each for each in (yield from _listed(engine, container, record)) if not _is_here(record, each)]
    if not wanted:
        return 0
    with closing(Landing(record.repository)) as landing:
        taker = _Taker(landing, wanted, bounds)
        reader = Reader(taker)
        words = ["/bin/tar", "-C", _store(record), "--ignore-failed-read", "-c", "-f", "-", "-T", "-"]
        call = docker.helper(container, words, user="node", flags=["-i"])
        names = "".join(f"{place_of(each)}\n" for each in wanted).encode()

        def hear(stream: str, data: bytes) -> None:
            if stream == OUT:
                reader.feed(data)

        try:
            done = yield engine.call(call, seconds=run.SILENT_SECONDS, stdin=[names], heard=hear)
            if not done.ok:
                raise BottleError(f"files of LFS's cannot be read in the bottle: {done.failure}")
            reader.close()
        finally:
            taker.leave()
    return taker.taken


def _store(record: Record) -> str:
    return f"{record.workspace}/.git/{STORE}"


def _is_here(record: Record, identity: str) -> bool:
    return os.path.lexists(os.path.join(record.repository, STORE, place_of(identity)))


def _listed(engine: Engine, container: str, record: Record) -> Work[list[str]]:
    """Return the ids that the bottle says that it has.

    Raises:
        BottleError: there are too many, or not all of it has come.
    """
    said = bytearray()

    def hear(stream: str, data: bytes) -> None:
        if stream == OUT:
            said.extend(data)
            if len(said) > MOST_SAID:
                raise BottleError("the bottle has too many files of LFS's")

    words = ["/bin/sh", "-c", _LIST, "sh", _store(record)]
    yield engine.call(docker.helper(container, words, user="node"), seconds=run.SILENT_SECONDS, heard=hear)
    if not said.endswith(_END):
        raise BottleError("the bottle's list of LFS's files ends early")
    return sorted({each.decode() for each in _LINE.findall(said)})


class _Taker:
    """Writes what comes beside the store, and puts it there when it is what its name says (``untar.Taker``)."""

    def __init__(self, landing: Landing, wanted: Iterable[str], bounds: Bounds) -> None:
        self._landing, self._wanted, self._bounds = landing, {place_of(each) for each in wanted}, bounds
        self._new = f"lfs/tmp/claude-bottle-{secrets.token_hex(8)}"
        self._file: io.BufferedWriter | None = None
        self._came = self.taken = 0

    def begin(self, entry: Entry) -> None:
        self._entry, self._sum = entry, hashlib.sha256()
        if entry.kind == FILE and entry.name in self._wanted:
            self._wanted.discard(entry.name)
            self._file = self._landing.file(self._new, 0o644)

    def data(self, piece: bytes) -> None:
        if self._file:
            self._came += len(piece)
            if self._came > self._bounds.unpacked:
                raise BottleError(f"more than {self._bounds.unpacked >> 30} GiB of LFS's files are new")
            self._sum.update(piece)
            self._file.write(piece)

    def end(self) -> None:
        if self._file:
            file, self._file = self._file, None
            file.close()
            if self._sum.hexdigest() == os.path.basename(self._entry.name):
                with suppress(NotTaken):  # it has come meanwhile
                    self._landing.second(f"{STORE}/{self._entry.name}", self._new)
                    self.taken += 1
            self._landing.drop(self._new)

    def leave(self) -> None:
        """Remove what has not come to its end."""
        if self._file:
            self._file.close()
            self._landing.drop(self._new)
