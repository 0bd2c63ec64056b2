"""The one program that looks at a bottle's repository, fed to perl as the launcher feeds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sweep import until
from tests.test_project import git, write

PROGRAM = (ROOT / "lib" / "home" / "work.pl").read_bytes()


def work(task: str, bottle: Path, head: str = "", tree: str = "", haves: bytes = b"", padding: bytes = b"") -> bytes:
    """Run the program in a folder's own environment; return what it says."""
    words = ["/usr/bin/perl", "-t", "-", task, str(bottle.parent / "kept"), str(bottle), "a", head, tree]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(bottle.parent)}
    fed = PROGRAM + padding + b"__END__\n" + haves
    return subprocess.run(words, input=fed, env=env, capture_output=True, check=True).stdout


@pytest.fixture
def bottle(tmp_path: Path) -> Path:
    made = tmp_path / "bottle"
    made.mkdir()
    git(made, "init", "-q")
    write(made, a="one\n")
    git(made, "add", ".")
    git(made, "commit", "-qm", "first")
    return made


@pytest.mark.parametrize("padding", [b"", b"# nothing\n" * 5000], ids=["short", "long"])
def test_a_pack_holds_what_is_new_however_long_what_is_fed(bottle: Path, tmp_path: Path, padding: bytes) -> None:
    first = git(bottle, "rev-parse", "HEAD").strip()
    write(bottle, a="two\n", new="new\n")
    haves = b"".join(b"%040x\n" % number for number in range(2000)) + f"{first}\n--all\n".encode()
    said = dict(
        line.split(" ")[:2] for line in work("list", bottle, first, "", haves, padding).decode().splitlines()[1:-1]
    )
    pack = work("pack", bottle, haves=f"{said['work']}\n".encode(), padding=padding)
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", "--bare", str(other))
    git(other, "fetch", "-q", str(bottle), first)
    subprocess.run(
        ["git", "-C", other, "index-pack", "--stdin", "--fix-thin", "--strict"],
        input=pack,
        check=True,
        capture_output=True,
    )
    assert git(other, "show", f"{said['work']}:new") == "new\n"
    assert git(other, "rev-parse", f"{said['work']}^").strip() == first
    assert not (tmp_path / "kept").exists()


def test_the_repository_is_as_it_was_afterwards(bottle: Path) -> None:
    write(bottle, a="two\n", new="new\n")
    status = git(bottle, "status", "--porcelain")
    before = {path: path.read_bytes() for path in bottle.rglob("*") if path.is_file() and path.name != "index"}
    marked = work("mark", bottle).decode().splitlines()
    head, tree = (line.split(" ")[1] for line in marked[1:3])
    assert work("list", bottle, head, tree).decode().splitlines() == marked
    assert work("list", bottle, head, "0" * 40) != b""
    assert git(bottle, "status", "--porcelain") == status
    assert {path: path.read_bytes() for path in bottle.rglob("*") if path.is_file() and path.name != "index"} == before


def test_a_new_repository_and_one_without_changes_have_their_say(tmp_path: Path) -> None:
    bottle = tmp_path / "bottle"
    bottle.mkdir()
    git(bottle, "init", "-q")
    (_, tree, end) = work("list", bottle).decode().splitlines()
    assert tree.startswith("tree ") and end == "end"
    write(bottle, a="one\n")
    assert any(line.startswith("work ") for line in work("list", bottle).decode().splitlines())
    assert os.listdir(bottle.parent / "kept")


def test_a_file_that_changed_in_the_second_of_the_index_is_seen(bottle: Path) -> None:
    file, index = bottle / "a", bottle / ".git" / "index"
    git(bottle, "config", "core.trustctime", "false")
    git(bottle, "config", "core.checkStat", "minimal")
    while True:  # of what git notes of a file then nothing has changed
        write(bottle, a="two\n")
        git(bottle, "add", "a")
        tree = git(bottle, "write-tree").strip()
        write(bottle, a="new\n")
        if len({int(file.stat().st_mtime), int(file.stat().st_ctime), int(index.stat().st_mtime)}) == 1:
            break
    assert until(lambda: time.time() >= int(index.stat().st_mtime) + 1)
    found = work("list", bottle).decode().splitlines()[2]
    assert found != f"tree {tree}"
    os.utime(file, ns=(0, 0))
    git(bottle, "add", "a")
    tree = git(bottle, "write-tree").strip()
    assert until(lambda: time.time() >= int(index.stat().st_mtime) + 1)
    write(bottle, a="old\n")
    os.utime(file, ns=(0, 0))
    shutil.rmtree(bottle.parent / "kept")
    assert work("list", bottle).decode().splitlines()[2] != f"tree {tree}"


def test_what_is_in_a_repository_inside_comes_as_files_and_another_worktree_does_not(bottle: Path) -> None:
    write(
        bottle,
        **{"born/f": "f\n", "born/ignored": "", "born/.gitignore": "ignored\n", "unborn/new": "new\n", "added/x": ""},
    )
    (bottle / "born" / 'a "b"\\\n$c').write_text("odd\n")
    (bottle / "born" / "link").symlink_to("/nowhere")
    (bottle / "born" / "run").write_text("#!/bin/sh\n")
    (bottle / "born" / "run").chmod(0o755)
    for name in ("born", "unborn", "added"):
        git(bottle / name, "init", "-q")
    for name, file in (("born", "f"), ("added", "x")):
        git(bottle / name, "add", file)
        git(bottle / name, "commit", "-qm", "inside")
    git(bottle, "add", "added")
    (bottle / "born" / "f").write_text("changed\n")
    git(bottle, "worktree", "add", "-q", "-b", "beside", str(bottle / "beside"))
    tree = work("mark", bottle).decode().splitlines()[2].split(" ")[1]
    assert tree == work("mark", bottle).decode().splitlines()[2].split(" ")[1]
    work("list", bottle)
    objects = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(bottle.parent / "kept" / "objects")}
    listed = subprocess.run(
        ["git", "-C", bottle, "ls-tree", "-r", "-z", tree],
        env={**os.environ, **objects},
        capture_output=True,
        text=True,
    ).stdout
    found = {line.partition("\t")[2]: line.split(" ")[0] for line in listed.split("\0") if line}
    plain = {name: "100644" for name in ("a", "born/.gitignore", "born/f", 'born/a "b"\\\n$c', "unborn/new")}
    assert found == {**plain, "born/link": "120000", "born/run": "100755", "beside": "160000", "added": "160000"}
