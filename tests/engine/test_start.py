"""A bottle from its start to its end, on the real engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pexpect
import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER

from fixtures.probes import DIRECT_WAYS, TUNNEL_REPLY
from fixtures.scenery import Scenery

from .conftest import (
    AGENT,
    ROOT,
    TOKEN,
    Desk,
    NewDesk,
    client_runs,
    container,
    docker,
    end,
    found_on_engine,
    heard,
    host_addresses,
    leftovers,
    since,
    until,
)

NO_SUCH_IMAGE = "127.0.0.1:9/none@sha256:" + "0" * 64


@pytest.mark.smoke
def test_the_real_client_answers_through_a_pipe_and_nothing_is_left(desk: Desk) -> None:
    done = desk.run("start", "-y", AGENT, "--", "--version")
    assert done.returncode == 0, done.stderr
    assert "Claude Code" in done.stdout and len(done.stdout.splitlines()) == 1
    assert leftovers(desk) == []


def test_the_real_client_reaches_its_prompt_and_answers_on_a_terminal(
    session: pexpect.spawn, desk: Desk, scenery: Scenery
) -> None:
    session.expect("bypass permissions", timeout=90)
    assert "Do you trust" not in str(session.before) and "theme" not in str(session.before)
    session.send("okapi")
    session.expect("okapi")  # echoed, so the key that follows is no part of a paste
    session.send("\r")
    session.expect(r"Hello\W")  # on the screen each word has a place of its own
    asked = scenery.requests()
    assert any("okapi" in request["said"] for request in asked)
    assert {request["headers"].get("authorization") for request in asked} == {f"Bearer {TOKEN}"}
    assert TOKEN_PLACEHOLDER not in json.dumps(scenery.records("api"))
    end(session)
    assert session.exitstatus == 128 + signal.SIGTERM
    assert leftovers(desk) == []


def test_ctrl_z_does_not_freeze_the_session(session: pexpect.spawn, desk: Desk) -> None:
    session.expect("bypass permissions", timeout=90)
    session.send("\x1a")
    session.expect("is suspended")
    session.expect("bypass permissions")  # drawn again, so it reads what is typed
    session.send("zebra crossing")
    session.expect("zebra")
    assert "T" not in {
        line.split()[0][0] for line in docker("top", container("agent"), "-o", "stat,pid").splitlines()[1:]
    }
    end(session)
    assert leftovers(desk) == []


def test_the_terminals_size_and_colours_reach_the_session(session: pexpect.spawn, desk: Desk) -> None:
    session.expect("bypass permissions", timeout=90)
    size = ("stty", "-F", "/dev/pts/0", "size")
    until(lambda: in_bottle(*size).stdout == "40 120\n", 10)
    session.setwinsize(30, 90)
    until(lambda: in_bottle(*size).stdout == "30 90\n", 10)
    environ = in_bottle("sh", "-c", "tr '\\0' '\\n' </proc/$(pidof claude)/environ").stdout.splitlines()
    assert "TERM=xterm-256color" in environ and "COLORTERM=truecolor" in environ
    end(session)


def in_container(box: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "exec", "-u", "node", box, *words], capture_output=True, text=True, timeout=60)


def in_bottle(*words: str) -> subprocess.CompletedProcess[str]:
    return in_container(container("agent"), *words)


def through_proxy(box: str, host: str) -> str:
    """Return what the sidecar says to a bottle that wants a tunnel."""
    return in_container(box, "node", "-e", TUNNEL_REPLY, host).stdout


def own_gateway(box: str) -> str:
    """Return the address that the engine would have on a bottle's network."""
    network = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.NetworkID}}{{end}}", box)
    return docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}")


@pytest.mark.smoke
def test_the_sidecar_is_the_only_way_out(session: pexpect.spawn, listener: socket.socket) -> None:
    box = container("agent")
    denied = through_proxy(box, "denied.test")
    assert denied.startswith("HTTP/1.1 403"), denied
    assert "domain not in allowlist: denied.test" in denied
    ways = ([own_gateway(box), *host_addresses()], [listener.getsockname()[1]], ["example.test"])
    tried = in_bottle("node", "-e", DIRECT_WAYS, *map(json.dumps, ways))
    assert tried.stdout == "[]\n", tried
    assert not heard(listener)
    # Without the options for a dead resolver it takes ten seconds.
    assert in_bottle("timeout", "8", "getent", "hosts", "example.test").returncode == 2


def test_an_agent_with_a_very_long_name_finds_its_sidecar(another_desk: NewDesk) -> None:
    desk = another_desk(AGENT + "-with-a-long-name" * 4)
    child = desk.terminal("start", "-y", desk.agent)
    child.expect_exact("attaching to claude-bottle-")
    assert through_proxy(container("agent", desk.agent), "denied.test").startswith("HTTP/1.1 403")
    end(child)
    assert leftovers(desk) == []


@pytest.mark.smoke
def test_secrets_are_in_the_session_and_nowhere_else_and_the_token_is_not_even_there(desk: Desk) -> None:
    token = desk.env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = f"not-a-real-token-{os.urandom(8).hex()}"  # nobody else's
    desk.env["HOST_SECRET"] = f"a value with 'quotes' and $dollars kept apart {os.urandom(8).hex()}"
    desk.manifest(
        {"env": {"FROM_HOST": "${HOST_SECRET}", "OPTIND": "${HOST_SECRET}", "PLAIN": "literal", "PERL5OPT": "-Mnone"}}
    )
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    until(client_runs)
    box = container("agent")
    script = """for p in /proc/[0-9]*/environ; do tr '\\0' '\\n' <"$p"; done 2>/dev/null"""
    environ = docker("exec", "-u", "node", box, "sh", "-c", script, check=False)
    assert f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN_PLACEHOLDER}" in environ and token not in environ
    assert f"FROM_HOST={desk.env['HOST_SECRET']}" in environ and "PLAIN=literal" in environ
    assert f"OPTIND={desk.env['HOST_SECRET']}" in environ and "PERL5OPT=-Mnone" in environ
    for value in (token, desk.env["HOST_SECRET"]):
        assert value not in docker("inspect", box)
        assert value not in docker("inspect", container("sidecar"), container("broker"))
        arguments = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
        assert value not in arguments
        assert value not in str(child.before)
    secrets = (token, desk.env["HOST_SECRET"])
    assert found_on_engine(box) and found_on_engine(*secrets) == []  # the first is what the second is worth
    assert subprocess.run(["grep", "-rlaF", *(f"-e{each}" for each in secrets), desk.tmp]).returncode == 1
    assert "environ" not in docker("exec", "-u", "node", box, "ls", "-A", "/run/claude-bottle").split()
    end(child)


@pytest.mark.smoke
def test_files_arrive_with_the_owner_and_mode_of_the_contract(desk: Desk) -> None:
    skill = desk.home / ".claude" / "skills" / "review"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("# Review\n")
    (skill / "run.sh").write_text("#!/bin/sh\n")
    (skill / "run.sh").chmod(0o755)
    desk.manifest({}, {"skills": ["review"]})
    (desk.cwd / "file with spaces").write_text("kept")
    (desk.cwd / ".dockerignore").write_text(".git\n")
    subprocess.run(["git", "init", "-q", str(desk.cwd)], check=True)
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    seen = docker(
        "exec",
        "-u",
        "node",
        container("agent"),
        "stat",
        "-c",
        "%n %U %a",
        "/home/node/.claude-bottle-prompt.txt",
        "/home/node/.claude/skills/review/SKILL.md",
        "/home/node/.claude/skills/review/run.sh",
        "/home/node/workspace/file with spaces",
        "/home/node/workspace/.git/HEAD",
        "/home/node/workspace/.dockerignore",
    ).splitlines()
    assert seen == [
        "/home/node/.claude-bottle-prompt.txt node 600",
        "/home/node/.claude/skills/review/SKILL.md node 644",
        "/home/node/.claude/skills/review/run.sh node 755",
        "/home/node/workspace/file with spaces node 644",
        "/home/node/workspace/.git/HEAD node 644",
        "/home/node/workspace/.dockerignore node 644",
    ]
    assert docker("exec", "-u", "node", container("agent"), "cat", "/home/node/workspace/.dockerignore") == ".git"
    assert (
        docker("exec", "-u", "node", container("agent"), "cat", "/home/node/.claude-bottle-prompt.txt") == "Say hello."
    )
    end(child)
    assert leftovers(desk) == []


@pytest.mark.parametrize(
    ("folder", "skill"),
    [("/home/node/workspace/.claude/skills", "review"), ("/etc", "ssh")],  # the image's is node's; it is root's
)
def test_a_skill_replaces_its_namesake_in_the_image_whole(desk: Desk, folder: str, skill: str) -> None:
    source, old = desk.home / ".claude" / "skills" / skill, desk.cwd / ".claude" / "skills" / "review"
    for each in (source, old):
        each.mkdir(parents=True)
    (source / "SKILL.md").write_text("# New\n")
    (old / "OLD.md").write_text("# Old\n")
    desk.manifest({}, {"skills": [skill]})
    desk.env["CLAUDE_BOTTLE_CONTAINER_SKILLS_DIR"] = folder
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"copying skill {skill} into claude-bottle-{AGENT}:{folder}/{skill}")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    seen = docker("exec", "-u", "node", container("agent"), "find", f"{folder}/{skill}", "-printf", "%P %u %m\n")
    assert seen.splitlines() == ["node 755", "SKILL.md node 644"]
    end(child)


def test_a_sidecar_image_that_cannot_be_had_ends_in_dockers_words_and_nothing_left(desk: Desk) -> None:
    done = desk.run("start", "-y", AGENT, CLAUDE_BOTTLE_PIPELOCK_IMAGE=NO_SUCH_IMAGE)
    assert done.returncode == 1
    assert f"creating network claude-bottle-net-{AGENT}" in done.stderr
    assert f"creating network claude-bottle-egress-{AGENT}" in done.stderr
    assert "error: pipelock: docker create failed: " in done.stderr and "127.0.0.1:9" in done.stderr
    assert leftovers(desk) == []


def running(desk: Desk) -> tuple[int, int]:
    """Return how many agents and sidecars of a desk's agent run."""
    return len(container("agent", desk.agent).split()), len(container("sidecar", desk.agent).split())


def test_two_starts_of_one_agent_in_one_moment_run_side_by_side(desk: Desk, another_desk: NewDesk) -> None:
    other = another_desk(AGENT)
    children = [each.terminal("start", "-y", AGENT) for each in (desk, other)]
    for child in children:
        child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    assert running(desk) == (2, 2)
    end(children[0])
    assert running(desk) == (1, 1)
    assert container("agent") in docker("ps", "-q", "--filter", "status=running").split()
    end(children[1])
    assert leftovers(desk) == [] and leftovers(other) == []


def test_five_starts_of_one_agent_in_one_moment_have_nothing_in_common(another_desk: NewDesk) -> None:
    agent = f"{AGENT}-five"  # whose sidecars nobody connects to the scenery
    desks = [another_desk(agent) for _ in range(5)]
    children = [each.terminal("start", "-y", agent) for each in desks]
    for child in children:
        child.expect_exact(f"attaching to claude-bottle-{agent}", timeout=300)
    assert running(desks[0]) == (5, 5), "\n".join(map(since, children))
    boxes = [container(role, agent).split() for role in ("agent", "sidecar")]
    name, attached = "{{.Name}}", "{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}"
    names, networks = (docker("inspect", "-f", form, *boxes[0], *boxes[1]).splitlines() for form in (name, attached))
    assert len(set(names)) == 10
    own = [set(line.split()) for line in networks]
    assert [len(each) for each in own] == [1] * 5 + [2] * 5
    assert len(set().union(*own[:5])) == 5 and len(set().union(*own)) == 10
    for box in boxes[0]:
        assert through_proxy(box, "denied.test").startswith("HTTP/1.1 403")
    for child in children:
        child.kill(signal.SIGTERM)
    for child in children:
        child.expect(pexpect.EOF)
        child.wait()
    assert all(leftovers(each) == [] for each in desks)


def test_two_agents_run_side_by_side_each_with_its_own_way_out(desk: Desk, another_desk: NewDesk) -> None:
    desks = (desk, another_desk(f"{AGENT}-other"))
    children = [each.terminal("start", "-y", each.agent) for each in desks]
    for each, child in zip(desks, children, strict=True):
        child.expect_exact(f"attaching to claude-bottle-{each.agent}")
        until(lambda each=each: client_runs(each.agent))
    assert [running(each) for each in desks] == [(1, 1), (1, 1)]
    boxes = [container("agent", each.agent) for each in desks]
    for each, box in zip(desks, boxes, strict=True):
        attached = docker("inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", box)
        assert attached.split() == [f"claude-bottle-net-{each.agent}"]
    addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    for address in docker("inspect", "-f", addresses, container("sidecar")).split():
        tried = in_container(boxes[1], "timeout", "3", "socat", "/dev/null", f"TCP:{address}:8888")
        assert tried.returncode != 0, "a bottle reaches another one's way out"
    end(children[0])
    assert leftovers(desk) == [] and running(desks[1]) == (1, 1)
    end(children[1])
    assert leftovers(desks[1]) == []


def test_a_dry_run_makes_nothing_and_asks_nothing(desk: Desk) -> None:
    desk.manifest({"env": {"ASKED": "?what", "UNSET": "${NO_SUCH_VARIABLE}"}})
    done = desk.run("start", "--dry-run", AGENT)
    assert done.returncode == 0, done.stderr
    assert "env (names only) : ASKED UNSET CLAUDE_CODE_OAUTH_TOKEN" in done.stderr
    assert leftovers(desk) == []


def test_the_checkout_runs_through_a_link(desk: Desk, tmp_path: Path) -> None:
    link = tmp_path / "bottle"
    link.symlink_to(os.path.relpath(ROOT / "cli.sh", tmp_path))
    done = subprocess.run([link], env=desk.env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bottle <command>")
