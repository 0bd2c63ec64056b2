"""What is looked at on the machine that the launcher runs on."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from claude_bottle.lib import env
from claude_bottle.lib.doctor.finding import OK, PROBLEM, WARNING, Finding
from claude_bottle.lib.errors import reason
from claude_bottle.lib.host import terminal
from claude_bottle.lib.host.state import state_folder
from claude_bottle.lib.version import launcher_version

LITTLE, TOO_LITTLE = 5 * 1024**3, 1024**3  # bytes of a disk
TOO_LITTLE_HERE = 100 * 1024**2  # of the launcher's own, for what it puts down for a moment
AGE = "its age and whether it still counts are unknown until it is used"


def python() -> Finding:
    """Return which Python and which launcher this is."""
    return Finding("python", OK, f"{platform.python_version()}, claude-bottle {launcher_version()}")


def token(environ: Mapping[str, str]) -> Finding:
    """Look whether there is a token; never at what it is."""
    value, name, mend = environ.get(env.TOKEN_VARIABLE, ""), env.TOKEN_VARIABLE, "claude setup-token"
    if not value:
        return Finding("token", WARNING, f"{name} is not set: Claude asks for a login in the bottle", mend)
    if not value.isprintable() or " " in value or not value.isascii():
        return Finding("token", PROBLEM, f"{name} has characters that no token has", mend)
    return Finding("token", OK, f"{name} is set; {AGE}")


def screen(environ: Mapping[str, str]) -> Finding:
    """Look for a terminal."""
    if not terminal.tty_exists():
        return Finding("terminal", WARNING, "there is none: nothing can be asked", "start --yes")
    kind = environ.get("TERM", "")
    if kind in ("", "dumb"):
        return Finding("terminal", WARNING, f"TERM is '{kind}': Claude cannot draw on it", "export TERM=xterm-256color")
    return Finding("terminal", OK, kind)


def folders(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look whether the launcher can put down what it needs."""
    if not environ.get("HOME"):
        yield Finding("home", PROBLEM, "HOME is not set", "export HOME=~")
    if state := state_folder(environ):
        yield _writable("state folder", state, next(each for each in (state, *state.parents) if each.exists()))
    stage = Path(environ.get("TMPDIR") or "/tmp")
    yield _writable("stage dir", stage, stage)


def _writable(check: str, path: Path, there: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as problem:
        return Finding(check, PROBLEM, f"cannot write to {there}: {reason(problem)}", f"ls -ld {there}")
    if free < TOO_LITTLE_HERE:
        return Finding(check, PROBLEM, f"{path}: {size(free)} free", f"df -h {there}")
    return Finding(check, OK, f"{path}: {size(free)} free")


def size(count: int) -> str:
    """Return a number of bytes as a person reads it."""
    return f"{count / 1024**3:.1f} GiB"
