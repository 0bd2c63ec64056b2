"""Projects whose repository is not simply in them, on the real engine: git there says what it says on the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.projects import git, large_file, repository, status, tips, unsettle, write

from .conftest import AGENT, Desk, container, end

WORKSPACE = "/home/node/workspace"


@contextmanager
def bottle_of(desk: Desk, project: Path, *plan: str) -> Iterator[None]:
    """Have a bottle with a project in it.

    Args:
        desk: that it is started from.
        project: its folder.
        plan: what its plan says, in this order.
    """
    desk.cwd = project
    desk.env["PWD"] = str(project)
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.setwinsize(40, 1000)
    for line in plan:
        child.expect_exact(line)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    yield
    end(child)


def inside(*words: str, folder: str = WORKSPACE) -> str:
    """Run something in the bottle as its user does, and return what it says."""
    done = subprocess.run(
        ["docker", "exec", "-w", folder, container("agent"), *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def the_same(project: Path, folder: str = WORKSPACE) -> None:
    """Check that git says the same in both places, and that what it has in the bottle is whole."""
    assert inside("git", "status", "--porcelain=v1", folder=folder) == status(project)
    assert inside("git", "diff", "--cached", folder=folder) == git(project, "diff", "--cached").rstrip("\n")
    assert tips(inside("git", "show-ref", folder=folder)) == tips(git(project, "show-ref"))
    assert (
        inside("git", "log", "--oneline", "--all", folder=folder) == git(project, "log", "--oneline", "--all").strip()
    )
    assert inside("git", "fsck", "--connectivity-only", folder=folder) == ""


def commits(folder: str = WORKSPACE) -> None:
    """Check that work can be committed there."""
    inside("git", "add", "-A", folder=folder)
    inside("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "work", folder=folder)
    assert inside("git", "status", "--porcelain", folder=folder) == ""


def test_a_linked_worktree_has_its_own_index_branch_and_large_files(desk: Desk, tmp_path: Path) -> None:
    main, tree = repository(tmp_path / "main"), tmp_path / "tree"
    write(main, **{".git/hooks/pre-push": '#!/bin/sh\nexec git lfs pre-push "$@"\n'})
    (main / ".git" / "hooks" / "pre-push").chmod(0o755)
    git(main, "config", "http.https://example.org/.extraHeader", "Authorization: secret")
    git(main, "remote", "add", "origin", "https://token-0123456789abcdef@example.org/x")
    git(main, "worktree", "add", "-q", "-b", "topic", str(tree))
    digest = large_file(tree, "data.bin", os.urandom(300_000), main / ".git")
    large_file(tree, "other.bin", b"never staged", main / ".git")
    git(tree, "rm", "-qf", "other.bin")
    git(tree, "commit", "-qm", "large")
    unsettle(tree)
    before = git(main, "for-each-ref")
    plan = f"git            : linked worktree, of {main}/.git; the bottle's repository is one of its own"
    with bottle_of(desk, tree, plan):
        filter_ = ("-c", f"filter.lfs.clean={tmp_path}/clean")
        assert inside("git", "status", "--porcelain=v1") == git(tree, *filter_, "status", "--porcelain=v1").rstrip("\n")
        assert inside("git", "symbolic-ref", "HEAD") == "refs/heads/topic"
        assert tips(inside("git", "show-ref")) == tips(git(tree, "show-ref"))
        assert inside("git", "fsck") == ""
        assert inside("git", "lfs", "ls-files", "-l").split()[:2] == [digest, "*"]
        inside("rm", "data.bin")
        inside("git", "checkout", "data.bin")
        assert inside("sha256sum", "data.bin").split()[0] == digest
        assert inside("find", ".git/lfs/objects", "-type", "f").count("\n") == 0
        assert inside("cat", ".git/hooks/pre-push").endswith('"$@"')
        config = inside("cat", ".git/config")
        assert "token" not in config and "secret" not in config and "example.org/x" in config
        commits()
    assert git(main, "for-each-ref") == before
