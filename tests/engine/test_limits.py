"""What a bottle may use up, on the real engine: an agent's work goes on inside, and what is too much stays there."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from claude_bottle.lib import pipelock

from .conftest import Desk, container, docker, leftovers, until
from .test_bottle import ask, said, session

GIB = 1024**3
PIDS = 300


def limits(role: str) -> dict[str, Any]:
    """Return the limits that the engine has of a container."""
    (said,) = json.loads(docker("inspect", container(role)))
    return {name: said["HostConfig"][name] for name in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit")}


def usual_memory() -> int:
    there = int(docker("info", "--format", "{{.MemTotal}}"))
    return max(there * 3 // 4, 2 * GIB)


@pytest.mark.parametrize(
    ("asked", "memory", "cpus", "pids"),
    [({}, 0, 0, 4096), ({"memory": "1g", "cpus": 0.5, "pids": PIDS}, GIB, 500_000_000, PIDS)],
)
def test_the_limits_are_in_force(shell: Desk, asked: dict[str, Any], memory: int, cpus: int, pids: int) -> None:
    memory = memory or usual_memory()
    shell.manifest({"limits": asked})
    with session(shell) as child:
        want = {"Memory": memory, "MemorySwap": memory, "NanoCpus": cpus, "PidsLimit": pids}
        assert limits("agent") == want
        most = pipelock.MEMORY_THAT_OPENS
        assert limits("sidecar") == {"Memory": most, "MemorySwap": most, "NanoCpus": 0, "PidsLimit": 256}
        # What the kernel says, in the place of either version of cgroups.
        kept = ask(child, "echo $(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null)")
        assert kept == f"{pids}\n"
        files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
        assert ask(child, f"echo $(cat {files} 2>/dev/null)") == f"{memory // 4096 * 4096}\n"


ADDON = {
    "package.json": '{"name": "addon", "version": "1.0.0", "gypfile": true}',
    "binding.gyp": '{"targets": [{"target_name": "addon", "sources": ["addon.cc"]}]}',
    "addon.cc": """
#if __has_include(<node_api.h>)
#include <node_api.h>
#else
extern "C" {
typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
int napi_create_int32(napi_env, int, napi_value*);
}
#endif
extern "C" __attribute__((visibility("default")))
napi_value napi_register_module_v1(napi_env env, napi_value) {
  napi_value made;
  napi_create_int32(env, 4711, &made);
  return made;
}
""",
    # For a base image without node's headers.
    "node/include/node/common.gypi": '{"target_defaults": {"configurations": {"Release": {}}, "cflags": ["-fPIC"]}}',
    "node/include/node/config.gypi": "{}",
}
PROGRAM = {
    "main.c": '#include <stdio.h>\n#include "word.h"\nint main(void) { puts(WORD); return 0; }\n',
    "word.h": '#define WORD "made"\n',
    "Makefile": "main: main.c word.h\n\t$(CC) -O2 -Wall -Werror -o $@ $<\n",
}
NPM = """
[ -e /usr/local/include/node/common.gypi ] || export npm_config_nodedir=$PWD/node
mkdir /tmp/app && cd /tmp/app && npm init -y >/dev/null
npm install --offline --install-links --foreground-scripts /home/node/workspace >&2
node -p "require('addon/build/Release/addon.node')"
"""
GIT = """
git init -q /tmp/one && cd /tmp/one && git config user.name n && git config user.email e@example.org
echo x >file && git add file && git commit -q -m first
git clone -q /tmp/one /tmp/two && git -C /tmp/two log --format=%s
"""
VENV = "python3 -m venv /tmp/venv && /tmp/venv/bin/pip --version | cut -d' ' -f1"
TOOLS = (
    "for tool in rg jq curl less ps git-lfs tput gcc; do command -v $tool >/dev/null || echo no $tool; done; echo all"
)


@pytest.mark.parametrize(
    ("files", "script", "answer"),
    [
        (ADDON, NPM, "4711"),
        (PROGRAM, "make >&2 && ./main", "made"),
        ({}, VENV, "pip"),
        ({}, GIT, "first"),
        ({}, TOOLS, "all"),
    ],
    ids=["npm", "make", "venv", "git", "tools"],
)
def test_the_work_of_an_agent_goes_on_inside(shell: Desk, files: dict[str, str], script: str, answer: str) -> None:
    for name, text in files.items():
        path = shell.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert said(shell, script, "--cwd") == f"{answer}\n"


def running() -> int:
    """Return how many processes and threads the agent's container has, as the engine counts them."""
    return int(docker("stats", "--no-stream", "--format", "{{.PIDs}}", container("agent")))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_fork_bomb_ends_at_the_limit_and_the_launcher_still_answers(
    shell: Desk, number: signal.Signals, status: int
) -> None:
    shell.manifest({"limits": {"pids": PIDS}})
    with session(shell) as child:
        assert ask(child, "bash -c 'b() { b | b & }; b' 2>/dev/null & echo begun") == "begun\n"
        until(lambda: running() >= PIDS)
        assert running() <= PIDS
        began = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
        assert child.returncode == status, err
        until(lambda: not leftovers(shell), 20)
        assert time.monotonic() - began < 20


def test_a_hog_of_memory_is_killed_in_the_bottle_and_the_session_goes_on(shell: Desk) -> None:
    shell.manifest({"limits": {"memory": "512m"}})
    with session(shell) as child:
        assert ask(child, "python3 -c 'b\"x\" * 2**31' 2>/dev/null; echo $?") == "137\n"
        assert ask(child, "echo here") == "here\n"
        assert docker("inspect", "-f", "{{.State.Running}}", container("sidecar")) == "true"
    assert leftovers(shell) == []


def test_a_bottle_runs_by_the_runtime_that_is_asked_for(shell: Desk) -> None:
    usual = docker("info", "--format", "{{.DefaultRuntime}}")
    other = next(name for name in json.loads(docker("info", "--format", "{{json .Runtimes}}")) if name != usual)
    shell.manifest({"runtime": "none"})
    shell.env["CLAUDE_BOTTLE_RUNTIME"] = other
    with session(shell):
        used = [docker("inspect", "-f", "{{.HostConfig.Runtime}}", container(role)) for role in ("agent", "sidecar")]
        assert used == [other, usual]
