"""What doctor says of a real engine: a tenth of a start, and it leaves no trace."""

from __future__ import annotations

import json

import pytest

from .conftest import Desk, docker

# A registry at an address where nobody listens: the engine is asked, and cannot reach it.
NOBODY = "127.0.0.1:9/nothing:latest"


@pytest.mark.smoke
def test_doctor_knows_this_engine_and_changes_nothing(desk: Desk) -> None:
    def engine_has() -> list[str]:
        kinds = (("ps", "-aq"), ("volume", "ls", "-q"))
        return [docker(*words, "--filter", "label=claude-bottle.slug=" + desk.agent) for words in kinds]

    before = engine_has()
    well = json.loads(desk.run("doctor", "--json").stdout)
    states = {each["check"]: each["state"] for each in well["checks"]}
    asked = ("engine", "client", "server", "limits", "clock", "subnets", "base image", "sidecar's image", "manifest")
    assert [name for name in asked if states[name] != "ok"] == [], well
    assert well["well"] and states["registry"] == "ok"
    (server,) = (each["text"] for each in well["checks"] if each["check"] == "server")
    assert server.startswith(docker("version", "--format", "{{.Server.Version}}")) and "runc" in server
    done = desk.run("doctor", CLAUDE_BOTTLE_PIPELOCK_IMAGE=NOBODY, CLAUDE_BOTTLE_SUBNET_POOL="8.8.8.0/24")
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem ")]
    assert done.returncode == 1 and [line.split()[1] for line in problems] == ["subnets", "registry"], done.stdout
    assert "127.0.0.1:9 does not answer" in problems[1]
    assert engine_has() == before
