"""What is in a folder of the host, seen without following a link, however deep and whatever changes meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from claude_bottle.lib import wait

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
    here = os.open(source, _FOLDER)
    levels = [_level("", here)]
    try:
        while levels:
            wait.check_signals()
            level = levels[-1]
            if not level.names:
                levels.pop()
                here = _up(source, here, levels[-1]) if levels else here
                continue
            name = level.names.pop()
            path = f"{level.path}/{name}" if level.path else name
            with named(source, path):
                entry = _look(here, name, path)
            if entry is None:
                continue
            is_folder = stat.S_ISDIR(entry.what.st_mode)
            goes_in, is_entered = choose(path, is_folder)
            if goes_in:
                yield from _held_back(levels)
                yield entry
            if is_folder and is_entered:
                here = _down(source, here, entry, goes_in, levels)
    finally:
        os.close(here)


def _level(path: str, here: int, held: Entry | None = None) -> _Level:
    what = os.fstat(here)
    return _Level(path, (what.st_dev, what.st_ino), sorted(os.listdir(here), reverse=True), held)


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


def _look(here: int, name: str, path: str) -> Entry | None:
    try:
        what = os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Entry(path, what, -1 if stat.S_ISDIR(what.st_mode) else here)


def _held_back(levels: list[_Level]) -> Iterator[Entry]:
    for level in levels:
        if level.held:
            yield level.held
            level.held = None


def _down(source: str, here: int, entry: Entry, goes_in: bool, levels: list[_Level]) -> int:
    """Go into a folder; one that stays out and cannot be read is as good as empty."""
    try:
        with named(source, entry.path):
            below = os.open(os.path.basename(entry.path), _FOLDER | os.O_NOFOLLOW, dir_fd=here)
    except OSError as problem:
        if problem.errno == errno.ENOENT or (problem.errno == errno.EACCES and not goes_in):
            return here
        raise
    levels.append(_level(entry.path, below, None if goes_in else entry))
    os.close(here)
    return below


def _up(source: str, here: int, level: _Level) -> int:
    """Go back to the folder above, and only there: a folder may have been moved meanwhile."""
    with named(source, level.path):
        above = os.open("..", _FOLDER, dir_fd=here)
        os.close(here)
        what = os.fstat(above)
        if (what.st_dev, what.st_ino) != level.identity:
            raise OSError(errno.ESTALE, "changed while it was read")
    return above
