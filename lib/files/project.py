"""What of the working directory goes into a bottle with ``--cwd``, and what the user should know of it.

Nothing of the project is run, and no link that leaves it is followed: it may be somebody else's.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import dockerignore, git_index
from claude_bottle.lib.files.walk import plain_file

IGNORE = ".dockerignore"
GIT = ".git"
MAX_IGNORE, MAX_CONFIG, MAX_INDEX = 1 << 20, 1 << 20, 1 << 28  # bytes

# What holds credentials by its nature, or only with such a text in it.
_CREDENTIALS: tuple[tuple[str, bytes], ...] = (
    (".ssh", b""),
    (".aws", b""),
    (".azure", b""),
    (".config/gcloud", b""),
    (".config/gh/hosts.yml", b""),
    (".gnupg", b""),
    (".kube", b""),
    (".password-store", b""),
    (".netrc", b""),
    ("_netrc", b""),
    (".git-credentials", b""),
    (".config/git/credentials", b""),
    (".pgpass", b""),
    (".vault-token", b""),
    (".claude/.credentials.json", b""),
    (".docker/config.json", rb'"(auth|identitytoken|registrytoken)"\s*:\s*"[^"]'),
    (".npmrc", rb"_(authToken|auth|password)\s*=\s*[^$\s]"),
    (".yarnrc.yml", rb"npmAuth(Token|Ident)\s*:\s*[^$\s]"),
    (".pypirc", rb"(?m)^\s*password\s*[=:]\s*\S"),
)
_ENV_FILE = re.compile(r"\.env(\..+)?")
_ENV_SAMPLE = re.compile(r"\.env.*\.(example|sample|template|dist|defaults?)")
# A password in an address, or a name that is long enough to be a token; a header that git sends along.
_GIT_TOKEN = re.compile(
    rb"(?im)https?://(?:[^/\s\"@:]*:[^/\s\"@]+|[^/\s\"@:]{20,}:?)@|^\s*extraheader\s*=\s*\"?authorization"
)
_SHA256 = re.compile(rb"(?im)^\s*objectformat\s*=\s*sha256")


@dataclass(frozen=True)
class Project:
    """A working directory and what of it goes in.

    Attributes:
        folder: as the user gave it.
        rules: of its .dockerignore.
        git: where its repository is, from the folder on; empty without one.
        refused: where a .git leads that leaves the folder; empty without one.
        unread: why the repository's index is not read; empty where it is, or not needed.
        left_out: the tracked files that are there and do not go in, so that git would take them for deleted.
    """

    folder: str
    rules: dockerignore.Rules = field(default_factory=dockerignore.Rules)
    git: str = ""
    refused: str = ""
    unread: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def links(self) -> dict[str, str]:
        """Where links are to lead in the bottle: a .git may have the whole path of a folder of the project."""
        return {GIT: self.git} if self.git not in ("", GIT) else {}

    def choose(self, path: str, is_folder: bool) -> tuple[bool, bool]:
        """Say what goes in: what docker's rules leave, and the repository in any case (``walk.Choose``)."""
        goes_in, is_entered = self.choose_git(path, is_folder)
        if not goes_in:
            goes_in = not self.rules.excludes(path)
            is_entered = is_entered or (is_folder and (goes_in or self.rules.may_take_in_below(path)))
        return goes_in, is_entered

    def choose_git(self, path: str, _is_folder: bool) -> tuple[bool, bool]:
        """Say what is of the repository (``walk.Choose``)."""
        inside = bool(self.git) and (path in (GIT, self.git) or path.startswith(f"{self.git}/"))
        return inside, inside or self.git.startswith(f"{path}/")

    def warnings(self, home: str) -> list[str]:
        """Return what the user should know before it goes in.

        Args:
            home: the user's home folder.
        """
        said = []
        if self.refused:
            said.append(f"{GIT} is a link to {self.refused}, outside {self.folder}: it stays a link, not followed")
        found = list(self._credentials(home))
        if found:
            said.append(f"the bottle gets what may hold credentials: {', '.join(found)}")
        if self.unread:
            what = f"tracked files that {IGNORE} leaves out look deleted in the bottle"
            said.append(f"{GIT}/index is not read ({self.unread}): {what}")
        return said

    def _path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def _credentials(self, home: str) -> Iterator[str]:
        own, here = os.path.realpath(home), os.path.realpath(self.folder)
        if os.path.commonpath([own, here]) == here:
            yield "your home folder"
        for path, needed in _CREDENTIALS:
            if self._goes_in(path) and (not needed or self._holds(path, re.compile(needed))):
                yield path
        yield from filter(self._is_env_file, sorted(os.listdir(self.folder)))
        if self.git and self._holds(f"{self.git}/config", _GIT_TOKEN):
            yield f"a token in {GIT}/config"

    def _is_env_file(self, name: str) -> bool:
        is_one = _ENV_FILE.fullmatch(name) and not _ENV_SAMPLE.fullmatch(name)
        return bool(is_one) and os.path.isfile(self._path(name)) and self._goes_in(name)

    def _goes_in(self, path: str) -> bool:
        """Say whether a file or folder is there, and in the bottle too: not a link, nor below one."""
        parts = path.split("/")
        if not all(_is_real(self._path(*parts[: number + 1])) for number in range(len(parts))):
            return False
        return any(self.choose(path, os.path.isdir(self._path(path))))

    def _holds(self, path: str, wanted: re.Pattern[bytes]) -> bool:
        try:
            return bool(wanted.search(_read(self._path(path), MAX_CONFIG) or b""))
        except ValueError:
            return False


def _is_real(path: str) -> bool:
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(kind) or stat.S_ISREG(kind)


def _read(path: str, most: int, *, follow: bool = False) -> bytes | None:
    """Return what a plain file holds, or None where there is none.

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


def look(folder: str) -> Project:
    """Look at a working directory.

    Args:
        folder: as the user gave it.

    Raises:
        BottleError: it or its .dockerignore cannot be read, or docker would not take that.
        Interrupted: a signal asks to stop.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise BottleError(f"cannot read {folder}")
    git, refused = _git(folder)
    found = Project(folder, _rules(folder), git, refused)
    try:
        return replace(found, left_out=tuple(left_out(found)))
    except ValueError as problem:
        return replace(found, unread=str(problem))


def left_out(found: Project) -> Iterator[str]:
    """Yield the tracked files that are there and stay out, as the index has them now.

    Raises:
        ValueError: the index cannot be read.
    """
    index = _read(os.path.join(found.folder, found.git, "index"), MAX_INDEX) if found.git else None
    if index is None or not found.rules.patterns:
        return
    config = _read(os.path.join(found.folder, found.git, "config"), MAX_CONFIG) or b""
    for path in git_index.tracked(index, 32 if _SHA256.search(config) else 20):
        if not found.choose(path, False)[0] and os.path.lexists(os.path.join(found.folder, path)):
            yield path


def _rules(folder: str) -> dockerignore.Rules:
    path = os.path.join(folder, IGNORE)
    try:
        text = (_read(path, MAX_IGNORE, follow=True) or b"").decode("utf-8", "surrogateescape")
    except ValueError as problem:
        raise BottleError(f"cannot read {path}: {problem}") from None
    try:
        return dockerignore.parse(text)
    except ValueError as problem:
        raise BottleError(f"{path}: line {problem} is no pattern that docker takes") from None


def _git(folder: str) -> tuple[str, str]:
    """Return where the repository is, from the folder on, or where a link leads that leaves it."""
    path = os.path.join(folder, GIT)
    if not os.path.islink(path):
        return (GIT if os.path.isdir(path) else ""), ""
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        return "", os.readlink(path)
    return (os.path.relpath(real, root) if os.path.isdir(real) and real != root else ""), ""
