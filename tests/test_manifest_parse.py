"""The manifest as typed values and their faults: places, the shell's order, linear time, numbers, and signals."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib import env_resolve, problems, ssh
from claude_bottle.lib import manifest as manifests
from claude_bottle.lib.egress import pipelock_hosts
from claude_bottle.lib.errors import BottleError, Interrupted
from claude_bottle.lib.host import wait
from claude_bottle.lib.inside import ssh_setup
from claude_bottle.lib.manifest import Manifest
from claude_bottle.lib.schema import schema_check, strict_json

ENTRY = {"Host": "forge", "IdentityFile": "id", "Hostname": "git.example.org", "User": "git", "Port": 22}
MANY = 30_000


def said(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except BottleError as problem:
        return [problem.message, *problem.hints]
    return []


def all_said(value: Any) -> list[list[str]]:
    """Return all that is said of a manifest with an agent `a` and a bottle `b`."""
    found = Manifest(value)
    checks = (env_resolve.env_check, ssh.ssh_load, pipelock_hosts.pipelock_check_allowlist)
    return [
        said(lambda: manifests.manifest_require_agent(found, "a")),
        said(lambda: manifests.manifest_require_bottle(found, "a", "b")),
        *(said(lambda check=check: check(found, "b")) for check in checks),
        list(found.warnings),
        [repr(found.agents), repr(found.bottles)],
    ]


def turned_round(schema: Any) -> Any:
    """Return a schema that says the same with its keys, and its lists of required keys, in the other order."""
    if isinstance(schema, dict):
        turned = {key: turned_round(value) for key, value in reversed(schema.items())}
        if isinstance(turned.get("required"), list):
            turned["required"] = turned["required"][::-1]
        return turned
    return schema


WRONG = (
    {"agents": {"a": {"bottle": 1, "prompt": 2, "skills": [3, "x"], "promt": "\ud800"}, "z": 1}, "bottles": {"b": 5}},
    {"bottles": {"b": {"egress": {"allowlist": ["a b", 3]}, "ssh": [{"Port": 0, "x": 1}, {"Host": "h"}], "env": []}}},
    {"bottles": {"b": {"ssh": [{**ENTRY, "User": "a b", "Port": 0.5, "KnownHostKey": "\n", "Hostname": 3}]}}},
    {"bottles": {"b": {"env": {"1A": 5, "B": None, "2": "\ud800"}, "egress": 1, "ssh": {}}}, "agents": {"a": []}},
    {"bottles": {"b": {"ssh": [{}, 3, {"Host": ""}, {**ENTRY, "Hostname": "", "IdentityFile": None}]}}},
)


@pytest.fixture
def other_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    schema = schema_check._schema()

    def turn() -> None:
        monkeypatch.setattr(schema_check, "_schema", lambda: turned_round(schema))
        schema_check._validator.cache_clear()

    yield turn
    monkeypatch.undo()
    schema_check._validator.cache_clear()


def test_messages_do_not_hang_on_the_order_of_keys_in_the_schema(other_order: Callable[[], None]) -> None:
    before = [all_said(value) for value in WRONG]
    assert sum(len(lines) for each in before for lines in each) > 60
    other_order()
    assert list(schema_check._schema()["properties"]) == ["agents", "bottles", "$schema"]
    assert [all_said(value) for value in WRONG] == before


def test_the_order_of_the_shell_has_all_keys_of_the_schema() -> None:
    schema = schema_check._schema()
    parts = {"manifest": schema, **schema["$defs"]}
    assert {name: set(keys) for name, keys in schema_check.KEYS.items()} == {
        name: set(part["properties"]) for name, part in parts.items() if "properties" in part
    }


def test_each_value_knows_its_file_and_place(tmp_path: Path) -> None:
    bottle = {"env": {"A": "1"}, "ssh": [ENTRY], "egress": {"allowlist": ["x.test", "y.test"]}}
    for folder, value in (("home", {"bottles": {"b": bottle}}), ("cwd", {"agents": {"a": {"bottle": "b"}}})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "claude-bottle.json").write_text(json.dumps(value))
    found = manifests.manifest_load(f"{tmp_path}/cwd", f"{tmp_path}/home")
    agent, parsed = found.agents["a"], found.bottles["b"]
    assert agent.bottle_at == f"{tmp_path}/cwd/claude-bottle.json: $.agents.a.bottle"
    home = f"{tmp_path}/home/claude-bottle.json: $.bottles.b"
    assert [parsed.at, parsed.env[0].at, parsed.ssh[0].at, parsed.allowlist[1].at] == [
        home,
        f"{home}.env.A",
        f"{home}.ssh[0]",
        f"{home}.egress.allowlist[1]",
    ]


def twice(count: int) -> str:
    return "{" + ",".join(f'"k{number}":0,"k{number}":1' for number in range(count)) + "}"


LARGE = {
    "wrong types": lambda: {"bottles": {"b": {"env": {f"K{number}": 5 for number in range(MANY)}}}},
    "names": lambda: {"bottles": {"b": {"env": {f"1{number}": "" for number in range(MANY)}}}},
    "agents": lambda: {"agents": {f"K{number}": 5 for number in range(MANY)}},
}


def test_keys_written_twice_cost_linear_time() -> None:
    repeated: list[str] = []
    text = twice(MANY).encode()
    began = time.process_time()
    strict_json.parse(text, repeated=repeated)
    assert time.process_time() - began < 5  # it was half a minute
    assert len(repeated) == MANY


@pytest.mark.parametrize("kind", LARGE)
def test_faults_are_put_in_order_in_linear_time(kind: str) -> None:
    """The steps are counted, since the time of a busy machine says little: each object's keys are looked at once."""
    document = LARGE[kind]()
    looked: list[int] = []

    class Counted(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            looked.append(len(self))
            return super().__iter__()

    def counted(value: Any) -> Any:
        return Counted({key: counted(part) for key, part in value.items()}) if isinstance(value, dict) else value

    assert len(schema_check.faults(counted(document))) == MANY
    assert sum(looked) < 10 * MANY


def test_reading_and_checking_stop_at_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_pending", [signal.SIGINT])
    works: tuple[Callable[[], object], ...] = (
        lambda: strict_json.parse(b"[{}]"),
        lambda: schema_check.faults({"agents": {}}),
        lambda: schema_check.unknown_keys({"agents": {}}),
        lambda: problems.nearest("a", ["b"]),
        lambda: Manifest({"agents": {"a": {}}}),
    )
    for work in works:
        with pytest.raises(Interrupted):
            work()


@pytest.mark.parametrize("port", ["22.0", "2.2e1", "22", '"22"'])
def test_a_port_that_is_whole_is_written_whole(port: str) -> None:
    entry = json.dumps({**ENTRY, "KnownHostKey": "ssh-ed25519 AAAA"}).replace('"Port": 22', f'"Port": {port}')
    entries = ssh.ssh_load(Manifest({"bottles": {"b": {"ssh": [strict_json.parse(entry.encode())]}}}), "b")
    assert entries[0].port == "22"
    assert "  Port 22\n" in ssh_setup.ssh_config(entries, "sidecar", "8888")
    assert ssh_setup.ssh_known_hosts(entries) == "git.example.org ssh-ed25519 AAAA\n"


def test_a_known_host_on_port_022_is_found_by_ssh() -> None:
    entry = {**ENTRY, "Port": "022", "KnownHostKey": "ssh-ed25519 AAAA"}
    entries = ssh.ssh_load(Manifest({"bottles": {"b": {"ssh": [entry]}}}), "b")
    assert ssh_setup.ssh_known_hosts(entries) == "git.example.org ssh-ed25519 AAAA\n"


@pytest.mark.parametrize(
    "port", ["22.5", "1e-1", "1e400", "7" * 5000, '"' + "7" * 5000 + '"', '"' + "0" * 5000 + '22"']
)
def test_a_port_that_is_none_is_one_clear_line(port: str) -> None:
    entry = json.dumps(ENTRY).replace('"Port": 22', f'"Port": {port}')
    lines = said(lambda: ssh.ssh_load(Manifest({"bottles": {"b": {"ssh": [strict_json.parse(entry.encode())]}}}), "b"))
    assert lines[0].startswith("bottle 'b': ssh[0].Port must be ") and all(len(line) < 200 for line in lines)
