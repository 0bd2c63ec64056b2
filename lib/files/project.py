"""What of the working directory goes into a bottle with ``--cwd``, and what the user should know of it.

Nothing of the project is run, and no link that leaves it is followed: it may be somebody else's.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import dockerignore, repository
from claude_bottle.lib.files.repository import GIT, MAX_CONFIG, Repository, read
from claude_bottle.lib.host.git import git_find

IGNORE = ".dockerignore"
MAX_IGNORE = 1 << 20  # bytes
SHOWN = 3

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


_EXCLUDES = re.compile(rb"(?im)^\s*excludesfile\s*=\s*(.+?)\s*$")


@dataclass(frozen=True)
class Project:
    """A working directory and what of it goes in.

    Attributes:
        folder: as the user gave it.
        rules: of its .dockerignore.
        git: where its repository is, from the folder on; empty without one, or with ``repository``.
        refused: why a repository does not go in that it seems to have; empty without one.
        unread: why the repository's index is not read; empty where it is, or not needed.
        left_out: the tracked files that are there and do not go in, so that git would take them for deleted.
        repository: that it belongs to, where it is not whole in the folder: the bottle gets one of its own.
        severed: the submodules whose repositories are elsewhere, and do not go in.
        inner: those whose repositories do.
    """

    folder: str
    rules: dockerignore.Rules = field(default_factory=dockerignore.Rules)
    git: str = ""
    refused: str = ""
    unread: str = ""
    left_out: tuple[str, ...] = ()
    repository: Repository | None = None
    severed: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()

    @property
    def host_git(self) -> str:
        """The folder of the host's repository that has the branches; empty without one that goes in."""
        return self.repository.common if self.repository else self._path(self.git) if self.git else ""

    @property
    def prefix(self) -> str:
        """Where the folder is in its repository; empty for its root."""
        return self.repository.prefix if self.repository else ""

    @property
    def links(self) -> dict[str, str]:
        """Where links are to lead in the bottle: a .git may have the whole path of a folder of the project."""
        return {GIT: self.git} if self.git not in ("", GIT) else {}

    def choose(self, path: str, is_folder: bool) -> tuple[bool, bool]:
        """Say what goes in: what docker's rules leave, and the repository in any case (``walk.Choose``)."""
        if self.repository and (path == GIT or path in self._severed_files):
            return False, False
        goes_in, is_entered = self.choose_git(path, is_folder)
        if not goes_in:
            goes_in = not self.rules.excludes(path)
            is_entered = is_entered or (is_folder and (goes_in or self.rules.may_take_in_below(path)))
        return goes_in, is_entered

    def choose_git(self, path: str, _is_folder: bool) -> tuple[bool, bool]:
        """Say what is of the repository (``walk.Choose``)."""
        inside = bool(self.git) and (path in (GIT, self.git) or path.startswith(f"{self.git}/"))
        return inside, inside or self.git.startswith(f"{path}/")

    @cached_property
    def _severed_files(self) -> frozenset[str]:
        return frozenset(f"{path}/{GIT}" for path in self.severed)

    def warnings(self, home: str) -> list[str]:
        """Return what the user should know before it goes in.

        Args:
            home: the user's home folder.
        """
        said = []
        if self.refused:
            said.append(self.refused)
        said += self._repository_warnings()
        found = list(self._credentials(home))
        if found:
            said.append(f"the bottle gets what may hold credentials: {', '.join(found)}")
        if self.unread:
            what = f"tracked files that {IGNORE} leaves out look deleted in the bottle"
            said.append(f"{GIT}/index is not read ({self.unread}): {what}")
        return said

    def _repository_warnings(self) -> Iterator[str]:
        stays = "work on submodules does not come home"
        if self.severed:
            yield f"{stays}, since their repositories do not go in: {_shown(self.severed)}"
        if self.inner:
            yield f"{stays}, but where one is what is started in: {_shown(self.inner)}"
        alternates = self.repository.alternates if self.repository else ()
        for gone in (each for each in alternates if not os.path.isdir(each)):
            yield f"{GIT} has objects in {gone}, which is not there: what needs them will fail"
        folder = self.host_git
        if folder and repository.is_partial(folder):
            yield "the clone is partial: what it lacks git fetches, and in the bottle only from hosts that it may reach"

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
            return bool(wanted.search(read(self._path(path), MAX_CONFIG) or b""))
        except ValueError:
            return False


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _is_real(path: str) -> bool:
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(kind) or stat.S_ISREG(kind)


def look(folder: str, *, may_build: bool = True) -> Project:
    """Look at a working directory.

    Args:
        folder: as the user gave it.
        may_build: whether the bottle may get a repository of its own; an image for the project has no room for one.

    Raises:
        BottleError: it or its .dockerignore cannot be read, or docker would not take that.
        Interrupted: a signal asks to stop.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise BottleError(f"cannot read {folder}")
    git, refused = _git(folder)
    found = Project(folder, read_rules(os.path.join(folder, IGNORE)), git, refused)
    if not refused:
        found = _belonging(found, may_build)
        found = replace(found, inner=tuple(_inner(found)))
    try:
        return replace(found, left_out=tuple(left_out(found)))
    except ValueError as problem:
        return replace(found, unread=str(problem))


def users_ignores(environ: Mapping[str, str]) -> bytes:
    """Return what the user has git ignore everywhere: without it, git in the bottle would see files that are no work.

    Args:
        environ: the caller's environment.
    """
    home = environ.get("HOME", "")
    own = os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "git")
    named = [_EXCLUDES.findall(_readable(path)) for path in (os.path.join(own, "config"), f"{home}/.gitconfig")]
    paths = [os.fsdecode(each).strip('"') for each in named[1] or named[0]]
    path = os.path.expanduser(paths[-1]) if paths else os.path.join(own, "ignore")
    return _readable(path) if os.path.isabs(path) else b""


def _readable(path: str) -> bytes:
    try:
        return read(path, MAX_IGNORE, follow=True) or b""
    except ValueError:
        return b""


def left_out(found: Project) -> Iterator[str]:
    """Yield the tracked files that are there and stay out, as the index has them now.

    Raises:
        ValueError: the index cannot be read.
    """
    if not found.rules.patterns or not (found.git or found.repository):
        return
    belongs = _index_of(found)
    for entry in belongs.entries():
        path = None if entry.is_marked else belongs.below(entry.path)
        stays_out = path is not None and not found.choose(path, False)[0]
        if path is not None and stays_out and os.path.lexists(os.path.join(found.folder, path)):
            yield path


def _index_of(found: Project) -> Repository:
    folder = os.path.join(found.folder, found.git)
    return found.repository or Repository("", folder, folder)


def outside(found: Project) -> Iterator[str]:
    """Yield the tracked files that are not the project's, but of the repository that it is a part of.

    Raises:
        ValueError: the index cannot be read.
    """
    if found.repository and found.repository.prefix:
        for entry in found.repository.entries():
            if not entry.is_marked and found.repository.below(entry.path) is None:
                yield entry.path


def _belonging(found: Project, may_build: bool) -> Project:
    """Return a project with the repository that it belongs to, or with why that does not go in."""
    root, path = os.path.realpath(found.folder), os.path.join(found.folder, GIT)
    try:
        if found.git:
            belongs = repository.shared(root) if found.git == GIT else None
        elif os.path.isfile(path):
            belongs = repository.linked(root)
            if belongs is None:
                where = repository.leads_to(path) or "nothing"
                why = f"is a file that leads to {where}, which does not say that it is its: it is not followed"
                return replace(found, refused=f"{GIT} {why}")
        else:
            belongs = None if os.path.lexists(path) else repository.above(root)
        severed = tuple(_severed(root, belongs)) if belongs else ()
    except ValueError as problem:
        return replace(found, refused=f"the repository does not go in: its index is not read ({problem})")
    if belongs is None or (found.git and not may_build):
        return found
    if not may_build:
        return replace(found, refused=f"the repository does not go into an image ({belongs.kind})")
    if link := belongs.link_out():
        return replace(found, refused=f"the repository does not go in: {link} is a link")
    if not git_find(os.environ):
        return replace(found, refused=f"the repository does not go in ({belongs.kind}): git not found on PATH")
    return replace(found, git="", repository=belongs, severed=severed)


def _severed(root: str, belongs: Repository) -> Iterator[str]:
    """Yield the submodules in a project whose repository is not in it."""
    for entry in belongs.entries():
        path = belongs.below(entry.path) if entry.is_submodule else None
        file = os.path.join(root, path, GIT) if path else ""
        if path and os.path.isfile(file):
            where = repository.leads_to(file)
            if where is None or os.path.commonpath([root, where]) != root:
                yield path


def _inner(found: Project) -> Iterator[str]:
    """Yield the submodules in a project that have their repositories there too."""
    if not found.host_git or not os.path.lexists(os.path.join(found.folder, ".gitmodules")):
        return
    belongs = _index_of(found)
    with suppress(ValueError):  # nothing is known of any, then
        for entry in belongs.entries():
            path = belongs.below(entry.path) if entry.is_submodule else None
            if path and path not in found.severed and os.path.lexists(os.path.join(found.folder, path, GIT)):
                yield path


def read_rules(path: str) -> dockerignore.Rules:
    """Return what a file like .dockerignore says; one that is not there leaves nothing out.

    Args:
        path: of the file.

    Raises:
        BottleError: it cannot be read, or docker would not take it.
    """
    try:
        text = (read(path, MAX_IGNORE, follow=True) or b"").decode("utf-8", "surrogateescape")
    except ValueError as problem:
        raise BottleError(f"cannot read {path}: {problem}") from None
    try:
        return dockerignore.parse(text)
    except ValueError as problem:
        raise BottleError(f"{path}: line {problem} is no pattern that docker takes") from None


def _git(folder: str) -> tuple[str, str]:
    """Return where the repository is, from the folder on, or what is to be said of a link that leaves it."""
    path = os.path.join(folder, GIT)
    if not os.path.islink(path):
        return (GIT if os.path.isdir(path) else ""), ""
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        return "", f"{GIT} is a link to {os.readlink(path)}, outside {folder}: it stays a link, not followed"
    return (os.path.relpath(real, root) if os.path.isdir(real) and real != root else ""), ""
