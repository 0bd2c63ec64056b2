"""The work of a bottle without a repository comes home as files, in a folder of the state folder (kind ``folder``).

All that is in the workspace goes by, out of a bottle that runs or has stopped, or out of the file in which it was kept;
what is not as it went in is put into the new folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home import went_in
from claude_bottle.lib.home.landing import Landing, NotTaken
from claude_bottle.lib.home.quarantine import Bounds
from claude_bottle.lib.home.record import Brought, Record, place
from claude_bottle.lib.home.source import Source
from claude_bottle.lib.home.untar import FILE, FOLDER, LINK, OTHER, SECOND, Entry, Reader
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import OUT, Work
from claude_bottle.lib.host.state import state_folder, state_make
from claude_bottle.lib.teardown.owner import Owner

FILES, DELETED, LEFT_OUT = "files", "deleted.txt", "left-out.txt"
HELD = 1 << 20  # bytes of a file that are kept in memory until it is known whether it has changed
MOST_FILES = 2_000_000
MOST_PLACES = 10_000
CHUNK = 1 << 20
QUIET_SECONDS, EVERY_SECONDS = 2.0, 3.0


def bring(source: Source, record: Record, _owner: Owner, bounds: Bounds) -> Work[Brought]:
    """Bring home what has changed.

    Args:
        source: where the workspace is.
        record: of the bottle.
        bounds: how much may come.

    Raises:
        BottleError: it cannot come.
        OSError: it cannot be written.
    """
    kept = place(record.launch)
    if kept is None:
        raise BottleError("there is no home folder to write to")
    writer = went_in.Writer(kept / went_in.FILE_NAME)
    target = _Target(record.slug)
    try:
        again = yield from _pass(source, record, bounds, _Comparing(kept, record, target, bounds, writer))
        if again:  # as large and as old as before, and yet not the same
            yield from _pass(source, record, bounds, _Comparing(kept, record, target, bounds, None, again))
        said = target.done()
        writer.done()
    except BaseException:
        writer.drop()
        target.drop()
        raise
    return Brought(record, said)


def _pass(source: Source, record: Record, bounds: Bounds, comparing: _Comparing) -> Work[dict[str, bool]]:
    """Have all of the workspace go by once; it comes to what has to go by again."""
    reader, progress = Reader(comparing), _Progress()

    def hear(stream: str, data: bytes) -> None:
        if stream == OUT:
            reader.feed(data)
            progress.went(len(data))

    if source.raw:
        with open(source.raw, "rb") as file:
            while not reader.ended and (data := file.read(CHUNK)):
                bounds.check()
                reader.feed(data)
    else:
        words = ["cp", f"{source.container}:{record.workspace}", "-"]
        answer = yield source.engine.call(words, seconds=run.SILENT_SECONDS, heard=hear)
        if not answer.ok:
            raise BottleError(f"docker cp failed: {answer.failure}")
    reader.close()
    return comparing.finish()


class _Progress:
    """Says now and then how much has come, to a user at a terminal."""

    def __init__(self) -> None:
        self._came, self._on_terminal = 0, os.isatty(log.STDERR)
        self._due = time.monotonic() + QUIET_SECONDS

    def went(self, size: int) -> None:
        self._came += size
        if self._on_terminal and time.monotonic() >= self._due:
            log.log_info(f"looked at {self._came >> 20} MiB so far")
            self._due = time.monotonic() + EVERY_SECONDS


class _Target:
    """The new folder, which is made when the first file comes."""

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self._folder: Path | None = None
        self._landing: Landing | None = None
        self.counts = {"new": 0, "changed": 0, "deleted": 0}
        self.left_out: list[str] = []
        self.has_folders = False

    @property
    def landing(self) -> Landing:
        """Where files go."""
        if self._landing is None:
            self._folder = _new_folder(self._slug)
            files = self._folder / FILES
            files.mkdir(mode=0o700)
            self._landing = Landing(str(files))
            self._landing.look()
        return self._landing

    def deleted(self, paths: Iterator[str]) -> None:
        """Note what is gone."""
        first = next(paths, None)
        if first is None:
            return
        with self._list(DELETED) as file:
            for number, path in enumerate(chain([first], paths), 1):
                file.write(log.encode(f"{log.visible(path)}\n"))
                self.counts["deleted"] = number

    def _list(self, name: str) -> io.BufferedWriter:
        assert self.landing and self._folder
        return open(self._folder / name, "xb")

    def done(self) -> str:
        """Return what is to be said; nothing where nothing has come."""
        if self.left_out:
            with self._list(LEFT_OUT) as file:
                file.writelines(log.encode(f"{line}\n") for line in self.left_out)
        self.close()
        if self._folder is None or not (any(self.counts.values()) or self.left_out or self.has_folders):
            self.drop()  # a file that was only touched was there for a while
            return ""
        counts = [f"{number} {what}" for what, number in self.counts.items() if number]
        counts += [f"{len(self.left_out)} that could not come, see {LEFT_OUT}"] if self.left_out else []
        return f"the work came home as files, {', '.join(counts) or 'all of them empty folders'}: {self._folder}"

    def drop(self) -> None:
        """Remove what has come."""
        self.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        if self._landing:
            self._landing.close()


def _new_folder(slug: str) -> Path:
    """Make the first folder of an agent's that is not there.

    Raises:
        BottleError: there is no place for one.
        OSError: it cannot be made.
    """
    state = state_folder(os.environ)
    if state is None:
        raise BottleError("there is no home folder to write to")
    state_make(state / "files")
    for number in range(1, MOST_PLACES):
        try:
            (state / "files" / f"{slug}-{number}").mkdir(mode=0o700)
            return state / "files" / f"{slug}-{number}"
        except FileExistsError:
            continue
    raise BottleError(f"too many folders of {slug}'s in {state / 'files'}")


class _Content:
    """The content of a file on its way: in memory while it is small, then in the new folder.

    Args:
        target: the new folder.
        path: of the file.
        mode: its permission bits.
    """

    def __init__(self, target: _Target, path: str, mode: int) -> None:
        self._target, self._path, self._mode = target, path, mode
        self._held: list[bytes] = []
        self._size = 0
        self._file: io.BufferedWriter | None = None

    def add(self, piece: bytes) -> None:
        """Take a piece.

        Raises:
            NotTaken: the file cannot be there.
            OSError: the disk is at fault.
        """
        self._size += len(piece)
        if self._file:
            self._file.write(piece)
        else:
            self._held.append(piece)
        if self._size > HELD and not self._file:
            self._open()

    def _open(self) -> None:
        self._file = self._target.landing.file(self._path, self._mode)
        self._file.writelines(self._held)
        self._held = []

    def keep(self) -> None:
        """Have it stay; raises what ``add`` does."""
        if not self._file:
            self._open()
        assert self._file
        self._file.close()

    def drop(self) -> None:
        """Have it not be there."""
        if self._file:
            self._file.close()
            self._target.landing.drop(self._path)


class _Comparing:
    """Compares what goes by with what went in, and has the new folder get what is not the same (``untar.Taker``).

    Args:
        kept: folder with the record of what went in.
        record: of the bottle.
        target: the new folder.
        bounds: how much may come.
        writer: of the record of what is there now; None for a second time.
        wanted: then, the files that have to be taken, with whether they were there before.
    """

    def __init__(
        self,
        kept: Path,
        record: Record,
        target: _Target,
        bounds: Bounds,
        writer: went_in.Writer | None,
        wanted: Mapping[str, bool] | None = None,
    ) -> None:
        self._before = None if wanted is not None else went_in.Before(kept / went_in.FILE_NAME)
        self._target, self._bounds, self._writer, self._wanted = target, bounds, writer, wanted
        self._root = os.path.basename(record.workspace)
        self._seen = self._came = 0
        self._again: dict[str, bool] = {}  # with whether it was there before
        self._taken: set[str] = set()
        self._path = ""
        self._content: _Content | None = None

    def begin(self, entry: Entry) -> None:
        self._seen += 1
        if self._seen > MOST_FILES:
            raise BottleError(f"there are more than {MOST_FILES} files in the workspace")
        self._entry, self._path = entry, self._below(entry)
        self._sum, self._is_refused = hashlib.blake2b(digest_size=16), False
        self._was = self._before.take(self._path) if self._before and self._path else None
        takes = self._path in self._wanted if self._wanted is not None else not self._is_as_before()
        self._content = None
        if self._path and entry.kind == FILE and takes:
            self._content = _Content(self._target, self._path, entry.mode)

    def _below(self, entry: Entry) -> str:
        """Return a path from the workspace on; empty for that itself, which must still be a folder."""
        name = entry.name.rstrip("/") if entry.kind == FOLDER else entry.name
        if name == self._root and entry.kind == FOLDER:
            return ""
        if not name.startswith(f"{self._root}/"):
            raise BottleError("the workspace in the bottle is no folder any more")
        return name.removeprefix(f"{self._root}/")

    def _is_as_before(self) -> bool:
        """Say whether a file has the time and size that it had: then it is looked at, and hardly worth keeping."""
        return bool(self._was and (self._was.size, self._was.mtime) == (self._entry.size, self._entry.mtime))

    def data(self, piece: bytes) -> None:
        self._sum.update(piece)
        if self._content:
            self._came += len(piece)
            if self._came >> 26 != self._came - len(piece) >> 26:
                self._target.landing.look()
            if self._came > self._bounds.unpacked:
                raise BottleError(f"more than {self._bounds.unpacked >> 30} GiB have changed")
            self._try(partial(self._content.add, piece))

    def _try(self, what: Callable[[], None]) -> bool:
        """Do what may turn out to be impossible, which is noted; say whether it was not."""
        try:
            what()
        except NotTaken as why:
            self._leave_out(str(why))
            self._content, self._is_refused = None, True
        return not self._is_refused

    def _leave_out(self, why: str) -> None:
        self._target.left_out.append(f"{log.visible(self._path)}: {log.visible(why)}")

    def end(self) -> None:
        if not self._path:
            return
        now = went_in.known(self._entry, self._sum.digest())
        if self._writer:
            self._writer.add(self._path, now)
        if self._is_same(now):
            if self._content:
                self._content.drop()
        elif self._entry.kind == FILE and not self._content and not self._is_refused:
            self._again[self._path] = True  # it has gone by
        elif not self._is_refused:
            self._take()

    def _is_same(self, now: went_in.Known) -> bool:
        if self._wanted is not None:
            return self._path not in self._wanted
        if self._entry.kind == SECOND and self._was:
            return all(self._first() not in paths for paths in (self._taken, self._again))
        return bool(self._was and now.is_same(self._was))

    def _first(self) -> str:
        return self._entry.target.removeprefix(f"{self._root}/")

    def _take(self) -> None:
        landing, kind, path = self._target.landing, self._entry.kind, self._path
        if kind == FILE and self._content:
            taken = self._try(self._content.keep)
        elif kind == FOLDER:
            self._target.has_folders |= self._try(partial(landing.folder, path))
            return  # what is in it counts
        elif kind == LINK:
            taken = self._try(partial(landing.link, path, self._entry.target))
        elif kind == SECOND and self._first() in self._taken:
            taken = self._try(partial(landing.second, path, self._first()))
        elif kind == SECOND and self._first() in self._again:
            self._again[path] = bool(self._was)
            return
        else:
            self._leave_out(f"a second name of {self._first()}" if kind == SECOND else OTHER)
            return
        if taken:
            was_there = self._wanted[path] if self._wanted is not None else bool(self._was)
            self._target.counts["changed" if was_there else "new"] += 1
            self._taken.add(path)

    def finish(self) -> dict[str, bool]:
        """Note what is gone; return what has to go by again."""
        if self._before:
            self._target.deleted(self._before.rest())
        return self._again
