"""What cannot be started: one clear message, the documented status, and nothing made on a real engine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import AGENT, Desk, docker, leftovers

FINE = {"bottles": {"box": {}}, "agents": {AGENT: {"bottle": "box"}}}


def of_bottle(**parts: object) -> object:
    return {**FINE, "bottles": {"box": parts}}


def of_agent(**parts: object) -> object:
    return {**FINE, "agents": {AGENT: {"bottle": "box", **parts}}}


@dataclass(frozen=True)
class Bad:
    """A start that must end before anything is made.

    Attributes:
        says: a pattern that the error line fits, and one for each hint looked for behind it.
        manifest: its value, its text, or None for none.
        words: of the command line.
        env: variables that are set.
        status: the exit status.
    """

    says: tuple[str, ...]
    manifest: object = field(default_factory=lambda: FINE)
    words: tuple[str, ...] = ("start", "-y", AGENT)
    env: dict[str, str] = field(default_factory=dict)
    status: int = 1


def host(text: str, what: str) -> Bad:
    shown = re.escape(ascii(text))
    return Bad((rf"bottle 'box': egress\.allowlist\[0\]: {shown} {what}",), of_bottle(egress={"allowlist": [text]}))


BAD = {
    "no-manifest": Bad((r"no claude-bottle\.json found in \S+ or \S+",), None),
    "broken-json": Bad((r"claude-bottle\.json at \S+ is not valid JSON", "line 2, column 13"), '{\n  "agents": }'),
    "wrong-type": Bad(
        (rf"agent '{AGENT}': prompt must be a string", "a number; allowed: a string"), of_agent(prompt=5)
    ),
    "unknown-agent": Bad(
        (rf"agent '{AGENT}s' not found\. Available agents: {AGENT}", f"did you mean '{AGENT}'"),
        words=("start", "-y", f"{AGENT}s"),
    ),
    "unknown-bottle": Bad(
        (rf"agent '{AGENT}' references unknown bottle 'bux'", "did you mean 'box'"), of_agent(bottle="bux")
    ),
    "host-url": host("http://x", "is a URL"),
    "host-blank": host("a b", "is not a host name"),
    "host-empty": host("", "is empty"),
    "host-port": host("a.test:443", "has a port"),
    "host-look-alike": host("\u0430pi.test", "is not ASCII"),
    "host-yaml": host('x"\n- "y', "is not a host name"),
    "host-loopback": host("127.0.0.1", "would be an address of the sidecar itself"),
    "host-spelling": host("0x0a000005", "ends like an address"),
    "port-long": Bad(
        ("CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number from 1 to 65535, not '7{40}\\.\\.\\.'",),
        env={"CLAUDE_BOTTLE_PIPELOCK_PORT": "7" * 5000},
    ),
    "port": Bad(
        ("CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number from 1 to 65535, not '70000'",),
        env={"CLAUDE_BOTTLE_PIPELOCK_PORT": "70000"},
    ),
    "skill": Bad((r"skill 'reviw' not found at \S+/\.claude/skills/reviw",), of_agent(skills=["reviw"])),
    "host-variable": Bad(
        (r"host variable 'NOT_SET_HERE' \(for 'A'\) is not set",), of_bottle(env={"A": "${NOT_SET_HERE}"})
    ),
    "secret-no-terminal": Bad((r"cannot prompt for 'A': no terminal",), of_bottle(env={"A": "?what"})),
    "no-terminal": Bad(("cannot ask for confirmation: no terminal",), words=("start", AGENT)),
    "engine-down": Bad(
        (r"cannot reach the Docker daemon \(docker info failed\)", "127.0.0.1:9"),
        env={"DOCKER_HOST": "tcp://127.0.0.1:9", "DOCKER_CONTEXT": ""},
    ),
    "option": Bad((r"unknown option: --fast",), words=("start", "--fast", AGENT), status=2),
    "no-agent": Bad((r"missing agent name",), words=("start",), status=2),
}


@pytest.fixture
def refused(desk: Desk) -> Callable[[Bad], None]:
    """A check that a start ends as it should and that nothing has been made."""

    def check(bad: Bad, *before: str) -> None:
        if bad.manifest is None:
            (desk.home / "claude-bottle.json").unlink()
        else:
            desk.write(bad.manifest if isinstance(bad.manifest, str) else json.dumps(bad.manifest))
        done = desk.run(*bad.words, before=before, **bad.env)
        line, *hints = (line for line in done.stderr.splitlines() if re.match("claude-bottle: (error|hint): ", line))
        assert re.match("claude-bottle: error: " + bad.says[0], line), done.stderr
        for wanted in bad.says[1:]:
            assert any(wanted in hint for hint in hints), done.stderr
        assert done.stderr.count("error: ") == 1
        assert (done.returncode, done.stdout) == (bad.status, "")
        assert leftovers(desk) == []

    return check


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_message_and_nothing_made(refused: Callable[[Bad], None], name: str) -> None:
    refused(BAD[name])


def test_a_missing_docker_is_said(refused: Callable[[Bad], None], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cksum", "env"):
        (tools / name).symlink_to(next(p for p in map(Path, (f"/bin/{name}", f"/usr/bin/{name}")) if p.exists()))
    refused(Bad(("docker not found on PATH",), env={"PATH": str(tools)}))


@pytest.mark.smoke
def test_a_pinned_name_that_is_taken_is_said_and_stays_whose_it_is(refused: Callable[[Bad], None]) -> None:
    name = f"cb-pinned-{os.getpid()}"
    box = docker("create", "--name", name, "node:22-slim", "true")
    try:
        says = rf"container '{name}' already exists \(CLAUDE_BOTTLE_CONTAINER\)"
        refused(Bad((says,), env={"CLAUDE_BOTTLE_CONTAINER": name}))
        assert docker("inspect", "-f", "{{.Id}}", name) == box
    finally:
        docker("rm", "-f", "-v", box)


def test_a_disk_that_is_full_while_staging_is_said(refused: Callable[[Bad], None], desk: Desk) -> None:
    script = 'mount -t tmpfs -o size=16k none "$TMPDIR" && exec "$@"'
    alone = ("unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", script, "sh")
    says = (r"cannot write \S+/claude-bottle-stage\.\w+/prompt\.txt", "No space left on device")
    refused(Bad(says, of_agent(prompt="x" * 100_000)), *alone)
