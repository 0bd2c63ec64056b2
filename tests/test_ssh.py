"""ssh entries: what is refused, what node's files say, and where a key goes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib import ssh
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.inside import ssh_setup
from claude_bottle.lib.manifest import Manifest
from claude_bottle.lib.schema.manifest_parse import SshEntry

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker

KEY = "4711 stands for a key"  # looks like none, so that only ssh-add judges it
ENTRY = {"Host": "forge", "IdentityFile": "id", "Hostname": "git.example.org", "User": "git", "Port": 22}


def load(*entries: Any) -> tuple[SshEntry, ...]:
    return ssh.ssh_load(Manifest({"bottles": {"b": {"ssh": list(entries)}}}), "b")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("Port", 0, "Port must be a port number from 1 to 65535"),
        ("Port", "22x", "Port must be a port number from 1 to 65535"),
        ("Port", True, "Port must be a string or a whole number"),
        ("Hostname", "git.example.org:22", "Hostname must be a host name or an IPv4 address"),
        ("Hostname", "*.example.org", "Hostname must be a host name or an IPv4 address"),
        ("User", "git\n  ProxyCommand none", "User must be a name without blanks"),
        ("User", "a b", "User must be a name without blanks"),
        ("Host", ["x"], "Host must be a string or a number"),
        ("KnownHostKey", "ssh-ed25519 A\n* ssh-ed25519 B", "KnownHostKey must be one line of text"),
    ],
)
def test_ssh_fields_that_cannot_work_are_named_at_once(field: str, value: object, message: str) -> None:
    with pytest.raises(BottleError) as caught:
        load({**ENTRY, field: value}, {**ENTRY, "Host": "two", "Port": 99999})
    assert caught.value.message == f"bottle 'b': ssh[0].{message}"
    assert "also: bottle 'b': ssh[1].Port must be a port number from 1 to 65535" in caught.value.hints


ENTRIES = (
    ENTRY,
    {**ENTRY, "Host": "pinned", "KnownHostKey": "ssh-ed25519 AAAA"},
    {**ENTRY, "Host": "other port *.x", "Port": "2222", "KnownHostKey": "ssh-ed25519 BBBB", "Hostname": "10.0.0.7"},
)


def test_nodes_files_are_the_shells() -> None:
    entries = load(*ENTRIES)
    fields = {
        "HOSTS": [e.host for e in entries],
        "HOSTNAMES": [e.hostname for e in entries],
        "USERS": [e.user for e in entries],
        "PORTS": [e.port for e in entries],
        "KNOWN_HOST_KEYS": [e.known_host_key for e in entries],
    }
    script = "source lib/log.sh; source lib/pipelock.sh; source lib/ssh.sh; CB_SLUG=a; CB_PIPELOCK_PORT=8888\n"
    for name, values in fields.items():
        script += f"CB_SSH_{name}=({' '.join(json.dumps(v) for v in values)})\n"
    shell = ROOT / "fixtures" / "shell"
    said = [
        subprocess.run(["bash", "-c", script + f"set -f; {function}"], cwd=shell, capture_output=True, text=True).stdout
        for function in ("ssh_config", "ssh_known_hosts")
    ]
    assert [
        ssh_setup.ssh_config(entries, "claude-bottle-pipelock-a", "8888"),
        ssh_setup.ssh_known_hosts(entries),
    ] == said


def start(tmp_path: Path, key: str, *faults: str) -> tuple[subprocess.CompletedProcess[str], FakeDocker]:
    for name in ("project", "home", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "project" / "id").write_text(key)
    manifest = {"bottles": {"b": {"ssh": [ENTRY]}}, "agents": {"a": {"bottle": "b"}}}
    (tmp_path / "home" / "claude-bottle.json").write_text(json.dumps(manifest))
    fake = FakeDocker(tmp_path / "engine")
    for fault in faults:
        fake.fault(fault)
    env = {"PATH": fake.path(), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "LC_ALL": "C.UTF-8"}
    env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = os.urandom(8).hex()
    done = subprocess.run(
        [ROOT / "cli.sh", "start", "-y", "a"],
        cwd=tmp_path / "project",
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert fake.containers() == [] and fake.networks() == [] and list((tmp_path / "tmp").iterdir()) == []
    return done, fake


def test_a_key_reaches_the_agent_on_stdin_only(tmp_path: Path) -> None:
    done, fake = start(tmp_path, KEY)
    assert done.returncode == 0, done.stderr
    assert "4711" not in json.dumps(fake.argvs()) and "4711" not in done.stderr
    (added,) = [words for words in fake.argvs() if "/usr/bin/ssh-add" in words]
    assert added[-3:] == ["/usr/bin/ssh-add", "-q", "-"]
    assert not any("keys" in word for words in fake.argvs() for word in words)


def test_a_key_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    done, _ = start(tmp_path, KEY, "agent exec ssh-add: Enter passphrase for (stdin): bad 4711")
    assert done.returncode == 1
    assert (
        "error: ssh key for host 'forge' could not be added (passphrase-protected keys are not supported)"
        in done.stderr
    )
    assert "4711" not in done.stderr


def test_the_switches_are_the_manifests_and_the_proxy_is_not(tmp_path: Path) -> None:
    for name in ("project", "home", "tmp"):
        (tmp_path / name).mkdir()
    env = {"DISABLE_AUTOUPDATER": "0", "HTTPS_PROXY": "http://elsewhere:1", "https_proxy": "http://elsewhere:1"}
    manifest = {"bottles": {"b": {"env": env}}, "agents": {"a": {"bottle": "b"}}}
    (tmp_path / "home" / "claude-bottle.json").write_text(json.dumps(manifest))
    fake = FakeDocker(tmp_path / "engine")
    environ = {"PATH": fake.path(), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [ROOT / "cli.sh", "start", "-y", "a"],
        cwd=tmp_path / "project",
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (words,) = [argv for argv in fake.argvs() if argv[0] == "create" and "/usr/local/bin/claude-bottle-guard" in argv]
    assert "https_proxy=http://claude-bottle-pipelock-a:8888" in words and "no_proxy=localhost,127.0.0.1" in words
    assert "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1" in words and "DISABLE_AUTOUPDATER=1" not in words
    assert not any("elsewhere" in word for word in words)
    assert "env 'https_proxy' is set by claude-bottle; the manifest's value is ignored" in done.stderr
