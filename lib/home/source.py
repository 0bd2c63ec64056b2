"""Where work is: in a running bottle, in one that has stopped, or in what was kept of one; and who opens it.

What has stopped is not started again: its files go, unopened, into a helper of the same image without network.
"""

from __future__ import annotations

import posixpath
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.lib import docker
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.home.record import Record
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Pipe, Work
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import CONTAINER, PACKER, labels
from claude_bottle.lib.teardown.owner import Owner

REMOVE_SECONDS = 20.0
_INSPECTED = "{{.State.Running}} {{.Image}}"
_LIMITS = ("--pids-limit", "512", "--memory", "2g", "--memory-swap", "2g")


@dataclass(frozen=True)
class Source:
    """Where a bottle's workspace is.

    Attributes:
        engine: that it is on, for calls that have one end in common.
        container: id of the container, empty where a file holds it.
        running: whether that runs.
        image: id of what it runs.
        raw: the file, a tar stream of the workspace.
    """

    engine: Engine
    container: str = ""
    running: bool = False
    image: str = ""
    raw: Path | None = None


def source_of(engine: Engine, container: str) -> Work[Source | None]:
    """Look at a container; it comes to None where that is gone.

    Args:
        engine: to ask.
        container: its id.

    Raises:
        DockerError: the engine gave no answer.
    """
    answer = yield engine.call(["container", "inspect", "--format", _INSPECTED, container])
    if not answer.ok:
        if "no such" in answer.failure.lower():
            return None
        raise DockerError(answer.failure)
    running, _, image = answer.text.partition(" ")
    return Source(engine, container, running == "true", image)


def open_source(source: Source, record: Record, owner: Owner) -> Work[Source]:
    """Have the workspace in a container that runs; the caller removes it where it is another one (``close_source``).

    Args:
        source: where it is.
        record: of the bottle.
        owner: whose the helper is.

    Raises:
        DockerError: it cannot be had.
    """
    if source.running:
        return source
    name = f"claude-bottle-packer-{secrets.token_hex(6)}"
    words = ["create", "--name", name, *labels(owner, record.slug, PACKER), *docker.HARDENING, *docker.proxies("")]
    words += ["--network", "none", "--no-healthcheck", "--init", *_LIMITS, "--pull", "never"]
    words += ["--entrypoint", "/bin/sleep", source.image, "infinity"]
    made = (yield from docker.docker_step(source.engine, "docker create", words)).strip()
    opened = replace(source, container=made, running=True, raw=None)
    try:
        yield from _fill(source, made, record.workspace)
        yield from docker.docker_step(source.engine, "docker start", ["start", made])
    except Exception:  # not where nobody goes on
        yield from close_source(source, opened)
        raise
    return opened


def _fill(source: Source, helper: str, workspace: str) -> Work[None]:
    sink = source.engine.call(["cp", "-", f"{helper}:{posixpath.dirname(workspace)}"])
    if source.raw:
        with open(source.raw, "rb") as file:
            answer = yield replace(sink, stdin=iter(lambda: file.read(1 << 20), b""))
    else:
        answer = yield Pipe(source.engine.call(["cp", f"{source.container}:{workspace}", "-"]), sink)
    if not answer.ok:
        raise DockerError(f"docker cp failed: {answer.failure}")


def close_source(source: Source, opened: Source) -> Work[None]:
    """Remove the helper, if there is one."""
    if opened.container != source.container:
        engine = source.engine.bounded(time.monotonic() + REMOVE_SECONDS, run.uninterrupted)
        yield from inventory.remove(engine, CONTAINER, [opened.container])
