"""The gateway: bounds, bytes, and what a child inherits."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from claude_bottle.lib.engine import Engine, engine_find
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import calls, run
from claude_bottle.lib.host.calls import ERR, OUT, finish, one, perform

from .sweep import Run, gone
from .test_cleanup import fake_docker


def capture(engine: Engine, words: Sequence[str], **how: Any) -> run.Result:
    """Do one call."""
    return perform(one(engine.call(words, **how)))


def test_a_call_that_hangs_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_docker(tmp_path, monkeypatch, "exec sleep 60").engine
    result = capture(engine, ["network", "create", "x"], seconds=0.3)
    assert result.timed_out and not result.ok
    assert result.failure == "docker network create gave no answer within 0 s"


def test_a_call_that_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its shell stays, since it has more to do; it ends of itself before the test gives up.
    deaf = f"trap '' TERM; echo $$ >{tmp_path}/pid; for n in 1 2 3 4 5 6 7 8 9; do sleep 1; done; exit 0"
    engine = fake_docker(tmp_path, monkeypatch, deaf).engine
    monkeypatch.setattr(run, "STOP_SECONDS", 0.3)
    result = capture(engine, ["ps"], seconds=1)
    assert result.timed_out and result.status == 128 + signal.SIGKILL
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_call_that_was_ended_has_failed_whatever_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polite = "trap 'kill $child; exit 0' TERM; sleep 60 & child=$!; wait"
    result = capture(fake_docker(tmp_path, monkeypatch, polite).engine, ["ps"], seconds=1)
    assert result.timed_out and not result.ok and result.status == 1


def test_a_pipe_whose_end_breaks_off_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'case $1 in cp) exec yes ;; *) exec <&-; sleep 0.5; echo "no room" >&2; exit 3 ;; esac'
    engine = fake_docker(tmp_path, monkeypatch, script).engine

    def work() -> calls.Work[run.Result]:
        return (yield calls.Pipe(engine.call(["cp"]), engine.call(["load"])))

    result = perform(work())
    assert (result.ok, result.failure) == (False, "no room")


SECONDS = 2.0  # that a call may be silent; each of these lasts longer, with pauses that are much shorter


def test_a_call_that_goes_on_talking_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talking = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n >&$((1 + n % 2)); sleep 0.3; done"
    began = time.monotonic()
    result = capture(fake_docker(tmp_path, monkeypatch, talking).engine, ["build"], seconds=SECONDS)
    assert result.ok and not result.timed_out and time.monotonic() - began > SECONDS
    assert (result.text.split()[-1], result.failure.split()[-1]) == ("12", "11")


def test_a_call_that_goes_on_reading_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do dd bs=65536 count=1 2>/dev/null >&2; sleep 0.3; done"
    engine = fake_docker(tmp_path, monkeypatch, reading + " 2>/dev/null").engine
    began = time.monotonic()
    result = capture(engine, ["cp", "-", "x:/"], seconds=SECONDS, stdin=[b"x" * 65536] * 40)
    assert result.ok and not result.timed_out and time.monotonic() - began > SECONDS


def test_a_call_that_closes_its_streams_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = f"echo said; exec <&- >&- 2>&-; sleep 0.5; touch {tmp_path}/done; exit 3"
    result = capture(fake_docker(tmp_path, monkeypatch, silent).engine, ["ps"], seconds=30)
    assert (result.status, result.text, result.timed_out) == (3, "said", False)
    assert (tmp_path / "done").exists()


def test_what_a_calls_own_child_says_last_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = capture(fake_docker(tmp_path, monkeypatch, "(sleep 0.5; echo late) &").engine, ["ps"], seconds=30)
    assert (result.ok, result.text) == (True, "late")


def test_the_watcher_hears_of_each_process_and_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard:
        """Notes the processes, as the reaper does, which would end those that it takes for alive."""

        inherited = ()
        began: ClassVar[list[int]] = []
        ended_: ClassVar[list[int]] = []
        started = began.append
        ended = ended_.append

    engine = fake_docker(tmp_path, monkeypatch, "exit 1").engine
    monkeypatch.setattr(run, "watchers", [Heard])
    capture(engine, ["ps"])
    capture(engine, ["build"], shown=(OUT, ERR))
    finish(engine.foreground(["build"]))
    assert len(Heard.began) == 3 and Heard.began == Heard.ended_


def test_what_the_user_watches_comes_in_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []

    def write(data: bytes) -> None:
        said.append(data)
        if b"other\n" in said:
            (tmp_path / "shown").touch()

    monkeypatch.setattr(calls.log, "write", write)
    wait = f"until [ -e {tmp_path}/shown ]; do sleep 0.01; done"
    engine = fake_docker(tmp_path, monkeypatch, f"printf 'a ' >&2; echo other; {wait}; printf 'line\nlast' >&2").engine
    capture(engine, ["build"], seconds=30, shown=(OUT, ERR))
    assert [data for data in said if data] == [b"other\n", b"a line\n", b"last"]


def test_bytes_pass_through_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_docker(tmp_path, monkeypatch, "cat; printf 'b\\377d' >&2; exit 3").engine
    data = bytes(range(256)) * 4096
    result = capture(engine, ["cp", "-", "x:/"], stdin=[data[:1000], data[1000:]])
    assert (result.status, result.out, result.err) == (3, data, b"b\xffd")


def test_a_reader_that_stops_early_does_not_break_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_docker(tmp_path, monkeypatch, "exit 0").engine
    assert capture(engine, ["cp", "-", "x:/"], stdin=[b"x" * 1_000_000] * 3).ok


def test_a_call_whose_data_fails_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_docker(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; exec sleep 60").engine

    def data() -> Iterator[bytes]:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            yield b"x"
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError):
        capture(engine, ["cp", "-", "x:/"], stdin=data())
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_token_is_in_no_childs_environment(tmp_path: Path) -> None:
    start = Run(tmp_path)
    _, err = start.begin().communicate(timeout=60)
    made = start.fake.calls()
    assert len(made) > 13, err
    assert all("PATH" in call["env"] and "CLAUDE_BOTTLE_OAUTH_TOKEN" not in call["env"] for call in made)


def test_a_missing_docker_is_the_contracts_error(tmp_path: Path) -> None:
    with pytest.raises(BottleError, match=r"^docker not found on PATH$"):
        engine_find({"PATH": str(tmp_path)})


def test_a_reader_that_pauses_is_not_a_docker_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_docker(tmp_path, monkeypatch, "echo one >&2; exec sleep 2").engine
    monkeypatch.setattr(run, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(calls.log, "write", lambda data: data and run.wait.pause(1.5))
    assert capture(engine, ["build", "."], shown=(OUT, ERR)).ok
