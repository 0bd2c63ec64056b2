"""Cleans up after a launcher that was killed; runs as a script of its own, fed with the journal on stdin.

Two pipes end with the launcher: stdin, which only the launcher holds, and the one named on the command line, which
docker calls in flight hold too. Without waiting for the second, a create that the launcher had begun finishes after the
clean-up and is left (seen in nine of twelve kills).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":  # run by path: make the package known, as cli/__main__.py does
    package = types.ModuleType("claude_bottle")
    package.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules["claude_bottle"] = package

from claude_bottle.lib import cleanup, process, run, terminal, wait
from claude_bottle.lib.journal import Journal

IN_FLIGHT_SECONDS = 70.0
CHILD_SECONDS = 5.0
POLL_SECONDS = 0.05


class Reaper:
    """The launcher's side: starts the process and feeds it. Also the gateway's watcher.

    Args:
        owner: the launch's label.
    """

    def __init__(self, owner: str) -> None:
        read_end, write_end = os.pipe()
        self._call_end = write_end
        self._process = run.spawn(
            sys.executable,
            ["-I", "-X", "utf8", str(Path(__file__).resolve()), owner, str(read_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            new_session=True,
            cwd="/",
            pass_fds=(read_end,),
        )
        os.close(read_end)
        self.journal = Journal(owner, self._send)

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

    def dismiss(self) -> None:
        """End the process: all is removed, or has been reported."""
        self.journal.done()
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        os.close(self._call_end)


def read_journal(journal: Journal) -> bool:
    """Take lines from stdin until it ends; return whether the launcher said that all is removed."""
    rest = b""
    while True:
        wait.wait_for([0])
        data = os.read(0, 65536)
        if not data:
            return False
        *lines, rest = (rest + data).split(b"\n")
        if any([journal.replay(line) for line in lines]):
            return True


def await_calls(fd: int) -> None:
    """Wait until every docker call that the launcher had begun has ended, but not for ever."""
    deadline = time.monotonic() + IN_FLIGHT_SECONDS
    while time.monotonic() < deadline:
        ready, _ = wait.wait_for([fd], deadline=deadline)
        if fd in ready and not os.read(fd, 1):
            return


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


def reap(owner: str, calls: int) -> None:
    """Read the journal, and if the launcher went without a word, remove what it had made.

    Args:
        owner: the launch's label.
        calls: descriptor that ends with the last docker call in flight.
    """
    run.load()
    journal = Journal(owner)
    if read_journal(journal):
        return
    # A detached call holds the second pipe and may be half way through a create: it is left to finish. What else is
    # alive by then, a build or the session's client, is ended.
    await_calls(calls)
    end_children(journal, signal.SIGTERM)
    await_children(journal)
    end_children(journal, signal.SIGKILL)
    if journal.terminal:  # first: somebody sits in front of it
        terminal.restore_settings(journal.terminal)
    cleanup.cleanup_all(journal)


if __name__ == "__main__":
    process.forbid_cores()
    wait.signals_ignore()
    reap(sys.argv[1], int(sys.argv[2]))
