"""A repository of the bottle's own, made of one of the host's that is not whole in the project.

What git needs to say in the bottle what it says on the host goes in: the index, the branches, an operation under way,
the history that all of these lead to. The host's git only reads for that (``host.git``), and what a configuration may
hold of the host, or of its user's credentials, stays there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from claude_bottle.lib import docker, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.files.repository import GIT, Repository, is_partial
from claude_bottle.lib.host.calls import ERR, OUT, Pipe, Work
from claude_bottle.lib.host.git import git_call

EVERY_SECONDS = 3.0
POINTER_BYTES = 1024  # the longest pointer to a file that LFS keeps

# Of a worktree, and of an operation under way in it.
_STATE = frozenset(
    {"index", "rebase-merge", "rebase-apply", "sequencer", "info/sparse-checkout"}
    | {"MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR", "SQUASH_MSG", "AUTO_MERGE", "ORIG_HEAD"}
    | {"CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "BISECT_START", "BISECT_LOG", "BISECT_NAMES", "BISECT_TERMS"}
    | {"BISECT_EXPECTED_REV", "BISECT_ANCESTORS_OK", "BISECT_FIRST_PARENT"}
)
_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "ORIG_HEAD", "AUTO_MERGE")
_SHARED = frozenset(("shallow", "info/exclude", "info/attributes", "hooks"))
_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_POINTER = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)

# Of a configuration: how files are compared and converted, where branches come from, whose the commits are.
_CORE = (
    "filemode|ignorecase|precomposeunicode|symlinks|autocrlf|eol|safecrlf|checkroundtripencoding|whitespace|quotepath"
    "|abbrev|commentchar|sparsecheckout|sparsecheckoutcone|trustctime|checkstat|logallrefupdates|protecthfs|protectntfs"
)
_KEPT = re.compile(
    rf"core\.(?:{_CORE})|extensions\.(?:objectformat|partialclone)|index\.(?:sparse|version)"
    r"|remote\..*\.(?:url|pushurl|fetch|push|tagopt|prune|promisor|partialclonefilter)"
    r"|branch\..*\.(?:remote|pushremote|merge|rebase|description)|(?:user|author|committer)\.(?:name|email)"
    r"|(?:filter|diff|merge)\..*\.[a-z]+|lfs\.(?!storage$|customtransfer\.).*|submodule\..*\.(?:url|branch|active|ignore)"
    r"|(?:pull|push|rebase|status|i18n|rerere|diff|merge)\.[a-z]+",
    re.IGNORECASE | re.DOTALL,
)
_USER_INFO = re.compile(r"(?i)^(https?://)[^/]*@")  # a password, or a token in a name's place


class Ref(NamedTuple):
    """A branch or tag: its name, what it is at, and the other one that it stands for, if it does."""

    name: str
    id: str
    target: str


class Source(NamedTuple):
    """What of a repository has been read.

    Attributes:
        config: the bottle's.
        head: likewise.
        refs: all that go in.
        tips: of the history that goes in.
        large: ids of the files that LFS keeps, of those in the index.
    """

    config: bytes
    head: str
    refs: list[Ref]
    tips: list[str]
    large: frozenset[str]


def read_source(found: Repository) -> Work[Source]:
    """Read what the bottle's repository is made of; it comes to that.

    Raises:
        BottleError: git does not read it.
        Interrupted: a signal asks to stop.
    """
    config = yield from _config(found)
    head = yield from _head(found)
    refs = yield from _refs(found)
    tips = {ref.id for ref in refs} | ({head} if _ID.fullmatch(head.encode()) else set()) | set(_heads(found))
    there = yield from _there(found, sorted(tips))
    large = yield from _large(found)
    return Source(config, head, [ref for ref in refs if ref.id in there], sorted(there), large)


def _asked(found: Repository, *words: str, stdin: tuple[bytes, ...] = ()) -> Work[bytes]:
    answer = yield git_call(found.folder, words, stdin=stdin)
    if not answer.ok:
        raise BottleError(f"git cannot read {found.folder}: {answer.failure}")
    return answer.out


def _config(found: Repository) -> Work[bytes]:
    said = yield from _settings(found, os.path.join(found.common, "config"))
    if ("extensions.worktreeconfig", "true") in said:
        own = os.path.join(found.folder, "config.worktree")
        said += (yield from _settings(found, own)) if os.path.isfile(own) else []
    return config_text([(key, value) for key, value in said if _KEPT.fullmatch(key)])


def _settings(found: Repository, path: str) -> Work[list[tuple[str, str | None]]]:
    """Read one file of settings; none of those that it includes: they may be any of the host's."""
    said = yield from _asked(found, "config", "--file", path, "--no-includes", "--list", "-z")
    pairs = (os.fsdecode(each).partition("\n") for each in said.split(b"\0") if each)
    return [(key, value if line else None) for key, line, value in pairs]


def config_text(settings: list[tuple[str, str | None]]) -> bytes:
    """Return a configuration file.

    Args:
        settings: keys as git lists them, with their values; None for one that is only named.
    """
    version = int(any(key.startswith("extensions.") for key, _ in settings))
    lines = ["[core]", f"\trepositoryformatversion = {version}", "\tbare = false"]
    for key, value in settings:
        section, _, rest = key.partition(".")
        middle, _, name = rest.rpartition(".")
        lines.append(f"[{section} {_quoted(middle)}]" if middle else f"[{section}]")
        lines.append(f"\t{name}" if value is None else f"\t{name} = {_quoted(value)}")
    return os.fsencode("\n".join([*lines, ""]))


def _quoted(text: str) -> str:
    clean = _USER_INFO.sub(r"\1", text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _head(found: Repository) -> Work[str]:
    """Read where HEAD is: the branch's whole name, or an id."""
    branch = yield git_call(found.folder, ["symbolic-ref", "-q", "HEAD"])
    if branch.ok:
        return branch.text
    return (yield from _asked(found, "rev-parse", "--verify", "HEAD^{commit}")).decode().strip()


def _refs(found: Repository) -> Work[list[Ref]]:
    """Read the branches and tags; what is stashed is the user's own."""
    said = yield from _asked(found, "for-each-ref", "--format=%(objectname) %(refname) %(symref)")
    lines = (os.fsdecode(line).split(" ") for line in said.splitlines())
    return [Ref(name, each, target) for each, name, target in lines if name != "refs/stash"]


def _heads(found: Repository) -> Iterator[str]:
    """Yield the commits that an operation under way has to do with."""
    for name in _HEADS:
        path = os.path.join(found.folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                yield from (each.decode() for each in _ID.findall(file.read(1 << 16)))


def _there(found: Repository, tips: list[str]) -> Work[set[str]]:
    """Return those that the repository has."""
    ask = "".join(f"{tip}\n" for tip in tips).encode()
    said = yield from _asked(found, "cat-file", "--batch-check=%(objectname)", stdin=(ask,))
    return {line.decode() for line in said.splitlines() if _ID.fullmatch(line)}


def _stores(found: Repository) -> list[str]:
    """Return the folders in which LFS keeps files."""
    above = [found.common, *(os.path.dirname(each) for each in found.alternates)]
    paths = [os.path.join(each, "lfs", "objects") for each in above]
    return [path for path in paths if os.path.isdir(path) and os.path.realpath(path) == path]


def _large(found: Repository) -> Work[frozenset[str]]:
    """Return the ids of the files that LFS keeps, where the index has a pointer to one."""
    if not _stores(found):
        return frozenset()
    listed = yield from _asked(found, "ls-files", "--stage", "-z")
    ids = {entry.split(b" ", 2)[1] for entry in listed.split(b"\0") if entry}
    form = "--batch-check=%(objectname) %(objectsize)"
    sized = yield from _asked(found, "cat-file", form, stdin=(b"\n".join([*ids, b""]),))
    lines = (line.split(b" ") for line in sized.splitlines())
    small = [line[0] for line in lines if line[1].isdigit() and int(line[1]) <= POINTER_BYTES]
    pointers: set[str] = set()
    rest = [b""]

    def look(stream: str, data: bytes) -> None:
        if stream == OUT:
            seen = rest[0] + data
            pointers.update(each.decode() for each in _POINTER.findall(seen))
            rest[0] = seen[-100:]

    answer = yield git_call(found.folder, ["cat-file", "--batch"], stdin=(b"\n".join([*small, b""]),), heard=look)
    if not answer.ok:
        raise BottleError(f"git cannot read {found.folder}: {answer.failure}")
    return frozenset(pointers)


def members(found: Repository, source: Source, folder: str) -> Iterator[bytes]:
    """Yield the repository as a stream, without its history.

    Args:
        found: the host's.
        source: what has been read of it.
        folder: what it is called in the stream.
    """
    for name in ("", "/objects", "/objects/pack", "/objects/info", "/refs", "/refs/heads", "/refs/tags", "/info"):
        yield from tarstream.folder(f"{folder}{name}")
    yield from tarstream.member(f"{folder}/config", source.config, 0o644)
    head = f"ref: {source.head}" if source.head.startswith("refs/") else source.head
    yield from tarstream.member(f"{folder}/HEAD", os.fsencode(f"{head}\n"), 0o644)
    packed = "".join(f"{ref.id} {ref.name}\n" for ref in source.refs if not ref.target)
    yield from tarstream.member(f"{folder}/packed-refs", os.fsencode(packed), 0o644)
    for ref in source.refs:
        if ref.target:
            yield from tarstream.member(f"{folder}/{ref.name}", os.fsencode(f"ref: {ref.target}\n"), 0o644)
    yield from tarstream.tree(found.common, folder, choose=_choose_shared, mode=0o755)
    yield from tarstream.tree(found.folder, folder, choose=_choose_state, mode=0o755)
    for store in _stores(found) if source.large else ():
        yield from _lfs(store, source.large, folder)


def _choose_shared(path: str, is_folder: bool) -> tuple[bool, bool]:
    goes_in = path in _SHARED or (path.startswith("hooks/") and not path.endswith(".sample"))
    return goes_in, is_folder and path in ("hooks", "info")


def _choose_state(path: str, is_folder: bool) -> tuple[bool, bool]:
    goes_in = path in _STATE or path.partition("/")[0] in _STATE or path.startswith("sharedindex.")
    return goes_in, is_folder and (goes_in or path == "info")


def _lfs(store: str, wanted: frozenset[str], folder: str) -> Iterator[bytes]:
    def choose(path: str, is_folder: bool) -> tuple[bool, bool]:
        return os.path.basename(path) in wanted and not is_folder, is_folder

    for name in ("lfs", "lfs/objects"):
        yield from tarstream.folder(f"{folder}/{name}")
    yield from tarstream.tree(store, f"{folder}/lfs/objects", choose=choose, mode=0o755)


def copy_history(engine: Engine, found: Repository, source: Source, container: str, workspace: str) -> Work[None]:
    """Put in the history, from the host's git to the bottle's.

    Args:
        engine: that has the container.
        found: the host's repository.
        source: what has been read of it.
        container: its id.
        workspace: where the bottle's repository is.

    Raises:
        BottleError: the one does not say it, or the other does not take it.
        Interrupted: a signal asks to stop.
    """
    tips = "".join(f"{tip}\n" for tip in source.tips).encode()
    said = _Progress()
    take = ["/usr/bin/git", f"--git-dir={GIT}", *take_words(found)]
    flags = ["-i", "-w", workspace]
    sink = engine.call(
        docker.helper(container, take, user="node", flags=flags), seconds=600.0, interruptible=True, heard=said.hear
    )
    done = yield Pipe(git_call(found.folder, pack_words(found), stdin=(tips,)), sink)
    if not done.ok:
        lines = re.split(r"[\r\n]+", done.failure)
        raise BottleError(f"copying {GIT} failed: {' '.join(lines[-2:])}")


def pack_words(found: Repository) -> list[str]:
    """Return git's words for saying a history, its tips on stdin: quickly, since it does not go far."""
    words = ["pack-objects", "--revs", "--indexed-objects", "--stdout", "--delta-base-offset", "--window=0", "-q"]
    return [*words, "--compression=1", *(["--missing=allow-promisor"] if is_partial(found.common) else [])]


def take_words(found: Repository) -> list[str]:
    """Return git's words for taking it."""
    return ["index-pack", "--stdin", "-v", *(["--promisor"] if is_partial(found.common) else [])]


class _Progress:
    """Says now and then, at a terminal, how much of a history has gone."""

    def __init__(self) -> None:
        self._on_terminal = os.isatty(log.STDERR)
        self._due = time.monotonic() + EVERY_SECONDS

    def hear(self, stream: str, data: bytes) -> None:
        """Take a piece of what git says."""
        found = re.findall(rb"(\w+ (?:objects|deltas): +\d+%)", data) if stream == ERR else []
        if found and self._on_terminal and time.monotonic() >= self._due:
            log.log_info(f"history: {found[-1].decode().lower()}")
            self._due = time.monotonic() + EVERY_SECONDS
