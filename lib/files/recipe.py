"""What a bottle's own Dockerfile is built from, as one stream, and the digest that stands for all of it.

Only what is in the stream reaches the builder: the Dockerfile, and its folder where it copies from that. What is built
is what the user was shown and agreed to, or nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.files.project import IGNORE, read_rules
from claude_bottle.lib.files.walk import Choose, Entry, named, plain_file, walk

MIB = 1 << 20
MAX_TEXT = MIB
MAX_BYTES, MAX_FILES = 256 * MIB, 20_000  # all of it is read at each start
SHOWN = 12  # digits of a digest
_TIME = 1_000_000_000  # of every file: the day of a clone is not what is approved
# A line that takes something of the folder; what has another source does not.
_COPIES = re.compile(
    rb"^\s*(?:onbuild\s+)?(?:copy|add)\b(?!.*--from=)|--mount=(?!type=(?:cache|tmpfs|secret|ssh)\b)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile with what goes to the builder beside it.

    Attributes:
        path: of the Dockerfile.
        copies: whether its folder goes along.
        count: the files that go along.
        digest: SHA-256 of the stream.
    """

    path: str
    copies: bool = False
    count: int = 0
    digest: str = ""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def shown(self) -> str:
        """The beginning of the digest, which tells two apart."""
        return f"sha256:{self.digest[:SHOWN]}"

    def stream(self) -> Iterator[bytes]:
        """Yield what the builder gets; without its end where it is not what the digest stands for.

        Raises:
            BottleError: it has changed, or something in it cannot be read.
            Interrupted: a signal asks to stop.
        """
        seen = hashlib.sha256()
        for piece in tarstream.packed(piece for _, pieces in _members(self) for piece in pieces):
            seen.update(piece)
            yield piece
        if seen.hexdigest() != self.digest:
            raise BottleError(f"{self.path}, or a file of its folder, has changed since the plan was made")
        yield tarstream.END


@cache
def look(path: str, root: str, home: str) -> Recipe:
    """Look at a Dockerfile and what goes along; once in a command.

    Args:
        path: of the Dockerfile.
        root: the folder that it must lie in.
        home: the user's home folder, which never goes along.

    Raises:
        BottleError: there is none, it leads elsewhere, or what goes along cannot be read or is too much.
        Interrupted: a signal asks to stop.
    """
    real, inside = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, inside]) != inside:
        raise BottleError(f"{path} leads to {real}, out of the manifest's folder")
    recipe = Recipe(path, bool(_COPIES.search(_text(path))))
    own = os.path.realpath(recipe.folder)
    if recipe.copies and home and os.path.commonpath([os.path.realpath(home), own]) == own:
        raise BottleError(f"{path} copies from its folder, which is your home: give it a folder of its own")
    return _measured(recipe)


def _measured(recipe: Recipe) -> Recipe:
    """Return it with what is to be known of its stream."""
    seen, size, entries, files = hashlib.sha256(), 0, 0, -1  # the Dockerfile is not counted
    for is_file, pieces in _members(recipe):
        entries, files = entries + 1, files + is_file
        for piece in pieces:
            seen.update(piece)
            size += len(piece)
            if size > MAX_BYTES or entries > MAX_FILES:
                raise _too_much(recipe)
    return replace(recipe, count=files, digest=seen.hexdigest())


def _too_much(recipe: Recipe) -> BottleError:
    most = f"{MAX_BYTES // MIB} MiB, or {MAX_FILES} files"
    hint = f"leave out what it does not need in {recipe.folder}/{IGNORE}, or give it a folder of its own"
    return BottleError(f"{recipe.path} copies from a folder with more than {most}", [hint])


def _text(path: str) -> bytes:
    try:
        with plain_file(path, follow=True) as file:
            text = file.read(MAX_TEXT + 1)
    except FileNotFoundError:
        raise BottleError(f"there is no {path}") from None
    except OSError as problem:
        raise BottleError(f"cannot read {path}: {reason(problem)}") from None
    if len(text) > MAX_TEXT:
        raise BottleError(f"{path} is larger than {MAX_TEXT // MIB} MiB: it is no Dockerfile")
    return text


def _members(recipe: Recipe) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """Yield for the Dockerfile, and then for what goes along, whether it is a file, and its part of the stream."""
    text = _text(recipe.path)
    yield True, iter([_header(recipe.name, tarfile.REGTYPE, 0o644, len(text)), text, b"\0" * (-len(text) % 512)])
    try:
        for entry in walk(recipe.folder, _choice(recipe)) if recipe.copies else ():
            yield not stat.S_ISDIR(entry.what.st_mode), _entry(recipe.folder, entry)
    except OSError as problem:
        raise _unread(problem) from None


def _unread(problem: OSError) -> BottleError:
    return BottleError(f"cannot read {problem.filename}, which goes to the builder: {problem.strerror}")


def _choice(recipe: Recipe) -> Choose:
    """Return what says what goes along: the rules of the Dockerfile's own file of them, or else of the folder's."""
    own = f"{recipe.name}{IGNORE}"
    path = os.path.join(recipe.folder, own)
    rules = read_rules(path if os.path.lexists(path) else os.path.join(recipe.folder, IGNORE))

    def choose(path: str, is_folder: bool) -> tuple[bool, bool]:
        if path in (recipe.name, own, IGNORE):
            return False, False
        goes_in = not rules.excludes(path)
        return goes_in, is_folder and (goes_in or rules.may_take_in_below(path))

    return choose


def _entry(folder: str, entry: Entry) -> Iterator[bytes]:
    """Yield one thing with one owner, one time and one of two modes; sockets, pipes and devices do not go along."""
    try:
        with named(folder, entry.path):
            yield from _plain(entry)
    except OSError as problem:
        raise _unread(problem) from None


def _plain(entry: Entry) -> Iterator[bytes]:
    name, kind = os.path.basename(entry.path), entry.what.st_mode
    if stat.S_ISDIR(kind):
        yield _header(entry.path, tarfile.DIRTYPE, 0o755)
    elif stat.S_ISLNK(kind):
        yield _header(entry.path, tarfile.SYMTYPE, 0o777, target=os.readlink(name, dir_fd=entry.above))
    elif stat.S_ISREG(kind):
        with plain_file(name, entry.above) as file:
            what = os.fstat(file.fileno())
            yield _header(entry.path, tarfile.REGTYPE, 0o755 if what.st_mode & stat.S_IXUSR else 0o644, what.st_size)
            yield from tarstream.exactly(file, what.st_size)


def _header(name: str, kind: bytes, mode: int, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, target, _TIME
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
