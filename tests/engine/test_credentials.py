"""Credentials that never enter the bottle: where they arrive, and where not.

The client is a shell that asks as an agent would; the hosts are the scenery's, which say what arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER, placeholder

from fixtures.scenery import Scenery

from .conftest import container, docker, until
from .inside import Inside, inside
from .office import BEARER, CLOSED, GIT, MESSAGES, MODEL, OPEN, TOKEN, VAULT, Office, arrived, ask, basic

AWS_KEY = "AKIA" + "Q3EGRZ7PLMX2TVBC"


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
