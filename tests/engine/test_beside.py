"""Commands beside a session, and the end of bottles from outside, on the real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER

from tests.terminal import Terminal

from .conftest import AGENT, Desk, container, docker, leftovers, resize, until
from .test_bottle import ask, session

HOST_VALUE = "a-value-of-the-host-7721"
WAITS = 'trap "echo ended; exit 9" TERM; echo ready; while :; do sleep 0.1; done'


@pytest.fixture
def bottle(shell: Desk) -> Iterator[Desk]:
    """A desk whose agent's session waits, in its project."""
    (shell.cwd / "file").write_text("of the project\n")
    shell.env["SOME_VALUE"] = HOST_VALUE
    shell.manifest({"env": {"PLAIN": "plain 4711", "FROM_HOST": "${SOME_VALUE}"}})
    with session(shell, "--cwd") as child:
        assert ask(child, "echo $FROM_HOST") == f"{HOST_VALUE}\n"
        yield shell


@contextmanager
def begun(desk: Desk, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher that is under way, and ended at the latest with the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [desk.launcher, *words], cwd=desk.home, env=desk.env, text=True, stdout=pipe, stdin=pipe
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def runs(command: str) -> bool:
    """Say whether a command runs in the bottle."""
    lines = docker("top", container("agent"), "-eo", "pid,args").splitlines()
    return command in (line.partition(" ")[2].strip() for line in lines)


def test_a_command_beside_the_session_has_all_but_its_secrets(bottle: Desk) -> None:
    done = bottle.run("exec", AGENT, "/usr/bin/env", "-0")
    assert (done.returncode, done.stderr) == (0, "")
    seen = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    assert seen["PLAIN"] == "plain 4711" and "FROM_HOST" not in seen and HOST_VALUE not in done.stdout
    assert seen["CLAUDE_CODE_OAUTH_TOKEN"] == TOKEN_PLACEHOLDER
    assert seen["HTTPS_PROXY"].startswith("http://claude-bottle-pipelock-")
    name = f"claude-bottle-{AGENT}"
    script = f"cat file; id -un; ls {seen['SSL_CERT_FILE']}; git config http.version; cat; exit 7"
    done = bottle.run("exec", name, "--", "sh", "-c", script, stdin="typed\n")
    said = ["of the project", "node", seen["SSL_CERT_FILE"], "HTTP/1.1", "typed"]
    assert (done.returncode, done.stdout.splitlines()) == (7, said), done.stderr
    assert bottle.run("exec", AGENT, "sh", "-c", "kill -9 $$").returncode == 137
    script = "cd; for each in .claude/CLAUDE.md /etc/claude-bottle/policy.json; do cat $each; echo >$each; done"
    done = bottle.run("exec", AGENT, "sh", "-c", f"{script}; readlink .claude/CLAUDE.md; ls /home/node/workspace")
    told, _, rest = done.stdout.partition("{\n")
    assert told.startswith("# Your box\n") and "api.anthropic.com" in told and len(told.splitlines()) <= 10
    data, _, rest = rest.partition("\n}\n")
    assert "api.anthropic.com" in json.loads(f"{{{data}}}")["hosts"]
    assert done.stderr.count("Permission denied") == 2 and rest == "/etc/claude-bottle/CLAUDE.md\nfile\n", done
    done = bottle.run("exec", AGENT, "no-such-thing")
    assert (done.returncode, done.stdout) == (127, "")
    assert "cannot run no-such-thing in the bottle: it is not on the PATH" in done.stderr


def test_signals_and_closed_pipes_reach_the_command(bottle: Desk) -> None:
    with begun(bottle, "exec", AGENT, "sh", "-c", WAITS) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=30)[0] == "ended\n"
    assert child.returncode == 9
    with begun(bottle, "exec", AGENT, "sleep", "4711") as child:
        until(lambda: runs("sleep 4711"))
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    with begun(bottle, "exec", AGENT, "yes") as child:
        assert child.stdout and child.stdout.readline() == "y\n"
        child.stdout.close()
        assert child.wait(timeout=30) == 128 + signal.SIGPIPE
    until(lambda: not runs("sleep 4711") and not runs("yes"))


def test_a_command_on_a_terminal_is_one_on_a_terminal(bottle: Desk) -> None:
    child = bottle.terminal("exec", AGENT, "bash", "--norc")
    child.sendline("tty; stty size")
    child.expect_exact("/dev/pts/")
    child.expect_exact("40 120")
    resize(child)
    child.sendline("sleep 4712")
    until(lambda: runs("sleep 4712"))
    child.sendintr()
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 5
    closed = Terminal([bottle.launcher, "exec", AGENT, "sleep", "4713"], bottle.cwd, bottle.env)
    until(lambda: runs("sleep 4713"))
    closed.hang_up()
    assert closed.wait() == 128 + signal.SIGHUP
    until(lambda: not runs("sleep 4713"))


def test_a_bottle_is_stopped_by_its_own_launcher_or_without(shell: Desk) -> None:
    with session(shell) as first, session(shell) as second:
        names = docker("ps", "--format", "{{.Names}}", "--filter", f"label=claude-bottle.slug={AGENT}").split()
        agents = sorted(name for name in names if "pipelock" not in name and "broker" not in name)
        assert len(agents) == 2
        done = shell.run("stop", AGENT)
        assert done.returncode == 1 and f"2 bottles of '{AGENT}' run: name the container" in done.stderr
        assert all(f"hint: {name} (Up " in done.stderr for name in agents)
        launcher = int(label(f"claude-bottle-{AGENT}", "launcher").split()[0])
        reaper = int(label(f"claude-bottle-{AGENT}", "reaper").split()[0])
        killed, other = (first, second) if launcher == first.pid else (second, first)
        os.kill(reaper, signal.SIGKILL)
        os.kill(launcher, signal.SIGKILL)
        killed.wait(timeout=30)
        done = shell.run("stop", f"claude-bottle-{AGENT}")
        said = [f"claude-bottle: {what} claude-bottle-{AGENT}" for what in ("stopping", "stopped")]
        assert (done.returncode, done.stderr.splitlines()) == (0, said)
        assert other.poll() is None
        other.send_signal(signal.SIGSTOP)
        done = shell.run("stop", AGENT)
        assert done.returncode == 0, done.stderr
        assert other.wait(timeout=30) == 128 + signal.SIGTERM
        stages = list(shell.tmp.iterdir())
        assert [name for name in leftovers(shell) if not name.startswith(str(shell.tmp))] == [] and len(stages) == 1
        assert shell.run("cleanup", "--stale", "--yes").returncode == 0


def label(name: str, which: str) -> str:
    return docker("inspect", "--format", f'{{{{index .Config.Labels "claude-bottle.{which}"}}}}', name)
