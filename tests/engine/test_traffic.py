"""What becomes of a request that is looked into by the launcher's own file, between a client and an upstream."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from claude_bottle.lib import pipelock

from tests.bench.traffic import OPENED, OPENED_BROKERED, PASSED_BROKERED, UPSTREAM, Road
from tests.pipelock.checks import ANTHROPIC, GITHUB
from tests.pipelock.lab import Lab
from tests.sidecar import SIDECAR

from .conftest import ROOT, docker

BROKER = f"cb-traffic-{os.getpid()}:latest"
KEY = "AKIA" + "Q7ZM3XW5RT2LPD4K"
HEADER = "-----BEGIN " + "PRIVATE KEY-----"
TURNS = [{"role": "user", "content": f"cat .aws/credentials\naws_access_key_id = {KEY}\n{HEADER}\nMIIE\n"}]
LATER = [*TURNS, {"role": "assistant", "content": "seen"}, {"role": "user", "content": "DB_PASSWORD=hunter2-and-more"}]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    docker("build", "-q", "-t", BROKER, "-f", str(ROOT / "Dockerfile.broker"), str(ROOT))
    with Lab(SIDECAR, UPSTREAM) as made:
        yield made
    docker("image", "rm", BROKER)


@pytest.fixture(scope="module", params=["warn", "block"])
def road(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Road]:
    made = Road(lab, pipelock.MEMORY_THAT_OPENS, BROKER, request.param)
    yield made
    made.close()


def test_a_conversation_with_a_key_in_it_goes_on(road: Road) -> None:
    for messages in (TURNS, LATER):
        reply = road.ask(OPENED_BROKERED, "/echo", json.dumps({"messages": messages}).encode())
        assert reply.status == 200, reply.text
        seen = reply.json()
        assert seen["headers"]["authorization"] == "Bearer real-value"
        blocks = road.dlp == "block"
        assert (KEY in seen["body"], HEADER in seen["body"]) == (not blocks, not blocks)
        assert ("<pl:aws-access-key:1>" in seen["body"]) is ("<pl:private-key-header:1>" in seen["body"]) is blocks


@pytest.mark.parametrize("secret", [GITHUB, ANTHROPIC])
def test_a_key_to_an_api_is_refused_or_logged(road: Road, secret: str) -> None:
    reply = road.ask(OPENED, "/echo", f"mine: {secret}".encode(), "text/plain")
    scanned = {"scanner": "body_dlp", "url": f"https://{OPENED}:443/{'[redacted]' if road.dlp == 'block' else 'echo'}"}
    if road.dlp == "block":
        assert reply.status == 403 and "blocked: request body contains secret" in reply.text
        assert road.box.wait_event(event="blocked", **scanned)
    else:
        assert reply.status == 200 and secret in reply.json()["body"]
        assert road.box.wait_event(event="anomaly", **scanned)


def test_what_is_passed_through_is_not_looked_into(road: Road) -> None:
    reply = road.ask(PASSED_BROKERED, "/echo", GITHUB.encode(), "text/plain")
    assert reply.status == 200 and reply.json()["body"] == GITHUB
    assert reply.json()["headers"]["authorization"] == "Bearer real-value"
