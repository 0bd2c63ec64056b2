"""Brings work home before its bottle is removed; what cannot come is kept, and it is said how to try again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, EngineAway, reason
from claude_bottle.lib.home import branches, folder
from claude_bottle.lib.home import record as records
from claude_bottle.lib.home.quarantine import GIB, Bounds, Refused
from claude_bottle.lib.home.record import FOLDER, GIT, NONE, RAW, Brought, Record
from claude_bottle.lib.home.source import Source, source_of
from claude_bottle.lib.host import run, wait
from claude_bottle.lib.host.calls import Pipe, Work, perform
from claude_bottle.lib.host.locks import locked
from claude_bottle.lib.teardown.inventory import AGENT, KEPT_PREFIX, Item
from claude_bottle.lib.teardown.journal import Journal
from claude_bottle.lib.teardown.owner import Owner

PATIENT_SECONDS, HURRIED_SECONDS = 3600.0, 60.0  # of a session that has ended, and of one that was ended
STOP_SECONDS = 20.0  # for what keeps a container
TALK_SECONDS = 5.0
LOOK_SECONDS = 0.5
MOST_RAW, LEAST_FREE = 20 * GIB, GIB  # bytes

# How each kind comes home: takes where the work is, the record, whose a helper is, and bounds.
KINDS: dict[str, Callable[[Source, Record, Owner, Bounds], Work[Brought]]] = {GIT: branches.bring, FOLDER: folder.bring}


class Abandoned(BottleError):
    """Bringing work home was given up: for want of time, or of the user's patience."""


@dataclass
class Outcome:
    """What came of bringing home.

    Attributes:
        said: lines about what came.
        warnings: lines about what did not.
        stay: ids of containers that must not be removed.
    """

    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stay: set[str] = field(default_factory=set)

    def tell(self) -> None:
        """Say all of it."""
        for line in self.said:
            log.log_info(line)
        for line in self.warnings:
            log.log_warn(line)


class Patience:
    """Ends what takes too long, or what the user does not want to wait for; who ends the launcher leaves it a while.

    Args:
        seconds: how long all of it may take.
        away: says whether nothing is heard of the engine any more.
    """

    def __init__(self, seconds: float, away: Callable[[], bool] = lambda: False) -> None:
        self.away = away
        self.seconds, self.began = seconds, time.monotonic()
        self.until = self.began + seconds
        self.signals = len(wait.signals_seen())
        self.talked = self.hurried = False
        self.shown = 0  # seconds

    def check(self) -> float:
        """Return when to look again (``run.Check``).

        Raises:
            Abandoned: it is over.
            EngineAway: the engine has to be reached another time.
        """
        if self.away():
            raise EngineAway("nothing has been heard from there for a while")
        now, seen = time.monotonic(), wait.signals_seen()[self.signals :]
        if signal.SIGINT in seen:
            raise Abandoned("it was interrupted")
        if seen and not self.hurried:
            self.hurried, self.seconds = True, HURRIED_SECONDS
            self.until = min(self.until, now + HURRIED_SECONDS)
        if now >= self.until:
            raise Abandoned(f"it took longer than {self.seconds:.0f} s")
        return min(self.until, self._talk(now))

    def _talk(self, now: float) -> float:
        """Say that it takes long, and to a terminal that obeys how long; return when to speak again."""
        if now < self.began + TALK_SECONDS:
            return self.began + TALK_SECONDS
        if not self.talked:
            self.talked = True
            log.log_info("still bringing the work home; Ctrl-C leaves it where it is, and it is kept")
        if self.hurried or not log.obeys():
            return self.until
        seconds = int(now - self.began)
        if seconds != self.shown:
            self.shown = seconds
            log.passing(f"{log.PREFIX}  bringing the work home: {seconds} s")
        return self.began + seconds + 1

    def over(self, engine: Engine) -> Engine:
        """Return an engine for calls that end with it."""
        return engine.bounded(self.until, self.check)

    @property
    def bounds(self) -> Bounds:
        return Bounds(seconds=self.seconds, check=self.check)


def at_end(engine: Engine, journal: Journal, seconds: float, away: Callable[[], bool] = lambda: False) -> Outcome:
    """Bring home what the session of a launch has made, if it had one; the launch's containers go afterwards.

    Args:
        engine: that the launch was made on.
        journal: of the launch; it learns what has to stay.
        seconds: how long it may take.
        away: see ``Patience``.

    Raises:
        EngineAway: the engine gives no answer, so that it has to come another time.
    """
    outcome = Outcome()
    boxes = [entry for entry in journal.on_the_engine() if entry.role == AGENT and entry.identity]
    found = records.read(journal.owner.launch) or journal.work
    if not found or not found.began or found.kind == NONE or not boxes:
        return outcome
    (box,) = boxes[-1:]
    patience = Patience(seconds, away)
    try:
        perform(_bring_or_keep(engine, found, box.identity, box.name, journal.owner, patience, outcome, later=True))
    except EngineAway:
        raise
    except BaseException:  # a defect of ours must not cost the work
        journal.keep(box)
        raise
    if box.identity in outcome.stay:
        journal.keep(box)
        if journal.manager not in (None, journal.engine):  # the user's usual engine is another one
            outcome.warnings = [f"{line} (that container is at {engine.where})" for line in outcome.warnings]
    return outcome


def forget(journal: Journal) -> None:
    """Remove what was kept of a launch that is over, but for work that is still to come."""
    found = records.read(journal.owner.launch)
    stays = journal.kept or any(entry.role == AGENT for entry in journal.on_the_engine())
    if found and not found.kept and not stays:
        records.remove(found.launch)


def stays(item: Item) -> bool:
    """Say whether a container is kept for its work and nobody tries that again without being asked.

    What was kept under another HOME comes home where a record says where to.
    """
    found = records.read(item.owner.launch) if item.is_kept else None
    return item.is_kept and not (found and found.began and found.kind != NONE and not found.kept)


def before_removal(engine: Engine, items: Iterable[Item], owner: Owner, seconds: float) -> Work[Outcome]:
    """Bring home what is in containers that are about to be removed, of whatever launch; it comes to what has to stay.

    Where there is work, and no record here that says where it goes, it is kept for who has that.

    Args:
        engine: to ask.
        items: what is about to be removed.
        owner: whose a helper is.
        seconds: how long it may take, all in all.
    """
    outcome, patience = Outcome(), Patience(seconds)
    for item in items:
        found = records.read(item.owner.launch) if item.role == AGENT else None
        if found and found.began and found.kind != NONE:
            yield from _bring_or_keep(engine, found, item.identity, item.name, owner, patience, outcome)
        elif not found and item.may_have_work:
            yield from _keep_for_another(engine, item, outcome)
    return outcome


def _keep_for_another(engine: Engine, item: Item, outcome: Outcome) -> Work[None]:
    name = item.name
    if not item.is_kept:
        name = yield from _set_aside(engine, item.identity, item.name, item.slug, item.owner.launch)
    outcome.stay.add(item.identity)
    outcome.warnings.append(
        f"the work of {item.slug} did not come home: it was started under another HOME, which knows where it goes;"
        f" it is kept in container '{name}';"
        f" to bring it home, under that HOME: ./cli.sh bring {shlex.quote(item.slug)};"
        f" {take_out(item.identity, item.workspace)}"
    )


def take_out(container: str, workspace: str) -> str:
    """Return what helps where nobody knows where work goes.

    Args:
        container: its id.
        workspace: in it.
    """
    return f"to take it out: {shlex.join(['docker', 'cp', f'{container[:12]}:{workspace}', '.'])}"


def after_removal(items: Iterable[Item], left: Iterable[str]) -> None:
    """Remove what was kept of launches whose containers are gone, but for work that is still to come.

    Args:
        items: what was to be removed.
        left: ids of what is still there.
    """
    there = set(left)
    for item in items:
        found = records.read(item.owner.launch) if item.role == AGENT and item.identity not in there else None
        if found and found.kept != RAW:
            records.remove(found.launch)


def _bring_or_keep(
    engine: Engine,
    found: Record,
    container: str,
    name: str,
    owner: Owner,
    patience: Patience,
    outcome: Outcome,
    *,
    later: bool = False,
) -> Work[None]:
    """Bring home what is in a container; where that fails, keep it, unless there is a later when the engine is back."""
    problem: Exception
    try:
        brought = yield from bring(engine, found, container, owner, patience)
    except EngineAway:
        raise
    except (BottleError, OSError) as failure:
        what, problem = "the work", failure
    else:
        outcome.said += [brought.said] if brought.said else []
        if not brought.refused:
            return
        what, problem, found = "some of the work", Refused(brought.refused), brought.record
    if later:
        yield from _require_answer(engine, container)
    yield from _keep(engine, found, container, name, what, problem, patience, outcome)


def _require_answer(engine: Engine, container: str) -> Work[None]:
    short = engine.bounded(time.monotonic() + STOP_SECONDS, run.uninterrupted)
    try:
        look = yield short.call(["container", "inspect", "--format", "{{.State.Status}}", container])
    except OSError as problem:  # no client, or no process can be had
        raise EngineAway(_reason(problem)) from None
    if not look.ok and "no such" not in look.failure.lower():
        raise EngineAway(look.failure)


def bring(engine: Engine, found: Record, container: str, owner: Owner, patience: Patience) -> Work[Brought]:
    """Bring home what is in a container, or what was kept in a file.

    Args:
        engine: to ask.
        found: the record of the bottle.
        container: its id; empty for the file.
        owner: whose a helper is.
        patience: how long it may take.

    Raises:
        BottleError: it cannot come, and is still there.
        OSError: likewise.
    """
    with _alone(found, patience) as now:
        bounded, folder = patience.over(engine), records.place(now.launch)
        if container:
            source = yield from source_of(bounded, container)
        else:
            source = Source(bounded, image=now.image, raw=folder / RAW if folder else None)
        if source is None or not now.began:
            return Brought(now)
        if now.kind not in KINDS:
            raise BottleError("it was started so that its work does not come home")
        try:
            brought = yield from KINDS[now.kind](source, now, owner, patience.bounds)
        except BottleError as problem:
            stopped = None if isinstance(problem, (Abandoned, EngineAway)) else (yield from _stopped(bounded, source))
            if stopped is None:
                raise
            brought = yield from KINDS[now.kind](stopped, now, owner, patience.bounds)
        finally:
            log.passing("")
        _note(brought.record)
        return brought


def _stopped(engine: Engine, before: Source) -> Work[Source | None]:
    """Look again at a container that ran; it comes to that if it has stopped meanwhile, which needs another way."""
    now = (yield from source_of(engine, before.container)) if before.running else None
    return now if now and not now.running else None


@contextmanager
def _alone(found: Record, patience: Patience) -> Iterator[Record]:
    """Keep others from bringing home the same; what they have brought by then is in the record.

    Without a folder to lock it goes on.
    """
    folder = records.place(found.launch)
    try:
        held = locked([folder], patience.until, patience.check) if folder and folder.is_dir() else None
    except OSError:
        held = None
    if held is None:
        yield found
        return
    with held:
        yield records.read(found.launch) or found


def _note(found: Record) -> None:
    with suppress(OSError):  # a full disk; the next time it comes home again, at worst
        records.write(found)


def _keep(
    engine: Engine,
    found: Record,
    container: str,
    name: str,
    what: str,
    problem: Exception,
    patience: Patience,
    outcome: Outcome,
) -> Work[None]:
    """Keep what did not come home: in a file, else in the container, which then stays."""
    why = problem.message if isinstance(problem, BottleError) else _reason(problem)
    where = ""
    if not isinstance(problem, Abandoned):
        where = yield from _keep_raw(engine, found, container, patience)
    if not where:
        now = yield from _set_aside(engine, container, name, found.slug, found.launch)
        _note(found.with_(kept=now))
        where = f"container '{now}'"
        outcome.stay.add(container)
    again = f"to try again: ./cli.sh bring {shlex.quote(found.agent)}"
    if records.read(found.launch) is None:  # nobody can be told then where it goes
        again = take_out(container, found.workspace)
    outcome.warnings.append(f"{what} of {found.agent} did not come home: {why}; it is kept in {where}; {again}")


def _reason(problem: Exception) -> str:
    place = getattr(problem, "filename", None)
    return f"{reason(problem)}: {place}" if place else reason(problem)


def _keep_raw(engine: Engine, found: Record, container: str, patience: Patience) -> Work[str]:
    """Keep a container's workspace in a file, unopened; it comes to where, or to an empty text."""
    folder = records.place(found.launch)
    if folder is None:
        return ""
    new, size = folder / f"{RAW}.new", _Size(folder / f"{RAW}.new", patience)
    try:
        source = yield from source_of(patience.over(engine), container)
        if source is None:
            return ""
        if not folder.is_dir():
            records.write(found)
        with open(new, "wb") as file:
            call = engine.bounded(patience.until, size.check).call(["cp", f"{container}:{found.workspace}", "-"])
            answer = yield Pipe(call, file.fileno())
            os.fsync(file.fileno())
        if not answer.ok:
            return ""
        os.rename(new, folder / RAW)
        records.write(found.with_(kept=RAW, image=source.image))
        return str(folder / RAW)
    except (BottleError, OSError):
        return ""
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


class _Size:
    """Ends what writes a file when that is too large, or the disk full."""

    def __init__(self, path: Path, patience: Patience) -> None:
        self.path, self.patience = path, patience

    def check(self) -> float:
        self.patience.check()
        if self.path.stat().st_size > MOST_RAW or shutil.disk_usage(self.path).free < LEAST_FREE:
            raise Abandoned("there is too much of it")
        return time.monotonic() + LOOK_SECONDS


def _set_aside(engine: Engine, container: str, name: str, slug: str, launch: str) -> Work[str]:
    """Stop a container and give it a name that says that it is kept; it comes to that, or to the one that it has."""
    short = engine.bounded(time.monotonic() + STOP_SECONDS, run.uninterrupted)
    kept = f"{KEPT_PREFIX}{slug}.{launch[:8]}"
    yield short.call(["kill", container])
    renamed = yield short.call(["rename", container, kept])
    return kept if renamed.ok else name
