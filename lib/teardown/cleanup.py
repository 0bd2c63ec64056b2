"""Removes what a launch made: by its owner label and by id, never by a name that may be somebody else's."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import ANOTHER_ENGINE, BottleError, EngineAway, reason
from claude_bottle.lib.host import terminal, wait
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.host.slots import removal_slot
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import CONTAINER, NETWORK, ROLES, SERVICE, Item
from claude_bottle.lib.teardown.journal import Entry, Journal

DEADLINE_SECONDS = 60.0  # of a launcher's teardown, all in all; its reaper has longer
AFAR_SECONDS = 22.0  # likewise where the engine is elsewhere, so that with what goes before it is not more than 30
LATE_SECONDS = 10.0  # how long a launcher looks for what docker gave no answer about
TALK_SECONDS = 5.0
OVERTIME_SECONDS = 2.0  # for the call that is under way when the time is over
TRIES = 3
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class Remains:
    """What a teardown could not remove.

    Attributes:
        left: each thing that may still be there, and why.
        final: whether the engine itself refuses; otherwise it may help to go on trying.
    """

    left: dict[str, str] = field(default_factory=dict)
    final: bool = True


class CutShort(Exception):
    """The rest is the reaper's."""


class Teardown:
    """One walk over all that a launch may have made (shell: cleanup_all; contract section 12).

    Idempotent. A failure is tried again, the walk goes on, and what is left in the end is said by name.

    Args:
        engine: that the launch was made on; its seat, if it has one, is the journal's manager's.
        journal: of the launch.
        seconds: how long all of it may take.
        late_seconds: how long to look for what docker gave no answer about.
        tries: how often to try what the engine refuses.
        first: what needs what is to be removed; it has a time of its own, and is tried again on ``EngineAway``.
        pause: the longest, in seconds, between two tries, if not a launcher's.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        seconds: float = DEADLINE_SECONDS,
        late_seconds: float = LATE_SECONDS,
        tries: float = TRIES,
        first: Callable[[], None] | None = None,
        pause: float = 0.0,
    ) -> None:
        self.longest_pause = pause or LONGEST_PAUSE_SECONDS
        self.journal = journal
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.late_until = self.began + late_seconds
        self.tries = tries
        self.first = first
        self.engine = engine.bounded(self.until, self._look_around)
        self.manager = (journal.engine_of(SERVICE) or engine).bounded(self.until, self._look_around)
        self.doing = ""
        self.waits_since = self.began
        self.talked = False
        self.pressed = 0
        self.signals = wait.signals_seen()
        self.left: dict[str, str] = {}
        self.kept: set[str] = set()  # ids of what docker did not remove
        self.unanswered = False
        self.no_client = False

    def run(self) -> Remains:
        """Remove everything; return what is left."""
        terminal.tty_restore()
        if self.journal.on_the_engine():
            self._empty_engine()
        remains = Remains(dict(self.left), not (self.unanswered or self.no_client))
        for entry in self.journal.folders():
            problem = remove_folder(entry.name)
            if problem:
                remains.left[entry.title] = problem
        return remains

    def _empty_engine(self) -> None:
        """Try until nothing is left, the engine has refused often enough, or the time is over."""
        refusals, pause = 0, PAUSE_SECONDS
        try:
            while True:
                self._try()
                refusals += bool(self.left) and not self.unanswered
                if not self.left or refusals >= self.tries or not self._time_left():
                    return
                self._pause(pause)
                pause = min(pause * 2, self.longest_pause)
        except CutShort:
            self.unanswered = True
            self._all_left("the teardown was cut short")

    def _time_left(self) -> bool:
        late = all(entry.lost for entry in self.journal.on_the_engine())
        return time.monotonic() < (self.late_until if late else self.until)

    def _try(self) -> None:
        self.left, self.unanswered, self.no_client = {}, False, False
        self.engine, self.manager = self.engine.reachable(), self.manager.reachable()
        self.kept.clear()
        if not self._do_first():
            return
        try:
            self.doing = "waiting for other removals"
            with removal_slot(self.until, self._look_around):
                self._remove()
        except OSError as problem:  # the docker client is gone, or no process can be had
            self.no_client = True
            self._all_left(reason(problem))

    def _do_first(self) -> bool:
        """Say whether what comes first is done."""
        if not self.first:
            return True
        self.doing, began = "asking the engine", time.monotonic()
        if self.journal.work and not self.engine.is_local and not self._is_the_same(self.engine):
            return False  # what comes first would wait much longer for an answer
        try:
            self.first()
        except EngineAway as problem:
            if self._is_the_same(self.engine):  # it is back already
                self.unanswered = True
                self._all_left(problem.message)
            return False
        self.first, self.signals = None, wait.signals_seen()
        took = time.monotonic() - began
        self.until, self.late_until, self.waits_since = self.until + took, self.late_until + took, time.monotonic()
        self.engine = self.engine.bounded(self.until, self._look_around)
        self.manager = self.manager.bounded(self.until, self._look_around)
        return True

    def _remove(self) -> None:
        """Remove what there is; the seat last, since it says where the rest is, and not before that is gone."""
        self._remove_from(self.engine, (CONTAINER, NETWORK))
        if not self.left:
            self._remove_from(self.manager, (SERVICE,))
        else:
            self._all_left("it says where the rest is", SERVICE)

    def _remove_from(self, engine: Engine, kinds: tuple[str, ...]) -> None:
        """Remove what is known in a call for each kind; look for the rest, if there is any, on the same engine only."""
        for kind in kinds:
            self._remove_known(engine, kind)
        if self._there(*kinds) and self._is_the_same(engine):
            for kind in kinds:
                self._remove_all(engine, kind)
            if CONTAINER in kinds:
                self._remove_volumes()

    def _there(self, *kinds: str) -> list[Entry]:
        return [entry for entry in self.journal.on_the_engine() if entry.kind in kinds]

    def _remove_known(self, engine: Engine, kind: str) -> None:
        """Remove in one call what docker gave ids of, and believe what it says that it has removed.

        An engine that has had our ids is the same one; to another one they mean nothing.
        """
        known = {it.identity: it for it in self._there(kind) if it.identity}
        if not known:
            return
        names = sorted(repr(it.name) for it in known.values())
        self.doing = f"removing {kind}{'s' * (len(names) > 1)} {', '.join(names)}"
        for identity in perform(inventory.removed(engine, kind, list(known))):
            self._answered()
            self.journal.answered(known[identity], "")

    def _is_the_same(self, engine: Engine) -> bool:
        self.doing = "asking the engine"
        try:
            now = perform(engine.ask())
        except BottleError as problem:
            other = any(ANOTHER_ENGINE in hint for hint in problem.hints)  # a link serves no other
            self.tries, self.unanswered = (0, False) if other else (self.tries, True)
            self._all_left("; ".join([problem.message, *problem.hints]))
            return False
        if now.identity == engine.identity:
            self._answered()
            return True
        self.tries = 0
        reason = f"{ANOTHER_ENGINE} {now.where}: {now.identity} instead of {engine.identity}"
        self.left = {f"{entry.title} ({entry.identity})": reason for entry in self.journal.on_the_engine()}
        return False

    def _all_left(self, reason: str, kind: str = "") -> None:
        for entry in self.journal.on_the_engine():
            if kind in ("", entry.kind):
                self.left.setdefault(entry.title, reason)

    def _remove_all(self, engine: Engine, kind: str) -> None:
        """Remove what there is of a kind; what docker gave no answer about counts as left until it is found."""
        if not self._there(kind):
            return
        self.doing = f"looking for {kind}s"
        every = ["-a"] if kind == CONTAINER else []
        try:
            there = inventory.look(engine, kind, [*every, *inventory.of_launch(self.journal.owner.launch)])
        except inventory.LookFailed as failed:
            self.unanswered = self.unanswered or failed.answer.timed_out
            self._all_left(failed.answer.failure, kind)
            return
        self._answered()
        for item in sorted(there, key=_turn):
            if item.identity not in self.journal.kept:
                self._remove_item(engine, item)
        self._strike_out(kind)

    def _remove_volumes(self) -> None:
        """Remove what a container has left that is gone without us."""
        self.doing = "removing volumes"
        failure = perform(inventory.remove_volumes(self.engine, self.journal.owner.launch))
        if failure:
            log.log_warn(f"could not remove a volume: {failure}", lines=True)

    def _remove_item(self, engine: Engine, item: Item) -> None:
        self.doing = f"removing {item.kind} '{item.name}'"
        removal = perform(inventory.remove(engine, item.kind, [item.identity]))
        self._answered()
        if removal.left:
            self.left[f"{item.kind} '{item.name}'"] = removal.failure
            self.kept.add(item.identity)  # its name may be another one by now
            self.unanswered = self.unanswered or removal.timed_out
            return
        for entry in self.journal.on_the_engine():
            if (entry.kind, entry.name) == (item.kind, item.name):
                entry.lost = False

    def _strike_out(self, kind: str) -> None:
        """Take what is gone out of the list; what may still come stays in it."""
        for entry in self._there(kind):
            if entry.title in self.left or entry.identity in self.kept:
                continue
            if entry.lost:
                self.unanswered = True
                self.left[entry.title] = "docker gave no answer when it was to be made: it may still come"
            else:
                self.journal.answered(entry, "")

    def _pause(self, seconds: float) -> None:
        end = min(time.monotonic() + seconds, self.until)
        while time.monotonic() < end:
            wait.wait_for(deadline=min(end, self._look_around()))

    def _answered(self) -> None:
        """Begin to count again: what is slow is worth a word, not that there is much to do."""
        if not self.journal.has_lost():
            self.waits_since = time.monotonic()

    def _look_around(self) -> float:
        """Say what is waited for when it takes long; return when to look again.

        Raises:
            CutShort: the user does not want to wait, with the second Ctrl-C of a launch; or the time is over.
        """
        pressed = wait.signals_seen()[len(self.signals) :].count(signal.SIGINT)
        if pressed > (not self.signals):
            raise CutShort
        most = self.until - time.monotonic()
        if most < -OVERTIME_SECONDS:  # a call that goes on talking would go on for ever
            raise CutShort
        if pressed == self.pressed:
            if self.talked:
                return self.until + OVERTIME_SECONDS
            if time.monotonic() < self.waits_since + TALK_SECONDS:
                return self.waits_since + TALK_SECONDS
        self.talked, self.pressed = True, pressed
        keys = "Ctrl-C" if self.signals or pressed else "Ctrl-C twice"
        log.log_info(f"still {self.doing}; {max(0, most):.0f} s more at most; {keys} leaves the rest to the background")
        return self.until + OVERTIME_SECONDS


def _turn(item: Item) -> int:
    return ROLES.index(item.role) if item.role in ROLES else len(ROLES)


def remove_folder(path: str) -> str:
    """Remove a folder of the host's; return why it is still there, or an empty text.

    Args:
        path: of the folder.
    """
    failure = "it is there again"
    for _ in range(TRIES):
        try:
            shutil.rmtree(path)
        except OSError as problem:
            failure = reason(problem)
        if not os.path.lexists(path):
            return ""
        wait.pause(PAUSE_SECONDS)
    return failure


def cleanup_all(engine: Engine, journal: Journal, first: Callable[[], None] | None = None) -> Remains:
    """Remove everything that the journal says may exist, and name what is left (shell: cleanup_all).

    Args:
        engine: that the launch was made on.
        journal: of the launch.
        first: see ``Teardown``.
    """
    seconds = DEADLINE_SECONDS if engine.is_local else AFAR_SECONDS
    remains = Teardown(engine, journal, seconds=seconds, first=first).run()
    for title, why in remains.left.items():
        log.log_warn(f"could not remove {title}: {why}", lines=True)
    return remains
