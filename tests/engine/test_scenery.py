"""What arrives on the far side of a bottle: at the API, at an allowed and a denied host, and at a sinkhole."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER

from fixtures.probes import DIRECT_WAYS, THROUGH_PROXY
from fixtures.scenery import ANSWER, SKILL, Scenery

from .conftest import AGENT, PROMPT, TOKEN, Desk, container, docker, end, heard, host_addresses, leftovers, until


@pytest.fixture
def bottle(scene: Desk) -> Iterator[str]:
    """The agent container of a running session."""
    child = scene.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    yield container("agent")
    end(child)


def in_bottle(box: str, script: str, *words: str) -> object:
    return json.loads(docker("exec", "-u", "node", box, "node", "-e", script, *words))


@pytest.mark.smoke
def test_the_api_answers_the_real_client_through_the_sidecar(scene: Desk, scenery: Scenery) -> None:
    done = scene.run("start", "-y", AGENT, "--", "-p", "Say hello.")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ANSWER + "\n"
    asked = [request for request in scenery.requests() if request["path"].startswith("/v1/messages")]
    assert len(asked) == 1
    assert PROMPT in asked[0]["system"]
    assert {each["headers"]["authorization"] for each in scenery.requests()} == {f"Bearer {TOKEN}"}
    assert TOKEN_PLACEHOLDER not in json.dumps(scenery.records("api"))
    assert scenery.requests("denied") == scenery.records("sinkhole") == []
    assert leftovers(scene) == []


def test_what_is_piped_in_reaches_the_client_and_its_answer_comes_out(scene: Desk, scenery: Scenery) -> None:
    done = scene.run("start", "-y", AGENT, "--", "-p", stdin="The word from the pipe is okapi.\n")
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n"), done.stderr
    (asked,) = [request for request in scenery.requests() if request["path"].startswith("/v1/messages")]
    assert "The word from the pipe is okapi." in asked["said"]


def test_an_allowed_host_answers_and_a_denied_host_hears_nothing(bottle: str, scenery: Scenery) -> None:
    assert in_bottle(bottle, THROUGH_PROXY, "allowed.test") == [[200, "Hello from allowed.test\n"], 200]
    plain, tunnel = in_bottle(bottle, THROUGH_PROXY, "denied.test")  # type: ignore[misc]
    assert (plain[0], tunnel) == (403, 403)
    assert "denied.test" in plain[1]
    assert scenery.records("denied") == []


@pytest.mark.smoke
def test_no_direct_way_leads_out_of_a_bottle(bottle: str, scenery: Scenery, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    targets = [scenery.address("sinkhole"), scenery.address("denied"), *host_addresses()]
    ports = [53, 80, 443, 5353, 9999, port]
    names = ["sinkhole.test", "api.anthropic.com", "host.docker.internal", "a-secret.example.test"]
    assert in_bottle(bottle, DIRECT_WAYS, json.dumps(targets), json.dumps(ports), json.dumps(names)) == []
    assert not heard(listener)
    assert scenery.records("sinkhole") == scenery.records("denied") == []


def test_a_look_up_in_a_bottle_fails_within_about_a_second(bottle: str) -> None:
    took = in_bottle(
        bottle,
        "const t = Date.now(); require('dns').lookup('sinkhole.test', (e) => console.log(e ? Date.now() - t : -1));",
    )
    assert isinstance(took, int) and 0 <= took < 8000  # a second where nothing else runs; ten without the options


def test_outside_a_bottle_the_same_ways_are_heard(scenery: Scenery, listener: socket.socket) -> None:
    gateway = scenery.address("sinkhole").rsplit(".", 1)[0] + ".1"  # the engine takes the first for itself
    port = listener.getsockname()[1]
    words = (json.dumps([scenery.address("sinkhole"), gateway]), json.dumps([53, 80, 9999, port]), '["sinkhole.test"]')
    run = ("run", "--rm", "--network", scenery.network, "--entrypoint", "node", "cb-scenery:latest", "-e")
    reached = json.loads(docker(*run, DIRECT_WAYS, *words))
    assert f"tcp {gateway}:{port}" in reached and any(way.startswith("name sinkhole.test") for way in reached)
    until(lambda: heard(listener), 5)
    kinds = {(record["kind"], record["port"]) for record in scenery.records("sinkhole")}
    assert {("tcp", 53), ("tcp", 80), ("tcp", 9999), ("dns", 53), ("udp", 9999)} <= kinds


def test_the_sidecar_of_another_agent_is_left_alone(scenery: Scenery, tmp_path: Path) -> None:
    """Two runs side by side must not answer each other's bottles."""

    def made(slug: str) -> str:
        labels = ("--label", "claude-bottle.role=sidecar", "--label", f"claude-bottle.slug={slug}")
        return docker("create", *labels, "cb-scenery:latest")

    def connected(box: str) -> bool:
        return scenery.network in docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", box)

    boxes = [made("somebody-else"), made(AGENT)]
    try:
        until(lambda: connected(boxes[1]), 10)  # events arrive in order, so the other one has been passed over
        assert not connected(boxes[0])
    finally:
        docker("rm", "-f", *boxes)


def test_the_skill_carries_the_authority_and_no_key(scene: Desk) -> None:
    folder = scene.home / ".claude" / "skills" / SKILL
    assert sorted(path.name for path in folder.iterdir()) == ["SKILL.md", "ca.pem"]
    assert "PRIVATE KEY" not in (folder / "ca.pem").read_text()
