"""Cleans up after a launcher that was killed; runs as a script of its own, fed with the journal on stdin.

Two pipes end with the launcher: stdin, which only the launcher holds, and the one named on the command line, which
docker calls in flight hold too. Without waiting for the second, a create that the launcher had begun finishes after the
clean-up and is left (seen in nine of twelve kills).
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run by path: make the package known, as cli/__main__.py does
    package = types.ModuleType("claude_bottle")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["claude_bottle"] = package

from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import EngineAway
from claude_bottle.lib.home import bring
from claude_bottle.lib.host import process, run, terminal, wait
from claude_bottle.lib.teardown import cleanup, notes
from claude_bottle.lib.teardown.journal import Journal
from claude_bottle.lib.teardown.lease import Leases
from claude_bottle.lib.teardown.owner import Owner, owner_here

LOAD_AFTER_SECONDS = 15.0
IN_FLIGHT_SECONDS = 70.0
CHILD_SECONDS = 5.0
POLL_SECONDS = 0.05
UNSEEN_SECONDS = 10.0  # how long it looks for what was asked for just before the launcher was killed
END_SECONDS = 1.0
OPENED, SILENT = b"o", b"s"  # words of the process's
PATIENCE_SECONDS = 3600.0  # how long it tries to remove what the launcher could not
LOST_SECONDS = 600.0  # how long it looks for what docker gave no answer about
PAUSE_SECONDS = 60.0  # the longest between two tries


class Reaper:
    """The launcher's side: starts the process and feeds it. Also the gateway's watcher.

    Args:
        engine: that the launch's things are made on.
        launch: names the launch.
    """

    def __init__(self, engine: Engine, launch: str) -> None:
        read_end, write_end = os.pipe()
        self._call_end = write_end
        self._word, word_end = os.pipe()
        os.set_blocking(self._word, False)
        self._said = b""
        self._leases: Leases | None = None
        self._is_over = False
        numbers = map(str, (read_end, word_end, PATIENCE_SECONDS))
        self._process = run.spawn(
            sys.executable,
            ["-I", "-X", "utf8", str(Path(__file__).resolve()), launch, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            new_session=True,
            cwd="/",
            pass_fds=(
                read_end,
                word_end,
                *([engine.line] if engine.line >= 0 else []),
            ),  # the link lives as long as either of us
        )
        for fd in (read_end, word_end):
            os.close(fd)
        self.journal = Journal(owner_here(launch, self._process.pid), self._send)
        self.journal.on_engine(engine)
        wait.beside(self.turn)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # a reaper that somebody killed must not end a session
            os.write(self._process.stdin.fileno(), line)

    @property
    def inherited(self) -> tuple[int, ...]:
        return (self._call_end,)

    def started(self, pid: int) -> None:
        self.journal.child(pid, True)

    def ended(self, pid: int) -> None:
        self.journal.child(pid, False)

    def turn(self) -> tuple[list[int], float]:
        """Hear what the process says, and renew the leases in its place where it is gone (``wait.beside``)."""
        if self._leases is None and self._hears():
            return [self._word], math.inf
        if self._is_over or not self.journal.engine:
            return [], math.inf
        self._leases = self._leases or Leases(self.journal.engine)
        self._leases.take(self.journal.leases)
        return self._leases.turn()

    def _hears(self) -> bool:
        """Take what the process has said; say whether it is there."""
        try:
            said = b"" if self._is_over else os.read(self._word, 512)
        except BlockingIOError:
            return True
        self._said += said
        return bool(said)

    def hears_nothing(self) -> bool:
        """Say whether nothing has been heard of the bottle for a while."""
        return self._leases.is_silent if self._leases else self._said.endswith(SILENT)

    def dismiss(self) -> None:
        """End the process: all is removed, or has been reported."""
        self.journal.done()
        if self._hears() and self._said:  # it ends what it has under way
            run.await_end(self._process, time.monotonic() + END_SECONDS)
        self._process.kill()
        self._process.wait()
        self.hand_over()

    def hand_over(self) -> bool:
        """Let the process do what is left: without a last word it takes the launcher for killed.

        Returns:
            Whether it is there to do so.
        """
        assert self._process.stdin is not None
        self._is_over = True
        if self._leases:
            self._leases.close()
        self._process.stdin.close()
        for fd in (self._call_end, self._word):
            os.close(fd)
        return self._process.poll() is None


class Keeper:
    """Renews the leases of the launch, and says to the launcher what it hears of its bottle.

    Args:
        journal: of the launch.
        word: descriptor that leads to the launcher.
    """

    def __init__(self, journal: Journal, word: int) -> None:
        self._journal, self._word = journal, word
        self._leases: Leases | None = None
        self._said = b""

    def turn(self) -> tuple[list[int], float]:
        """Do what is to be done by now (``wait.beside``)."""
        if not self._journal.leases or not self._journal.engine:
            return [], math.inf
        self._leases = self._leases or Leases(self._journal.engine)
        self._leases.take(self._journal.leases)
        fds, due = self._leases.turn()
        self._say(SILENT if self._leases.is_silent else OPENED * self._leases.were_opened)
        return fds, due

    def _say(self, word: bytes) -> None:
        if word != self._said and word:
            self._said = word
            with suppress(OSError):  # nobody listens any more
                os.write(self._word, word)

    def close(self) -> None:
        if self._leases:
            self._leases.close()


def read_journal(journal: Journal) -> bool:
    """Take lines from stdin until it ends; return whether the launcher said that all is removed.

    What a teardown needs is imported when a start is over, so that its files may go: a start wants the processor.
    """
    rest, load_at = b"", time.monotonic() + LOAD_AFTER_SECONDS
    while True:
        ready, _ = wait.wait_for([0], deadline=load_at)
        if time.monotonic() >= load_at:
            run.load()
            load_at = math.inf
        if not ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return False
        *lines, rest = (rest + data).split(b"\n")
        if any([journal.replay(line) for line in lines]):
            return True


def await_calls(fd: int) -> bool:
    """Wait until every docker call that the launcher had begun has ended; return whether they have in time."""
    deadline = time.monotonic() + IN_FLIGHT_SECONDS
    while time.monotonic() < deadline:
        ready, _ = wait.wait_for([fd], deadline=deadline)
        if fd in ready and not os.read(fd, 1):
            return True
    return False


def end_children(journal: Journal, number: int) -> None:
    """Signal the launcher's processes that still run."""
    for pid in journal.children:
        with suppress(OSError):
            os.kill(pid, number)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def await_children(journal: Journal) -> None:
    deadline = time.monotonic() + CHILD_SECONDS
    while any(map(alive, journal.children)) and time.monotonic() < deadline:
        wait.pause(POLL_SECONDS)


def reap(launch: str, calls: int, word: int, patience: float) -> None:
    """Read the journal, and if the launcher went without a word, remove what it had made.

    Args:
        launch: names the launch.
        calls: descriptor that ends with the last docker call in flight.
        word: descriptor that leads to the launcher.
        patience: how long to try, in seconds.
    """
    journal = Journal(Owner(launch))
    keeper = Keeper(journal, word)
    wait.beside(keeper.turn)
    if not read_journal(journal):
        remove(journal, calls, patience)
    keeper.close()


def remove(journal: Journal, calls: int, patience: float) -> None:
    """Remove what a launcher had made that went without a word; see ``reap``."""
    # A detached call holds the second pipe and may be half way through a create: it is left to finish. What else is
    # alive by then, a build or the session's client, is ended.
    # A call that has ended may have been killed with the launcher, but most have had their answer.
    answered = await_calls(calls) and not journal.has_lost()
    late = min(patience, UNSEEN_SECONDS if answered else LOST_SECONDS)
    journal.lose_unanswered()
    end_children(journal, signal.SIGTERM)
    await_children(journal)
    end_children(journal, signal.SIGKILL)
    if journal.terminal:  # first: somebody sits in front of it
        terminal.restore_settings(journal.terminal)
    if journal.engine:
        first = partial(come_home, journal.engine, journal)
        walk = cleanup.Teardown(
            journal.engine,
            journal,
            seconds=patience,
            late_seconds=late,
            tries=math.inf,
            first=first,
            pause=PAUSE_SECONDS,
        )
        notes.leave(f"could not remove {title}: {why}" for title, why in walk.run().left.items())
        bring.forget(journal)


def come_home(engine: Engine, journal: Journal) -> None:
    """Bring home what the session has made, and leave for the next command what is to be said of it.

    Raises:
        EngineAway: the engine gives no answer, so that it has to come another time.
    """
    try:
        outcome = bring.at_end(engine.reachable(), journal, bring.HURRIED_SECONDS)
        said = [*outcome.said, *outcome.warnings]
    except EngineAway:
        raise
    except Exception as problem:  # what it is about stays where it is
        said = [f"its work could not come home: {problem}"]
    notes.leave(f"ended: {line}" for line in said)


if __name__ == "__main__":
    process.forbid_cores()
    wait.signals_ignore()
    reap(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
