"""Credentials that never enter the bottle: where they arrive, where not, and that they are nowhere else.

The client is a shell that asks as an agent would; the hosts are the scenery's, which say what arrived.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from claude_bottle.lib.credentials import TOKEN_PLACEHOLDER, placeholder

from fixtures.scenery import TRUSTING_BROKER, Scenery

from .conftest import AGENT, client_desk, container, docker, end, leftovers, until
from .inside import Inside, inside
from .secrecy import Search, searching

MODEL, OPEN, CLOSED, VAULT, GIT = "api.anthropic.com", "open.test", "closed.test", "vault.test", "git.test"
TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"
AWS_KEY = "AKIA" + "Q3EGRZ7PLMX2TVBC"
MESSAGES = f"https://{MODEL}/v1/messages"
BEARER = f"Authorization: Bearer ${TOKEN}"
ENDED_SECONDS = 5.0


def values() -> dict[str, str]:
    """Return a value of each credential, nobody else's: with all that JSON, addresses and shells write otherwise."""
    own = secrets.token_hex(8)
    return {
        TOKEN: f"sk-ant-oat01-not-a-real-token-{own}",
        "VAULT_TOKEN": f'a "real" \\ value; $of = {own}/vault?',
        "FORGE_TOKEN": f"glpat_{own}_of_a_command",
        "REGISTRY_PASSWORD": f"registry:{own}:&{own}",
    }


CREDENTIALS: dict[str, dict[str, Any]] = {
    "VAULT_TOKEN": {"value": "${VAULT_VALUE}", "hosts": [VAULT]},
    "FORGE_TOKEN": {"hosts": [VAULT], "header": "PRIVATE-TOKEN", "paths": ["/api/v4/*"]},
    "REGISTRY_PASSWORD": {"value": "${REGISTRY_VALUE}", "hosts": [GIT], "scheme": "basic", "user": "robot"},
}


class Office:
    """A desk whose bottle has a credential of each kind, and their values.

    Args:
        folder: an empty one.
        launcher: see ``clients``.
        dlp: what is done with a secret that is found.
        credentials: of the bottle, if not one of each kind.
    """

    def __init__(self, folder: Path, launcher: Path, dlp: str = "", credentials: Any = None) -> None:
        self.values, self.apart = values(), folder / "apart"
        self.desk = client_desk(folder / "desk", launcher)
        self.apart.mkdir()
        (self.apart / "forge").write_text(self.values["FORGE_TOKEN"] + "\n")
        self.desk.env.update(
            CLAUDE_BOTTLE_OAUTH_TOKEN=self.values[TOKEN],
            VAULT_VALUE=self.values["VAULT_TOKEN"],
            REGISTRY_VALUE=self.values["REGISTRY_PASSWORD"],
        )
        command = {"value": {"command": ["cat", str(self.apart / "forge")]}}
        granted = CREDENTIALS if credentials is None else credentials
        granted = {name: {**(command if name == "FORGE_TOKEN" else {}), **each} for name, each in granted.items()}
        egress = {"allowlist": [OPEN, CLOSED], "inspect": {CLOSED: False}, **({"dlp": dlp} if dlp else {})}
        self.desk.manifest({"egress": egress, "credentials": granted})

    @contextmanager
    def search(self) -> Iterator[Search]:
        """A search for the values from now on."""
        with searching(self.desk, self.values, self.apart) as search:
            yield search


@pytest.fixture
def office(tmp_path: Path, clients: Path) -> Iterator[Office]:
    made = Office(tmp_path, clients)
    yield made
    made.desk.close()
    until(lambda: not leftovers(made.desk), 30)


def words(url: str, *headers: str, body: str = "", form: str = "%{http_code}", more: Sequence[str] = ()) -> str:
    """Return what asks for a page and prints what came of it; the shell puts variables into headers and body."""
    asked = ["curl", "-sS", "-o", "/dev/null", "-w", form, "--max-time", "30", *more, url]
    parts = [
        shlex.join(asked),
        *(f'-H "{header}"' for header in headers),
        *([f'--data-binary "{body}"'] if body else []),
    ]
    return " ".join(parts) + " || :"


def ask(bottle: Inside, url: str, *headers: str, **how: Any) -> str:
    """Return the status that a bottle's curl got; 000 is none."""
    return bottle.run(words(url, *headers, **how)).out


def arrived(scenery: Scenery, path: str, service: str = "web") -> list[dict[str, str]]:
    """Return the headers of the requests for a path."""
    return [each["headers"] for each in scenery.requests(service) if each["path"] == path]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# One session for all that is asked without harm to it.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, clients: Path, running_scenery: Scenery) -> Office:
    return Office(tmp_path_factory.mktemp("office"), clients)


@pytest.fixture(scope="module")
def bottle(shared: Office) -> Iterator[Inside]:
    with inside(shared.desk) as session:
        yield session


def test_the_model_sees_the_token_and_never_the_placeholder(bottle: Inside, shared: Office, scenery: Scenery) -> None:
    assert ask(bottle, MESSAGES, BEARER, body="{}") == "200"
    assert [each["headers"]["authorization"] for each in scenery.requests()] == [f"Bearer {shared.values[TOKEN]}"]
    assert TOKEN_PLACEHOLDER not in json.dumps(scenery.requests())


@pytest.mark.parametrize("scheme", ["Bearer", "token"])
def test_a_hosts_variable_is_put_in(bottle: Inside, shared: Office, scenery: Scenery, scheme: str) -> None:
    assert ask(bottle, f"https://{VAULT}/any", f"Authorization: {scheme} $VAULT_TOKEN") == "200"
    assert [each["authorization"] for each in arrived(scenery, "/any")] == [f"{scheme} {shared.values['VAULT_TOKEN']}"]


def test_what_a_command_says_is_put_into_its_own_header(bottle: Inside, shared: Office, scenery: Scenery) -> None:
    path = "/api/v4/projects"
    assert ask(bottle, f"https://{VAULT}{path}", "PRIVATE-TOKEN: $FORGE_TOKEN") == "200"
    assert [each["private-token"] for each in arrived(scenery, path)] == [shared.values["FORGE_TOKEN"]]


def test_a_password_is_put_in_with_its_user(bottle: Inside, shared: Office, scenery: Scenery) -> None:
    done = bottle.run(f'curl -sS -u "me:$REGISTRY_PASSWORD" https://{GIT}/package')
    assert done.status == 0, done
    wanted = basic("robot", shared.values["REGISTRY_PASSWORD"])
    assert [each["authorization"] for each in arrived(scenery, "/package")] == [wanted]


def test_a_placeholder_that_is_sent_elsewhere_arrives_as_that(bottle: Inside, scenery: Scenery) -> None:
    for host in (OPEN, CLOSED):
        assert ask(bottle, f"https://{host}/mailbox", BEARER, body="$VAULT_TOKEN") == "200"
    found = [each for each in scenery.requests("web") if each["path"] == "/mailbox"]
    assert [each["headers"]["authorization"] for each in found] == [f"Bearer {TOKEN_PLACEHOLDER}"] * 2
    assert [each["body"] for each in found] == [placeholder("VAULT_TOKEN")] * 2


REFUSED = {
    "a stolen key": (MESSAGES, "Authorization: Bearer sk-ant-stolen"),
    "a stolen key in its own header": (MESSAGES, "x-api-key: stolen"),
    "both": (MESSAGES, BEARER, "x-api-key: stolen"),
    "no key": (MESSAGES,),
    "another path": (f"https://{MODEL}/v1/files", BEARER),
    "another path behind a granted one": (f"https://{MODEL}/v1/messages/../files", BEARER),
    "another host's placeholder": (f"https://{VAULT}/x", BEARER),
    "a path that is not granted": (f"https://{VAULT}/other", "PRIVATE-TOKEN: $FORGE_TOKEN"),
    "another scheme": (f"https://{GIT}/x", "Authorization: Bearer $REGISTRY_PASSWORD"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_whatever_else_carries_a_credential_is_refused(bottle: Inside, scenery: Scenery, what: str) -> None:
    url, *headers = REFUSED[what]
    assert ask(bottle, url, *headers, body="{}", more=["--path-as-is"]) == "403"
    assert scenery.requests("api") == scenery.requests("web") == []


@pytest.mark.parametrize("host", [OPEN, VAULT])
def test_a_secret_in_a_body_is_logged(bottle: Inside, scenery: Scenery, host: str) -> None:
    before = len(found_secrets(host))
    assert ask(bottle, f"https://{host}/paste", "Content-Type: text/plain", body=f"key {AWS_KEY}") == "200"
    until(lambda: len(found_secrets(host)) > before, 5)
    assert [each["body"] for each in scenery.requests("web")] == [f"key {AWS_KEY}"]


def test_a_secret_in_a_body_to_a_host_that_is_passed_through_is_seen_by_nobody(bottle: Inside) -> None:
    assert ask(bottle, f"https://{CLOSED}/paste", "Content-Type: text/plain", body=f"key {AWS_KEY}") == "200"
    assert found_secrets(CLOSED) == []


def found_secrets(host: str) -> list[dict[str, Any]]:
    """Return what the sidecar has logged of secrets on their way to a host."""
    lines = docker("logs", container("sidecar")).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    own = [each for each in events if "body_dlp" in (each.get("event"), each.get("scanner"))]
    return [each for each in own if host in json.dumps(each)]


def test_where_it_is_wanted_so_a_secret_in_a_body_is_refused(tmp_path: Path, clients: Path, scenery: Scenery) -> None:
    strict = Office(tmp_path, clients, dlp="block")
    with inside(strict.desk) as bottle:
        for host in (OPEN, VAULT):
            assert ask(bottle, f"https://{host}/paste", "Content-Type: text/plain", body=f"key {AWS_KEY}") == "403"
            assert ask(bottle, f"https://{host}/paste", "Content-Type: text/plain", body="no key") == "200"
        assert ask(bottle, MESSAGES, BEARER, "Content-Type: application/json", body="{}") == "200"
    assert AWS_KEY not in json.dumps(scenery.requests("web"))


TUNNEL = "%{http_connect}"


@pytest.mark.parametrize("place", ["127.0.0.1:443", "127.0.0.2:443", "127.0.0.2:8888", "localhost:443"])
def test_no_tunnel_leads_to_the_sidecars_own_addresses(bottle: Inside, place: str) -> None:
    assert ask(bottle, f"https://{place}/", form=TUNNEL, more=["--noproxy", ""]) == "403"


@pytest.mark.parametrize("port", [9090, 9091, 9092])
def test_no_name_of_a_brokered_host_opens_what_the_sidecar_listens_on(bottle: Inside, port: int) -> None:
    assert ask(bottle, f"http://{MODEL}:{port}/stats") in ("403", "502")
    assert ask(bottle, f"https://{MODEL}:{port}/stats") in ("000", "403", "502")


def test_the_brokers_port_does_not_answer_in_the_bottle(bottle: Inside) -> None:
    script = """place=${HTTPS_PROXY#http://} host=${place%:*}
        timeout 5 bash -c "exec 3<>/dev/tcp/$host/${place#*:}" && echo proxy
        for port in 443 22; do timeout 5 bash -c "exec 3<>/dev/tcp/$host/$port" 2>/dev/null && echo $port; done || :"""
    assert bottle.run(script).out == "proxy\n"


# Where the values are.


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
    yield tag
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


# What becomes of a session when something changes under it.


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
    child.expect_exact("warning: broker: the broker has stopped")
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
