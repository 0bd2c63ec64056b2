"""A new folder of the host that files out of a bottle are put into: none can get out of it, or over another.

Each folder on the way to a file is opened by its name alone, without following anything, and whatever is made is made
new. So nothing depends on what the host's disk takes for the same name.
"""

from __future__ import annotations

import errno
import io
import os
import re
import unicodedata
from contextlib import suppress

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError

LEAST_FREE = 1 << 30  # bytes of the disk
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# What a disk does not take, or takes for what is there already.
_NOT_TAKEN = {errno.EEXIST, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}
_IGNORED = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")  # in names, by some disks
_GIT = re.compile(r"(?:\.git|git~\d+)[ .]*(?::.*)?", re.IGNORECASE)
MEANT = "dot-git"


class NotTaken(Exception):
    """A file cannot be there, and why."""


def harmless(name: str) -> str:
    """Return what a name becomes: nothing that a terminal obeys, and no repository for whoever goes there."""
    plain = unicodedata.normalize("NFKC", _IGNORED.sub("", name))
    return MEANT if _GIT.fullmatch(plain) else log.visible(name)


def stays_inside(path: str, target: str) -> bool:
    """Say whether a link leads nowhere but into the folder, whatever else in there is a link of the same kind.

    Args:
        path: of the link, from the folder on.
        target: that it has.
    """
    parts = target.split("/")
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    odd = not target or target.startswith("/") or ".." in parts[ups:] or any(harmless(p) != p for p in parts)
    return not odd and ups <= path.count("/")


class Landing:
    """The folder.

    Args:
        folder: of the user's alone, and empty.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, folder: str) -> None:
        self._root = self._here = os.open(folder, _FOLDER)
        self._at: list[str] = []

    def close(self) -> None:
        """Close what is open."""
        for fd in {self._root, self._here}:
            with suppress(OSError):
                os.close(fd)

    def _go(self, parts: list[str]) -> int:
        """Return the descriptor of a folder, which is made where it is not there."""
        if parts != self._at:
            here = os.dup(self._root)
            try:
                for name in parts:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=here)
                    below = os.open(name, _FOLDER, dir_fd=here)
                    os.close(here)
                    here = below
            except OSError:
                os.close(here)
                raise
            if self._here != self._root:
                os.close(self._here)
            self._here, self._at = here, parts
        return self._here

    def folder(self, path: str) -> None:
        """Make a folder.

        Raises:
            NotTaken: it cannot be there.
            OSError: the disk is at fault.
        """
        try:
            self._go(_parts(path))
        except OSError as problem:
            raise _told_apart(problem) from None

    def file(self, path: str, mode: int) -> io.BufferedWriter:
        """Return a new file.

        Args:
            path: from the folder on.
            mode: permission bits; nobody but the user may write, and it runs as nobody else.

        Raises:
            NotTaken: it cannot be there.
            OSError: the disk is at fault.
        """
        *above, name = _parts(path)
        try:
            made = os.open(name, _NEW, 0o600, dir_fd=self._go(above))
        except OSError as problem:
            raise _told_apart(problem) from None
        os.fchmod(made, mode & 0o755 | 0o600)
        return io.BufferedWriter(io.FileIO(made, "w"))

    def look(self) -> None:
        """Make sure that the disk has room.

        Raises:
            BottleError: it has not.
        """
        disk = os.fstatvfs(self._root)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE:
            raise BottleError("the disk is nearly full")

    def link(self, path: str, target: str) -> None:
        """Make a link.

        Raises:
            NotTaken: it cannot be there, or would lead out.
            OSError: the disk is at fault.
        """
        *above, name = _parts(path)
        if not stays_inside(path, target):
            raise NotTaken(f"a link that leads out: {target}")
        try:
            os.symlink(target, name, dir_fd=self._go(above))
        except OSError as problem:
            raise _told_apart(problem) from None

    def second(self, path: str, first: str) -> None:
        """Give a file of it another name.

        Raises:
            NotTaken: it cannot be there.
            OSError: the disk is at fault.
        """
        *above, name = _parts(first)
        held = None
        try:
            held = os.dup(self._go(above))
            *there, other = _parts(path)
            os.link(name, other, src_dir_fd=held, dst_dir_fd=self._go(there), follow_symlinks=False)
        except OSError as problem:
            raise _told_apart(problem) from None
        finally:
            if held is not None:
                os.close(held)

    def drop(self, path: str) -> None:
        """Remove a file that was made."""
        *above, name = _parts(path)
        os.unlink(name, dir_fd=self._go(above))


def _parts(path: str) -> list[str]:
    """Return the names of a path.

    Raises:
        NotTaken: it is none from a folder on.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise NotTaken("a name that is none")
    return [harmless(part) for part in parts]


def _told_apart(problem: OSError) -> Exception:
    """Return NotTaken for what is one file's problem, and the problem itself for what is the disk's."""
    return NotTaken(os.strerror(problem.errno).lower()) if problem.errno in _NOT_TAKEN else problem
