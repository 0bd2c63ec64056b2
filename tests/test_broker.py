"""The broker beside the sidecar, on a fake engine: how it is made and fed, and what its end means."""

from __future__ import annotations

import json
import marshal
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.egress import broker_config
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER, Injection, model_injection
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.withhold import Without

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run
from tests.test_bottle import created, ended, plain

LOST = "claude-bottle: error: broker: the broker has stopped, so the hosts that credentials are for answer no more"


def granted(run: Run, **bottle: Any) -> None:
    manifest = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b", "prompt": "x"}}}
    (run.home / "claude-bottle.json").write_text(json.dumps(manifest))


def test_a_start_with_a_token_has_a_broker_that_alone_is_fed_its_value(tmp_path: Path) -> None:
    run, state = plain(tmp_path), tmp_path / "state"
    run.fake.session(f"cp {run.fake.folder}/state {state}")
    status, err = ended(run)
    assert (status, run.leftovers()) == (0, []), err
    boxes = {box["labels"].get("claude-bottle.role"): box for box in marshal.loads(state.read_bytes())["containers"]}
    assert boxes["broker"]["networks"] == [f"container:{boxes['sidecar']['id']}"]
    assert TOKEN in boxes["broker"]["config"] and TOKEN_PLACEHOLDER in boxes["broker"]["config"]
    words = created(run, "broker")
    assert {"--read-only", "-i"} <= set(words) and words[words.index("--user") + 1] == "65534:65534"
    for option, value in (("--memory", "64m"), ("--pids-limit", "64"), ("--cap-drop", "ALL"), ("--pull", "never")):
        assert words[words.index(option) + 1] == value
    assert "api.anthropic.com:127.0.0.2" in created(run, "sidecar")
    fed = json.dumps([box.get("config", "") for role, box in boxes.items() if role != "broker"])
    assert TOKEN not in fed + json.dumps(run.fake.argvs())


def test_nothing_to_put_in_needs_no_broker(tmp_path: Path) -> None:
    run = plain(tmp_path)
    del run.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    assert ended(run)[0] == 0
    assert not [argv for argv in run.fake.argvs() if "claude-bottle.role=broker" in argv]
    assert [argv[0] for argv in run.fake.argvs()].count("build") == 1


def test_an_own_image_of_the_broker_is_taken_as_it_is(tmp_path: Path) -> None:
    run = plain(tmp_path, images=[*plain(tmp_path / "other").fake.images(), {"name": "my/broker:1", "labels": {}}])
    run.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = "my/broker:1"
    status, err = ended(run)
    assert status == 0 and "claude-bottle-broker:latest" not in err, err
    assert "my/broker:1" in created(run, "broker")


def test_a_broker_that_does_not_come_up_is_named_and_nothing_stays(tmp_path: Path) -> None:
    run = plain(tmp_path)
    run.fake.fault("broker start#1: [ALERT] cannot bind")
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, []), err
    assert "claude-bottle: error: broker: the broker stopped right after its start" in err
    assert "claude-bottle: hint: [ALERT] cannot bind" in err and TOKEN not in err


def test_a_brokers_image_without_perl_is_one_clear_error(tmp_path: Path) -> None:
    run = plain(tmp_path, images=[*plain(tmp_path / "other").fake.images(), {"name": "own:1", "labels": {}}])
    run.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = "own:1"
    run.fake.fault('broker start#1: exec: "/usr/bin/perl": stat /usr/bin/perl: no such file', status=127)
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, []), err
    error, *hints = (line for line in err.splitlines() if ": error: " in line or ": hint: " in line)
    assert error == "claude-bottle: error: broker: its image has no /usr/bin/perl, which runs its first process"
    assert any("what CLAUDE_BOTTLE_BROKER_IMAGE names needs /usr/bin/perl, haproxy 2.6" in hint for hint in hints)


def test_the_end_of_the_broker_ends_the_session_and_is_said_once(tmp_path: Path) -> None:
    run = plain(tmp_path)
    until_stage_gone = f"while ls {run.tmp}/claude-bottle-stage.* >/dev/null 2>&1; do sleep 0.1; done"
    run.fake.session(f"docker rm -f claude-bottle-broker-a\n{until_stage_gone}\n")
    status, err = ended(run)
    assert (status, run.leftovers()) == (69, []), err
    assert [line for line in err.splitlines() if "has stopped" in line] == [LOST]


def test_a_value_in_what_would_go_in_ends_the_start(tmp_path: Path) -> None:
    run = plain(tmp_path)
    manifest = {"bottles": {"b": {}}, "agents": {"a": {"bottle": "b", "prompt": f"use {TOKEN}, please"}}}
    (run.home / "claude-bottle.json").write_text(json.dumps(manifest))
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, []), err
    said = [line for line in err.splitlines() if "the value of" in line]
    where = "in what would go into a container: /home/node/.claude-bottle-prompt.txt"
    assert said == [f"claude-bottle: error: the value of CLAUDE_CODE_OAUTH_TOKEN is {where}"]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_value_is_found_however_the_stream_is_cut(size: int) -> None:
    text = b"before " + TOKEN.encode() + b" after"
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    with pytest.raises(BottleError, match="the value of A is in what"):
        list(Without({"A": TOKEN, "B": "another-value"}, chunks))
    assert b"".join(Without({"B": "another-value", "SHORT": "fore"}, chunks)) == text


@pytest.mark.parametrize("size", [700, 1000, 100_000])
def test_the_file_that_a_value_is_in_is_named(size: int) -> None:
    files = {"home/node/a": b"x" * 3000, "home/node/b": b"y" * 900 + TOKEN.encode(), "home/node/c": b"z"}
    text = b"".join(piece for name, data in files.items() for piece in tarstream.member(name, data))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    with pytest.raises(BottleError, match=r"the value of A is in what would go into a container: /home/node/b$"):
        list(Without({"A": TOKEN}, chunks))


def test_ssh_to_a_brokered_host_goes_through_it_once_a_port(tmp_path: Path) -> None:
    token = model_injection()
    assert token
    text = broker_config.config([token], list(token.hosts), {"api.anthropic.com": [22, 2222], "other.test": [22]})
    assert text.count("bind 127.0.0.2:22\n") == text.count("bind 127.0.0.2:2222\n") == 1
    assert "other.test" not in text


def test_ssh_where_a_credential_is_put_in_is_an_error(tmp_path: Path) -> None:
    run = plain(tmp_path)
    (run.home / "key").write_text("no key is looked at\n")
    entry = {"Host": "forge", "IdentityFile": "~/key", "Hostname": "Git.Example", "User": "git", "Port": 443}
    granted(run, ssh=[entry], credentials={"GH_TOKEN": {"value": "${HOST_TOKEN}", "hosts": ["git.example"]}})
    run.env["HOST_TOKEN"] = "a-value-of-the-host"
    status, err = ended(run)
    assert status == 1 and "bottle 'b': ssh to Git.Example:443, where a credential is put in" in err, err


def test_what_is_said_to_the_broker_cannot_be_steered_by_a_user_name() -> None:
    odd = Injection("A", "stands-for-a", ("a.test",), scheme="basic", user="x) if TRUE # \\ \" '")
    assert odd.user not in broker_config.config([odd], ["a.test"], {})
    assert broker_config.values([odd], {"A": "real"}) == f"A real\nuser:A {odd.user}\n"


def test_what_the_self_test_tries_is_what_the_broker_does_not_log() -> None:
    program = (ROOT / "lib" / "inside" / "seals.pl").read_text()
    assert f"Authorization: {broker_config.FOREIGN}'" in program


def test_a_brokered_host_never_leads_to_the_engines_resolver_or_to_the_sidecar() -> None:
    hosts = [f"host-{number}.test" for number in range(broker_config.MOST_HOSTS)]
    places = broker_config.addresses(hosts)
    assert list(places) == hosts and len(set(places.values())) == len(hosts)
    assert not {"127.0.0.1", "127.0.0.11", "127.0.0.255"} & set(places.values())


def test_more_hosts_than_there_are_places_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    run = plain(tmp_path)
    hosts = [f"host-{number}.test" for number in range(broker_config.MOST_HOSTS)]
    granted(run, credentials={"A": {"value": "${HOST_TOKEN}", "hosts": hosts}})
    run.env["HOST_TOKEN"] = "a-value-of-the-host"
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, []), err
    assert not {"build", "create", "network"} & {argv[0] for argv in run.fake.argvs()}
    assert "bottle 'b': credentials are for 251 hosts, and a bottle can have 250" in err
    assert "claude-bottle.json: $.bottles.b.credentials.A" in err
