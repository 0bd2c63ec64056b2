"""The work of a bottle's repository comes home as branches of the host's (kind ``git``)."""

from __future__ import annotations

import os
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from claude_bottle.lib import docker, log
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home import heads
from claude_bottle.lib.home.heads import Heads
from claude_bottle.lib.home.large import bring_large
from claude_bottle.lib.home.quarantine import Bounds, Refused, Repository
from claude_bottle.lib.home.record import Brought, Record
from claude_bottle.lib.home.source import Source, close_source, open_source
from claude_bottle.lib.host.calls import ERR, OUT, Call, Work
from claude_bottle.lib.teardown.owner import Owner

PROGRAM = Path(__file__).with_name("work.pl")
MARK, LIST, PACK, DROP = "mark", "list", "pack", "drop"
SILENT_SECONDS = 900.0  # of git in a bottle, which may have many files to read
TRIES = 5  # to find a place that is free, while others look too
EVERY_SECONDS = 3.0
LONGEST_LINE = 200  # characters of what a bottle gives for a reason


class _Answer:
    """What the bottle says, as far as it is worth hearing."""

    def __init__(self) -> None:
        self.said, self.long = b"", False

    def hear(self, stream: str, data: bytes) -> None:
        if stream == OUT:
            self.long = self.long or len(self.said) + len(data) > heads.MOST_BYTES
            self.said += b"" if self.long else data


def _unheard(_stream: str, _data: bytes) -> None:
    """Keep nothing but the end of what a bottle says: it may go on for ever."""


def _program(
    source: Source, record: Record, task: str, folder: str, told: Sequence[str] = (), answer: _Answer | None = None
) -> Call:
    """Return the call of the one program that looks at a repository; it is fed, and nothing there steers it."""
    words = ["/usr/bin/perl", "-t", "-", task, folder, record.workspace, record.slug, record.head, record.tree]
    home = os.path.dirname(record.workspace)
    call = docker.helper(source.container, words, user="node", flags=["-i"], variables=[f"HOME={home}"])
    fed = [PROGRAM.read_bytes(), b"__END__\n", *(f"{commit}\n".encode() for commit in told)]
    return source.engine.call(
        call,
        seconds=SILENT_SECONDS,
        stdin=fed,
        interruptible=True,
        heard=answer.hear if answer else _unheard,
        needless=lambda: bool(answer and answer.long),
    )


def look(source: Source, record: Record, task: str, folder: str, haves: Sequence[str] = ()) -> Work[Heads]:
    """Ask a bottle what there is to bring.

    Args:
        source: that runs.
        record: of the bottle.
        task: MARK for what there is, LIST for what is new.
        folder: for what the program keeps, in the bottle.
        haves: commits that the host has.

    Raises:
        BottleError: it does not say, or says what cannot be.
    """
    answer = _Answer()
    done = yield _program(source, record, task, folder, haves, answer)
    if not done.ok:
        lines = [line.strip()[:LONGEST_LINE] for line in done.failure.splitlines() if line.strip()]
        raise BottleError(f"the bottle's repository cannot be read: {'; '.join(lines[-2:]) or 'no reason was given'}")
    return heads.parse(answer.said)


def mark(source: Source, record: Record) -> Work[Record]:
    """Note how the bottle's repository is before a session; it comes to the record with that.

    Raises:
        BottleError: it cannot be read.
    """
    found = yield from look(source, record, MARK, _folder())
    return record.with_(head=found.head, tree=found.tree)


def _folder() -> str:
    return f"/tmp/claude-bottle-work-{secrets.token_hex(8)}"


def bring(source: Source, record: Record, owner: Owner, bounds: Bounds) -> Work[Brought]:
    """Bring home what the bottle's repository has and the host's has not.

    Args:
        source: where that is.
        record: of the bottle.
        owner: whose a helper is.
        bounds: how much, and how long.

    Raises:
        BottleError: it cannot be had, or is not taken.
        OSError: the host's repository cannot be written to.
    """
    opened = yield from open_source(source, record, owner)
    try:
        brought = yield from _bring(opened, record, bounds)
    except Exception:  # not where nobody goes on
        yield from close_source(source, opened)
        raise
    yield from close_source(source, opened)
    return brought


def _bring(source: Source, record: Record, bounds: Bounds) -> Work[Brought]:
    repository = Repository(record.repository, bounds)
    haves = yield from repository.tips()
    folder = _folder()
    found = yield from look(source, record, LIST, folder, [*filter(None, [record.head]), *haves])
    now = record.with_(head=found.head, tree=found.tree)
    if not found.tips:
        return Brought(now)
    try:
        brought = yield from _take(source, record, repository, folder, found)
    except Exception:  # not where nobody goes on
        yield from _drop(source, record, folder, found)
        raise
    yield from _drop(source, record, folder, found)
    return brought


def _drop(source: Source, record: Record, folder: str, found: Heads) -> Work[None]:
    """Have the bottle remove what it has kept for the packs: of one commit there is one, and no more of it."""
    if len(found.tips) > 1:
        yield _program(source, record, DROP, folder)


def _take(source: Source, record: Record, repository: Repository, folder: str, found: Heads) -> Work[Brought]:
    try:
        taking = _Taking(repository, lambda tips: _program(source, record, PACK, folder, tips))
        new = yield from taking.take(found.tips)
        fresh = Heads(
            found.head,
            found.tree,
            found.work if found.work in new else "",
            tuple((name, tip) for name, tip in found.branches if tip in new),
        )
        now = record if found.work in taking.refused else record.with_(head=found.head, tree=found.tree)
        if not fresh.tips:
            return Brought(now, refused=taking.told(found.tips))
        large = yield from bring_large(source.engine, source.container, record, repository.bounds)
        repository.move_in()
        place, made = yield from _refs(repository, record.slug, fresh)
    finally:
        repository.leave()
    return Brought(now, _told(record, repository.head, place, made, max(new.values()), large), taking.told(found.tips))


class _Taking:
    """Takes what can be taken: where a pack is refused, each half of it is tried, so that one branch costs no other.

    Args:
        repository: the host's.
        pack: makes the call that gives the objects of some commits.
    """

    def __init__(self, repository: Repository, pack: Callable[[Sequence[str]], Call]) -> None:
        self._repository, self._pack, self._hear = repository, pack, _Progress().hear
        self.refused: dict[str, Refused] = {}

    def take(self, tips: Sequence[str]) -> Work[dict[str, int]]:
        """Take commits; it comes to which of them the host has not yet, and how many there are.

        Args:
            tips: of branches.

        Raises:
            Refused: none of them can be taken.
        """
        new = yield from self._take(tips)
        if len(self.refused) == len(tips):
            raise self.refused[tips[0]]
        good = [tip for tip in tips if tip not in self.refused]
        return (yield from self._repository.new(good)) if self.refused else new

    def _take(self, tips: Sequence[str]) -> Work[dict[str, int]]:
        try:
            yield from self._repository.take(self._pack(tips), self._hear)
            return (yield from self._repository.new(tips))
        except Refused as problem:
            if len(tips) == 1:
                self.refused[tips[0]] = problem
                return {}
            half = len(tips) // 2
            for some in (tips[:half], tips[half:]):
                yield from self._take(some)
            return {}

    def told(self, tips: Sequence[str]) -> str:
        """Return why some could not be taken, empty where all could."""
        whys = list(dict.fromkeys(problem.message for problem in self.refused.values()))
        return f"{len(self.refused)} of {len(tips)} branches: {'; '.join(whys[:3])}" if whys else ""


def _refs(repository: Repository, slug: str, fresh: Heads) -> Work[tuple[str, list[str]]]:
    for _ in range(TRIES):
        place = heads.free_place(slug, (yield from repository.refs()))
        refs = list(heads.names(place, fresh))
        if (yield from repository.create(refs)):
            return place, [name for name, _ in refs]
    raise BottleError(f"no branch can be made below {heads.PREFIX.removeprefix('refs/heads/')}: one is in the way")


def _told(record: Record, head: str, place: str, made: Sequence[str], count: int, large: int) -> str:
    """Return the line with what came home, and with the command to look at it."""
    files = f", {large} large file{'s' * (large > 1)}" if large else ""
    names = [name.removeprefix("refs/heads/") for name in made]
    others = f" and {len(names) - 1} more below {place.removeprefix('refs/heads/')}/" if len(names) > 1 else ""
    commits = "1 commit" if count == 1 else f"{count} commits"
    command = shlex.join(["git", "-C", record.folder, "log", "-p", f"HEAD..{names[0]}" if head else names[0]])
    return f"work came home: {names[0]}{others} ({commits}{files}); to look: {command}"


class _Progress:
    """Says now and then how far git is, to a user at a terminal."""

    def __init__(self) -> None:
        self.due = time.monotonic() + EVERY_SECONDS

    def hear(self, stream: str, data: bytes) -> None:
        if stream == ERR and os.isatty(log.STDERR) and time.monotonic() >= self.due:
            lines = [line for line in data.replace(b"\r", b"\n").decode("utf-8", "replace").split("\n") if "%" in line]
            for line in lines[-1:]:
                log.log_info(f"bringing the work home: {line.strip()}")
            self.due = time.monotonic() + EVERY_SECONDS
