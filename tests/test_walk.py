"""What goes into a tar stream of a folder, whatever is in the folder and whatever happens to it meanwhile."""

from __future__ import annotations

import errno
import io
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.errors import Interrupted
from claude_bottle.lib.files import copying, tarstream, walk
from claude_bottle.lib.host import wait

from tests.deep import DEPTH, deep_folder


def unpacked(stream: Iterator[bytes]) -> dict[str, tarfile.TarInfo]:
    data = b"".join([*stream, tarstream.END])
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        return {info.name: info for info in archive}


def contents(stream: Iterator[bytes]) -> dict[str, bytes]:
    return tarstream.contents(b"".join([*stream, tarstream.END]))


def test_a_folder_of_any_depth_is_seen_to_its_end_with_one_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    most, last = 0, ""
    with deep_folder(tmp_path):
        for entry in walk.walk(str(tmp_path)):
            most, last = max(most, len(os.listdir("/dev/fd"))), entry.path
    assert last == "/".join(["d"] * DEPTH + ["leaf"]) and most <= before + 1


def test_modes_links_and_names_are_kept_and_all_is_nodes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir(mode=0o750)
    (tmp_path / "sub" / "run").write_bytes(b"x" * 70000)
    (tmp_path / "sub" / "run").chmod(0o4755)
    os.link(tmp_path / "sub" / "run", tmp_path / "sub" / "too")
    (tmp_path / "out").symlink_to("/etc/passwd")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")).touch()
    members = unpacked(tarstream.tree(str(tmp_path), "w"))
    assert list(members) == ["w", "w/b\udcff", "w/out", "w/sub", "w/sub/run", "w/sub/too"]
    assert {(info.uid, info.gid) for info in members.values()} == {(1000, 1000)}
    assert [oct(members[name].mode) for name in ("w/sub", "w/sub/run")] == ["0o750", "0o4755"]
    assert members["w/out"].linkname == "/etc/passwd" and members["w/out"].issym()
    assert members["w/sub/too"].linkname == "w/sub/run" and members["w/sub/too"].islnk()
    assert len(contents(tarstream.tree(str(tmp_path), "w"))["w/sub/run"]) == 70000


def test_sockets_pipes_and_devices_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert list(unpacked(tarstream.tree(str(tmp_path), "w"))) == ["w"]


def test_a_folder_that_stays_out_comes_along_with_what_goes_in(tmp_path: Path) -> None:
    for name in ("a/b/kept", "a/b/lost", "c/lost"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a").chmod(0o711)
    members = unpacked(tarstream.tree(str(tmp_path), "w", choose=lambda path, _: (path.endswith("kept"), True)))
    assert list(members) == ["w", "w/a", "w/a/b", "w/a/b/kept"] and members["w/a"].mode == 0o711


def during(stream: Iterator[bytes], name: str, happens: object) -> Iterator[bytes]:
    """Yield a stream, with something happening once the member of a name has begun."""
    for piece in stream:
        yield piece
        if name.encode() in piece[:100] and callable(happens):
            happens()
            name = "\0 no more"


def test_a_file_that_shrinks_keeps_the_size_it_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300000)
    (tmp_path / "b").write_text("whole")
    cut = lambda: (tmp_path / "a").write_bytes(b"")  # noqa: E731
    found = contents(during(tarstream.tree(str(tmp_path), "w"), "w/a", cut))
    assert len(found["w/a"]) == 300000 and found["w/b"] == b"whole"


def test_what_vanishes_is_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b", "d/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def vanish() -> None:
        (tmp_path / "b").unlink()
        (tmp_path / "d" / "x").unlink()
        (tmp_path / "d").rmdir()

    assert list(unpacked(during(tarstream.tree(str(tmp_path), "w"), "w/a", vanish))) == ["w", "w/a"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_takes_a_name_meanwhile_is_not_followed(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("canary")
    project = tmp_path / "project"
    project.mkdir()
    name = project / "b"
    name.touch() if what == "file" else name.mkdir()

    def swap() -> None:
        name.unlink() if what == "file" else name.rmdir()
        name.symlink_to(secret / "key" if what == "file" else secret)

    taken: list[bytes] = []
    with pytest.raises(OSError) as failure:
        for entry in walk.walk(str(project)):
            swap()
            info = tarfile.TarInfo(entry.path)
            taken += tarstream._entry(entry, info, None, {})
    assert failure.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert b"canary" not in b"".join(taken)


def test_a_folder_moved_away_meanwhile_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "a"
    inner.mkdir(parents=True)
    (inner / "x").touch()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OSError, match="changed while it was read"):
        for entry in walk.walk(str(tmp_path / "project")):
            if entry.path == "a/x":
                inner.rename(tmp_path / "elsewhere" / "a")


def test_what_cannot_be_read_is_named_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "closed").touch()
    refuse(monkeypatch, "closed")
    with pytest.raises(PermissionError) as failure:
        list(tarstream.tree(str(tmp_path), "w"))
    assert failure.value.filename == str(tmp_path / "sub" / "closed")


def test_a_folder_that_stays_out_need_not_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    refuse(monkeypatch, "closed")
    assert list(walk.walk(str(tmp_path), lambda path, is_folder: (False, True))) == []


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let nobody open a name; root could."""
    real = os.open

    def guarded(path: str, *words: int, **how: int | None) -> int:
        if path == name:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *words, **how)

    monkeypatch.setattr(os, "open", guarded)


def test_a_name_that_no_engine_can_make_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="File name too long") as failure:
        list(tarstream.tree(str(tmp_path), "w" * 4094))
    assert failure.value.filename == str(tmp_path / "a")


def test_a_signal_ends_a_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    monkeypatch.setattr(wait, "_pending", [15])
    with pytest.raises(Interrupted):
        list(walk.walk(str(tmp_path)))


def test_pieces_are_put_together_and_nothing_is_lost() -> None:
    pieces = [bytes([number % 256]) * 5000 for number in range(100)]
    packed = list(tarstream.packed(pieces))
    assert b"".join(packed) == b"".join(pieces) and len(packed) < 10


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_long_copy_says_how_much_has_gone_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    clock = iter(range(100))  # a second a piece
    monkeypatch.setattr(copying.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(copying.os, "isatty", lambda _: on_terminal)
    assert len(list(copying._Told().passing([b"x" * (1 << 20)] * 6))) == 6
    said = ["claude-bottle: copied 2 MiB so far", "claude-bottle: copied 5 MiB so far"]
    assert capfd.readouterr().err.splitlines() == (said if on_terminal else [])
