"""A launcher on the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.sidecar import SIDECAR

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "sk-ant-oat01-not-a-real-token-7Yq2"


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "the condition did not come"
        time.sleep(0.05)


class Desk:
    """A user's folder, home and environment, and ways to run the launcher there."""

    def __init__(self, folder: Path) -> None:
        self.cwd, self.home, self.tmp = (folder / name for name in ("project", "home", "tmp"))
        for each in (self.cwd, self.home, self.tmp):
            each.mkdir()
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CLAUDE_BOTTLE_")},
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PWD": str(self.cwd),
            "CLAUDE_BOTTLE_PIPELOCK_IMAGE": SIDECAR,
            "CLAUDE_BOTTLE_OAUTH_TOKEN": TOKEN,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        self.children: list[pexpect.spawn] = []
        self.manifest({})

    def manifest(self, bottle: dict[str, object], agent: dict[str, object] | None = None, name: str = "tester") -> None:
        agents = {name: {"bottle": "box", "prompt": "Say hello.", **(agent or {})}}
        text = json.dumps({"bottles": {"box": bottle}, "agents": agents})
        (self.cwd / "claude-bottle.json").write_text(text)

    def run(self, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "cli.sh", *words],
            cwd=self.cwd,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def terminal(self, *words: str) -> pexpect.spawn:
        child = pexpect.spawn(
            str(ROOT / "cli.sh"),
            list(words),
            cwd=str(self.cwd),
            env=self.env,
            encoding="utf-8",
            timeout=120,
            dimensions=(40, 120),
        )
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            child.close(force=True)


def leftovers(desk: Desk) -> list[str]:
    names = (
        docker("ps", "-a", "--format", "{{.Names}}").split() + docker("network", "ls", "--format", "{{.Name}}").split()
    )
    # Other bottles may run on this engine; the desk's own carry its agent's name.
    found = [name for name in names if name.startswith("claude-bottle") and "tester" in name]
    found += docker("images", "-q", "--filter", "label=claude-bottle.slug=tester").split()
    return found + [str(path) for path in desk.tmp.glob("claude-bottle-stage*")]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()
    until(lambda: not leftovers(made), 30)


def container(role: str, slug: str = "tester") -> str:
    """Return the id of the only running container of a role, or an empty text."""
    labels = (f"label=claude-bottle.role={role}", f"label=claude-bottle.slug={slug}")
    return docker("ps", "-q", *(word for label in labels for word in ("--filter", label)))


def client_runs() -> bool:
    return "claude --dangerously" in docker("top", container("agent"), "-o", "pid,args")


@pytest.fixture
def session(desk: Desk) -> Iterator[pexpect.spawn]:
    """A session on a terminal, up to the client's start."""
    child = desk.terminal("start", "tester")
    child.expect_exact("launch this agent? [y/N] ")
    child.sendline("y")
    child.expect_exact("attaching to claude-bottle-tester")
    until(client_runs)
    yield child
