"""What a bottle may use: what a manifest may ask for, what the engine can keep, and the words of the create calls."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sweep import Run

GIB = 1024**3


class Asked(Run):
    """A start whose bottle has limits, or a runtime, on an engine with facts of its own."""

    def __init__(self, folder: Path, bottle: dict[str, Any], **facts: Any) -> None:
        super().__init__(folder, info=facts)
        manifest = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b"}}}
        (self.home / "claude-bottle.json").write_text(json.dumps(manifest))

    def end(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with self.begin() as child:
            out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(self.words, child.returncode, out, err)

    def plan(self, command: str = "start") -> list[str]:
        """Return what a dry run, or info, says; it makes nothing."""
        words = ["start", "--dry-run", "a"] if command == "start" else [command, "a"]
        said = self.command(*words).stderr.splitlines()
        assert not [argv for argv in self.fake.argvs() if "create" in argv]
        return [line.removeprefix("claude-bottle: ") for line in said]

    def options(self, which: str = "/usr/local/bin/claude-bottle-guard") -> dict[str, str]:
        """Return the limits of a create call, by option."""
        (words,) = [argv for argv in self.fake.argvs() if argv[0] == "create" and which in argv]
        names = ("--memory", "--memory-swap", "--cpus", "--pids-limit", "--runtime")
        return {word: words[at + 1] for at, word in enumerate(words) if word in names}


@pytest.mark.parametrize(
    ("there", "memory"),
    [(8 * GIB, 6 * GIB), (int(2.4 * GIB), 2 * GIB), (2 * GIB, 2 * GIB), (GIB, GIB * 3 // 4), (0, None)],
)
def test_a_bottle_has_limits_whatever_its_manifest_says(tmp_path: Path, there: int, memory: int | None) -> None:
    run = Asked(tmp_path, {}, MemTotal=there)
    done = run.end()
    assert (done.returncode, run.leftovers()) == (0, []), done.stderr
    sizes = {"--memory": str(memory), "--memory-swap": str(memory)} if memory else {}
    assert run.options() == {"--pids-limit": "4096", **sizes}
    assert run.options("/dev/stdin") == {"--memory": "2147483648", "--memory-swap": "2147483648", "--pids-limit": "256"}
    assert "  limits" not in done.stderr and "runtime" not in done.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("4g", 4 * GIB), ("512M", GIB // 2), ("1.5G", 3 * GIB // 2), ("262144k", GIB // 4), ("268435456", GIB // 4),
     ("300000000B", 300000000), ("0.5g", GIB // 2), ("256.25m", 256 * 1024**2 + 256 * 1024)],
)  # fmt: skip
def test_a_size_is_taken_as_docker_takes_it(tmp_path: Path, text: str, size: int) -> None:
    run = Asked(tmp_path, {"limits": {"memory": text}})
    assert run.end().returncode == 0
    assert run.options() == {"--pids-limit": "4096", "--memory": str(size), "--memory-swap": str(size)}


def test_what_a_manifest_asks_for_is_shown_and_given(tmp_path: Path) -> None:
    bottle = {"limits": {"pids": 1000, "cpus": 1.5, "memory": "4g"}, "runtime": "runsc"}
    run = Asked(tmp_path, bottle, Runtimes={"runc": {}, "runsc": {}})
    lines = ["  limits         : memory 4g, cpus 1.5, pids 1000", "  runtime        : runsc"]
    for command in ("start", "info"):
        assert [line for line in run.plan(command) if line.startswith(("  limits", "  runtime"))] == lines
    done = run.end()
    assert done.returncode == 0, done.stderr
    sizes = {"--memory": str(4 * GIB), "--memory-swap": str(4 * GIB)}
    assert run.options() == {"--pids-limit": "1000", **sizes, "--cpus": "1.500", "--runtime": "runsc"}
    assert "--runtime" not in run.options("/dev/stdin")


@pytest.mark.parametrize(
    ("bottle", "said"),
    [
        ({"limits": {"memory": "255m"}}, "limits.memory must be a size from 256m up, such as 512m or 4g"),
        ({"limits": {"memory": "268435455"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "262143k"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "0.2g"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "-4g"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "4 gb"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": ""}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "4g\n"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": "9" * 30 + "g"}}, "limits.memory must be a size from 256m up"),
        ({"limits": {"memory": 4}}, "limits.memory must be a string"),
        ({"limits": {"cpus": 0}}, "limits.cpus must be a number of processors, such as 2 or 0.5"),
        ({"limits": {"cpus": -1}}, "limits.cpus must be a number of processors"),
        ({"limits": {"cpus": 1e300}}, "limits.cpus must be a number of processors"),
        ({"limits": {"cpus": "2"}}, "limits.cpus must be a number"),
        ({"limits": {"cpus": True}}, "limits.cpus must be a number"),
        ({"limits": {"pids": 0}}, "limits.pids must be a whole number from 100 to 4194304"),
        ({"limits": {"pids": 4194305}}, "limits.pids must be a whole number from 100 to 4194304"),
        ({"limits": {"pids": 1000.5}}, "limits.pids must be a whole number"),
        ({"limits": {"pids": True}}, "limits.pids must be a whole number"),
        ({"limits": ["4g"]}, "limits must be an object"),
        ({"runtime": 1}, "runtime must be a string"),
        ({"runtime": ""}, "runtime must be one word"),
        ({"runtime": "a b"}, "runtime must be one word"),
    ],
)
def test_a_limit_that_is_none_is_said_with_its_place_and_makes_nothing(
    tmp_path: Path, bottle: dict[str, Any], said: str
) -> None:
    run = Asked(tmp_path, bottle)
    for command in ("start", "info"):
        first, hint, *_ = run.plan(command)
        assert first.startswith(f"error: bottle 'b': {said}"), first
        assert hint.startswith(f"hint: {run.home}/claude-bottle.json: $.bottles.b.{said.split()[0]}"), hint
        assert "allowed: " in hint


def test_null_is_a_limit_that_is_left_out(tmp_path: Path) -> None:
    run = Asked(tmp_path, {"limits": {"memory": None, "cpus": None, "pids": None, "//": "why"}, "runtime": None})
    assert not [line for line in run.plan("info") if "limits" in line or "runtime" in line]
    assert run.end().returncode == 0
    assert run.options() == {"--pids-limit": "4096", "--memory": str(6 * GIB), "--memory-swap": str(6 * GIB)}


def test_a_limit_of_another_name_is_named_with_the_nearest(tmp_path: Path) -> None:
    run = Asked(tmp_path, {"limits": {"mem": "4g", "memroy": "4g"}})
    said = [line for line in run.plan() if "memroy" in line]
    assert len(said) == 1 and said[0].startswith("warning: bottle 'b': limits: unknown key 'memroy' is ignored")
    assert said[0].endswith("$.bottles.b.limits.memroy; did you mean 'memory'?)")


def test_more_than_the_engine_has_is_said_before_the_question(tmp_path: Path) -> None:
    run = Asked(tmp_path, {"limits": {"cpus": 2.5, "memory": "4g"}}, MemTotal=2 * GIB)
    assert run.plan() == [
        "error: bottle 'b': limits.cpus is 2.5, but the engine has 2",
        f"hint: {run.home}/claude-bottle.json: $.bottles.b.limits.cpus",
    ]
    run = Asked(tmp_path / "memory", {"limits": {"cpus": 2, "memory": "4g"}}, MemTotal=2 * GIB)
    place = f"{run.home}/claude-bottle.json: $.bottles.b.limits.memory"
    assert f"warning: bottle 'b': limits.memory is 4g, but the engine has 2.0g ({place})" in run.plan()
    assert run.end().returncode == 0 and run.options()["--memory"] == str(4 * GIB)


@pytest.mark.parametrize(
    ("facts", "limits", "names"),
    [
        ({"SwapLimit": False}, {}, "swap"),
        (
            {"MemoryLimit": False, "SwapLimit": False, "PidsLimit": False, "CpuCfsQuota": False},
            {},
            "memory, swap, pids",
        ),
        ({"CpuCfsQuota": False}, {"cpus": 2}, "cpus"),
        ({"CpuCfsQuota": False}, {}, ""),
    ],
)
def test_a_limit_that_the_engine_does_not_keep_is_said_and_costs_no_start(
    tmp_path: Path, facts: dict[str, bool], limits: dict[str, Any], names: str
) -> None:
    run = Asked(tmp_path, {"limits": limits}, **facts)
    line = f"warning: the engine cannot limit {names} (rootless, or old cgroups): the bottle may use all there is"
    assert [said for said in run.plan() if "cannot limit" in said] == ([line] if names else [])
    assert run.end().returncode == 0
    assert "--cpus" not in run.options()


@pytest.mark.parametrize(
    ("bottle", "variable", "used"),
    [({"runtime": "runsc"}, "", "runsc"), ({"runtime": "nothing"}, "kata", "kata"), ({}, "runsc", "runsc")],
)
def test_the_users_own_word_of_a_runtime_is_before_the_manifests(
    tmp_path: Path, bottle: dict[str, Any], variable: str, used: str
) -> None:
    run = Asked(tmp_path, bottle, Runtimes={"runc": {}, "runsc": {}, "kata": {}})
    run.env["CLAUDE_BOTTLE_RUNTIME"] = variable
    assert f"  runtime        : {used}" in run.plan("info")
    done = run.end()
    assert (done.returncode, run.options()["--runtime"]) == (0, used), done.stderr
    assert f"  runtime        : {used}\n" in done.stderr


def test_a_runtime_that_the_engine_does_not_have_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    run = Asked(tmp_path, {"runtime": "runsc"}, Runtimes={"runc": {}, "io.containerd.runc.v2": {}})
    has = "hint: it has io.containerd.runc.v2, runc"
    place = f"hint: {run.home}/claude-bottle.json: $.bottles.b.runtime"
    assert run.plan() == ["error: bottle 'b': the engine has no runtime 'runsc'", place, has]
    run.env["CLAUDE_BOTTLE_RUNTIME"] = "kata"
    assert run.plan() == ["error: CLAUDE_BOTTLE_RUNTIME: the engine has no runtime 'kata'", has]


DOWN = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?"


@pytest.mark.parametrize(
    "script",
    [
        f"""echo '{{"ID": "", "NCPU": 0, "ServerErrors": ["{DOWN}"]}}'""",  # of 20.10
        f"""echo '{{"ID": "", "NCPU": 0}}'; echo '{DOWN}' >&2; exit 1""",  # of 28
    ],
)
def test_an_engine_that_does_not_answer_is_said_in_the_clients_words(tmp_path: Path, script: str) -> None:
    run = Run(tmp_path)
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text(f"#!/bin/sh\n{script}\n")
    client.chmod(0o755)
    run.env["PATH"] = f"{client.parent}:/usr/bin:/bin"
    done = run.command("start", "--dry-run", "a")
    error = "claude-bottle: error: cannot reach the Docker daemon (docker info failed)\n"
    hints = (DOWN, "'cli.sh doctor' looks at what a start depends on")
    said = error + "".join(f"claude-bottle: hint: {hint}\n" for hint in hints)
    assert (done.returncode, done.stderr) == (1, said)
