"""A session that runs what a test asks for, with a session's own environment and as its user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .conftest import Desk

# Runs each script that it is given, in a folder of its own unless it is told one; says what it came to in one line.
DRIVER = r"""
import json, os, signal, subprocess, sys, tempfile, time
print("ready", flush=True)
for line in sys.stdin:
    script, folder, seconds, variables = json.loads(line)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        words = ["bash", "-euo", "pipefail", "-c", script]
        began = time.monotonic()
        child = subprocess.Popen(words, cwd=folder or own, env={**os.environ, **variables}, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = child.communicate(timeout=seconds)
            status = child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            status = None
        took = time.monotonic() - began
    print(json.dumps([status, out, err[-4000:], took]), flush=True)
"""
BEGIN = f"cat >/tmp/driver.py <<'END'\n{DRIVER}END\nexec python3 /tmp/driver.py\n"


class Ran(NamedTuple):
    """What became of a script; the status is None where it did not end in time."""

    status: int | None
    out: str
    err: str
    seconds: float


class Inside:
    """A running session.

    Args:
        child: the launcher.
        desk: whose.
    """

    def __init__(self, child: subprocess.Popen[str], desk: Desk) -> None:
        self.child, self.desk = child, desk

    def say(self, text: str) -> str:
        """Give the session some lines; return the one that it answers."""
        assert self.child.stdin and self.child.stdout
        self.child.stdin.write(text)
        self.child.stdin.flush()
        return self.child.stdout.readline()

    def run(self, script: str, *, folder: str = "", seconds: float = 300, **variables: str) -> Ran:
        """Run a script of bash, any failure of which ends it.

        Args:
            script: its text.
            folder: where; empty for a new one that is removed afterwards.
            seconds: that it may take.
            variables: of its environment, beside the session's.
        """
        answer = self.say(json.dumps([script, folder, seconds, variables]) + "\n")
        assert answer, self.complaints()
        return Ran(*json.loads(answer))

    def complaints(self) -> str:
        """Return what the launcher has said so far."""
        return self.desk.said.read_text()


@contextmanager
def inside(desk: Desk, *flags: str) -> Iterator[Inside]:
    """A session without a terminal; its client must be a shell.

    Args:
        desk: whose.
        flags: of the start.
    """
    with (
        desk.said.open("w") as said,
        subprocess.Popen(
            [desk.launcher, "start", "-y", *flags, desk.agent],
            cwd=desk.cwd,
            env=desk.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        ) as child,
    ):
        made = Inside(child, desk)
        try:
            assert made.say(BEGIN) == "ready\n", made.complaints()
            yield made
        finally:
            child.terminate()
            child.communicate(timeout=60)
