"""What is looked at of the engine itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from claude_bottle.lib.doctor.finding import OK, PROBLEM, WARNING, Finding
from claude_bottle.lib.doctor.holes import CHECK, NEW_ENGINE, holes, parts, version
from claude_bottle.lib.doctor.host import LITTLE, TOO_LITTLE, size
from claude_bottle.lib.engine import Engine, Facts
from claude_bottle.lib.host.calls import Work

OLDEST = (20, 10)
CLOCKS_APART_SECONDS = 60
LIMITS_OF_ROOTLESS = "https://docs.docker.com/engine/security/rootless/tips/#limiting-resources"
INSTALL = "https://docs.docker.com/engine/install/"


def versions(engine: Engine) -> Work[list[Finding]]:
    """Look at the versions of client and engine, and for what is known of them."""
    answer = yield engine.question(["version", "--format", "{{json .}}"])
    try:
        said = json.loads(answer.text)
        client, server = said["Client"]["Version"], said["Server"]
        there = parts(server)
        found = [_client(client), _server(server["Version"], there)]
    except (ValueError, KeyError, TypeError, AttributeError):
        words = answer.failure.splitlines()[-1:] or ["no JSON"]
        return [Finding("versions", WARNING, f"docker version does not say them: {words[0]}", "docker version")]
    known = list(holes(there))
    return [*found, *(known or [Finding(CHECK, OK, "none in these versions")])]


def _client(client: str) -> Finding:
    if version(client) < OLDEST:
        return Finding("client", PROBLEM, f"{client} is older than 20.10", INSTALL)
    return Finding("client", OK, client)


def _server(server: str, there: Mapping[str, str]) -> Finding:
    told = ", ".join(
        [server, *(f"{part} {there[part]}" for part in ("containerd", "runc", "Desktop") if part in there)]
    )
    if any("podman" in part.lower() for part in there):
        return Finding("server", PROBLEM, f"{told} is Podman's: its networks do not seal a bottle", INSTALL)
    if version(server) < OLDEST:
        return Finding("server", PROBLEM, f"{told} is older than 20.10", NEW_ENGINE)
    return Finding("server", OK, told)


def confinement(said: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what the engine itself can keep a bottle within.

    Args:
        said: by docker info.
    """
    security = [str(each) for each in said.get("SecurityOptions") or ()]
    rootless = any("rootless" in each for each in security)
    yield Finding("rootless", OK, "yes" if rootless else "no: whoever gets out of a container is root")
    cgroups = f"cgroups v{said.get('CgroupVersion') or '?'} by {said.get('CgroupDriver') or '?'}"
    if broken := Facts.of(said).unlimited:
        mend = LIMITS_OF_ROOTLESS if rootless else "docker info"
        yield Finding("limits", WARNING, f"it cannot limit {', '.join(broken)} ({cgroups}): they are ignored", mend)
    else:
        yield Finding("limits", OK, f"memory, swap, cpus and pids ({cgroups})")
    if security and not any("seccomp" in each for each in security):
        yield Finding("seccomp", WARNING, "off: a bottle may ask the kernel for anything", "docker info")


def clock(said: Mapping[str, Any]) -> Finding:
    """Compare the engine's clock with ours: the certificates of a bottle count from now."""
    try:
        theirs = datetime.fromisoformat(re.sub(r"\.\d+", "", said["SystemTime"])).timestamp()
    except (KeyError, TypeError, ValueError):
        return Finding("clock", WARNING, "the engine does not say what time it is", "docker info")
    apart = abs(theirs - time.time())
    if apart > CLOCKS_APART_SECONDS:
        text = f"the engine's is {apart:.0f} s away from this machine's: certificates may not count"
        return Finding("clock", PROBLEM, text, "timedatectl, on both; restart Docker Desktop")
    return Finding("clock", OK, "the engine's and this machine's agree")


def disk(engine: Engine, said: Mapping[str, Any]) -> Finding:
    """Look at the room on the engine's disk, where that is this machine's."""
    root = str(said.get("DockerRootDir") or "")
    try:
        ours = said.get("Name") == os.uname().nodename  # not that of a machine in this one, or behind a tunnel
        if not (ours and engine.is_local and sys.platform == "linux" and os.path.isabs(root)):
            raise OSError
        free = shutil.disk_usage(root).free
    except OSError:
        return Finding("disk", OK, "the engine's is not one that can be looked at from here (docker system df)")
    state = PROBLEM if free < TOO_LITTLE else WARNING if free < LITTLE else OK
    return Finding("disk", state, f"{root}: {size(free)} free", "docker system prune" if state != OK else "")
