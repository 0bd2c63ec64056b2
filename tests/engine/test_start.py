"""A bottle from its start to its end, on the real engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pexpect
import pytest

from .conftest import ROOT, TOKEN, Desk, client_runs, container, docker, leftovers, until

NO_SUCH_IMAGE = "127.0.0.1:9/none@sha256:" + "0" * 64


def test_the_real_client_answers_through_a_pipe_and_nothing_is_left(desk: Desk) -> None:
    done = desk.run("start", "-y", "tester", "--", "--version")
    assert done.returncode == 0, done.stderr
    assert "Claude Code" in done.stdout and len(done.stdout.splitlines()) == 1
    assert leftovers(desk) == []


def test_the_real_client_reaches_its_prompt_on_a_terminal(session: pexpect.spawn, desk: Desk) -> None:
    session.expect("bypass permissions", timeout=90)
    assert "Do you trust" not in str(session.before) and "theme" not in str(session.before)
    session.kill(signal.SIGTERM)
    session.expect(pexpect.EOF)
    session.wait()
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
    session.kill(signal.SIGTERM)
    session.expect(pexpect.EOF)
    session.wait()
    assert leftovers(desk) == []


def in_bottle(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "exec", container("agent"), *words], capture_output=True, text=True, timeout=60)


def test_the_sidecar_is_the_only_way_out(session: pexpect.spawn) -> None:
    denied = in_bottle(
        "sh",
        "-c",
        "printf 'CONNECT denied.test:443 HTTP/1.1\\r\\nHost: denied.test:443\\r\\n\\r\\n' | "
        "timeout 5 socat - TCP:${HTTPS_PROXY#http://}",
    )
    assert denied.stdout.startswith("HTTP/1.1 403"), denied
    assert "domain not in allowlist: denied.test" in denied.stdout
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.settimeout(0)
        for network in docker("network", "ls", "-q", "--filter", "driver=bridge").split():
            gateway = docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}")
            target = f"TCP:{gateway}:{listener.getsockname()[1]},connect-timeout=2"
            assert in_bottle("timeout", "3", "socat", "/dev/null", target).returncode != 0
        with pytest.raises(BlockingIOError):
            listener.accept()
    began = time.monotonic()
    assert in_bottle("timeout", "5", "getent", "hosts", "example.test").returncode != 0
    assert time.monotonic() - began < 4


def test_the_token_and_secrets_are_in_the_session_and_nowhere_else(desk: Desk) -> None:
    desk.env["HOST_SECRET"] = "a value with 'quotes' and $dollars kept apart 91"
    desk.manifest({"env": {"FROM_HOST": "${HOST_SECRET}", "OPTIND": "${HOST_SECRET}", "PLAIN": "literal"}})
    child = desk.terminal("start", "-y", "tester")
    child.expect_exact("attaching to claude-bottle-tester")
    until(client_runs)
    box = container("agent")
    script = """for p in /proc/[0-9]*/environ; do tr '\\0' '\\n' <"$p"; done 2>/dev/null"""
    environ = docker("exec", box, "sh", "-c", script, check=False)
    assert f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN}" in environ
    assert f"FROM_HOST={desk.env['HOST_SECRET']}" in environ and "PLAIN=literal" in environ
    for value in (TOKEN, desk.env["HOST_SECRET"]):
        assert value not in docker("inspect", box)
        assert value not in docker("inspect", container("sidecar"))
        for place in (
            "/run/docker",
            str(desk.tmp),
            "/run/containerd",
            "/var/lib/claude-bottle-engine",
            "/var/lib/docker",
        ):
            found = subprocess.run(["grep", "-rlaF", "--", value, place], capture_output=True, text=True)
            assert found.stdout == "", f"in {found.stdout}"
        arguments = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
        assert value not in arguments
        assert value not in str(child.before)
    assert docker("exec", box, "ls", "-A", "/run/claude-bottle") == ""
    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.wait()


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
    child = desk.terminal("start", "-y", "--cwd", "tester")
    child.expect_exact("attaching to claude-bottle-tester")
    seen = docker(
        "exec",
        container("agent"),
        "stat",
        "-c",
        "%n %U %a",
        "/home/node/.claude-bottle-prompt.txt",
        "/home/node/.claude/skills/review/SKILL.md",
        "/home/node/.claude/skills/review/run.sh",
        "/home/node/workspace/file with spaces",
        "/home/node/workspace/.git/HEAD",
    ).splitlines()
    assert seen == [
        "/home/node/.claude-bottle-prompt.txt node 600",
        "/home/node/.claude/skills/review/SKILL.md node 644",
        "/home/node/.claude/skills/review/run.sh node 755",
        "/home/node/workspace/file with spaces node 644",
        "/home/node/workspace/.git/HEAD node 644",
    ]
    assert docker("exec", container("agent"), "cat", "/home/node/.claude-bottle-prompt.txt") == "Say hello."
    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.wait()
    assert leftovers(desk) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_the_session_removes_everything(
    session: pexpect.spawn, desk: Desk, number: signal.Signals
) -> None:
    session.kill(number)
    session.expect(pexpect.EOF)
    session.wait()
    assert session.exitstatus == 128 + number
    assert leftovers(desk) == []


MOMENTS = (
    "launch this agent?",
    "building image",
    "creating network claude-bottle-net",
    "creating network claude-bottle-egress",
    "starting pipelock",
    "starting container",
    "copying prompt",
    "attaching to",
)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment_leaves_nothing(desk: Desk, moment: str, number: signal.Signals) -> None:
    child = desk.terminal("start", "tester")
    child.expect_exact("launch this agent?")
    if moment != "launch this agent?":
        child.sendline("y")
        child.expect_exact(moment)
    os.kill(child.pid, number)
    child.expect(pexpect.EOF)
    child.wait()
    if number == signal.SIGTERM:
        assert child.exitstatus == 128 + number
        assert leftovers(desk) == []
    until(lambda: leftovers(desk) == [], 60)


def test_a_sidecar_image_that_cannot_be_had_ends_in_dockers_words_and_nothing_left(desk: Desk) -> None:
    done = desk.run("start", "-y", "tester", CLAUDE_BOTTLE_PIPELOCK_IMAGE=NO_SUCH_IMAGE)
    assert done.returncode == 1
    assert "creating network claude-bottle-net-tester" in done.stderr
    assert "creating network claude-bottle-egress-tester" in done.stderr
    assert "error: pipelock: docker create failed: " in done.stderr and "127.0.0.1:9" in done.stderr
    assert leftovers(desk) == []


def test_two_starts_of_one_agent_in_one_moment_run_side_by_side(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Desk(tmp_path_factory.mktemp("other"))
    children = [each.terminal("start", "-y", "tester") for each in (desk, other)]
    for child in children:
        child.expect("attaching to claude-bottle-tester")
    assert len(container("agent").split()) == 2 and len(container("sidecar").split()) == 2
    children[0].kill(signal.SIGTERM)
    children[0].expect(pexpect.EOF)
    assert len(container("agent").split()) == 1 and len(container("sidecar").split()) == 1
    children[1].kill(signal.SIGTERM)
    children[1].expect(pexpect.EOF)
    for child in children:
        child.wait()
    assert leftovers(desk) == [] and leftovers(other) == []


def test_a_dry_run_makes_nothing_and_asks_nothing(desk: Desk) -> None:
    desk.manifest({"env": {"ASKED": "?what", "UNSET": "${NO_SUCH_VARIABLE}"}})
    done = desk.run("start", "--dry-run", "tester")
    assert done.returncode == 0, done.stderr
    assert "env (names only) : ASKED UNSET CLAUDE_CODE_OAUTH_TOKEN" in done.stderr
    assert leftovers(desk) == []


def test_the_checkout_runs_through_a_link(desk: Desk, tmp_path: Path) -> None:
    link = tmp_path / "bottle"
    link.symlink_to(os.path.relpath(ROOT / "cli.sh", tmp_path))
    done = subprocess.run([link], env=desk.env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bottle <command>")
