"""What comes out of a bottle is hostile: objects, sizes, names and words that the host's side must not fall for."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home import branches, heads, large, quarantine
from claude_bottle.lib.home.quarantine import Bounds, Repository
from claude_bottle.lib.home.record import Record
from claude_bottle.lib.host.calls import Call, Work, perform

from tests.test_project import git, write

BLOB, TREE, LINK, MODULE = "100644 blob", "040000 tree", "120000 blob", "160000 commit"


class Bottle:
    """A host's repository, and a hostile one made from it."""

    def __init__(self, folder: Path) -> None:
        self.host, self.other = folder / "host", folder / "other"
        self.host.mkdir()
        git(self.host, "init", "-q")
        write(self.host, a="one\n")
        git(self.host, "add", ".")
        git(self.host, "commit", "-qm", "first")
        subprocess.run(["cp", "-a", self.host, self.other], check=True)
        self.first = git(self.host, "rev-parse", "HEAD").strip()

    def blob(self, text: str) -> str:
        return git(self.other, "hash-object", "-w", "--stdin", stdin=text).strip()

    def tree(self, *entries: tuple[str, str, str]) -> str:
        """Write a tree as it is said to be, whatever git would say to it."""
        data = b"".join(
            kind.split()[0].lstrip("0").encode() + b" " + name.encode() + b"\0" + bytes.fromhex(identity)
            for kind, identity, name in entries
        )
        words = ["git", "-C", self.other, "hash-object", "-w", "-t", "tree", "--literally", "--stdin"]
        return subprocess.run(words, input=data, capture_output=True, check=True).stdout.decode().strip()

    def commit(self, tree: str) -> str:
        return git(self.other, "commit-tree", tree, "-p", self.first, "-m", "hostile").strip()

    def pack(self, tips: Sequence[str]) -> bytes:
        words = ["git", "-C", self.other, "pack-objects", "--revs", "--thin", "--stdout", "-q"]
        lines = "\n".join([*tips, f"^{self.first}", ""]).encode()
        return subprocess.run(words, input=lines, capture_output=True, check=True).stdout

    def take(self, pack: bytes, tips: Sequence[str], bounds: Bounds | None = None) -> Repository:
        """Take a pack as the launcher does, up to the refs."""
        file = self.other / "pack"
        file.write_bytes(pack)
        return self.take_from(Call("/bin/cat", [str(file)], dict(os.environ), 60), tips, bounds)

    def take_from(self, source: Call, tips: Sequence[str], bounds: Bounds | None = None) -> Repository:
        repository = Repository(str(self.host / ".git"), bounds or Bounds(seconds=60))
        try:
            perform(repository.take(source, lambda stream, data: None))
            perform(repository.new(tips))
            repository.move_in()
            said = heads.Heads("", "", tips[0], ())
            assert perform(repository.create(list(heads.names(heads.free_place("a", ()), said))))
        finally:
            repository.leave()
        return repository

    def everything(self) -> dict[str, bytes]:
        """Return every file of the host's folder."""
        return {str(path): path.read_bytes() for path in sorted(self.host.rglob("*")) if path.is_file()}


@pytest.fixture
def bottle(tmp_path: Path) -> Bottle:
    return Bottle(tmp_path)


def hostile_trees(bottle: Bottle) -> dict[str, str]:
    """Return trees that git must not have."""
    x = bottle.blob("[core]\n\thooksPath = /tmp\n")
    inner = bottle.tree((BLOB, x, "config"))
    module = bottle.blob('[submodule "a"]\n\tpath = a\n\turl = -u./x\n')
    dots = bottle.blob('[submodule "../../x"]\n\tpath = a\n\turl = https://example.org/x\n')
    return {
        "hasDotgit": bottle.tree((TREE, inner, ".git")),
        "hasDotgit in capitals": bottle.tree((TREE, inner, ".GIT")),
        "hasDotgit as NTFS has it": bottle.tree((TREE, inner, "git~1")),
        "hasDotgit as macOS has it": bottle.tree((TREE, inner, ".g\u200cit")),
        "hasDotdot": bottle.tree((TREE, inner, "..")),
        "hasDot": bottle.tree((TREE, inner, ".")),
        "fullPathname": bottle.tree((BLOB, x, "a/b")),
        "gitmodulesUrl": bottle.tree((BLOB, module, ".gitmodules")),
        "gitmodulesName": bottle.tree((BLOB, dots, ".gitmodules")),
        "gitmodulesSymlink": bottle.tree((LINK, x, ".gitmodules")),
        "duplicateEntries": bottle.tree((BLOB, x, "a"), (LINK, x, "a")),
    }


def test_trees_that_git_must_not_have_are_refused_and_nothing_stays(bottle: Bottle) -> None:
    before = bottle.everything()
    for name, tree in hostile_trees(bottle).items():
        tip = bottle.commit(tree)
        with pytest.raises(BottleError, match=name.split()[0]):
            bottle.take(bottle.pack([tip]), [tip])
        assert bottle.everything() == before, name


def test_a_link_out_of_the_tree_is_content_that_nobody_checks_out(bottle: Bottle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    tip = bottle.commit(bottle.tree((LINK, bottle.blob(str(outside)), "a"), (BLOB, bottle.blob("x"), "b")))
    bottle.take(bottle.pack([tip]), [tip])
    assert git(bottle.host, "cat-file", "-p", "claude-bottle/a-1/work:a") == str(outside)
    assert (bottle.host / "a").read_text() == "one\n" and not outside.exists()
    assert git(bottle.host, "status", "--porcelain") == ""


def test_what_is_too_large_packed_or_unpacked_or_has_no_end_is_refused(bottle: Bottle, tmp_path: Path) -> None:
    tip = bottle.commit(bottle.tree((BLOB, bottle.blob("0" * 30_000_000), "zeros")))
    pack, before = bottle.pack([tip]), bottle.everything()
    assert len(pack) < 100_000
    with pytest.raises(BottleError, match="more than"):
        bottle.take(pack, [tip], Bounds(unpacked=20_000_000, seconds=60))
    with pytest.raises(BottleError, match="maximum allowed size"):
        bottle.take(pack, [tip], Bounds(packed=10_000, seconds=60))
    endless = 'printf "PACK\\0\\0\\0\\2\\377\\377\\377\\377"; exec cat /dev/zero'
    with pytest.raises(BottleError, match="index-pack"):
        bottle.take_from(Call("/bin/sh", ["-c", endless], dict(os.environ), 60), [tip])
    whole = bottle.other / "pack"
    trailing = f"cat '{whole}'; exec cat /dev/zero"
    with pytest.raises(BottleError, match="index-pack"):
        bottle.take_from(
            Call("/bin/sh", ["-c", trailing], dict(os.environ), 60), [tip], Bounds(packed=1 << 20, seconds=60)
        )
    assert bottle.everything() == before


def test_a_tree_that_says_to_be_of_gigabytes_is_not_held_in_memory(
    bottle: Bottle, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = bottle.blob("")
    tree = bottle.tree(*((BLOB, empty, f"{number:0200}") for number in range(20_000)))
    tip = bottle.commit(tree)
    monkeypatch.setitem(quarantine._VARIABLES, "GIT_ALLOC_LIMIT", "2000000")
    with pytest.raises(BottleError, match="over limit"):
        bottle.take(bottle.pack([tip]), [tip])


def test_what_is_not_whole_or_no_commit_is_refused(bottle: Bottle) -> None:
    before = bottle.everything()
    tree = bottle.tree((BLOB, bottle.blob("x"), "b"))
    tip = bottle.commit(tree)
    pack = bottle.pack([tip])
    words = ["git", "-C", str(bottle.other), "pack-objects", "--stdout", "-q"]
    alone = subprocess.run(words, input=f"{tip}\n".encode(), capture_output=True, check=True).stdout
    for said, tips, why in (
        (alone, [tip], "index-pack"),
        (pack, [tree], "names a commit"),
        (pack, ["0" * 40], "names a commit"),
        (pack[:-30], [tip], "index-pack"),
        (b"", [tip], "index-pack"),
        (b"PACK" + b"\xff" * 500, [tip], "index-pack"),
    ):
        with pytest.raises(BottleError, match=why):
            bottle.take(said, tips)
        assert bottle.everything() == before, (why, tips)


def test_nothing_of_the_hosts_repository_runs_either(bottle: Bottle, tmp_path: Path) -> None:
    ran, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\n")
    program.chmod(0o755)
    hooks = bottle.host / ".git" / "hooks"
    for name in ("reference-transaction", "post-index-change", "post-update", "update", "pre-auto-gc"):
        (hooks / name).symlink_to(program)
    settings = {
        "core.fsmonitor": program,
        "core.hooksPath": hooks,
        "core.pager": program,
        "core.sshCommand": program,
        "core.alternateRefsCommand": program,
        "alias.update-ref": f"!{program}",
        "alias.index-pack": f"!{program}",
        "filter.x.clean": program,
        "gc.auto": "1",
        "gc.autoPackLimit": "1",
        "maintenance.auto": "true",
        "remote.origin.url": f"ext::{program}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "uploadpack.packObjectsHook": program,
    }
    for name, value in settings.items():
        git(bottle.host, "config", name, str(value))
    ran.unlink(missing_ok=True)
    tip = bottle.commit(bottle.tree((BLOB, bottle.blob("x"), "b")))
    repository = bottle.take(bottle.pack([tip]), [tip])
    assert (bottle.host / ".git" / "refs" / "heads" / "claude-bottle" / "a-1" / "work").read_text().strip() == tip
    assert perform(repository.tips())[0] == bottle.first
    with pytest.raises(BottleError):
        perform(repository.new(["1" * 40]))
    assert not ran.exists(), ran.read_text()


def test_refs_are_made_and_never_changed(bottle: Bottle) -> None:
    repository = Repository(str(bottle.host / ".git"), Bounds(seconds=60))
    for name in ("claude-bottle/a-1", "claude-bottle/a-2/work", "claude-bottle/A-3"):
        git(bottle.host, "branch", name)
    there = perform(repository.refs())
    assert heads.free_place("a", there) == "refs/heads/claude-bottle/a-4"
    assert heads.free_place("b", there) == "refs/heads/claude-bottle/b-1"
    for name in ("a-2/work", "a-1/work", "a-2/work/x"):
        assert not perform(repository.create([(f"refs/heads/claude-bottle/{name}", bottle.first)]))
    assert perform(repository.refs()) == there


def said(*lines: str) -> bytes:
    return "\n".join([heads.FORM, *lines, "end", ""]).encode("utf-8", "surrogateescape")


ID = "a" * 40


def test_branches_get_names_that_harm_nobody() -> None:
    good = ["x", "fine/one", "ä", "f-1.2_3"]
    bad = ["../../hooks/x", "HEAD", "x/y", "X", "-x", "a/-b", ".git", "a b", "l.lock", "a..b", "a@{b", "a:b", "fine"]
    bad += ["a\u202eb", "a\u0308", "\udcff", "q" * 300, "a/", "/a", "a//b", "a\\b", "a~1", "a^", "a?", "[a", "a\x7f"]
    found = heads.parse(said(f"tree {ID}", *(f"branch {ID} {name}" for name in (*good, *bad))))
    place = heads.free_place("a", ())
    names = [name.removeprefix(f"{place}/") for name, _ in heads.names(place, found)]
    assert names[: len(good)] == [f"heads/{name}" for name in good]
    assert names[len(good) :] == [f"unnamed/{number}" for number in range(1, len(bad) + 1)]
    for name in names:
        subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=True)


@pytest.mark.parametrize(
    "words",
    [
        b"",
        said(),
        said(f"tree {ID}")[:-4],
        said(f"tree {ID}", f"tree {ID}"),
        said("tree HEAD"),
        said(f"tree {ID} x"),
        said(f"tree {ID}", f"branch {ID}"),
        said(f"tree {ID}", "branch --all x"),
        said(f"tree {ID}", f"ref {ID} refs/heads/main"),
        said(f"tree {ID}", f"work {ID}\0"),
        said(f"tree {ID.upper()}"),
        said(f"tree {ID}", *(f"branch {ID} {number}" for number in range(heads.MOST_BRANCHES + 1))),
    ],
)
def test_what_is_no_list_is_refused(words: bytes) -> None:
    with pytest.raises(BottleError):
        heads.parse(words)


def test_a_bottle_that_talks_without_end_is_not_listened_to(bottle: Bottle) -> None:
    """What it says beside the pack, and what takes its time, costs no memory and has an end."""
    tip = bottle.commit(bottle.tree((BLOB, bottle.blob("x"), "b")))
    (bottle.other / "pack").write_bytes(bottle.pack([tip]))
    chatty = f"head -c 50000000 /dev/zero >&2; cat '{bottle.other}/pack'"
    heard: list[int] = []
    source = Call("/bin/sh", ["-c", chatty], dict(os.environ), 60, heard=lambda stream, data: heard.append(len(data)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bottle.take_from(source, [tip])
    assert sum(heard) == 50_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB

    def over() -> float:
        raise BottleError("it took longer")

    with pytest.raises(BottleError, match="longer"):
        bottle.take_from(Call("/bin/sleep", ["100"], dict(os.environ), 60, check=over), [tip])
    assert not list((bottle.host / ".git" / "objects").glob("tmp_objdir*"))


def test_a_shallow_and_a_partial_host_take_what_is_new(bottle: Bottle, tmp_path: Path) -> None:
    git(bottle.other, "config", "uploadpack.allowFilter", "true")
    for number, words in enumerate((["--depth=1"], ["--filter=blob:none", "--no-checkout"])):
        host = tmp_path / f"host-{number}"
        git(tmp_path, "clone", "-q", *words, f"file://{bottle.other}", str(host))
        bottle.host = host
        tip = bottle.commit(
            bottle.tree((BLOB, bottle.blob("x"), "b"), (BLOB, git(bottle.other, "rev-parse", "HEAD:a").strip(), "c"))
        )
        bottle.take(bottle.pack([tip]), [tip])
        assert git(host, "rev-parse", "claude-bottle/a-1/work").strip() == tip


def test_who_comes_second_to_a_place_takes_the_next(bottle: Bottle, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(str(bottle.host / ".git"), Bounds(seconds=60))
    looked: list[list[str]] = []
    look = Repository.refs

    def refs(self: Repository) -> Work[list[str]]:
        found = yield from look(self)
        looked.append(found)
        if len(looked) == 1:  # the other one comes between the look and the making
            git(bottle.host, "branch", "claude-bottle/a-1/work")
        return found

    monkeypatch.setattr(Repository, "refs", refs)
    fresh = heads.Heads("", "", bottle.first, ())
    place, made = perform(branches._refs(repository, "a", fresh))
    assert (place, made) == ("refs/heads/claude-bottle/a-2", ["refs/heads/claude-bottle/a-2/work"])


def test_a_branch_in_the_way_of_all_of_ours_is_named(bottle: Bottle) -> None:
    git(bottle.host, "branch", "claude-bottle")
    repository = Repository(str(bottle.host / ".git"), Bounds(seconds=60))
    with pytest.raises(BottleError, match="one is in the way"):
        perform(branches._refs(repository, "a", heads.Heads("", "", bottle.first, ())))


def test_what_root_brings_to_somebody_elses_repository_is_theirs(bottle: Bottle) -> None:
    git(bottle.host, "branch", "claude-bottle/before/work")
    owner = 1234 if os.geteuid() == 0 else os.geteuid()
    subprocess.run(["chown", "-R", f"{owner}:{os.getegid()}", bottle.host], check=True)
    tip = bottle.commit(bottle.tree((BLOB, bottle.blob("x"), "b")))
    bottle.take(bottle.pack([tip]), [tip])
    assert {path.lstat().st_uid for path in bottle.host.rglob("*")} == {owner}


def test_a_list_of_large_files_that_is_cut_off_is_not_taken_for_all_of_them(bottle: Bottle, tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text(f"#!/bin/sh\necho {'a' * 64}\n")  # and not what the list ends with
    client.chmod(0o755)
    engine = Engine(str(client), "", "default", str(tmp_path), "")
    record = Record("launch", "a", "a", "git", "/", str(bottle.host), "/w", "engine")
    with pytest.raises(BottleError, match="the bottle's list of LFS's files ends early"):
        perform(large.bring_large(engine, "box", record, Bounds()))
