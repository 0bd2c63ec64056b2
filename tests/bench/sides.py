"""What is measured, on one desk: the shell's launcher, the port, and the floor, which is the engine's work alone."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from claude_bottle.lib.env import IN_BOTTLE_VARIABLE

from tests.bench.figures import FLOOR, PORT, SHELL
from tests.checkout import clone
from tests.engine.conftest import ROOT, Desk, docker
from tests.sidecar import SIDECAR

HERE = Path(__file__).resolve().parent
SIDES = (SHELL, PORT, FLOOR)
LAUNCHERS = (SHELL, PORT)
RUN = f"bench-{os.getpid()}"
OURS = re.compile(rf"claude-bottle-(?:(?:pipelock|broker|net|egress)-)?{RUN}-\d+(?:-\d+)?")
UP = "the session is up"
SLOTS = 8  # removals of the floor at a time
SWEEPS = 5
# The builder shows its lines, so none of them may be UP.
CLIENT = ("#!/bin/sh", "printf 'the session is %s\\n' up", "read -r _")


def dockerfile(base: str = "node:22-slim", client: Sequence[str] = CLIENT) -> str:
    """Return what an image of a stub agent is built from; it has as many steps as the product's own.

    Args:
        base: of the image.
        client: lines of the script in the client's place.
    """
    return f"""\
FROM {base}
RUN printf '%s\\n' {shlex.join(client)} >/usr/local/bin/claude
RUN chmod 755 /usr/local/bin/claude
USER node
WORKDIR /home/node
RUN mkdir -p /home/node/.claude/skills
"""


DOCKERFILE = dockerfile()
YAML = """\
mode: strict
enforce: true
api_allowlist:
  - "api.anthropic.com"
forward_proxy:
  enabled: true
"""


def agent(number: int) -> str:
    """Return the name of an agent, which is its slug too."""
    return f"{RUN}-{number}"


def image(side: str) -> str:
    """Return the tag of a side's image."""
    return f"cb-{RUN}-{side}:latest"


def subnets() -> Iterator[IPv4Network]:
    """Yield small networks, for ever; two runs of the bench begin at different ones."""
    every = list(IPv4Network("10.214.0.0/16").subnets(new_prefix=29))
    first = os.getpid() * 64 % len(every)
    return itertools.cycle(every[first:] + every[:first])


class Sides:
    """The sides, ready to run.

    Args:
        folder: an empty folder.
        agents: how many the manifest has.
    """

    def __init__(self, folder: Path, agents: int) -> None:
        self.desk = Desk(folder / "desk", agent(1))
        self.subnets = subnets()
        self.brokered = False
        self.floor = folder / "floor"
        self.launchers = {SHELL: folder / "shell" / "cli.sh", PORT: folder / "port" / "cli.sh"}
        shutil.copytree(ROOT / "fixtures" / "shell", folder / "shell")
        clone(folder / "port")
        if (ROOT / ".venv-run").is_dir():
            (folder / "port" / ".venv-run").symlink_to(ROOT / ".venv-run")
        _lay_out_floor(self.floor)
        for context in (folder / "shell", folder / "port", self.floor / "context"):
            (context / "Dockerfile").write_text(DOCKERFILE)
            shutil.copy(ROOT / ".dockerignore", context)
        self.agents(agents)

    def agents(self, count: int) -> None:
        """Write a manifest with so many agents."""
        every = {agent(number): {"bottle": "box", "prompt": "Say hello."} for number in range(1, count + 1)}
        self.desk.write(json.dumps({"bottles": {"box": {}}, "agents": every}))

    def start(self, side: str, number: int) -> list[str | Path]:
        """Return the command line that boots a bottle."""
        if side != FLOOR:
            return [self.launchers[side], "start", agent(number)]
        addresses = [str(next(self.subnets)) for _ in range(2)]
        slot = self.floor / f"slot-{number % SLOTS}"
        return [HERE / "floor.sh", agent(number), self.floor, image(FLOOR), SIDECAR, *addresses, slot]

    def env(self, side: str) -> dict[str, str]:
        """Return a side's environment: the token goes in, as the shell's launcher has it, unless it is brokered."""
        token = {} if self.brokered else {IN_BOTTLE_VARIABLE: "1"}
        return {**self.desk.env, "CLAUDE_BOTTLE_IMAGE": image(side), **token}


def _lay_out_floor(folder: Path) -> None:
    """Write what the floor's script gives to docker."""
    (folder / "context").mkdir(parents=True)
    (folder / "pipelock.yaml").write_text(YAML)
    (folder / "values").write_text("CLAUDE_CODE_OAUTH_TOKEN=none\0")
    programs = {
        "claude-bottle-session": ROOT / "lib" / "inside" / "session.pl",
        "claude-bottle-seals": ROOT / "lib" / "inside" / "seals.pl",
    }
    with tarfile.open(folder / "bottle.tar", "w") as tar:
        for name, path in programs.items():
            member = tarfile.TarInfo(f"usr/local/bin/{name}")
            member.mode, member.size = 0o755, path.stat().st_size
            tar.addfile(member, io.BytesIO(path.read_bytes()))


def there() -> dict[str, list[str]]:
    """Return the names of what this run has on the engine, by kind."""
    lists = {
        "container": docker("ps", "-a", "--format", "{{.Names}}"),
        "network": docker("network", "ls", "--format", "{{.Name}}"),
        "image": docker("images", "--format", "{{.Repository}}:{{.Tag}}"),
    }
    tags = {image(side) for side in SIDES}
    return {kind: [n for n in text.split() if OURS.fullmatch(n) or n in tags] for kind, text in lists.items()}


def sweep() -> None:
    """Remove what this run may have left; a call that was cut off may still have its effect, so it looks twice."""
    removals = {"container": ("rm", "-f", "-v"), "network": ("network", "rm"), "image": ("rmi", "-f")}
    quiet = 0
    for _ in range(SWEEPS):
        left = {kind: names for kind, names in there().items() if names}
        quiet = 0 if left else quiet + 1
        if quiet == 2:
            return
        for kind, names in left.items():
            subprocess.run(["docker", *removals[kind], *names], capture_output=True, start_new_session=True)
        time.sleep(0.5)
