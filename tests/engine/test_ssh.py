"""ssh out of a bottle, to a real sshd behind the sidecar."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from fixtures.scenery import Scenery, free_subnet

from .conftest import AGENT, GIT_HOST, Desk, container, docker, end, leftovers, until

PROJECT = f"cb-ssh-test-{os.getpid()}"


class GitHost:
    """The container with sshd and a repository."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    @property
    def address(self) -> str:
        return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.identity)

    def run(self, script: str) -> str:
        return docker("exec", self.identity, "sh", "-c", script)

    def host_key(self) -> str:
        return " ".join(self.run("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def change_host_key(self) -> None:
        before = self.host_key()
        self.run("rm /etc/ssh/ssh_host_*_key* && ssh-keygen -A && kill -HUP 1")
        until(lambda: self.run("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | wc -l") == "1")
        assert self.host_key() != before


@pytest.fixture
def git_host(desk: Desk) -> Iterator[GitHost]:
    scenery = Scenery(PROJECT, [AGENT])
    docker("network", "create", "--subnet", free_subnet(), scenery.network)
    aliases = ("--network-alias", "forge.test", "--network-alias", "wrong.test")
    host = GitHost(docker("run", "-d", "--network", scenery.network, *aliases, GIT_HOST))
    try:
        until(lambda: host.run("ssh-keyscan -p 2222 -t ed25519 127.0.0.1 2>/dev/null | wc -l") == "1")
        with scenery.watching():
            yield host
    finally:
        docker("rm", "-f", "-v", host.identity)
        until(lambda: not leftovers(desk))
        docker("network", "rm", scenery.network)


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


def entry(host: str, hostname: str, port: int, known: str = "") -> dict[str, object]:
    fields = {"Host": host, "IdentityFile": "id", "Hostname": hostname, "User": "git", "Port": port}
    return {**fields, **({"KnownHostKey": known} if known else {})}


@pytest.fixture
def bottle(desk: Desk, git_host: GitHost, tmp_path: Path) -> Iterator[pexpect.spawn]:
    public = make_key(desk.cwd / "id")
    git_host.run(f"echo '{public}' >/home/git/.ssh/authorized_keys && chown -R git /home/git/.ssh")
    other = " ".join(make_key(tmp_path / "other").split()[:2])
    entries = [
        entry("forge", "forge.test", 22),
        entry("pinned", "forge.test", 2222, git_host.host_key()),
        entry("wrong", "wrong.test", 22, other),
        entry("by-address", git_host.address, 22),
    ]
    desk.manifest({"ssh": entries})
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"setting up ssh in claude-bottle-{AGENT}")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    yield child
    end(child)


def as_node(script: str) -> subprocess.CompletedProcess[str]:
    words = ["docker", "exec", "-u", "node", "-w", "/tmp", container("agent"), "bash", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.smoke
def test_git_works_over_ssh_and_the_key_stays_out_of_reach(bottle: pexpect.spawn, git_host: GitHost) -> None:
    work = (
        "set -e; git clone -q ssh://forge/home/git/repo.git r; cd r\n"
        "git config user.name n; git config user.email n@n\n"
        "echo hello >file; git add file; git commit -qm first; git push -q origin HEAD:main\n"
        "git clone -q ssh://pinned/home/git/repo.git ../again; cat ../again/file\n"
        "git ls-remote -q ssh://by-address/home/git/repo.git main | cut -f 2"
    )
    done = as_node(work)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hello", "refs/heads/main"]
    assert git_host.run("git --git-dir=/home/git/repo.git -c safe.directory='*' show main:file") == "hello"

    wrong = as_node("ssh -o BatchMode=yes wrong true")
    assert wrong.returncode != 0 and "Host key verification failed" in wrong.stderr

    assert as_node("SSH_AUTH_SOCK=/run/claude-bottle-agent.sock ssh-add -l").returncode != 0
    assert as_node("SSH_AUTH_SOCK=/run/claude-bottle-agent-public.sock ssh-add -l").returncode == 0
    search = "grep -rlsa 'OPENSSH PRIVATE KEY-----' / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr"
    assert as_node(search).stdout == ""
    assert docker("exec", "-u", "root", container("agent"), "sh", "-c", search, check=False) == ""
    for process in docker("exec", "-u", "node", container("agent"), "pidof", "ssh-agent").split():
        assert as_node(f"cat /proc/{process}/environ /proc/{process}/mem").returncode != 0

    git_host.change_host_key()
    changed = as_node("ssh -o BatchMode=yes forge true")
    assert changed.returncode != 0 and "HOST IDENTIFICATION HAS CHANGED" in changed.stderr
