"""What goes into a container as a tar stream is what the host's folder holds, owned by node."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from claude_bottle.lib.files import tarstream

LONG = "/".join(["a-folder-whose-name-is-not-short-at-all"] * 8)
BYTES = os.fsdecode(b"not-utf-8-\xff")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that a stream may trip over."""
    folder = tmp_path / "source"
    (folder / LONG).mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o700)
    contents = {"nothing": 0, "block": 512, "block-and-one": 513, "large": 3_000_000, BYTES: 7, f"{LONG}/deep": 9}
    for name, size in contents.items():
        (folder / name).write_bytes(os.urandom(size))
    (folder / "block").chmod(0o4755)
    os.utime(folder / "block", (1_000_000_000, 1_000_000_000))
    (folder / "link").symlink_to("block")
    (folder / "dangling").symlink_to("no/where")
    (folder / "to-folder").symlink_to("empty")
    os.mkfifo(folder / "fifo")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    return folder


def members(stream: Iterable[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream)), errors="surrogateescape") as archive:
        return {info.name: info for info in archive}


def test_a_real_tar_unpacks_what_was_there(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    data = b"".join([*tarstream.tree(str(source), "x"), tarstream.END])
    words = ["tar", "-x", "-p", "--no-same-owner", "-C", str(tmp_path / "out")]
    subprocess.run(words, input=data, check=True, timeout=60)
    got = tmp_path / "out" / "x"
    (source / "fifo").unlink()  # means nothing in another container, nor does the other
    (source / "socket").unlink()
    assert tree_of(got) == tree_of(source)


def tree_of(folder: Path) -> dict[str, object]:
    """Return each path with its kind and mode, and with its content or where it leads."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        what = path.lstat()
        mode = "link" if path.is_symlink() else oct(what.st_mode)
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (mode, held)
    return found


def test_everything_is_nodes_and_as_old_as_it_was(source: Path) -> None:
    found = members(tarstream.tree(str(source), "x"))
    assert {(info.uid, info.gid) for info in found.values()} == {(1000, 1000)}
    assert found["x/block"].mtime == 1_000_000_000
    assert stat.S_IMODE(found["x/block"].mode) == 0o4755


@pytest.mark.parametrize("size", [0, 100, 2_000_000, 5_000_000])
def test_a_file_that_changes_while_it_is_read_does_not_spoil_what_follows(tmp_path: Path, size: int) -> None:
    (tmp_path / "a-large-one").write_bytes(b"x" * 3_000_000)
    (tmp_path / "last").write_bytes(b"the last")
    stream = tarstream.tree(str(tmp_path), "x")
    said: list[bytes] = []
    while sum(map(len, said)) < 1_000_000:
        said.append(next(stream))
    os.truncate(tmp_path / "a-large-one", size)
    with tarfile.open(fileobj=io.BytesIO(b"".join([*said, *stream]))) as archive:
        assert archive.getmember("x/a-large-one").size == 3_000_000
        last = archive.extractfile("x/last")
        assert last and last.read() == b"the last"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_single_file_is_padded(size: int) -> None:
    stream = [*tarstream.folder("f"), *tarstream.member("f/one", b"x" * size, 0o640, owner=0)]
    found = members([*stream, *tarstream.member("two", b""), tarstream.END])
    assert [(name, info.size) for name, info in found.items()] == [("f", 0), ("f/one", size), ("two", 0)]
    assert (found["f/one"].mode, found["f/one"].uid, found["two"].mode, found["two"].uid) == (0o640, 0, 0o600, 1000)
    assert tarstream.contents(b"".join([*stream, tarstream.END])) == {"f": b"", "f/one": b"x" * size}


@pytest.mark.parametrize("name", ["a/b", BYTES, "n" * 100, "n" * 101, "\u00e4" * 50, "\u00e4" * 50 + "n"])
def test_a_header_says_what_the_librarys_does_whatever_fits(name: str) -> None:
    for kind, target, size in (
        (tarfile.REGTYPE, "", 0),
        (tarfile.REGTYPE, "", 8**11 - 1),
        (tarfile.REGTYPE, "", 8**11),
        (tarfile.DIRTYPE, "", 0),
        (tarfile.SYMTYPE, "t" * 100, 0),
        (tarfile.SYMTYPE, "t" * 101, 0),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.uid, info.gid, info.mtime = kind, target, size, 1000, 1000, 8**11 - 1
        library = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        found, wanted = (_first(header) for header in (tarstream._header(info), library))
        assert found == wanted


def _first(header: bytes) -> dict[str, object]:
    """Return what a header says; the library's may have other sums, since some of its versions write noughts more."""
    with tarfile.open(fileobj=io.BytesIO(header + tarstream.END), encoding="utf-8") as archive:
        info = archive.next()
        assert info and len(header) == info.offset_data
        return {**info.get_info(), "chksum": 0}


@pytest.mark.parametrize("most", [0, 600, 10_000_000])
def test_a_long_stream_is_several_whole_ones(source: Path, most: int) -> None:
    pieces = list(tarstream.tree(str(source), "x"))
    streams = [b"".join(part) for part in tarstream.parts(pieces, most)]
    found: dict[str, bytes] = {}
    for stream in streams:
        assert stream.endswith(tarstream.END)
        found |= tarstream.contents(stream)
    assert found == tarstream.contents(b"".join([*pieces, tarstream.END]))
    assert b"".join(stream.removesuffix(tarstream.END) for stream in streams) == b"".join(pieces)
    assert (len(streams) > 1) == (most < 10_000_000)
