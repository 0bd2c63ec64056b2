"""Which repository a project belongs to, where that is not simply its own ``.git`` folder; only read, nothing is run.

A ``.git`` that is a file leads out of the project, and the project may be somebody else's: it is followed only where
what it leads to says the same of the project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from claude_bottle.lib.files import git_index
from claude_bottle.lib.files.walk import plain_file

GIT = ".git"
MAX_TEXT, MAX_CONFIG, MAX_INDEX = 1 << 16, 1 << 20, 1 << 28  # bytes
MOST_ALTERNATES = 100

_SHA256 = re.compile(rb"(?im)^\s*objectformat\s*=\s*\"?sha256")
_PARTIAL = re.compile(rb"(?im)^\s*(promisor\s*=\s*\"?(true|yes|on|1)|partialclone\s*=)")
_SECTION = re.compile(rb"\s*\[([^\]]*)\]")
_WORKTREE = re.compile(rb"(?i)\s*worktree\s*=\s*(.+?)\s*")


@dataclass(frozen=True)
class Repository:
    """A repository of the host, of which the bottle gets one of its own.

    Attributes:
        kind: what the user would call it.
        folder: with its HEAD and index; the whole path, without links.
        common: with its branches and objects; another one only for a linked worktree.
        prefix: where the project is in it; empty for its root.
        alternates: folders of objects that are not its own.
    """

    kind: str
    folder: str
    common: str
    prefix: str = ""
    alternates: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """What the user is to know of it."""
        said = [self.kind if self.prefix else f"{self.kind}, of {self.common}"]
        if self.prefix:
            said.append("only this folder goes in, with the history of all")
        if self.alternates:
            said.append(f"with the history in {', '.join(self.alternates)}")
        return "; ".join(said)

    @property
    def hash_bytes(self) -> int:
        """Length of its object ids."""
        return 32 if _SHA256.search(_config(self.common)) else 20

    def entries(self) -> list[git_index.Entry]:
        """Return what its index has.

        Raises:
            ValueError: it cannot be read, with the reason.
            Interrupted: a signal asks to stop.
        """
        index = read(os.path.join(self.folder, "index"), MAX_INDEX)
        return [] if index is None else git_index.entries(index, self.hash_bytes)

    def link_out(self) -> str:
        """Return a link that git would follow to objects or branches, which could be anybody's; else an empty text."""
        names = ("objects", "refs", "packed-refs", "HEAD", "config", "objects/info", "objects/pack")
        paths = [os.path.join(folder, name) for folder in {self.folder, self.common} for name in names]
        for folder in ("objects", "objects/pack", "objects/info"):
            paths += _within(os.path.join(self.common, folder))
        links = (path for path in paths if os.path.islink(path))
        return next(links, "") or next(_links(os.path.join(self.common, "refs")), "")

    def below(self, path: str) -> str | None:
        """Return a path of it as the project has it, or None for what is not the project's."""
        if not self.prefix:
            return path
        start = f"{self.prefix}/"
        return path.removeprefix(start) if path.startswith(start) else None


def is_partial(common: str) -> bool:
    """Say whether a repository lacks what it would fetch when it is asked for.

    Args:
        common: its folder, with the branches.
    """
    return bool(_PARTIAL.search(_config(common)))


def _config(common: str) -> bytes:
    """Return what its configuration says; nothing where it cannot be read."""
    try:
        return read(os.path.join(common, "config"), MAX_CONFIG) or b""
    except ValueError:
        return b""


def read(path: str, most: int, *, follow: bool = False) -> bytes | None:
    """Return what a plain file holds, or None where there is none.

    Args:
        path: of the file.
        most: bytes that are read.
        follow: take what a link leads to.

    Raises:
        ValueError: it is something else, too large, or cannot be read; with the reason.
    """
    try:
        with plain_file(path, follow=follow) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise ValueError("a link to nothing") from None
        return None
    except OSError as problem:
        raise ValueError(problem.strerror) from None
    if len(data) > most:
        raise ValueError(f"larger than {most >> 20} MiB")
    return data


def _within(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []


def _links(folder: str) -> Iterator[str]:
    for above, folders, names in os.walk(folder):
        yield from (path for name in (*folders, *names) if os.path.islink(path := os.path.join(above, name)))


def linked(root: str) -> Repository | None:
    """Return the repository of a folder whose ``.git`` is a file; None where that cannot be followed.

    Args:
        root: the whole path of the folder, without links.
    """
    target = leads_to(os.path.join(root, GIT))
    if target is None or not os.path.isfile(os.path.join(target, "HEAD")):
        return None
    common = _path(os.path.join(target, "commondir"))
    if common is None:
        return _submodule(root, target)
    # Both are what `git worktree add` makes: it is the repository that names the worktree, which cannot name itself.
    named = _path(os.path.join(target, "gitdir"))
    is_its = os.path.dirname(target) == os.path.join(common, "worktrees")
    if not is_its or named != os.path.join(root, GIT):
        return None
    return Repository("linked worktree", target, common, alternates=_alternates(common))


def _submodule(root: str, target: str) -> Repository | None:
    """Return the repository in which a checkout of it is named."""
    try:
        config = read(os.path.join(target, "config"), MAX_CONFIG) or b""
    except ValueError:
        return None
    said = _worktree(config)
    if not said or os.path.realpath(os.path.join(target, said)) != root:
        return None
    return Repository("submodule", target, target, alternates=_alternates(target))


def _worktree(config: bytes) -> str:
    """Return what a configuration says as ``core.worktree``, in the form that git writes it in."""
    section, said = b"", ""
    for line in config.splitlines():
        if begun := _SECTION.match(line):
            section = begun[1].strip().lower()
        elif section == b"core" and (value := _WORKTREE.fullmatch(line)):
            said = _unquoted(value[1])
    return said


def _unquoted(value: bytes) -> str:
    if value.startswith(b'"') and value.endswith(b'"'):
        value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
    return os.fsdecode(value)


def shared(root: str) -> Repository | None:
    """Return the repository in a folder whose ``.git`` is one, if it has objects elsewhere; None if it has not.

    Args:
        root: the whole path of the folder, without links.
    """
    folder = os.path.join(root, GIT)
    alternates = _alternates(folder)
    return Repository("clone with shared objects", folder, folder, alternates=alternates) if alternates else None


def above(project: str) -> Repository | None:
    """Return the repository that a folder is a part of, if it is one of the tracked ones.

    Args:
        project: the whole path of the folder, without links.

    Raises:
        ValueError: there is one, and its index cannot be read; with the reason.
        Interrupted: a signal asks to stop.
    """
    root = _root_above(project)
    if root is None:
        return None
    if os.path.isdir(os.path.join(root, GIT)):
        folder = os.path.join(root, GIT)
        found: Repository | None = Repository("subfolder", folder, folder, alternates=_alternates(folder))
    else:
        found = linked(root)
    if found is None:
        return None
    prefix = os.path.relpath(project, root)
    whole = Repository(f"subfolder of {root}", found.folder, found.common, prefix, found.alternates)
    return whole if any(whole.below(entry.path) is not None for entry in whole.entries()) else None


def _root_above(project: str) -> str | None:
    """Return the nearest folder above that has a ``.git``, on the same file system, as git looks for it."""
    device, here = os.stat(project).st_dev, os.path.dirname(project)
    while os.stat(here).st_dev == device:
        path = os.path.join(here, GIT)
        is_one = os.path.isfile(path) or os.path.isfile(os.path.join(path, "HEAD"))
        if is_one and not os.path.islink(path):
            return here
        if here == os.path.dirname(here):
            break
        here = os.path.dirname(here)
    return None


def leads_to(path: str) -> str | None:
    """Return the whole path of the folder that a ``.git`` file names, without links; None where it names none."""
    text = _text(path)
    if text is None or not text.startswith("gitdir: "):
        return None
    return os.path.realpath(os.path.join(os.path.dirname(path), text.removeprefix("gitdir: ")))


def _path(file: str) -> str | None:
    """Return the path that a file of a repository holds, whole and without links; its own last part may be one."""
    text = _text(file)
    if not text:
        return None
    folder, name = os.path.split(os.path.join(os.path.dirname(file), text))
    path = os.path.join(os.path.realpath(folder), name)
    return path if name == GIT and not os.path.isdir(path) else os.path.realpath(path)


def _text(path: str) -> str | None:
    try:
        data = read(path, MAX_TEXT)
    except ValueError:
        return None
    return None if data is None else os.fsdecode(data).rstrip("\r\n")


def _alternates(common: str) -> tuple[str, ...]:
    """Return the other folders of objects, those of these too."""
    found: list[str] = []
    _follow(os.path.join(common, "objects"), found)
    return tuple(found)


def _follow(objects: str, found: list[str]) -> None:
    for line in _lines(os.path.join(objects, "info", "alternates")):
        path = os.path.realpath(os.path.join(objects, line))
        if path not in found and len(found) < MOST_ALTERNATES:
            found.append(path)
            _follow(path, found)


def _lines(path: str) -> Iterator[str]:
    for line in (_text(path) or "").splitlines():
        if line and not line.startswith("#"):
            yield line
