"""Objects out of a bottle on their way into the host's repository: looked at apart from it, taken whole or not at all.

``git fetch`` would not do: it runs the repository's own programs, and takes trees that it should not.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import OUT, Call, Pipe, Work
from claude_bottle.lib.host.git import git_call

GIB = 1 << 30
MOST_PACKED, MOST_UNPACKED, MOST_SAID = 8 * GIB, 20 * GIB, 1 << 20  # bytes
MOST_HAVES = 2000
# Of a pack's objects only blobs of more than the first are streamed; nothing larger than the second is held in memory.
STREAMED, LARGEST = 128 << 20, 272 << 20  # bytes; a delta needs what it is made from, itself and what it makes
_SETTINGS = ("-c", f"core.bigFileThreshold={STREAMED}", "-c", "pack.threads=2")
_VARIABLES = {
    "GIT_ALLOC_LIMIT": str(LARGEST),
    "GIT_COMMITTER_NAME": "claude-bottle",  # for the log of the refs
    "GIT_COMMITTER_EMAIL": "claude-bottle@localhost",
}
_PACK = re.compile(r"pack-[0-9a-f]{40,64}\.(pack|rev|idx)")
_ORDER = (".pack", ".rev", ".idx")  # git looks for the last
_NAME = "tmp_objdir-claude-bottle-"  # git itself removes, in time, what begins like this
Progress = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Bounds:
    """How much may come out of a bottle.

    Attributes:
        packed: bytes of the pack.
        unpacked: bytes of what is in it.
        seconds: the longest that one step may take.
        check: called meanwhile; see ``Call``.
    """

    packed: int = MOST_PACKED
    unpacked: int = MOST_UNPACKED
    seconds: float = 3600.0
    check: run.Check = run.uninterrupted


class Refused(BottleError):
    """What came is not taken, or git could not take it."""


class Repository:
    """The host's repository, asked and added to; its checkout, index, HEAD, settings and other refs stay as they are.

    Args:
        folder: with its objects and refs; that of all its worktrees.
        bounds: see there.
    """

    def __init__(self, folder: str, bounds: Bounds) -> None:
        self.folder, self.bounds = folder, bounds
        self.objects = os.path.join(folder, "objects")
        self.quarantine = os.path.join(self.objects, _NAME + secrets.token_hex(8))
        self.head = ""  # commit, as ``tips`` has found it

    def _git(
        self,
        words: Sequence[str],
        lines: Sequence[str] = (),
        heard: Callable[[str, bytes], None] | None = None,
        *,
        apart: bool = False,
        others: bool = True,
    ) -> Call:
        """Return a call of git.

        Args:
            words: its command and arguments.
            lines: that it reads.
            heard: see ``Call``.
            apart: it works with what is in quarantine.
            others: and sees the repository's own objects too.
        """
        variables = dict(_VARIABLES)
        if apart:
            variables["GIT_OBJECT_DIRECTORY"] = self.quarantine
            variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = _quoted(self.objects) if others else ""
        fed = ["".join(f"{line}\n" for line in lines).encode()]
        call = git_call(self.folder, [*_SETTINGS, *words], stdin=fed, variables=variables, heard=heard)
        return replace(call, seconds=self.bounds.seconds, check=self.bounds.check)

    def _lines(self, words: Sequence[str], lines: Sequence[str] = (), *, apart: bool = False) -> Work[list[str]]:
        """Ask git; it comes to the lines of its answer, which are few.

        Raises:
            BottleError: it failed.
        """
        answer = yield self._git(words, lines, apart=apart)
        if not answer.ok:
            raise _refused(words[0], answer)
        return answer.text.split("\n") if answer.text else []

    def tips(self) -> Work[list[str]]:
        """Find commits that its refs lead to, those of late first, and not more than a bottle has to be told of."""
        form = "%(objecttype) %(objectname) %(*objectname)"
        order = ["--sort=-creatordate", f"--count={MOST_HAVES}", f"--format={form}"]
        told = [line.split(" ") for line in (yield from self._lines(["for-each-ref", *order]))]
        head = yield self._git(["rev-parse", "-q", "--verify", "HEAD^{commit}"])  # a new repository has none
        self.head = head.text
        found = [line[2] if line[0] == "tag" else line[1] for line in told]
        return [*dict.fromkeys(tip for tip in (head.text, *found) if tip)]

    def refs(self) -> Work[list[str]]:
        """Find the names of the refs where ours go, and of what may stand in their way."""
        return (yield from self._lines(["for-each-ref", "--format=%(refname)", "refs/heads/claude-bottle"]))

    def is_partial(self) -> Work[bool]:
        """Say whether it lacks objects that a server has promised."""
        answer = yield self._git(["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"])
        return bool(answer.text)

    def take(self, source: Call, heard: Progress) -> Work[None]:
        """Take a pack into quarantine.

        Args:
            source: its stdout is the pack.
            heard: gets what git says of how far it is.

        Raises:
            Refused: it cannot be had, or is no pack that can be taken; nothing of it stays.
            OSError: there is no place for it.
        """
        packs = os.path.join(self.quarantine, "pack")
        os.makedirs(self.quarantine, 0o700, exist_ok=True)
        before = set(os.listdir(packs)) if os.path.isdir(packs) else set()
        try:
            yield from self._take(source, heard)
        except Refused:
            for name in os.listdir(packs) if os.path.isdir(packs) else []:
                if name not in before:
                    os.unlink(os.path.join(packs, name))
            raise

    def _take(self, source: Call, heard: Progress) -> Work[None]:
        partial = yield from self.is_partial()
        # What a server has promised is not there to be looked at; the objects themselves are all the same.
        strict = "--fsck-objects" if partial else "--strict"
        words = ["index-pack", "--stdin", "-v", strict, "--fix-thin", f"--max-input-size={self.bounds.packed}"]
        answer = yield Pipe(source, self._git(words, heard=heard, apart=True))
        if not answer.ok:
            raise _refused("index-pack", answer)
        size = _Sum(self.bounds.unpacked)
        every = ["cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectsize)"]
        answer = yield self._git(every, heard=size.hear, apart=True, others=False)
        if not answer.ok:
            raise _refused("cat-file", answer)
        size.require()

    def new(self, tips: Sequence[str]) -> Work[dict[str, int]]:
        """Find which commits the repository has not yet, and how many there are; all of them are whole.

        Args:
            tips: what the bottle says to be commits.

        Raises:
            Refused: one is no commit, or what it leads to is not there.
        """
        kinds = yield from self._lines(["cat-file", "--batch-check=%(objecttype)"], tips, apart=True)
        if kinds != ["commit"] * len(tips):
            raise Refused("the bottle names a commit that it has not brought")
        promised = ["--exclude-promisor-objects"] if (yield from self.is_partial()) else []
        whole = ["rev-list", "--objects", "--quiet", *promised, "--stdin", "--not", "--all"]
        yield from self._lines(whole, tips, apart=True)
        found = _Seen(tips)
        answer = yield self._git(["rev-list", "--stdin", "--not", "--all"], tips, found.hear, apart=True)
        if not answer.ok:
            raise _refused("rev-list", answer)
        return {tip: found.count for tip in tips if tip in found.seen}

    def move_in(self) -> None:
        """Have the repository own what is in quarantine.

        Raises:
            OSError: it cannot be moved.
        """
        source, target = (os.path.join(folder, "pack") for folder in (self.quarantine, self.objects))
        names = [name for name in os.listdir(source) if _PACK.fullmatch(name)]
        os.makedirs(target, exist_ok=True)
        for name in sorted(names, key=lambda name: _ORDER.index(os.path.splitext(name)[1])):
            os.rename(os.path.join(source, name), os.path.join(target, name))
            self._give_over(os.path.join(target, name))

    def create(self, refs: Sequence[tuple[str, str]]) -> Work[bool]:
        """Make refs, all or none; it comes to whether they are made: one may be there by now.

        Args:
            refs: each name and its commit.

        Raises:
            BottleError: they cannot be made, for another reason.
        """
        answer = yield self._git(["update-ref", "--stdin"], [f"create {name} {tip}" for name, tip in refs])
        if not answer.ok and "exists" not in answer.failure:
            raise _refused("update-ref", answer)
        for name in ("refs/heads/claude-bottle", "logs/refs/heads/claude-bottle"):
            self._give_over(os.path.join(self.folder, name))
        return answer.ok

    def _give_over(self, path: str) -> None:
        """Have what root has made belong to whom the repository does, who could not remove it otherwise."""
        owner = os.stat(self.folder)
        if os.geteuid() or not owner.st_uid:
            return
        below = (os.path.join(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files))
        for each in (path, *below):
            with suppress(FileNotFoundError):
                os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def leave(self) -> None:
        """Remove the quarantine."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.quarantine)


class _Sum:
    """Adds up sizes as they are said."""

    def __init__(self, most: int) -> None:
        self.most, self.size, self.rest = most, 0, b""

    def hear(self, stream: str, data: bytes) -> None:
        if stream == OUT:
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.size += sum(int(line) for line in lines)

    def require(self) -> None:
        if self.size > self.most:
            raise Refused(f"there is {self.size / GIB:.1f} GiB in it, more than {self.most / GIB:.1f}")


class _Seen:
    """Counts commits as they are said, and notes some of them."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.wanted, self.seen, self.count, self.rest = set(wanted), set[str](), 0, b""

    def hear(self, stream: str, data: bytes) -> None:
        if stream == OUT:
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.count += len(lines)
            self.seen |= {line.decode() for line in lines} & self.wanted


def _quoted(path: str) -> str:
    """Return a path of a list of object folders, in which colons divide."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refused(command: str, answer: run.Result) -> Refused:
    lines = [line.rstrip() for line in re.split(r"[\r\n]", answer.failure) if line.strip()]
    told = [line for line in lines if re.match("(fatal|error):", line)] or lines[-1:]
    return Refused(f"git {command}: {'; '.join(told[:3]) or 'it failed without a word'}")
