"""Credentials that never enter the bottle: that they are nowhere else, and what ends or changes under a session."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from fixtures.scenery import TRUSTING_BROKER, Scenery

from .conftest import AGENT, container, docker, end, leftovers, until
from .inside import Inside, inside
from .office import BEARER, CLOSED, GIT, MESSAGES, OPEN, TOKEN, VAULT, Office, arrived, ask, basic, words

AWS_KEY = "AKIA" + "Q3EGRZ7PLMX2TVBC"
ENDED_SECONDS = 5.0


@pytest.fixture
def office(tmp_path: Path, clients: Path) -> Iterator[Office]:
    made = Office(tmp_path, clients)
    yield made
    made.desk.close()
    until(lambda: not leftovers(made.desk), 30)


def use_all(bottle: Inside) -> None:
    """Have every credential put in once."""
    assert ask(bottle, MESSAGES, BEARER, body="{}") == "200"
    assert ask(bottle, f"https://{VAULT}/any", "Authorization: Bearer $VAULT_TOKEN") == "200"
    assert ask(bottle, f"https://{VAULT}/api/v4/x", "PRIVATE-TOKEN: $FORGE_TOKEN") == "200"
    assert bottle.run(f'curl -sS -u "me:$REGISTRY_PASSWORD" https://{GIT}/x').status == 0


def test_the_values_are_in_the_launchers_and_the_brokers_memory_alone(office: Office, scenery: Scenery) -> None:
    with office.search() as search:
        with inside(office.desk) as bottle:
            use_all(bottle)
            assert search.places(bottle.child.pid) == []
            assert search.in_memory(container("broker")) == {*office.values}
            assert search.in_memory(container("sidecar")) == search.in_memory(container("agent")) == set()
        assert leftovers(office.desk) == [] and search.places() == []


def test_the_search_finds_what_there_is(office: Office, scenery: Scenery) -> None:
    """What the one above is worth."""
    office.desk.env["CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"] = "1"
    with office.search() as search:
        with inside(office.desk) as bottle:
            bottle.run(
                f'printf %s "${TOKEN}" | base64 -w0 >/home/node/kept; printf "me:%s" "${TOKEN}" | base64 -w0 >/tmp/kept'
            )
            found = search.places(bottle.child.pid)
            assert search.in_memory(container("agent")) == {TOKEN}
        assert {each.rpartition(": ")[2] for each in found} == {TOKEN}
        assert any(each.startswith("environ of python3") for each in found)
        assert any("/tmp/kept" in each for each in found) and any("/home/node/kept" in each for each in found)


BROKEN = {"exit 1": "the broker stopped right after its start", "exec sleep 1000": "the broker is not healthy after"}


@contextmanager
def broker_that(does: str) -> Iterator[str]:
    """A broker's image whose haproxy does something else."""
    tag, program = f"cb-broken-broker-{os.getpid()}:latest", "/usr/sbin/haproxy"
    lines = f"FROM {TRUSTING_BROKER}\nUSER 0\nRUN printf '#!/bin/sh\\n{does}\\n' >{program}\nUSER 65534:65534\n"
    subprocess.run(["docker", "build", "-q", "-t", tag, "-"], input=lines, text=True, check=True)
    try:
        yield tag
    finally:
        docker("rmi", "-f", tag)


@pytest.mark.parametrize("does", BROKEN)
def test_a_broker_that_does_not_come_up_leaves_no_value(office: Office, does: str) -> None:
    with broker_that(does) as image, office.search() as search:
        start = [office.desk.launcher, "start", "-y", AGENT]
        env = {**office.desk.env, "CLAUDE_BOTTLE_BROKER_IMAGE": image}
        with office.desk.said.open("w") as out:
            child = subprocess.Popen(start, cwd=office.desk.cwd, env=env, stdin=-3, stdout=-3, stderr=out)
        if does != "exit 1":
            until(lambda: container("broker"))
            assert search.places(child.pid) == []
        assert child.wait(90) == 1
        said = office.desk.said.read_text()
        assert said.count(": error: ") == 1 and BROKEN[does] in said, said
        assert leftovers(office.desk) == [] and search.places() == []


def test_a_question_is_asked_once_and_its_answer_put_in(tmp_path: Path, clients: Path, scenery: Scenery) -> None:
    asked = {"REGISTRY_PASSWORD": {"value": "?the registry's password", "hosts": [GIT], "scheme": "basic"}}
    office = Office(tmp_path, clients, credentials=asked)
    child = office.desk.terminal("start", "-y", AGENT)
    child.expect("the registry's password")
    child.sendline(office.values["REGISTRY_PASSWORD"])
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline(f'curl -sS -u "me:$REGISTRY_PASSWORD" https://{GIT}/asked; echo do""ne')
    child.expect_exact("done")
    end(child)
    wanted = basic("me", office.values["REGISTRY_PASSWORD"])
    assert [each["authorization"] for each in arrived(scenery, "/asked")] == [wanted]
    assert leftovers(office.desk) == []


def test_a_token_that_was_changed_is_taken_by_the_next_start(office: Office, scenery: Scenery) -> None:
    tokens = [f"sk-ant-oat01-{secrets.token_hex(8)}" for _ in range(2)]
    for token in tokens:
        office.desk.env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = token
        done = office.desk.run("start", "-y", AGENT, stdin=words(MESSAGES, BEARER, body="{}") + "\n")
        assert (done.returncode, done.stdout) == (0, "200"), done.stderr
    assert [each["headers"]["authorization"] for each in scenery.requests()] == [f"Bearer {each}" for each in tokens]


LOST = {
    "broker": "error: broker: the broker has stopped",
    "sidecar": "error: pipelock: the sidecar has stopped",
}


@pytest.mark.parametrize("role", LOST)
def test_the_end_of_either_is_the_end_of_a_session_without_a_terminal(
    office: Office, scenery: Scenery, role: str
) -> None:
    with inside(office.desk) as bottle:
        docker("kill", container(role))
        began = time.monotonic()
        until(lambda: LOST[role] in bottle.complaints(), ENDED_SECONDS)
        assert bottle.child.wait(timeout=30) == 69 and time.monotonic() - began < 15
        errors = [line for line in bottle.complaints().splitlines() if ": error: " in line]
        assert len(errors) == 1, errors
    assert leftovers(office.desk) == []


def test_without_its_broker_a_host_does_not_answer_and_nothing_goes_there_another_way(
    office: Office, scenery: Scenery
) -> None:
    child = office.desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    told = asking(child)
    assert told(words(MESSAGES, BEARER, body="{}")) == "200"
    docker("kill", container("broker"))
    scenery.forget()
    assert told(words(MESSAGES, BEARER, body="{}")) in ("000", "502")
    assert told(words(f"https://{VAULT}/x", "Authorization: Bearer $VAULT_TOKEN")) in ("000", "502")
    assert told(words(f"https://{GIT}/x", "Authorization: Bearer x")) in ("000", "502")
    assert scenery.records("api") == [] and scenery.requests("web") == []
    assert told(words(f"https://{OPEN}/alive")) == told(words(f"https://{CLOSED}/alive")) == "200"
    child.sendline("exit 3")
    child.expect_exact("warning\x1b[0m: broker: the broker has stopped")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 3 and leftovers(office.desk) == []


def asking(child: pexpect.spawn) -> Callable[[str], str]:
    """Return what has the shell on a terminal run a line, and returns the word that the line prints."""

    def told(line: str) -> str:
        child.sendline(f"echo sa''id:$({line}):")
        child.expect(r"said:(\w*):")
        assert child.match
        return str(child.match[1])

    return told


def test_where_it_is_wanted_so_a_secret_in_a_body_is_refused(tmp_path: Path, clients: Path, scenery: Scenery) -> None:
    strict = Office(tmp_path, clients, dlp="block")
    with inside(strict.desk) as bottle:
        for host in (OPEN, VAULT):
            assert ask(bottle, f"https://{host}/paste", "Content-Type: text/plain", body=f"key {AWS_KEY}") == "403"
            assert ask(bottle, f"https://{host}/paste", "Content-Type: text/plain", body="no key") == "200"
        assert ask(bottle, MESSAGES, BEARER, "Content-Type: application/json", body="{}") == "200"
    assert AWS_KEY not in json.dumps(scenery.requests("web"))
