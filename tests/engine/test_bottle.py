"""What a session finds in its bottle, and what steers nothing there: asked by a client that is a shell."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import AGENT, ROOT, SHELL_IMAGE, Desk, checkout, container, docker, end, leftovers, until

PROXIED = f"{SHELL_IMAGE}-proxied"
PROXIED_BROKER = f"{PROXIED}-broker"
STEERED = "/tmp/steered"
PROGRAMS = ("sh", "rm", "env", "cat", "mkdir", "chmod", "seq", "socat", "ssh-agent", "ssh-add", "perl")
# The image's own variables: a helper that heeds one leaves a file of root's, or does not run.
HOSTILE_IMAGE = (
    f"RUN mkdir /opt/own && cd /opt/own && for each in {' '.join(PROGRAMS)}; do"
    f" printf '#!/bin/bash\\nid >>{STEERED}\\n' >$each; chmod 755 $each; done\n"
    f"RUN echo 'id >>{STEERED}' >/opt/own/rc\n"
    "USER node\n"
    "ENV PATH=/opt/own:/usr/local/bin:/usr/bin:/bin BASH_ENV=/opt/own/rc ENV=/opt/own/rc PERL5OPT=-Mnone\n"
)


def said(desk: Desk, script: str, *flags: str) -> str:
    """Return what a session's shell said to a script."""
    done = desk.run("start", "-y", *flags, AGENT, stdin=script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(desk: Desk) -> dict[str, str]:
    """Return the environment of a session without a terminal."""
    pairs = said(desk, "/usr/bin/env -0\n").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


@contextmanager
def session(desk: Desk, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A session without a terminal, whose shell waits for its next line."""
    with subprocess.Popen(
        [desk.launcher, "start", "-y", *flags, AGENT],
        cwd=desk.cwd,
        env=desk.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            ready = ask(child, "echo ready")
            assert ready == "ready\n", child.communicate(timeout=60)
            yield child
        finally:
            child.terminate()
            child.communicate(timeout=60)


def ask(child: subprocess.Popen[str], line: str) -> str:
    """Give the shell a line, and return the line that it answers."""
    assert child.stdin and child.stdout
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return child.stdout.readline()


def key_and_skill(desk: Desk) -> tuple[list[object], list[str]]:
    """Return an ssh entry and a skill that root's helpers have work with."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(desk.cwd / "id")], check=True)
    (desk.home / ".claude" / "skills" / "review").mkdir(parents=True)
    entry = {"Host": "forge", "IdentityFile": "id", "Hostname": "git.test", "User": "git", "Port": 22}
    return [entry], ["review"]


def test_a_manifests_values_are_the_sessions_alone(shell: Desk) -> None:
    keys, skills = key_and_skill(shell)
    tools = shell.cwd / "bin"
    tools.mkdir()
    for name in PROGRAMS:
        (tools / name).write_text(f'#!/bin/bash\n(id; cat) >>{STEERED}\nexec /usr/bin/{name} "$@"\n')
        (tools / name).chmod(0o755)
    (tools / "rc").write_text(f"id >>{STEERED}\n")
    env = {
        "PATH": "/home/node/workspace/bin:/usr/bin:/bin",
        "BASH_ENV": "/home/node/workspace/bin/rc",
        "PERL5OPT": "-Mnone",
        "LD_DEBUG": "libs",  # whoever heeds it leaves a file with its number
        "LD_DEBUG_OUTPUT": "/tmp/loader",
        "PLAIN": "plain-4711",
    }
    shell.manifest({"env": env, "ssh": keys}, {"skills": skills})
    with session(shell, "--cwd") as child:
        kept = docker("inspect", container("agent")) + docker("inspect", container("sidecar"))
        assert [value for value in env.values() if value in kept and value != "libs"] == []
        assert [name for name in env if f'"{name}=' in kept and name != "PATH"] == []
        assert ask(child, f"/usr/bin/test -e {STEERED}; echo $?") == "1\n"
        assert ask(child, "/usr/bin/find /tmp -name 'loader.*' -user root | /usr/bin/wc -l") == "0\n"
        assert ask(child, "/usr/bin/tr '\\0' '\\n' </proc/$$/environ | /usr/bin/grep -c 'PLAIN=plain-4711'") == "1\n"
        assert ask(child, "echo $PATH") == env["PATH"] + "\n"
        socket = "SSH_AUTH_SOCK=/run/claude-bottle-agent-public.sock"
        assert ask(child, f"{socket} /usr/bin/ssh-add -l | /usr/bin/wc -l") == "1\n"


def test_an_images_own_environment_steers_no_helper(desk: Desk, tmp_path: Path) -> None:
    desk.env["CLAUDE_BOTTLE_IMAGE"] = f"{SHELL_IMAGE}-hostile"
    desk.launcher = checkout(tmp_path / "clone", f"{SHELL_IMAGE}-hostile", HOSTILE_IMAGE)
    try:
        keys, skills = key_and_skill(desk)
        desk.manifest({"env": {"A": "b"}, "ssh": keys}, {"skills": skills})
        with session(desk) as child:
            assert ask(child, f"/usr/bin/test -e {STEERED}; echo $?") == "1\n"
            assert ask(child, "echo $A $PERL5OPT") == "b -Mnone\n"
    finally:
        docker("rmi", "-f", f"{SHELL_IMAGE}-hostile")


def test_a_path_that_names_no_program_is_the_sessions_alone(shell: Desk) -> None:
    shell.manifest({"env": {"PATH": "$PATH:/x"}})
    assert environment(shell)["PATH"] == "$PATH:/x"


def test_words_are_compared_as_utf_8_unless_the_manifest_says_otherwise(shell: Desk) -> None:
    assert said(shell, "echo gr\u00fcn | grep -c '^gr.n$'\n") == "1\n"
    shell.manifest({"env": {"LANG": "C"}})
    assert environment(shell)["LANG"] == "C"


FOUND = (shutil.which("docker", path=folder) for folder in os.get_exec_path())
CLIENTS = sorted({os.path.realpath(client) for client in FOUND if client})


@pytest.fixture
def proxied() -> Iterator[None]:
    docker("build", "-q", "-t", PROXIED_BROKER, "-f", str(ROOT / "Dockerfile.broker"), str(ROOT))
    yield
    docker("rmi", "-f", PROXIED, PROXIED_BROKER)


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("client", CLIENTS)
def test_the_docker_clients_proxies_stay_outside(shell: Desk, tmp_path: Path, client: str) -> None:
    config = tmp_path / "config"
    config.mkdir()
    names = ("httpProxy", "httpsProxy", "ftpProxy", "noProxy", "allProxy")
    proxies = {name: f"http://me:passw0rd@{name}.test:3128".lower() for name in names}
    (config / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(client)
    shell.env |= {"DOCKER_CONFIG": str(config), "PATH": f"{tmp_path / 'bin'}:{shell.env['PATH']}"}
    shell.env["CLAUDE_BOTTLE_IMAGE"] = PROXIED  # build arguments make another image
    shell.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = PROXIED_BROKER  # and would want a proxy that is there
    with session(shell) as child:
        boxes = docker("inspect", container("agent")), docker("inspect", container("sidecar"))
        assert all("passw0rd" not in box for box in boxes)
        assert ask(child, "env | grep -c passw0rd") == "0\n"
        through = f"http://claude-bottle-pipelock-{AGENT}:8888\n"
        assert ask(child, "echo $https_proxy$ALL_PROXY$all_proxy$FTP_PROXY$ftp_proxy") == through
        set_there = json.loads(boxes[1])[0]["Config"]["Env"]
        assert {pair for pair in set_there if "proxy" in pair.lower() and not pair.endswith("=")} == set()


def test_networks_have_no_ipv6(shell: Desk) -> None:
    with session(shell):
        for kind in ("net", "egress"):
            assert docker("network", "inspect", "-f", "{{.EnableIPv6}}", f"claude-bottle-{kind}-{AGENT}") == "false"


def test_dockers_detach_keys_reach_the_session(shell: Desk) -> None:
    child = shell.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("stty raw -echo; echo rea''dy; for n in 1 2 3 4 5; do head -c1 | od -An -tx1; done")
    child.expect_exact("ready")
    for typed in ("\x10", "\x10", "\x11", "\0x"):  # Ctrl-P, Ctrl-P, Ctrl-Q, Ctrl-Space, which may come with the next
        child.send(typed)
        child.expect(r"\s+".join(f" {ord(each):02x}" for each in typed), timeout=20)
    end(child)
    assert leftovers(shell) == []


def test_a_process_that_has_lost_its_parent_leaves_no_zombie(shell: Desk) -> None:
    with session(shell) as child:
        assert ask(child, "(sh -c 'echo $$; exec sleep 0.1' & ) | cat").strip().isdigit()
        zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
        until(lambda: ask(child, zombies) == "0\n" and ask(child, "pidof sleep | wc -w") == "0\n", 10)


@pytest.mark.parametrize("how", [("kill",), ("rm", "-f")])
def test_the_end_of_the_sidecar_is_the_end_of_a_session_without_a_terminal(shell: Desk, how: Sequence[str]) -> None:
    with session(shell) as child:
        docker(*how, container("sidecar"))
        began = time.monotonic()
        child.wait(timeout=60)
        assert child.stderr and child.returncode == 69
        words = child.stderr.read()
        assert words.count("error: pipelock: the sidecar has stopped") == 1, words
        assert time.monotonic() - began < 15  # the teardown included
    assert leftovers(shell) == []


def test_a_session_on_a_terminal_is_told_of_the_sidecars_end_afterwards(shell: Desk) -> None:
    child = shell.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("echo rea''dy")
    child.expect_exact("ready")
    docker("kill", container("sidecar"))
    child.sendline("began=$(date +%s); git ls-remote https://api.anthropic.com/x; echo took $(($(date +%s) - began)).")
    child.expect(r"Could not resolve proxy[^$]*took (\d+)\.")
    assert child.match and int(child.match[1]) < 10
    child.sendline("echo b''ye; exit 3")
    child.expect_exact("bye")
    assert "sidecar has stopped" not in str(child.before)
    child.expect_exact("warning\x1b[0m: pipelock: the sidecar has stopped")
    child.expect_exact("\n")
    child.wait()
    assert child.exitstatus == 3
    assert leftovers(shell) == []


ASKS = r"""
const http = require('http'), proxy = new URL(process.env.HTTP_PROXY);
const agent = new http.Agent({keepAlive: true, maxSockets: 8});
let left = 6000, answers = 0;
function ask() {
  if (left-- <= 0) return;
  const path = 'http://refused.test/' + 'x'.repeat(200);
  http.get({agent, host: proxy.hostname, port: proxy.port, path, headers: {Host: 'refused.test'}}, (answer) => {
    answer.resume().on('end', () => { answers += answer.statusCode === 403; ask(); });
  }).on('error', ask);
}
for (let n = 0; n < 8; n++) ask();
process.on('exit', () => console.log(answers));
"""
MUCH = 2_000_000  # bytes; a sidecar stops serving when nobody has taken the first million or so


def denied(desk: Desk) -> list[tuple[str, int]]:
    """Return the hosts that a running bottle was denied, and how often."""
    lines = desk.run("logs", "--denied", "--json", AGENT).stdout.splitlines()
    return [(row["host"], row["times"]) for row in map(json.loads, lines)]


def test_a_sidecar_that_says_much_is_listened_to(shell: Desk) -> None:
    with session(shell) as child:
        assert ask(child, f"timeout 100 node -e {shlex.quote(ASKS)} || echo too late") == "6000\n"
        assert len(docker("logs", container("sidecar"))) > MUCH
        until(lambda: denied(shell) == [("refused.test", 6000)])
        (mine,) = (one for one in json.loads(shell.run("list", "active", "--json").stdout) if one["agent"] == AGENT)
        assert (mine["state"], mine["folder"]) == ("running", str(shell.cwd)) and mine["memory"] > 0
        assert mine["denied"] == [{"host": "refused.test", "reason": "not listed", "times": 6000}]
        began = time.monotonic()
    assert time.monotonic() - began < 15 and leftovers(shell) == []


SERVER = r"""
const fs = require('fs'), path = require('path');
require('http').createServer((ask, answer) => fs.readFile(path.join('/tmp/repo', new URL(ask.url, 'http://x').pathname),
  (e, data) => { answer.statusCode = e ? 404 : 200; answer.end(data); })).listen(3000, '0.0.0.0');
"""


def test_what_the_bottle_asks_of_itself_needs_no_sidecar(shell: Desk) -> None:
    with session(shell) as child:
        run = f"node -e {shlex.quote(SERVER)} &"
        ask(child, f"git init -q --bare /tmp/repo/x; cd /tmp/repo/x; git update-server-info; {run}\necho made")
        until(lambda: ask(child, "socat - TCP:127.0.0.1:3000 </dev/null >&2 && echo up || echo down") == "up\n", 20)
        for host in ("0.0.0.0", "127.0.0.1", "127.0.0.5", "localhost", "$(hostname)", "$(hostname -i)"):
            asked = f"git ls-remote http://{host}:3000/x >&2; echo $?"
            assert ask(child, asked) == "0\n", host
        assert ask(child, "echo $NO_PROXY").startswith("localhost,127.0.0.1,")
        assert ask(child, '[ "$NO_PROXY" = "$no_proxy" ]; echo $?') == "0\n"
        assert ask(child, "hostname") == f"claude-bottle-{AGENT}\n"


@pytest.mark.parametrize(
    ("outside", "inside"),
    [("xterm-kitty", "xterm-256color"), ("screen-256color", "screen-256color"), ("../x", "xterm-256color")],
)
def test_a_terminal_that_the_image_does_not_know_is_one_it_knows(shell: Desk, outside: str, inside: str) -> None:
    shell.env["TERM"] = outside
    child = shell.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("echo i''t is $TERM.; exit")
    child.expect_exact(f"it is {inside}.")
    child.wait()


def test_the_sample_manifest_commits_in_a_new_repository(shell: Desk) -> None:
    shell.write((ROOT / "claude-bottle.json").read_text().replace('"implementer"', json.dumps(AGENT)))
    commit = "git init -q /tmp/new && cd /tmp/new && echo x >f && git add f && git commit -q -m first"
    assert said(shell, f"{commit} && git log --format=%s\n") == "first\n"
