"""What is in a folder of the host, seen without following a link, however deep and whatever changes meanwhile."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from claude_bottle.lib.host import wait

_FOLDER = os.O_RDONLY | os.O_DIRECTORY

Choose = Callable[[str, bool], tuple[bool, bool]]
"""Takes a path and whether it is a folder; returns whether it goes in, and whether what is below is to be looked at."""


class Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        path: from the walk's folder on.
        what: as ``lstat`` saw it.
        above: descriptor of the folder that it is in, open until the next entry is asked for; -1 for a folder.
    """

    path: str
    what: os.stat_result
    above: int


@dataclass
class _Level:
    """A folder on the way down: what it is, what is not seen yet, and its entry until it is yielded."""

    path: str
    identity: tuple[int, int]
    names: list[str]
    held: Entry | None = None


def everything(_path: str, _is_folder: bool) -> tuple[bool, bool]:
    """Choose all that there is."""
    return True, True


@contextmanager
def named(source: str, path: str) -> Iterator[None]:
    """Give an error the whole path of what it is about.

    Args:
        source: the walk's folder.
        path: from there on.
    """
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, os.path.join(source, path)) from None


def plain_file(path: str, above: int | None = None, *, follow: bool = False) -> io.BufferedReader:
    """Open what is a plain file, and nothing that took its place: no link, and no pipe to wait for.

    Args:
        path: of the file.
        above: descriptor of the folder that it is in, if the path is only its name.
        follow: take what a link leads to.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW), dir_fd=above)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a plain file")
    return open(opened, "rb")


class _Way:
    """Where a walk is: the folders from its own one down to the one that is open."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.here = os.open(source, _FOLDER)
        self.levels: list[_Level] = []
        self._enter("")

    def _enter(self, path: str, held: Entry | None = None) -> None:
        what = os.fstat(self.here)
        names = sorted(os.listdir(self.here), reverse=True)
        self.levels.append(_Level(path, (what.st_dev, what.st_ino), names, held))

    def _open(self, name: str) -> None:
        opened = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.here)
        os.close(self.here)
        self.here = opened

    def next(self) -> Entry | None:
        """Return the next thing here, or None where it has vanished, or where nothing is left and the way goes up."""
        level = self.levels[-1]
        if not level.names:
            self.levels.pop()
            if self.levels:
                self._up(self.levels[-1])
            return None
        name = level.names.pop()
        path = f"{level.path}/{name}" if level.path else name
        with named(self.source, path):
            try:
                what = os.stat(name, dir_fd=self.here, follow_symlinks=False)
            except FileNotFoundError:
                return None
        return Entry(path, what, -1 if stat.S_ISDIR(what.st_mode) else self.here)

    def held_back(self) -> Iterator[Entry]:
        """Yield the folders above that stay out but for what is found in them now."""
        for level in self.levels:
            if level.held:
                yield level.held
                level.held = None

    def down(self, entry: Entry, goes_in: bool) -> None:
        """Go into a folder; one that stays out and cannot be read is as good as empty."""
        try:
            with named(self.source, entry.path):
                self._open(os.path.basename(entry.path))
        except OSError as problem:
            if problem.errno == errno.ENOENT or (problem.errno == errno.EACCES and not goes_in):
                return
            raise
        with named(self.source, entry.path):
            self._enter(entry.path, None if goes_in else entry)

    def _up(self, level: _Level) -> None:
        """Go back to the folder above, and only there: one may have been moved meanwhile."""
        with named(self.source, level.path):
            self._open("..")
            what = os.fstat(self.here)
            if (what.st_dev, what.st_ino) != level.identity:
                raise OSError(errno.ESTALE, "changed while it was read")


def walk(source: str, choose: Choose = everything) -> Iterator[Entry]:
    """Yield what is in a folder, a folder before what is in it, and one that stays out where something in it goes in.

    Nothing is followed, and however deep it is, one descriptor is open at a time. What has vanished is passed over.

    Args:
        source: the folder.
        choose: says what goes in.

    Raises:
        OSError: something in it cannot be read; its ``filename`` is the whole path.
        Interrupted: a signal asks to stop.
    """
    way = _Way(source)
    try:
        while way.levels:
            wait.check_signals()
            if entry := way.next():
                yield from _chosen(way, entry, choose)
    finally:
        os.close(way.here)


def _chosen(way: _Way, entry: Entry, choose: Choose) -> Iterator[Entry]:
    is_folder = stat.S_ISDIR(entry.what.st_mode)
    goes_in, is_entered = choose(entry.path, is_folder)
    if goes_in:
        yield from way.held_back()
        yield entry
    if is_folder and is_entered:
        way.down(entry, goes_in)
