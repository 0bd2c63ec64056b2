"""Seals that are broken on purpose, by a docker before the real one that changes what the launcher asks for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.egress.credentials import MODEL_HOST
from claude_bottle.lib.inside import seals

from fixtures.scenery import Scenery
from tests.sidecar import SIDECAR

from .conftest import AGENT, SHELL_BASE, SHELL_IMAGE, TOKEN, Desk, checkout, container, desk_of, docker, end, until

ALONE = f"{AGENT}-alone"
DOCKER = shutil.which("docker") or "docker"
RESOLVER = "127.0.0.2"
SHIM = """#!/bin/bash
real={docker} agent={agent} words=() all="$*" skip=0
# Leave out an option: each word given, wherever it stands with what follows it here.
without() {{
    local kept=() word i
    for ((i = 0; i < ${{#words[@]}}; i++)); do
        for word; do
            [[ "${{words[i]}} ${{words[i + 1]-}}" == $word ]] && i=$((i + 1)) && continue 2
        done
        kept+=("${{words[i]}}")
    done
    words=("${{kept[@]}}")
}}
words=("$@")
is_agent() {{ [[ $all == *role=agent* ]]; }}
is_internal() {{ [[ $1 == network && $2 == create && $all == *role=internal* ]]; }}
{change}
exec "$real" "${{words[@]}}"
"""
# By the seal: how it is broken, and what is said of it.
BREAKS = {
    "gateway": ("without '--opt *inhibit_ipv4*'", "tcp 10."),
    "routes": (
        "if [[ $1 == start && $2 != -ai ]]; then\n"
        "    egress=claude-bottle-egress-$agent form='{{(index .IPAM.Config 0).Subnet}}'\n"
        '    first=$("$real" network inspect -f "$form" "$egress")\n'
        "    first=${first%/*} # its second address is the sidecar's, which may not be up yet\n"
        '    "$real" network connect --ip "${first%.*}.$((${first##*.} + 5))" "$egress" "$2" >/dev/null\n'
        "fi",
        "another network, by ",
    ),
    "capabilities": ("is_agent && without '--cap-drop ALL'", "CapBnd is "),
    "sidecar": (
        "if [[ $1 == start && $2 == -ai ]]; then\n"
        '    sed \'s/^mode: strict/mode: balanced/; s/^enforce: true/enforce: false/\' | "$real" "$@"; exit\n'
        "fi",
        "its mode is balanced",
    ),
    "ipv6": (
        'is_internal "$@" && words=("${words[@]/--ipv6=false/--ipv6}" --subnet "fd00:cb:${RANDOM:0:4}::/64")\n'
        "is_agent && without '--sysctl *disable_ipv6*'",
        "an address on eth0",
    ),
    "placeholders": (
        'is_agent && words=("$1" -e CLAUDE_CODE_OAUTH_TOKEN=another "${words[@]:1}")',
        "CLAUDE_CODE_OAUTH_TOKEN has another value in the container",
    ),
    # Passed through where it was to be opened.
    "issuer": (
        "if [[ $1 == start && $2 == -ai ]]; then\n"
        f'    sed \'s/^  passthrough_domains:$/&\\n    - {MODEL_HOST}/\' | "$real" "$@"; exit\n'
        "fi",
        f"{MODEL_HOST} is not opened: it shows the broker's certificate",
    ),
    # Each refusal becomes a comment of the same length, since what the broker is fed is a tar.
    "broker": (
        "if [[ $1 == start && $2 == -ai ]]; then\n"
        "    sed 's/^  http-request deny deny_status 403 /  #ttp-request deny deny_status 403 /' | "
        '"$real" "$@"; exit\n'
        "fi",
        f"{MODEL_HOST} answers a foreign credential with status 50",
    ),
}
# The sidecar does not know where the broker is.
NO_WAY_TO_BROKER = "[[ $1 == create && $all == *role=sidecar* ]] && without '--add-host *'"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk of an agent that no scenery looks after: there a sidecar has one more network, with the model's host."""
    yield from desk_of(tmp_path / "desk", ALONE)


@pytest.fixture(autouse=True)
def metadata() -> Iterator[None]:
    """What a broken bottle reaches at the clouds' address is this machine; a killed run may have left it so."""
    words = [f"{seals.METADATA}/32", "dev", "lo"]
    subprocess.run(["ip", "addr", "replace", *words], check=True)
    yield
    subprocess.run(["ip", "addr", "del", *words], check=True)


def shim(desk: Desk, folder: Path, change: str) -> None:
    """Put a docker before the real one."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(SHIM.format(docker=DOCKER, agent=desk.agent, change=change))
    program.chmod(0o755)
    desk.env["PATH"] = f"{folder}:{desk.env['PATH']}"


def refused(desk: Desk, seal: str, said: str) -> None:
    """Hold a start to what it does with a broken seal: no session, one line, and nothing stays (the desk looks)."""
    done = desk.run("start", "-y", ALONE, "--", "-p", "hello")
    errors = [line for line in done.stderr.splitlines() if ": error: " in line]
    print(errors, done.stderr.splitlines()[-1])
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert errors[0].startswith(f"claude-bottle: error: the bottle is not sealed: {seal}: {said}"), errors
    assert "attaching to" not in done.stderr and "hint: " in done.stderr and done.stdout == ""


@pytest.mark.parametrize("seal", BREAKS)
def test_a_broken_seal_is_found_and_there_is_no_session(desk: Desk, tmp_path: Path, seal: str) -> None:
    change, said = BREAKS[seal]
    shim(desk, tmp_path / "bin", change)
    refused(desk, seal, said)


def test_a_sidecar_that_does_not_lead_to_the_broker_is_found(desk: Desk, tmp_path: Path) -> None:
    shim(desk, tmp_path / "bin", NO_WAY_TO_BROKER)
    refused(desk, "issuer", f"no way to {MODEL_HOST}: ")


def test_an_images_own_value_of_a_credential_is_found(desk: Desk, tmp_path: Path) -> None:
    image = f"{SHELL_IMAGE}-token"
    desk.launcher = checkout(tmp_path / "clone", image, "ENV CLAUDE_CODE_OAUTH_TOKEN=another\nUSER node\n")
    desk.env["CLAUDE_BOTTLE_IMAGE"] = image
    try:
        refused(desk, "placeholders", "CLAUDE_CODE_OAUTH_TOKEN has another value in the container")
    finally:
        docker("rmi", "-f", image, SHELL_BASE)


def test_a_bottle_without_credentials_proves_the_other_seals(desk: Desk) -> None:
    desk.env["CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"] = "1"
    done = desk.run("start", "-y", ALONE, "--", "--version")
    assert done.returncode == 0 and "sealed: 10 of 10 probes" in done.stderr, done.stderr


def test_the_receipt_names_the_seal_that_is_broken_and_what_ran(desk: Desk, tmp_path: Path) -> None:
    change, said = BREAKS["capabilities"]
    shim(desk, tmp_path / "bin", change)
    path = tmp_path / "receipt.json"
    done = desk.run("start", "-y", "--receipt", str(path), ALONE)
    found = json.loads(path.read_text())
    broken = [
        (probe["name"], probe["detail"][: len(said)]) for probe in found["probes"] if probe["outcome"] == "broken"
    ]
    assert (done.returncode, found["status"], broken) == (1, 1, [("capabilities", said)]), done.stderr
    images = found["images"]
    ids = docker("image", "inspect", "--format", "{{.Id}}", images["agent"], SIDECAR, images["broker"]).split()
    assert list(images.values()) == ids  # the agent's tag may be another checkout's by now
    assert TOKEN not in path.read_text()


@contextlib.contextmanager
def resolver() -> Iterator[list[bytes]]:
    """A resolver of ours on this machine's loopback that knows no name; yields what it is asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((RESOLVER, 53))

        def serve() -> None:
            while question := server.recvfrom(512):
                asked.append(question[0])
                if question[0] == b"":
                    return
                server.sendto(question[0][:2] + b"\x81\x83" + question[0][4:], question[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.sendto(b"", (RESOLVER, 53))
            thread.join()


def test_a_resolver_that_answers_is_found_where_an_engine_can_be_made_to_have_one(desk: Desk, tmp_path: Path) -> None:
    """Without ``--dns`` a 20.10 forwards what its host's own resolver knows; later ones do not from such a network."""
    old = docker("version", "--format", "{{.Server.Version}}").startswith("20.")
    ours = tmp_path / "resolv.conf"
    ours.write_text(f"nameserver {RESOLVER}\n")
    # The engine reads its host's file while a container starts: that long it is another one.
    moment = f'mount --bind {ours} /etc/resolv.conf && trap "umount /etc/resolv.conf" EXIT && "$real" "$@"; exit'
    swap = f"if [[ $1 == start && $2 != -ai ]]; then {moment}; fi\n" if old else ""
    shim(desk, tmp_path / "bin", f"{swap}is_agent && without '--dns *' '--dns-opt *'")
    if not old:
        done = desk.run("start", "-y", ALONE, "--", "--version")
        assert done.returncode == 0 and "sealed: 12 of 12 probes" in done.stderr, done.stderr
        return
    with resolver() as asked:
        refused(desk, "names", "udp 127.0.0.11:53 answered NXDOMAIN")
    assert asked


def test_all_seals_hold_at_a_start(desk: Desk) -> None:
    done = desk.run("start", "-y", ALONE, "--", "--version")
    assert done.returncode == 0, done.stderr
    # How long is for scripts/bench to say: a busy machine takes longer.
    assert re.search(r"^claude-bottle: sealed: 12 of 12 probes \(\d+\.\d s\)$", done.stderr, re.MULTILINE), done.stderr


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {name: outcome for name, outcome, _ in (line.split("\t") for line in done.stdout.splitlines())}


def test_verify_looks_closely_and_leaves_nothing(desk: Desk) -> None:
    """Beside a bottle that runs, whose addresses are looked at too; nothing is asked, and no secret is there."""
    other = desk.terminal("start", "-y", ALONE)
    until(lambda: container("agent", ALONE))
    other.expect_exact("attaching to")
    values = ({"command": ["touch", str(desk.home / "ran")]}, "?what", "${NOT_SET_ANYWHERE}")
    credentials = {
        name: {"value": value, "hosts": [f"{name.lower()}.test"]} for name, value in zip("ABC", values, strict=True)
    }
    desk.manifest({"env": {"ASKED": "?what", "TAKEN": "${NOT_SET_ANYWHERE}"}, "credentials": credentials})
    done = desk.run("verify", ALONE)
    assert not (desk.home / "ran").exists()
    assert done.returncode == 0, done.stderr
    found = rows(done)
    assert list(found)[:3] == ["routes", "gateway", "egress"] and "broken" not in found.values(), done.stdout
    assert {"sibling", "ports", "ipv6-literal", "numeric", "sni", "host-names"} <= set(found)
    assert found["ports"] == found["numeric"] == "held" and TOKEN not in done.stderr + done.stdout
    assert found["placeholders"] == found["issuer"] == found["broker"] == found["secrets"] == "held", done.stdout
    end(other)


def test_verify_finds_what_is_broken(desk: Desk, tmp_path: Path) -> None:
    change, said = BREAKS["routes"]
    shim(desk, tmp_path / "bin", change)
    done = desk.run("verify", ALONE)
    assert done.returncode == 1 and rows(done)["routes"] == "broken" and said in done.stderr, done.stderr


# By the place: how the token comes to be there.
LEAKS = {
    "docker inspect of the agent": f'is_agent && words=("$1" -e OTHER={TOKEN} "${{words[@]:1}}")',
    "docker inspect of the sidecar": (
        f'[[ $1 == create && $all == *role=sidecar* ]] && words=("$1" --label other={TOKEN} "${{words[@]:1}}")'
    ),
    "docker logs of the agent": (
        f'says=\'print scalar(reverse "{TOKEN[::-1]}"), "\\n"; sleep 9999\'\n'
        'is_agent && words=("${words[@]:0:${#words[@]}-2}" perl -e "\\$| = 1; $says")'
    ),
    "/home/node/noted of the agent": (
        "if [[ $1 == start && $2 != -ai ]]; then\n"
        f'    says="printf %s me:{TOKEN} | base64 -w 0 >/home/node/noted"\n'
        '    "$real" "$@" && "$real" exec -u node "$2" sh -c "$says"; exit\n'
        "fi"
    ),
}


@pytest.mark.parametrize("place", LEAKS)
def test_verify_finds_a_value_that_is_where_it_must_not_be(desk: Desk, tmp_path: Path, place: str) -> None:
    quickly = "[[ $1 == exec && $all == *seals* ]] && without '--thorough *'"  # the rest takes its time
    shim(desk, tmp_path / "bin", f"{LEAKS[place]}\n{quickly}")
    done = desk.run("verify", ALONE)
    assert done.returncode == 1 and rows(done).get("secrets") == "broken", done.stderr
    said = f"the bottle is not sealed: secrets: the value of CLAUDE_CODE_OAUTH_TOKEN is in {place}"
    assert said in done.stderr and TOKEN not in done.stderr + done.stdout


def test_verify_sees_another_name_cut_off_in_a_tunnel(scene: Desk, scenery: Scenery) -> None:
    done = scene.run("verify", AGENT)
    assert done.returncode == 0 and rows(done)["sni"] == "held", (done.stdout, done.stderr)


def test_the_token_is_not_in_a_bottle_whose_seal_is_broken(desk: Desk, tmp_path: Path) -> None:
    """The program that would put the values there is held at its end, so that there is time to look."""
    change, _ = BREAKS["routes"]
    held = f'"$real" "$@"; touch {tmp_path}/there; read -r <{tmp_path}/go; exit'
    hold = f"if [[ $1 == exec && $all == *seals* ]]; then {held}; fi"
    os.mkfifo(tmp_path / "go")
    shim(desk, tmp_path / "bin", f"{change}\n{hold}")
    child = subprocess.Popen(
        [desk.launcher, "start", "-y", ALONE], cwd=desk.cwd, env=desk.env, stdin=-3, stdout=-3, stderr=-3
    )
    until(lambda: (tmp_path / "there").exists())
    there = docker("exec", "-u", "node", container("agent", ALONE), "ls", "-A", "/run/claude-bottle")
    (tmp_path / "go").write_text("\n")
    assert child.wait(60) == 1 and there == ""
