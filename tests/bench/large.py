"""scripts/large: a large project goes in, some of it is changed, and the work comes home; with times and memory."""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pexpect

import tests.conftest  # noqa: F401  # makes the package known
from tests.bench import figures, page
from tests.bench.memory import Peak
from tests.engine.conftest import Desk, checkout, docker

AGENT, TAG = "cb-large", f"cb-large-{os.getpid()}"
KINDS = ("git", "folder")
EVERY = 100  # of so many files, one is changed
IN_A_FOLDER = 200
SECONDS = 3600.0
MIB = 1 << 20
CHANGE = (
    f"find . -name '*0.txt' -path '*/d*' | awk 'NR % {EVERY // 10} == 0' | while read -r f; do echo changed >>$f; done;"
    " mkdir new; for n in $(seq 100); do echo $n >new/$n; done; find . -name '*7.txt' | head -n 100 | xargs rm;"
    ' echo session is "over"; exit 0'
)
HEAD = """\
## A large project

`scripts/large` makes a project, starts a bottle with it, has one of a hundred files changed, a hundred made and a
hundred removed, and ends. *In* is from the command to the session, of which a bottle without a project takes two to
four seconds; *home* is from the session's end until nothing is left, the work home among it. Memory is the most that
was seen of the launcher with its reaper, and of the docker clients and gits that it runs.

| project | files | MiB | in | home | launcher | its children | words on the way |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Measured:
    """What came of one session."""

    into: float
    home: float
    launcher: int
    children: int
    words: int
    said: str


def say(text: str) -> None:
    print(f"large: {text}", file=sys.stderr, flush=True)


def make(folder: Path, files: int, mib: int) -> None:
    """Make a project of many files, of which some are large; what is in them does not pack well.

    Args:
        folder: an empty one.
        files: how many.
        mib: how much in all.
    """
    chance, pool = random.Random(1), os.urandom(4 * MIB)
    large = mib // 8 * MIB
    (folder / "large").write_bytes(b"")
    with open(folder / "large", "wb") as file:
        for _ in range(large // len(pool)):
            file.write(pool)
    size = (mib * MIB - large) // files
    for number in range(files):
        parent = folder / f"d{number // IN_A_FOLDER // 20}" / f"e{number // IN_A_FOLDER}"
        if number % IN_A_FOLDER == 0:
            parent.mkdir(parents=True)
        begin = chance.randrange(len(pool) - 2 * size)
        (parent / f"{number}.txt").write_bytes(pool[begin : begin + chance.randrange(2 * size)])


def commit(folder: Path) -> None:
    """Make a repository of it, its objects in one pack, as a clone has them."""
    git = ("git", "-C", str(folder), "-c", "pack.compression=0")
    subprocess.run([*git, "init", "-q"], check=True)
    with subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE) as taking:
        assert taking.stdin
        taking.stdin.write(b"commit refs/heads/main\ncommitter a <a@example.org> 1700000000 +0000\ndata 3\nall\n")
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts):
            data = path.read_bytes()
            taking.stdin.write(
                f"M 100644 inline {path.relative_to(folder)}\ndata {len(data)}\n".encode() + data + b"\n"
            )
    for words in (["symbolic-ref", "HEAD", "refs/heads/main"], ["reset", "-q"]):
        subprocess.run([*git, *words], check=True)


def expect(child: pexpect.spawn, wanted: str, peak: Peak) -> str:
    """Wait for words on the terminal, looking at the memory meanwhile; return what came before."""
    end, before = time.monotonic() + SECONDS, ""
    while True:
        peak()
        found = child.expect_exact([wanted, pexpect.TIMEOUT, pexpect.EOF], timeout=0.5)
        if found == 0:
            return before + str(child.before)
        if found == 2 or time.monotonic() > end:
            raise SystemExit(f"large: no '{wanted}': {str(child.before)[-2000:]}")


def session(desk: Desk) -> Measured:
    """Run one session on a terminal."""
    began = time.monotonic()
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    peak = Peak(lambda: [child.pid])
    said = expect(child, f"attaching to claude-bottle-{AGENT}", peak)
    into = time.monotonic() - began
    child.sendline(CHANGE)
    said += expect(child, "session is over", peak)
    return finish(child, peak, into, said)


def finish(child: pexpect.spawn, peak: Peak, into: float, said: str) -> Measured:
    """Wait for the end of the launcher, which may say its last words long after the session's."""
    ended, over = time.monotonic(), False
    while not over:
        peak()
        over = child.expect_exact([pexpect.EOF, pexpect.TIMEOUT], timeout=0.5) == 0
        if time.monotonic() > ended + SECONDS:
            raise SystemExit(f"large: the launcher does not end: {str(child.before)[-3000:]}")
    said += str(child.before)
    child.wait()
    home = time.monotonic() - ended
    words = len(re.findall(r"copied \d+ MiB|history: |looked at \d+ MiB|bringing the work home: [A-Z]", said))
    came = re.findall(r"claude-bottle: ((?:the )?work came home.*?)[\r\n]", said)
    if child.exitstatus or not came:
        raise SystemExit(f"large: the session ended with {child.exitstatus}: {said[-3000:]}")
    return Measured(into, home, peak.most.launchers, peak.most.clients, words, came[-1])


def row(kind: str, files: int, mib: int, found: Measured) -> str:
    """Return a line of the table."""
    cells = (kind, f"{files:,}", f"{mib:,}", f"{found.into:.0f} s", f"{found.home:.0f} s")
    memory = (f"{found.launcher / MIB:.0f} MiB", f"{found.children / MIB:.0f} MiB")
    return f"| {' | '.join((*cells, *memory, str(found.words)))} |\n"


def run(kind: str, args: argparse.Namespace, folder: Path, launcher: Path) -> str:
    """Measure one kind of project."""
    desk = Desk(folder / kind, AGENT)
    desk.launcher = launcher
    desk.env.update(CLAUDE_BOTTLE_IMAGE=TAG)
    say(f"making {args.files} files of {args.mib} MiB")
    make(desk.cwd, args.files, args.mib)
    if kind == "git":
        commit(desk.cwd)
    desk.run("--version")  # has the launcher's packages made, where nobody has
    say(f"a session with it ({kind})")
    found = session(desk)
    say(found.said)
    return row("a git repository" if kind == "git" else "no repository", args.files, args.mib, found)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/large", description="A large project in a bottle.")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--kinds", default=",".join(KINDS), help="git, folder")
    parser.add_argument("--write", action="store_true", help="keep the table in docs/bench, and write the page")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="claude-bottle-large") as folder:
        launcher = checkout(Path(folder, "clone"), TAG)
        try:
            rows = [run(kind, args, Path(folder), launcher) for kind in args.kinds.split(",") if kind in KINDS]
        finally:
            docker("rmi", "-f", TAG, check=False)
    table = f"{HEAD}{''.join(rows)}{machine()}"
    print(table, end="")
    if args.write:
        (figures.FOLDER / "large.md").write_text(table)
        page.write()
    return 0


def machine() -> str:
    version = docker("version", "--format", "{{.Server.Version}}")
    return f"\nEngine {version}, {os.cpu_count()} cores.\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
