"""Runs the launcher over a fake engine once per docker call, with something happening at that call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from claude_bottle.lib.env import DEFAULT_PIPELOCK_IMAGE, SUBNET_POOL_VARIABLE
from claude_bottle.lib.subnets import subnets

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker

POOL = IPv4Network("10.97.0.0/16")  # not the default: this machine may have routes to bottles there
GROUPS = ("network", "container", "image")
OTHER = {"claude-bottle.owner": "somebody-else", "claude-bottle.slug": "a"}
IMAGES = [{"name": DEFAULT_PIPELOCK_IMAGE, "labels": {}}]
SIBLING = {
    "containers": [{"name": "claude-bottle-a", "labels": {**OTHER, "claude-bottle.role": "agent"}}, {"name": "mine"}],
    "networks": [
        {
            "name": "claude-bottle-net-a",
            "subnet": str(next(subnets(POOL, "claude-bottle-net-a", ()))),  # the first that is tried for the name
            "labels": {**OTHER, "claude-bottle.role": "internal"},
        }
    ],
}
TOKEN = "a-token-that-is-nowhere-8812"
WORKERS = 4
# The program with bounds of seconds instead of minutes.
BOUNDS = {
    "query": 1.0,
    "change": 1.5,
    "signalled": 1.0,
    "silent": 2.0,
    "teardown": 6.0,
    "afar": 6.0,
    "late": 2.0,
    "healthy": 6.0,
    "patience": 6.0,
}
PROGRAM = """
import sys, types
package = types.ModuleType("claude_bottle"); package.__path__ = [sys.argv[1]]; sys.modules["claude_bottle"] = package
from claude_bottle.lib import pipelock
from claude_bottle.lib.egress import broker
from claude_bottle.lib.host import run
from claude_bottle.lib.teardown import cleanup, reaper
run.QUERY_SECONDS = run.STOP_SECONDS = {query}
run.SILENT_SECONDS = {silent}
run.CHANGE_SECONDS = {change}
run.SIGNALLED_SECONDS = {signalled}
pipelock.HEALTHY_SECONDS = broker.READY_SECONDS = {healthy}
cleanup.DEADLINE_SECONDS = {teardown}
cleanup.AFAR_SECONDS = {afar}
cleanup.Teardown.__init__.__kwdefaults__.update(late_seconds={late})
reaper.PATIENCE_SECONDS = {patience}
from claude_bottle.cli.main import main
sys.exit(main("cli.sh", sys.argv[2:]))
"""


def impatient(**bounds: float) -> list[str | Path]:
    """Return the words of the program with other bounds than its own."""
    afar = {"afar": bounds["teardown"]} if "teardown" in bounds else {}
    program = PROGRAM.format(**{**BOUNDS, **afar, **bounds})
    return [sys.executable, "-I", "-X", "utf8", "-c", program, str(ROOT)]


class Run:
    """One start of agent ``a`` with ``--cwd``, on an engine of its own that holds a sibling's bottle.

    Args:
        folder: an empty folder.
        bounds: other bounds than the program's own; an empty one means the shortest.
        engine: what else the engine's state says.
    """

    def __init__(self, folder: Path, bounds: Mapping[str, float] | None = None, **engine: Any) -> None:
        for name in ("project", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "home" / ".claude" / "skills" / "s").mkdir(parents=True)
        (folder / "project" / ".dockerignore").write_text(".git")
        manifest = {"bottles": {"b": {}}, "agents": {"a": {"bottle": "b", "prompt": "x", "skills": ["s"]}}}
        (folder / "home" / "claude-bottle.json").write_text(json.dumps(manifest))
        self.tmp = folder / "tmp"
        self.fake = FakeDocker(folder / "engine", {"images": IMAGES, **SIBLING, **engine})
        self.env = {"PATH": self.fake.path(), "HOME": str(folder / "home"), "TMPDIR": str(self.tmp)}
        self.env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = TOKEN
        self.env[SUBNET_POOL_VARIABLE] = str(POOL)
        self.cwd, self.home = folder / "project", folder / "home"
        self.program: list[str | Path] = [ROOT / "cli.sh"] if bounds is None else impatient(**bounds)
        self.words = [*self.program, "start", "-y", "--cwd", "a"]

    def begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words,
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def begin_lasting(self, within: Path) -> subprocess.Popen[str]:
        """Begin a session that lasts as long as a file which it makes, and return when that is there."""
        self.fake.session(f"touch {within}; while [ -e {within} ]; do sleep 0.1; done")
        child = self.begin()
        assert until(within.exists)
        return child

    def reaper(self) -> int:
        """Return the pid of the process that would remove what there is now."""
        (mark,) = {box["labels"].get("claude-bottle.reaper", "") for box in self.fake.containers()} - {""}
        return int(mark.split()[0])

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command to its end."""
        how: dict[str, Any] = {"cwd": self.cwd, "env": self.env, "capture_output": True, "text": True}
        return subprocess.run([*self.program, *words], timeout=60, **how)

    def note(self) -> str:
        """Return what the next command says of this start's end, as soon as it says something."""
        said: list[str] = []
        until(lambda: bool(said.append(self.command("list").stderr) or said[-1]))
        return said[-1]

    def kill_during(self, call: str) -> int:
        """Begin, and kill the launcher when a docker call has had its effect but not ended.

        Args:
            call: as faults name it.

        Returns:
            The pid of the call, which has been let go on.
        """
        fault = self.fake.fault(call, mode="pause", when="after")
        child = self.begin()
        pid = self.fake.wait_for_pause(fault)
        child.send_signal(signal.SIGKILL)
        self.fake.release(fault)
        child.communicate(timeout=60)
        return pid

    def leftovers(self) -> list[str]:
        """Return what there is beyond the sibling's, and what the sibling has lost."""
        there = {thing["name"] for thing in (*self.fake.containers(), *self.fake.networks(), *self.fake.volumes())}
        there |= {image["name"] for image in self.fake.images() if set(image["labels"]) - {"claude-bottle.build"}}
        kept = {thing["name"] for kind in SIBLING.values() for thing in kind}
        return sorted(there ^ kept) + [path.name for path in self.tmp.iterdir()]


def state(pid: int) -> str:
    """Return a process's state as ps writes it, empty for one that is not there."""
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


def gone(pid: int) -> bool:
    """Say whether a process has ended, reaped or not."""
    return state(pid)[:1] in ("", "Z")


def points(folder: Path) -> list[str]:
    """Return every docker call of an undisturbed start and teardown, as faults name it."""
    run = Run(folder)
    _, err = run.begin().communicate(timeout=60)
    assert run.leftovers() == [], err
    found: list[str] = []
    for argv in run.fake.argvs():
        verb = argv[1] if argv[0] in GROUPS else "read" if argv[0] == "cp" and argv[-1] == "-" else argv[0]
        found.append(f"* {verb}#{1 + sum(point.startswith(f'* {verb}#') for point in found)}")
    assert len(found) > 17, found
    return found


def each(points: list[str], check: Callable[[str], str]) -> list[str]:
    """Return what a check says of each point, but for the empty words."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return [f"{point}: {said}" for point, said in zip(points, pool.map(check, points), strict=True) if said]


def until(what: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait for a condition; return whether it came."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def wrong_words(err: str) -> str:
    """Return what must not be in the launcher's words, if it is."""
    bad = [word for word in ("Traceback", "internal error", TOKEN) if word in err]
    return f"{bad} in {err}" if bad else ""


def name_of(folder: Path, point: str) -> Path:
    """Return a folder for one run."""
    return folder / point.replace("* ", "").replace("#", "-") / str(os.urandom(4).hex())
