"""Projects whose repository is not simply in them, on the real engine: git there says what it says on the host."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests import projects
from tests.projects import git, large_file, repository, status, tips, unsettle, write

from .conftest import AGENT, Desk, container, docker, end

WORKSPACE = "/home/node/workspace"


@contextmanager
def bottle_of(desk: Desk, project: Path, *plan: str) -> Iterator[pexpect.spawn]:
    """Have a bottle with a project in it; at its end the launcher has said what it has to say.

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
    yield child
    end(child)


def inside(*words: str, folder: str = WORKSPACE) -> str:
    """Run something in the bottle as its user does, and return what it says."""
    done = subprocess.run(
        ["docker", "exec", "-u", "node", "-w", folder, container("agent"), *words],
        capture_output=True,
        text=True,
        timeout=120,
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
    assert inside("git", "fsck", "--connectivity-only", "--no-dangling", folder=folder) == ""


def came_home(project: Path, *changed: str) -> None:
    """Check that the work is a branch of a repository, and one commit beyond what that has.

    Args:
        project: a folder of the repository.
        changed: what that commit changes.
    """
    (name,) = git(project, "for-each-ref", "--format=%(refname)", "refs/heads/claude-bottle").split()
    assert name == f"refs/heads/claude-bottle/{AGENT}-1/work"
    head = git(project, "rev-parse", "HEAD")
    assert git(project, "rev-parse", f"{name}~1") == head
    assert set(git(project, "diff", "--name-only", "HEAD", name).split()) == set(changed)


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
        (tree.parent / "new.bin").write_bytes(made := os.urandom(2_000_000))
        docker("cp", str(tree.parent / "new.bin"), f"{container('agent')}:{WORKSPACE}/new.bin")
        inside("sh", "-c", "d=.git/lfs/objects/00/11; mkdir -p $d; echo x >$d/0011$(printf %060d 0)")  # it is not
        commits()
    kept = hashlib.sha256(made).hexdigest()
    store = main / ".git" / "lfs" / "objects"
    assert (store / kept[:2] / kept[2:4] / kept).read_bytes() == made
    assert not (store / "00").exists() and list((main / ".git" / "lfs" / "tmp").iterdir()) == []
    came_home(tree, "new.bin", "a.txt", "fresh.txt", "gone.txt", "new.txt", "sub/c.txt")


def chown(folder: Path, owner: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, owner, owner)


def test_a_subfolder_of_a_shared_clone_of_somebody_else_goes_in_alone_with_the_history(
    desk: Desk, tmp_path: Path
) -> None:
    upstream, clone = repository(tmp_path / "upstream"), tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--shared", str(upstream), str(clone))
    write(clone, **{"own.txt": "own", "sub/kept-out.md": "x", "sub/.dockerignore": "*.md\n"})
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "own")
    unsettle(clone, "sub/")
    write(clone, **{"a.txt": "staged outside"})
    git(clone, "add", "a.txt")
    chown(clone, 4711)
    before, place = status(clone), f"{WORKSPACE}/sub"
    assert "M  a.txt" in before
    plan = [
        f"workspace        : {place} (from {clone}/sub)",
        f"git            : subfolder of {clone}; only this folder goes in, with the history of all",
        f"with the history in {upstream}/.git/objects",
        "left out       : 1 tracked files",
    ]
    with bottle_of(desk, clone / "sub", *plan):
        assert inside("ls", "-A") == ".git\nsub"
        the_same(clone / "sub", place)
        assert inside("cat", ".git/config").count("upstream") == 1  # the remote's own address
        assert inside("sh", "-c", "cat .git/objects/info/alternates 2>&1 || true").endswith("No such file or directory")
        (pid,) = inside("sh", "-c", f"ls -l /proc/[0-9]*/cwd 2>/dev/null | grep -c ' {place}$'").split()
        assert int(pid) >= 1  # the session begins there
        commits(place)
        names = inside("git", "show", "--format=", "--name-only", folder=place).splitlines()
        assert "a.txt" in names and "own.txt" not in names and "sub/kept-out.md" not in names
        assert inside("git", "show", "HEAD:own.txt") == "own"
    assert status(clone) == before
    came_home(clone, "a.txt", *(f"sub/{name}" for name in ("deep/b.txt", "c.txt", "fresh.txt", "gone.txt", "new.txt")))


def test_a_shallow_submodule_with_one_of_its_own_is_a_repository_of_the_bottles(desk: Desk, tmp_path: Path) -> None:
    inner, middle = repository(tmp_path / "inner"), repository(tmp_path / "middle")
    git(middle, "submodule", "add", "-q", str(inner), "lib/inner")
    git(middle, "commit", "-qm", "a submodule")
    outer = repository(tmp_path / "outer")
    git(outer, "submodule", "add", "-q", "--depth", "1", f"file://{middle}", "lib/middle")
    git(outer, "submodule", "update", "-q", "--init", "--recursive")
    project = outer / "lib" / "middle"
    git(project, "checkout", "-q", "-b", "topic")
    unsettle(project)
    assert (project / ".git").is_file() and (project / "lib" / "inner" / ".git").is_file()
    plan = [
        "work on submodules does not come home, since their repositories do not go in: lib/inner",
        f"git            : submodule, of {outer}/.git/modules/lib/middle",
    ]
    with bottle_of(desk, project, *plan):
        the_same(project)
        assert inside("git", "log", "--format=%s") == "a submodule"
        assert inside("cat", "lib/inner/a.txt") == "2"
        assert inside("git", "rev-parse", "--show-toplevel") == WORKSPACE
        commits()
    came_home(project, "a.txt", "fresh.txt", "gone.txt", "new.txt", "sub/c.txt")


def test_a_partial_clone_of_somebody_else_and_a_worktree_of_it_work(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream, clone, tree = repository(tmp_path / "upstream"), tmp_path / "clone", tmp_path / "tree"
    git(upstream, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{upstream}", str(clone))
    git(clone, "worktree", "add", "-q", "-b", "topic", str(tree))
    for folder in (clone, tree):
        unsettle(folder)
        chown(folder, 4711)
    (clone / ".git" / "MERGE_HEAD").write_text(git(clone, "rev-parse", "HEAD~1"))
    partial = "the clone is partial: what it lacks git fetches, and in the bottle only from hosts that it may reach"
    write(desk.home, **{".config/git/ignore": "*.swp\n"})
    for folder in (clone, tree):
        write(folder, **{"a.swp": "", "kept": ""})
    monkeypatch.setattr(projects, "HOME", str(desk.home))
    with bottle_of(desk, tree, partial, f"git            : linked worktree, of {clone}/.git"):
        the_same(tree)
        commits()
        assert subprocess.run(["git", "-C", clone, "status"], capture_output=True).returncode  # it is not ours
    with bottle_of(desk, clone, partial):
        the_same(clone)
        assert "All conflicts fixed but you are still merging" in inside("git", "status")
        commits()
    for number, folder in ((1, tree), (2, clone)):
        name = f"claude-bottle/{AGENT}-{number}/work"
        assert git(clone, "rev-parse", f"{name}^1") == git(folder, "rev-parse", "HEAD")
        assert "a.swp" not in git(clone, "ls-tree", "--name-only", name).split()


def test_the_work_on_a_project_without_a_repository_comes_home_as_files(desk: Desk) -> None:
    write(
        desk.cwd, **{"kept": "kept", "sub/changed": "old", "sub/gone": "gone", "run": "#!/bin/sh\n", "ignored.log": ""}
    )
    write(desk.cwd, **{".dockerignore": "*.log\n", "large": "x" * 3_000_000})
    before = {path: path.stat().st_mtime_ns for path in desk.cwd.rglob("*")}
    with bottle_of(desk, desk.cwd, "work             : comes home as a folder (no git repository)") as child:
        script = """
            echo new >sub/changed; rm sub/gone; chmod +x run; ln -s sub/changed in; ln -s /etc/passwd out; mkfifo pipe
            d="deep/$(printf 'a\\033[31mb')"; mkdir -p "$d"; echo x >"$d/file"; git init -q; touch kept
            touch -r large mark; printf y | dd of=large bs=1 seek=2000000 conv=notrunc status=none; touch -r mark large
            ln large second; head -c 3000000 /dev/urandom >random; sha256sum random >sum
        """
        inside("sh", "-ec", script)
    home = desk.home / ".local" / "state" / "claude-bottle"
    folder = home / "files" / f"{AGENT}-1"
    (said,) = re.findall(r"claude-bottle: the work came home as files.*", child.before)
    assert said.endswith(f"3 changed, 1 deleted, 2 that could not come, see left-out.txt: {folder}\r")
    files = folder / "files"
    assert (files / "sub" / "changed").read_text() == "new\n" and os.readlink(files / "in") == "sub/changed"
    assert os.access(files / "run", os.X_OK) and (files / "deep" / "a\\x1b[31mb" / "file").read_text() == "x\n"
    assert (files / "large").read_text() == (files / "second").read_text() == "x" * 2_000_000 + "y" + "x" * 999_999
    assert subprocess.run(["sha256sum", "--quiet", "-c", "sum"], cwd=files).returncode == 0
    assert not any((files / name).exists() for name in ("kept", "ignored.log", ".git", "pipe", "out"))
    assert (files / "dot-git" / "HEAD").is_file()
    assert (folder / "deleted.txt").read_text() == "sub/gone\n"
    assert "out: a link that leads out: /etc/passwd\n" in (folder / "left-out.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in desk.cwd.rglob("*")} == before
    assert list((home / "work").iterdir()) == []  # nothing more is known of what went in
