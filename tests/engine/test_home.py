"""The work of a hostile bottle comes home on the real engine, or is kept; nothing of it runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pexpect

from .conftest import AGENT, Desk, container, docker, leftovers, until
from .test_workspace import git

WORK = f"claude-bottle/{AGENT}-1/work"
# What a repository can have run, or be called, on either side; a marker for each that does run.
HOSTILE = r"""
set -e
export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@x
echo two > a; git commit -qam second
git checkout -q -b side; echo side > s; git add s; git commit -qm side; git checkout -q -
tip=$(git rev-parse side)
printf '#!/bin/sh\necho "$0" >> /home/node/ran\n' > /home/node/run; chmod +x /home/node/run
for hook in post-index-change pre-commit reference-transaction post-commit; do cp /home/node/run .git/hooks/$hook; done
git config core.fsmonitor /home/node/run
git config alias.pack-objects '!/home/node/run'
git config core.pager /home/node/run
git config filter.x.clean '/home/node/run; cat'
git config --global core.hooksPath /workspace/.git/hooks
ln -s /etc/passwd out
echo new > new
printf '%s refs/heads/%s\n' $tip HEAD $tip x/y $tip x >> .git/packed-refs
rm -f /home/node/ran
"""
EVIL = r"""
inner=$(printf '100644 blob %s\tconfig\n' $(echo x | git hash-object -w --stdin) | git mktree)
git update-ref refs/heads/evil $(git commit-tree $(printf '040000 tree %s\t.git\n' $inner | git mktree) -p HEAD -m evil)
"""


def project(desk: Desk) -> dict[str, bytes]:
    (desk.cwd / "a").write_text("one\n")
    git(desk.cwd, "init", "-q")
    git(desk.cwd, "add", ".")
    git(desk.cwd, "commit", "-qm", "first")
    (desk.cwd / "not committed").write_text("by the user\n")
    return untouched(desk)


def untouched(desk: Desk) -> dict[str, bytes]:
    """Return what no bottle may change."""
    found = {}
    for path in sorted(desk.cwd.rglob("*")):
        name = path.relative_to(desk.cwd).as_posix()
        if path.is_file() and "/claude-bottle/" not in name and not name.startswith(".git/objects/"):
            found[name] = path.read_bytes()
    return found


def branches(desk: Desk) -> list[str]:
    return git(desk.cwd, "for-each-ref", "--format=%(refname:short)", "refs/heads/claude-bottle").split()


def kept(desk: Desk) -> list[Path]:
    return sorted((desk.home / ".local" / "state" / "claude-bottle" / "work").glob("*/*"))


def test_the_work_of_a_hostile_bottle_comes_home_and_nothing_of_it_runs(shell: Desk) -> None:
    before = project(shell)
    watched = 'trap "" TERM; test ! -e /home/node/ran && git --no-pager log --oneline -1 >/dev/null\n'
    done = shell.run("start", "-y", "--cwd", AGENT, stdin=HOSTILE + watched)
    assert f"work came home: {WORK} and " in done.stderr, done.stderr
    assert untouched(shell) == before and kept(shell) == [] and leftovers(shell) == []
    found = branches(shell)
    assert f"claude-bottle/{AGENT}-1/heads/side" in found and WORK in found
    assert set(found) - {WORK, f"claude-bottle/{AGENT}-1/heads/side", f"claude-bottle/{AGENT}-1/heads/x"} == {
        name for name in found if f"claude-bottle/{AGENT}-1/unnamed/" in name
    }
    tree = git(shell.cwd, "ls-tree", WORK).splitlines()
    assert [line.split()[0] for line in tree if line.endswith(("\tout", "\tnew", "\tnot committed"))] == [
        "100644",
        "100644",
        "120000",
    ]
    assert git(shell.cwd, "show", f"{WORK}:a") == "two\n"
    assert git(shell.cwd, "log", "-1", "--format=%an", WORK).strip() == f"claude-bottle {AGENT}"
    assert git(shell.cwd, "fsck", "--strict", "--no-dangling") == ""


def test_refused_work_is_kept_unopened_and_that_of_a_stopped_bottle_comes_home(shell: Desk) -> None:
    before = project(shell)
    done = shell.run(
        "start", "-y", "--cwd", AGENT, stdin="set -e\ngit config user.name x; git config user.email x\n" + EVIL
    )
    assert done.returncode == 1 and "hasDotgit" in done.stderr, done.stderr
    (_, raw) = kept(shell)
    assert raw.name == "work.tar" and leftovers(shell) == [] and branches(shell) == []
    again = shell.run("bring", AGENT)
    assert again.returncode == 1 and "hasDotgit" in again.stderr, again.stderr
    assert not docker(
        "ps", "-aq", "--filter", "label=claude-bottle.role=packer", "--filter", f"label=claude-bottle.slug={AGENT}"
    )
    for path in kept(shell):
        path.unlink()
    child = shell.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("echo stopped > a; echo do''ne")
    child.expect_exact("done")
    docker("kill", container("agent"))
    child.expect_exact(f"work came home: {WORK} (1 commit)")
    child.wait()
    assert git(shell.cwd, "show", f"{WORK}:a") == "stopped\n"
    assert untouched(shell) == before
    until(lambda: not leftovers(shell), 30)


def test_the_reaper_brings_home_the_work_of_a_killed_launcher(shell: Desk) -> None:
    before = project(shell)
    child = shell.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("echo killed > a; echo do''ne")
    child.expect_exact("done")
    brought = shell.run("bring", AGENT)
    assert f"work came home: {WORK} (1 commit)" in brought.stderr, brought.stderr
    child.sendline("echo later > a; echo ag''ain")
    child.expect_exact("again")
    os.kill(child.pid, signal.SIGKILL)
    child.close(force=True)
    until(lambda: not leftovers(shell) and len(branches(shell)) == 2, 90)
    assert git(shell.cwd, "show", f"claude-bottle/{AGENT}-2/work:a") == "later\n"
    assert untouched(shell) == before
    until(lambda: "work came home" in shell.run("list").stderr)


def test_without_a_place_for_it_the_container_stays_stopped_and_is_not_swept(shell: Desk) -> None:
    before = project(shell)
    child = shell.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    child.sendline("git config user.name x; git config user.email x" + EVIL.replace("\n", "; ") + "echo do''ne")
    child.expect_exact("done")
    (note,) = kept(shell)
    (note.parent / "work.tar.new").mkdir()  # in place of a full disk
    child.sendline("exit")
    child.expect_exact("it is kept in container 'claude-bottle-kept.")
    child.expect(pexpect.EOF)
    name = docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name=claude-bottle-kept.{AGENT}.")
    try:
        assert docker("inspect", "-f", "{{.State.Running}}", name) == "false"
        shell.run("cleanup", "--stale", "--yes")
        assert docker("ps", "-aq", "--filter", f"name={name}")
        elsewhere = shell.run("bring", AGENT, HOME=str(shell.tmp))
        assert elsewhere.returncode == 1 and f"'{name}' was started under another HOME" in elsewhere.stderr
        assert untouched(shell) == before and leftovers(shell) == []
    finally:
        docker("rm", name)
