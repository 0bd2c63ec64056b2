"""Runs a launcher over a case, in surroundings that are the same everywhere."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from tests.fake_docker import FakeDocker
from tests.golden.case import Case

TOOLS = (  # what a launcher finds on PATH beside docker
    "awk",
    "basename",
    "bash",
    "cat",
    "chmod",
    "cksum",
    "cp",
    "cut",
    "date",
    "dirname",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "id",
    "jq",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
)
# What a user's own environment does not change.
FIXED = {"PATH", "PWD", "TMPDIR", "LC_ALL", "TZ", "TERM", "COLUMNS", "LINES", "CLAUDE_BOTTLE_DRY_RUN"}
SECONDS = 180  # a hundred taken names are a hundred calls
NORMALISE = (  # the whole list
    ("the stage dir's random tail", re.compile(r"claude-bottle-(stage|edit)\.\w{6,}"), r"claude-bottle-\1.XXXXXX"),
    ("ids of containers and networks", re.compile(r"\b[0-9a-f]{64}\b"), "@ID@"),
    ("docker's own progress", re.compile(r"^Successfully built.*\n", re.M), ""),
)


def run(case: Case, launcher: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Run the launcher over the case.

    Returns:
        What it said and did, normalised, by stream; and the docker calls, for the reader.

    Raises:
        RuntimeError: it did not end, or asked docker something that the fake does not know.
    """
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        root = Path(scratch).resolve()
        fake = prepare(case, root)
        before = snapshot(root)
        status, out, err = launch(case, launcher, root, fake)
        if fake.unknown():
            raise RuntimeError(f"{case.name}: the fake docker knows no {fake.unknown()}")
        said = {
            "stdout": out,
            "stderr": err,
            "status": f"{status}\n",
            "files": changes(before, snapshot(root)),
        }
        calls = [{"argv": [normalise(w, root, launcher) for w in argv]} for argv in fake.argvs()]
        return {stream: normalise(text, root, launcher) for stream, text in said.items()}, calls


def normalise(text: str, root: Path, launcher: Path) -> str:
    """Take out what differs from run to run: the temporary and launcher paths, and the named list."""
    text = text.replace(str(root), "@ROOT@").replace(str(launcher.resolve().parent), "@LAUNCHER@")
    for _, pattern, instead in NORMALISE:
        text = pattern.sub(instead, text)
    return text


def prepare(case: Case, root: Path) -> FakeDocker:
    """Lay out the case's files, tools and engine."""
    tree = case.folder / "tree"
    if tree.is_dir():
        shutil.copytree(tree, root, symlinks=True, dirs_exist_ok=True)
    for name in ("project", "home", "tmp", "tools", *case.dirs):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in case.links.items():
        (root / name).symlink_to(target)
    fake = FakeDocker(root / "engine", case.state)
    for fault in case.faults:
        fake.fault(**({"spec": fault} if isinstance(fault, str) else fault))
    if case.session:
        fake.session(case.session.replace("@ROOT@", str(root)))
    if case.during_build:
        fake.during_build(case.during_build.replace("@ROOT@", str(root)))
    for tool in TOOLS:
        path = shutil.which(tool)
        if path and tool not in case.without:
            (root / "tools" / tool).symlink_to(path)
    if "docker" in case.without:
        (fake.bin / "docker").unlink()
    return fake


def environment(case: Case, root: Path, fake: FakeDocker) -> dict[str, str]:
    """Return the whole environment of the launcher."""
    variables = {
        "PATH": f"{fake.bin}:{root / 'tools'}",
        "HOME": str(root / "home"),
        "PWD": str(root / case.cwd),
        "XDG_STATE_HOME": str(root / "state"),  # what a launcher remembers is none of the case's files
        "TMPDIR": str(root / "tmp"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "COLUMNS": "80",
        "LINES": "24",
        "CLAUDE_BOTTLE_OAUTH_TOKEN": "token-of-the-case",
    }
    for name, value in case.env.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value.replace("@ROOT@", str(root))
    return variables


def launch(case: Case, launcher: Path, root: Path, fake: FakeDocker) -> tuple[int, str, str]:
    """Start the launcher on a terminal of 24x80, or in a session without one, and type what the case says."""
    master = slave = None
    if case.terminal is not None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def take_terminal() -> None:
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    program = launcher
    if case.program:
        program = root / case.program
        program.parent.mkdir(parents=True, exist_ok=True)
        program.symlink_to(launcher)
    child = subprocess.Popen(
        [program, *case.args],
        stdin=subprocess.DEVNULL if slave is None else slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root / case.cwd,
        env=environment(case, root, fake),
        start_new_session=True,
        preexec_fn=take_terminal,
        umask=0o022,
    )
    if slave is not None:
        os.close(slave)
    try:
        out, err = converse(case, child, master)
        return child.wait(SECONDS), out, err
    finally:
        child.kill()
        child.wait()
        if master is not None:
            os.close(master)


def converse(case: Case, child: subprocess.Popen[bytes], master: int | None) -> tuple[str, str]:
    """Read both streams to their ends, typing each answer when its question is there."""
    assert child.stdout and child.stderr
    heard = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
    out, err = list(heard)
    todo, seen, limit = list(case.terminal or []), 0, time.monotonic() + SECONDS
    open_ends = set(heard)
    while open_ends:
        screen = [master] if master is not None else []
        ready, _, _ = select.select([*open_ends, *screen], [], [], max(0, limit - time.monotonic()))
        if not ready:
            raise RuntimeError(f"{case.name}: no end after {SECONDS} s; it said {heard}")
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except OSError:  # nobody holds the terminal any more
                data = b""
            if fd == master:
                master = master if data else None
                continue
            heard[fd] += data
            if not data:
                open_ends.discard(fd)
        while todo and master is not None and (at := heard[err].find(todo[0][0].encode(), seen)) >= 0:
            seen = at + len(todo[0][0].encode())
            os.write(master, todo.pop(0)[1].encode())
    for pipe in (child.stdout, child.stderr):
        pipe.close()
    return heard[out].decode("utf-8", "surrogateescape"), heard[err].decode("utf-8", "surrogateescape")


def snapshot(root: Path) -> dict[str, str]:
    """Return every file, folder and link of the user's folders, with mode and content."""
    found: dict[str, str] = {}
    for top in ("project", "home", "tmp"):
        for path in sorted((root / top).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[name] = f"link {os.readlink(path)}"
            elif path.is_dir():
                found[name] = "folder"
            else:
                found[name] = f"{path.stat().st_mode & 0o777:o} {path.read_bytes().decode('utf-8', 'surrogateescape')}"
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return what is new, changed or gone (null), as text."""
    names = sorted(name for name in before | after if before.get(name) != after.get(name))
    return json.dumps({name: after.get(name) for name in names}, indent=2) + "\n"
