"""Work that comes home as files: what has changed, in a new folder that nothing gets out of, whatever a bottle made."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.home import folder, landing, untar, went_in
from claude_bottle.lib.home.quarantine import Bounds
from claude_bottle.lib.home.record import FOLDER, Record, place, write
from claude_bottle.lib.home.source import Source
from claude_bottle.lib.host.calls import perform

from tests.sweep import Run, until

RECORD = Record("0" * 32, "a", "a", FOLDER, "/project", "", "/home/node/workspace", "engine", began=True)
OLD = 1_500_000_000


class Bottle:
    """A workspace that went in, and what has become of it.

    Args:
        folder: an empty one.
        files: that went in.
    """

    def __init__(self, folder: Path, **files: str) -> None:
        self.home = Path(os.environ["HOME"], ".local", "state", "claude-bottle", "files")
        self.raw, self.workspace = folder / "raw.tar", folder / "workspace"
        self.workspace.mkdir()
        self.write(**files)
        for path in self.workspace.rglob("*"):
            os.utime(path, (OLD, OLD))
        self.enter()

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (self.workspace / name).write_text(text)

    def enter(self) -> None:
        """Let it go in, as a start does."""
        write(RECORD)
        kept = place(RECORD.launch)
        assert kept
        writer = went_in.Writer(kept / went_in.FILE_NAME)
        stream = tarstream.tree(str(self.workspace), "home/node/workspace")
        for _ in went_in.noted(tarstream.packed(stream), writer, "home/node/workspace"):
            pass

    def bring(self, *odd: tarfile.TarInfo, **bounds: Any) -> str:
        """Let it come home, and return what is said; odd files besides, which no disk here has."""
        with tarfile.open(self.raw, "w", format=tarfile.PAX_FORMAT) as stream:
            stream.add(self.workspace, "workspace")
            for each in odd:
                stream.addfile(each, io.BytesIO(b"x" * each.size))
        return self.come(**bounds)

    def come(self, **bounds: Any) -> str:
        source = Source(cast(Any, None), raw=self.raw)
        return perform(folder.bring(source, RECORD, cast(Any, None), Bounds(**bounds))).said

    def came(self, number: int = 1) -> dict[str, str]:
        """Return what has come: each file or link with what it holds, folders with a slash."""
        files = self.home / f"a-{number}" / "files"
        return {str(path.relative_to(files)): shown(path) for path in sorted(files.rglob("*"))}

    def listed(self, name: str, number: int = 1) -> list[str]:
        path = self.home / f"a-{number}" / name
        return path.read_text().splitlines() if path.exists() else []


def shown(path: Path) -> str:
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return "/" if path.is_dir() else path.read_text()


def odd(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode, info.mtime = kind, target, size, mode, OLD + 1
    return info


@pytest.fixture
def bottle(tmp_path: Path) -> Bottle:
    return Bottle(tmp_path, **{"same": "same", "sub/changed": "old", "sub/gone": "x", "run": "#!", "größe/x": "1"})


def test_what_is_new_changed_and_gone_comes_home_and_nothing_else(bottle: Bottle) -> None:
    bottle.write(**{"sub/changed": "new", "new/file": "n", "touched": ""})
    (bottle.workspace / "sub" / "gone").unlink()
    (bottle.workspace / "run").chmod(0o755)
    (bottle.workspace / "link").symlink_to("sub/changed")
    (bottle.workspace / "empty").mkdir()
    os.utime(bottle.workspace / "same")
    said = bottle.bring()
    assert said == f"the work came home as files, 3 new, 2 changed, 1 deleted: {bottle.home}/a-1"
    files = {"sub": "/", "sub/changed": "new", "new": "/", "new/file": "n", "touched": "", "empty": "/", "run": "#!"}
    assert bottle.came() == files | {"link": "-> sub/changed"}
    assert bottle.listed("deleted.txt") == ["sub/gone"]
    assert stat.S_IMODE((bottle.home / "a-1").stat().st_mode) == 0o700
    assert os.access(bottle.home / "a-1" / "files" / "run", os.X_OK)


def test_nothing_new_says_nothing_and_what_has_come_does_not_come_again(bottle: Bottle) -> None:
    assert bottle.bring() == "" and not bottle.home.exists()
    bottle.write(**{"same": "other"})
    assert bottle.bring() == f"the work came home as files, 1 changed: {bottle.home}/a-1"
    assert bottle.bring() == ""
    bottle.write(**{"more": "m"})
    assert bottle.bring() == f"the work came home as files, 1 new: {bottle.home}/a-2"
    assert (bottle.came(1), bottle.came(2)) == ({"same": "other"}, {"more": "m"})


def test_a_change_that_hides_behind_size_and_time_comes_home(bottle: Bottle) -> None:
    bottle.write(**{"same": "SAME"})
    os.utime(bottle.workspace / "same", (OLD, OLD))
    assert bottle.bring() == f"the work came home as files, 1 changed: {bottle.home}/a-1"
    assert bottle.came() == {"same": "SAME"}


def test_large_files_and_second_names_come_home(tmp_path: Path) -> None:
    bottle = Bottle(tmp_path, large="a" * 3_000_000, first="1")
    os.link(bottle.workspace / "first", bottle.workspace / "second")
    bottle.enter()
    assert bottle.bring() == ""
    bottle.write(large="b" * 3_000_000, first="2")
    os.utime(bottle.workspace / "large", (OLD, OLD))
    (bottle.workspace / "touched").write_text("c" * 3_000_000)
    os.link(bottle.workspace / "first", bottle.workspace / "third")
    assert "2 new, 3 changed" in bottle.bring()
    came = bottle.came()
    assert {name: text[:1] for name, text in came.items()} == dict(
        first="2", second="2", third="2", large="b", touched="c"
    )
    bottle.write(first="3")
    os.utime(bottle.workspace / "first", (OLD, OLD))
    bottle.enter()
    bottle.write(first="4")
    os.utime(bottle.workspace / "first", (OLD, OLD))
    os.link(bottle.workspace / "first", bottle.workspace / "z")
    bottle.bring()
    assert bottle.came(2) == dict.fromkeys(("first", "second", "third", "z"), "4")
    os.utime(bottle.workspace / "touched", (OLD + 5, OLD + 5))
    assert bottle.bring() == "" and len(list(bottle.home.iterdir())) == 2  # written and taken back: it was only touched


LINKS_OUT = ["/etc/passwd", "..", "../x", "sub/../../x", "a/../..", "", "sub/../.git/x", ".git", "x/GIT~1"]


@pytest.mark.parametrize("target", LINKS_OUT)
def test_no_link_leads_out(bottle: Bottle, target: str) -> None:
    said = bottle.bring(odd("workspace/l", tarfile.SYMTYPE, target), odd("workspace/n", size=1))
    assert "1 that could not come, see left-out.txt" in said
    assert bottle.came() == {"n": "x"}
    assert bottle.listed("left-out.txt") == [f"l: a link that leads out: {target}"]


def test_a_link_within_comes_home(bottle: Bottle) -> None:
    (bottle.workspace / "sub" / "deep").mkdir()
    (bottle.workspace / "sub" / "deep" / "l").symlink_to("../../same")
    bottle.bring()
    assert bottle.came()["sub/deep/l"] == "-> ../../same"


def test_nothing_is_written_through_a_link_or_over_a_file(bottle: Bottle, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    stream = [
        odd("workspace/l", tarfile.SYMTYPE, "sub"),
        odd("workspace/l/x", size=1),
        odd("workspace/f", size=1),
        odd("workspace/f/y", size=2),
        odd("workspace/f", tarfile.SYMTYPE, "sub"),
        odd("workspace/f", size=3),
        odd("workspace/d/../../z", size=1),
        odd("workspace//abs", size=1),
        odd("workspace/./dot", size=1),
        odd("workspace/h", tarfile.LNKTYPE, "../../etc/passwd"),
        odd("workspace/h2", tarfile.LNKTYPE, "workspace/same"),
    ]
    bottle.bring(*stream)
    assert {name: text for name, text in bottle.came().items() if text != "/"} == {"f": "x", "l": "-> sub"}
    left = bottle.listed("left-out.txt")
    assert [line.split(":")[0] for line in left] == ["l/x", "f/y", "f", "f", "d/../../z", "/abs", "./dot", "h", "h2"]
    assert list((tmp_path / "outside").iterdir()) == [] and (bottle.home / "a-1" / "files" / "f").read_text() == "x"


def test_no_device_and_no_privilege_comes_home(bottle: Bottle) -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    said = bottle.bring(*(odd(f"workspace/{kind!r}", kind) for kind in kinds), odd("workspace/s", size=1, mode=0o6777))
    assert "1 new, 3 that could not come" in said
    assert stat.S_IMODE((bottle.home / "a-1" / "files" / "s").stat().st_mode) == 0o755
    assert {line.rpartition(": ")[2] for line in bottle.listed("left-out.txt")} == {untar.OTHER}


@pytest.mark.parametrize("name", [".git", ".GIT", ".gi\u200ct", "git~1", ".git ", ".git.", ".git::$INDEX", "\uff0egit"])
def test_a_repository_that_was_made_in_a_bottle_is_none_here(bottle: Bottle, name: str) -> None:
    bottle.bring(odd(f"workspace/sub/{name}/config", size=1))
    assert bottle.came() == {"sub": "/", "sub/dot-git": "/", "sub/dot-git/config": "x"}


def test_names_that_a_terminal_would_obey_are_spelt_out(bottle: Bottle) -> None:
    bottle.write(**{"a\x1b[2J\nb": ""})
    bottle.enter()
    (bottle.workspace / "a\x1b[2J\nb").unlink()
    bottle.bring(odd("workspace/\u202ex", tarfile.SYMTYPE, "/\x1b[31m"), odd("workspace/b\x9b\n/\x07é", size=1))
    assert bottle.came() == {"b\\x9b\\n": "/", "b\\x9b\\n/\\x07é": "x"}
    assert bottle.listed("deleted.txt") == ["a\\x1b[2J\\nb"]
    assert bottle.listed("left-out.txt") == ["\\u202ex: a link that leads out: /\\x1b[31m"]


def test_what_a_disk_takes_for_one_name_overwrites_nothing(bottle: Bottle, monkeypatch: pytest.MonkeyPatch) -> None:
    def folded(real: Callable[..., Any]) -> Callable[..., Any]:
        """Have the file system take names for the same in whatever case, and however an accent is written."""
        return lambda name, *more, **how: real(
            unicodedata.normalize("NFC", name).casefold() if "dir_fd" in how else name, *more, **how
        )

    for name in ("open", "mkdir"):
        monkeypatch.setattr(landing.os, name, folded(getattr(os, name)))
    names = ("x/one", "X/ONE", "x/ö", "X/o\u0308", "X/two")
    bottle.bring(*(odd(f"workspace/{name}", size=number) for number, name in enumerate(names, 1)))
    assert bottle.came() == {"x": "/", "x/one": "x", "x/ö": "xxx", "x/two": "xxxxx"}
    assert [line.split(":")[0] for line in bottle.listed("left-out.txt")] == ["X/ONE", "X/o\u0308"]


def test_too_much_of_it_leaves_nothing(bottle: Bottle, monkeypatch: pytest.MonkeyPatch) -> None:
    bottle.write(a="a" * 2_000_000, b="b" * 2_000_000)
    with pytest.raises(BottleError, match="more than 0 GiB have changed"):
        bottle.bring(unpacked=3_000_000)
    with monkeypatch.context() as few:
        few.setattr(folder, "MOST_FILES", 5)
        with pytest.raises(BottleError, match="there are more than 5 files"):
            bottle.bring()
    assert list(bottle.home.glob("*")) == []
    monkeypatch.setattr(landing, "LEAST_FREE", 1 << 60)
    with pytest.raises(BottleError, match="the disk is nearly full"):
        bottle.bring()
    assert list(bottle.home.glob("*")) == []


@pytest.mark.parametrize("cut", [0, 100, 512, 1700, 3000])
def test_a_stream_that_ends_early_leaves_nothing_and_comes_again(bottle: Bottle, cut: int) -> None:
    bottle.write(new="new")
    bottle.bring()
    kept = place(RECORD.launch)
    assert kept
    bottle.enter()
    bottle.write(other="other")
    before = (kept / went_in.FILE_NAME).read_bytes()
    bottle.bring()
    (kept / went_in.FILE_NAME).write_bytes(before)
    bottle.raw.write_bytes(bottle.raw.read_bytes()[:cut])
    with pytest.raises(untar.Broken, match="it ends early"):
        bottle.come()
    assert len(list(bottle.home.iterdir())) == 2
    assert sorted(path.name for path in kept.iterdir()) == ["session.json", "went-in"]
    assert (kept / went_in.FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("name", ["elsewhere", "workspacex/a", "/etc/x", "workspace"])
def test_what_is_not_below_the_workspace_is_no_work(bottle: Bottle, name: str) -> None:
    with pytest.raises(BottleError, match="no folder any more"):
        bottle.bring(odd(name, tarfile.SYMTYPE, "/etc"))


class Heard:
    """Keeps what a reader says."""

    def __init__(self) -> None:
        self.entries: list[tuple[untar.Entry, bytes]] = []

    def begin(self, entry: untar.Entry) -> None:
        self.entries.append((entry, b""))

    def data(self, piece: bytes) -> None:
        self.entries[-1] = (self.entries[-1][0], self.entries[-1][1] + piece)

    def end(self) -> None:
        pass


def read(stream: bytes, size: int) -> list[tuple[untar.Entry, bytes]]:
    heard = Heard()
    reader = untar.Reader(heard)
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
    reader.close()
    return heard.entries


def files() -> Iterator[tarfile.TarInfo]:
    yield odd("d", tarfile.DIRTYPE)
    for name in ("short", "x" * 99, "x" * 100, "y" * 101, "d/" + "z" * 200, "ü" * 90, "\udcff"):
        for size in (0, 1, 511, 512, 513, 1500):
            yield odd(f"{name}{size}", size=size)
    yield odd("link", tarfile.SYMTYPE, "t" * 300)
    early = odd("early", size=3)
    early.mtime = -5
    yield early


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 100, 512, 4096, 1 << 20])
def test_a_stream_is_read_in_whatever_pieces_it_comes(form: int, size: int) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as stream:
        for each in files():
            stream.addfile(each, io.BytesIO(b"c" * each.size))
    found = read(made.getvalue(), size)
    wanted = [(each.name, each.size, b"c" * each.size, each.linkname) for each in files()]
    assert [(entry.name.rstrip("/"), entry.size, data, entry.target) for entry, data in found] == wanted


def header(**fields: bytes) -> bytes:
    """Return a header with some fields of our own, and the right sum."""
    places = {"name": 0, "size": 124, "kind": 156, "sum": 148}
    block = bytearray(odd("x").tobuf(tarfile.GNU_FORMAT))
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    if "sum" not in fields:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(line: bytes) -> bytes:
    return header(kind=b"x", size=b"%011o\0" % len(line)) + line.ljust(512, b"\0") + header()


@pytest.mark.parametrize(
    "stream",
    [
        b"no tar at all".ljust(512),
        header(sum=b"0000000\0"),
        header(size=b"12345678901x"),
        header(size=b"\xff" * 12),
        header(size=b"\xbf" + b"\xff" * 11),
        header(kind=b"L", size=b"00000400001\0"),
        header(kind=b"x", size=b"77777777777\0"),
        pax(b"18 size=9999999999999999999999\n"),
        pax(b"11 size=-1\n"),
        pax(b"0 path=x\n"),
        pax(b"99999 path=x\n"),
        pax(b"x path=x\n"),
        pax(b"8 path\n\n"),
        pax(b"22 GNU.sparse.major=1\n"),
    ],
)
def test_a_stream_that_is_none_is_an_error_of_ours(stream: bytes) -> None:
    with pytest.raises(untar.Broken, match="no tar stream"):
        read(stream + b"\0" * 2048, 1000)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A start of a project without a repository, and what stands for the bottle's workspace at its end."""
    made = Run(tmp_path / "run")
    (made.cwd / "a").write_text("old")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").write_text("new")
    made.fake.workspace(inside)
    return made


def test_a_session_ends_with_its_work_in_the_state_folder(run: Run) -> None:
    _, err = run.begin().communicate(timeout=60)
    state = run.home / ".local" / "state" / "claude-bottle"
    assert f"the work came home as files, 1 changed, 1 deleted: {state}/files/a-1\n" in err, err
    assert (state / "files" / "a-1" / "files" / "a").read_text() == "new"
    assert (run.leftovers(), list((state / "work").iterdir())) == ([], [])
    assert (run.cwd / "a").read_text() == "old"


def test_the_work_of_a_killed_launcher_comes_home_too(run: Run) -> None:
    run.fake.session("exec sleep 60")
    with run.begin() as child:  # reads nothing: what the session has left may hold the pipes
        assert until(lambda: any("claude" in argv for argv in run.fake.argvs()))
        child.kill()
    note = run.note()
    assert "an earlier start ended: the work came home as files, 1 changed, 1 deleted: " in note, note
    assert until(lambda: not run.leftovers()), run.leftovers()
