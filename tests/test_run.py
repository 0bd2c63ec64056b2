"""The gateway: bounds, bytes, and what a child inherits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib import run
from claude_bottle.lib.errors import BottleError

from .sweep import Run, gone
from .test_cleanup import fake_docker


def test_a_call_that_hangs_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "exec sleep 60")
    result = run.capture(["network", "create", "x"], seconds=0.3)
    assert result.timed_out and not result.ok
    assert result.failure == "docker network create gave no answer within 0 s"


def test_bytes_pass_through_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "cat; printf 'b\\377d' >&2; exit 3")
    data = bytes(range(256)) * 4096
    result = run.capture(["cp", "-", "x:/"], stdin=[data[:1000], data[1000:]])
    assert (result.status, result.out, result.err) == (3, data, b"b\xffd")


def test_a_reader_that_stops_early_does_not_break_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "exit 0")
    assert run.capture(["cp", "-", "x:/"], stdin=[b"x" * 1_000_000] * 3).ok


def test_a_call_whose_data_fails_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; exec sleep 60")

    def data() -> Iterator[bytes]:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            yield b"x"
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        run.capture(["cp", "-", "x:/"], stdin=data())
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_token_is_in_no_childs_environment(tmp_path: Path) -> None:
    run = Run(tmp_path)
    _, err = run.begin().communicate(timeout=60)
    calls = run.fake.calls()
    assert len(calls) > 20, err
    assert all("PATH" in call["env"] and "CLAUDE_BOTTLE_OAUTH_TOKEN" not in call["env"] for call in calls)


def test_a_missing_docker_is_the_contracts_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BottleError, match=r"^docker not found on PATH$"):
        run.query(["info"])


def test_a_reader_that_pauses_is_not_a_docker_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "echo one >&2; exec sleep 2")
    monkeypatch.setattr(run, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(run.log, "write", lambda data: data and run.wait.pause(1.5))
    assert run.stream(["build", "."]).ok
