"""What the plan allows is allowed: listed hosts of a private network, and listed hosts that look random."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator

import pexpect
import pytest

from fixtures.scenery import Scenery

from .conftest import AGENT, Desk, container, docker, end, leftovers, until

PROJECT = f"cb-private-test-{os.getpid()}"
LABEL = "q7x2k9m4z8w1v5b3n6j0"
SERVERS = (("private.test", f"{LABEL}.private.test", "unlisted.test"), ("below.wild.test",))  # names, by server
SERVER = "require('net').createServer(s => s.end()).listen(443)"
ASK = """
address=${HTTPS_PROXY#http://}
exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
printf 'CONNECT %s:443 HTTP/1.1\\r\\nHost: %s:443\\r\\n\\r\\n' "$1" "$1" >&3
timeout 20 sed '/^CONNECT blocked/q; /^HTTP.* 200/q' <&3
"""


def private_network(name: str) -> None:
    """Make a network in a range that is private to the sidecar and free on the engine."""
    for third in random.sample(range(256), 20):
        words = ["docker", "network", "create", "--subnet", f"10.77.{third}.0/24", name]
        if subprocess.run(words, capture_output=True, timeout=60).returncode == 0:
            return
    raise AssertionError("no free network below 10.77")


def serve(network: str, names: tuple[str, ...]) -> str:
    """Start a server under some names; return its id."""
    aliases = [word for name in names for word in ("--network-alias", name)]
    words = ["--init", "--network", network, *aliases, "node:22-slim", "node", "-e", SERVER]
    return docker("run", "-d", *words)


def address(identity: str) -> str:
    return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", identity)


@pytest.fixture
def servers(desk: Desk) -> Iterator[list[str]]:
    """Servers of a private network that every sidecar of the agent joins; their addresses."""
    scenery = Scenery(PROJECT, [AGENT])
    private_network(scenery.network)
    made: list[str] = []
    try:
        made += [serve(scenery.network, names) for names in SERVERS]
        with scenery.watching():
            yield [address(identity) for identity in made]
    finally:
        for identity in made:
            docker("rm", "-f", "-v", identity)
        until(lambda: not leftovers(desk))
        docker("network", "rm", scenery.network)


def asked(host: str) -> str:
    """Return what the sidecar says to a tunnel, asked for by the agent's user."""
    words = ["docker", "exec", "-u", "node", container("agent"), "bash", "-c", ASK, "bash", host]
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def bottle(desk: Desk, servers: list[str]) -> Iterator[pexpect.spawn]:
    listed = ["private.test", f"{LABEL}.private.test", "*.wild.test", servers[0]]
    desk.manifest({"egress": {"allowlist": listed}})
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"private address: {servers[0]}")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    yield child
    end(child)


def test_listed_hosts_of_a_private_network_are_reached_and_no_others(bottle: pexpect.spawn, servers: list[str]) -> None:
    for host in ("private.test", f"{LABEL}.private.test", servers[0]):
        assert asked(host).startswith("HTTP/1.1 200 "), host
    assert f"below.wild.test resolves to internal IP {servers[1]}" in asked("below.wild.test")
    assert "domain not in allowlist: unlisted.test" in asked("unlisted.test")
