"""The launcher on a terminal of a test's own, whose settings can be read and which can be closed."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program that has a terminal as stdin, stdout, stderr, and as the place of its questions.

    Args:
        words: its command line.
        cwd: where it runs.
        env: its environment.
        out: a file in the terminal's place as stdout.
        begin: start it at once.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        cwd: Path,
        env: Mapping[str, str],
        *,
        out: IO[bytes] | None = None,
        begin: bool = True,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.before = self.settings()
        self.said = ""
        self.words, self.cwd, self.env, self.out = words, cwd, env, out
        if begin:
            self.start()

    def start(self) -> None:
        """Start the program."""
        self.child = subprocess.Popen(
            self.words,
            cwd=self.cwd,
            env=self.env,
            stdin=self.slave,
            stdout=self.out or self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )

    def settings(self) -> list[Any]:
        """Return the terminal's settings."""
        return termios.tcgetattr(self.slave)

    def echoes(self) -> bool:
        """Say whether what is typed is shown."""
        return bool(self.settings()[3] & termios.ECHO)

    def until(self, text: str, seconds: float = 30) -> None:
        """Wait for words on the screen.

        Raises:
            AssertionError: they do not come.
        """
        end = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < end, f"no '{text}' in {self.said!r}"
            self._read(0.1)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        self.said += os.read(self.master, 65536).decode(errors="replace")
        return True

    def read_on(self) -> bool:
        """Take what has come on the screen meanwhile."""
        while self._read(0.02):
            pass
        return True

    def type(self, text: str) -> None:
        """Type a text; control characters act as they do on a keyboard."""
        os.write(self.master, text.encode())

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def wait(self, seconds: float = 60) -> int:
        """Return the program's status.

        Raises:
            AssertionError: it does not end.
        """
        end = time.monotonic() + seconds
        while self.child.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.said!r}"
            if self.master < 0 or not self._read(0.05):
                time.sleep(0.02)
        while self.master >= 0 and self._read(0):
            pass
        return self.child.returncode

    def close(self) -> None:
        """End the program if it still runs, and close the terminal."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
        if self.master >= 0:
            self.hang_up()
