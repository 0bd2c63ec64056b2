"""A project in a bottle, on the real engine: what is there, what git says of it, and what the engine keeps."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.deep import deep_folder

from .conftest import AGENT, Desk, container, docker, end, leftovers, until

WORKSPACE = "/home/node/workspace"
DEPTH = 600  # to unpack twice as many takes newer engines four times as long


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True).stdout


def in_bottle(*words: str) -> str:
    return docker("exec", "-u", "node", "-w", WORKSPACE, container("agent"), *words)


def data_root() -> str:
    return docker("info", "-f", "{{.DockerRootDir}}")


def written_since(mark: Path, canary: str) -> list[str]:
    """Return the files of the engine that have come or changed since a mark and hold a text."""
    find = ["find", data_root(), "-type", "f", "-cnewer", str(mark), "-exec", "grep", "-laF", "--", canary, "{}", "+"]
    return subprocess.run(find, capture_output=True, text=True).stdout.splitlines()


def own_layer(box: str) -> tuple[str, ...]:
    """Return the folders of the engine that hold what a container has beyond its image."""
    layer = json.loads(docker("inspect", "-f", "{{json .GraphDriver.Data}}", box))
    return layer["UpperDir"], layer["MergedDir"]


def test_nothing_of_the_project_is_on_the_engines_disk_but_in_the_running_bottle(desk: Desk, tmp_path: Path) -> None:
    canary = f"canary-{os.urandom(12).hex()}"
    mark = tmp_path / "mark"
    mark.touch()
    (desk.cwd / "secret file").write_text(canary)
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    assert in_bottle("cat", "secret file") == canary
    held = written_since(mark, canary)
    assert held and all(path.startswith(own_layer(container("agent"))) for path in held), held
    end(child)
    until(lambda: not leftovers(desk), 30)
    assert written_since(mark, canary) == []


def test_git_in_the_bottle_sees_what_git_on_the_host_sees(desk: Desk) -> None:
    for name in ("a.md", "sub/b.md", "kept.py", "gone.py", "gone.md", "changed.py", "run.sh", "größe.md"):
        (desk.cwd / name).parent.mkdir(exist_ok=True)
        (desk.cwd / name).write_text(name)
    (desk.cwd / "run.sh").chmod(0o755)
    (desk.cwd / "link").symlink_to("kept.py")
    (desk.cwd / ".dockerignore").write_text("**/*.md\n.gitignore\n.git\n")
    (desk.cwd / ".gitignore").write_text("*.tmp\n")
    git(desk.cwd, "init", "-q")
    git(desk.cwd, "add", ".")
    git(desk.cwd, "commit", "-qm", "x")
    for name in ("gone.py", "gone.md"):
        (desk.cwd / name).unlink()
    for name in ("changed.py", "new.py", "ignored.tmp"):
        (desk.cwd / name).write_text("now")
    status = git(desk.cwd, "status", "--porcelain")
    assert " D gone.md" in status and "?? new.py" in status
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact("left out       : 4 tracked files, by .dockerignore")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    assert in_bottle("git", "status", "--porcelain") == status.strip()
    in_bottle("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qam", "all")
    names = in_bottle("git", "show", "--format=", "--name-status").splitlines()
    assert names == ["M\tchanged.py", "D\tgone.md", "D\tgone.py"]
    assert in_bottle("git", "fsck") == ""
    assert git(desk.cwd, "status", "--porcelain") == status
    end(child)


def test_a_repository_that_says_it_lacks_something_runs_nothing_in_the_bottle(desk: Desk) -> None:
    for name in ("left-out.md", "there/file", "lacking/deep/file"):
        (desk.cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.cwd / name).write_text(name)
    (desk.cwd / ".dockerignore").write_text("left-out.md\n")
    spy = desk.cwd / "spy"
    spy.write_text("#!/bin/sh\ntouch /tmp/ran\n")
    spy.chmod(0o755)
    for words in ("init -q", "add .", "commit -qm x", "sparse-checkout init --cone --sparse-index"):
        git(desk.cwd, *words.split())
    git(desk.cwd, "sparse-checkout", "set", "there")
    lacking = git(desk.cwd, "rev-parse", "HEAD:lacking").strip()
    (desk.cwd / ".git" / "objects" / lacking[:2] / lacking[2:]).unlink()
    (desk.cwd / ".git" / "config.worktree").unlink()
    (desk.cwd / ".git" / "config").write_text(f"""[core]
repositoryformatversion = 1
[extensions]
partialClone = origin
[remote "origin"]
promisor = true
url = ext::{WORKSPACE}/spy
[protocol "ext"]
allow = always
""")
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact("left out       : 1 tracked files, by .dockerignore")
    child.expect_exact("attaching to claude-bottle-")
    assert "spy" in in_bottle("ls") and "ran" not in in_bottle("ls", "/tmp")
    end(child)


def test_a_project_of_every_kind_of_file_arrives_as_it_is(desk: Desk) -> None:
    os.mkfifo(desk.cwd / "pipe")
    (desk.cwd / "data").write_bytes(os.urandom(3_000_000))
    with open(desk.cwd / "sparse", "wb") as file:
        file.truncate(5_000_000)
    os.link(desk.cwd / "data", desk.cwd / "hard")
    (desk.cwd / "out").symlink_to("../../../../etc/passwd")
    (desk.cwd / "closed").mkdir(mode=0o700)
    (desk.cwd / "closed" / "run").write_text("x")
    (desk.cwd / "closed" / "run").chmod(0o4751)
    Path(os.fsdecode(os.fsencode(desk.cwd) + b"/b\xff")).touch()
    with deep_folder(desk.cwd, DEPTH):
        child = desk.terminal("start", "-y", "--cwd", AGENT)
        child.expect_exact(f"attaching to claude-bottle-{AGENT}", timeout=300)
    seen = in_bottle("stat", "-c", "%n %U:%G %a %s %h", "data", "sparse", "hard", "closed", "closed/run").splitlines()
    assert seen == [
        "data node:node 644 3000000 2",
        "sparse node:node 644 5000000 1",
        "hard node:node 644 3000000 2",
        "closed node:node 700 4096 2",
        "closed/run node:node 4751 1 1",
    ]
    assert in_bottle("readlink", "out") == "../../../../etc/passwd"
    assert in_bottle("stat", "-c", "%U %a", ".") == "node 755"
    assert in_bottle("sh", "-c", r"ls -b | grep -c '^b\\377$'") == "1"
    assert in_bottle("sh", "-c", "ls pipe 2>/dev/null || find . -name leaf | tr -cd d | wc -c") == str(DEPTH)
    here_sum = subprocess.run(["sha256sum", desk.cwd / "data"], capture_output=True, text=True).stdout.split()[0]
    assert in_bottle("sha256sum", "data").split()[0] == here_sum
    end(child)


def test_a_git_link_out_of_the_project_brings_nothing_of_what_it_leads_to(desk: Desk, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    git(private, "init", "-q")
    (desk.cwd / ".git").symlink_to(private / ".git")
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact("it stays a link, not followed")
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    assert in_bottle("readlink", ".git") == f"{private}/.git"
    assert in_bottle("sh", "-c", "ls .git/ 2>&1 || true").endswith("No such file or directory")
    end(child)


def test_a_signal_while_the_project_is_copied_leaves_nothing(desk: Desk) -> None:
    with open(desk.cwd / "large", "wb") as file:
        file.truncate(20 << 30)
    child = desk.terminal("start", "-y", "--cwd", AGENT)
    child.expect_exact(f"copying {desk.cwd} into")
    child.expect(r"copied \d+ MiB so far")
    child.sendintr()
    child.expect("\\^C")
    child.wait()
    assert child.exitstatus == 130
    assert leftovers(desk) == []
