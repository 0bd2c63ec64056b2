"""What the launcher writes: other people's strings, readers that pause, and outputs that take nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import termios
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib import log

from tests.conftest import ROOT
from tests.sweep import Run, until
from tests.terminal import Terminal

HOSTILE = "a\x1b]0;owned\x07\r\n\x9b31m\u202eevil\u2066\u200b\ufeff\t"
SHOWN = "a\\x1b]0;owned\\x07\\r\\n\\x9b31m\\u202eevil\\u2066\\u200b\\ufeff\\t"


def test_no_character_that_a_terminal_obeys_or_hides_gets_through() -> None:
    unseen = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Cc", "Cf", "Zl", "Zp")]
    unseen += ["\ufe0f", "\u034f", "\u3164", "\U000e0041"]
    assert [c for c in unseen if c in log.visible(f"x{c}y")] == []
    for plain in ("Grüße, 世界 🙂", "a\\x1b", "\udcff"):  # the last is a byte that is not UTF-8
        assert log.visible(plain) == plain
    assert log.visible("\udcc2\udc9b") == "\\x9b"  # two half characters that would leave as a whole one


def run(tmp_path: Path, manifest: object, *words: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    (tmp_path / "claude-bottle.json").write_text(json.dumps(manifest))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.run([ROOT / "cli.sh", *words], cwd=tmp_path, env=env, timeout=60, **streams)


def test_strings_of_a_manifest_are_spelt_out_wherever_they_are_shown(tmp_path: Path) -> None:
    manifest = {
        "bottles": {HOSTILE: {"env": {"X": "1"}, "egress": {"allowlist": []}, HOSTILE: 1}},
        "agents": {HOSTILE: {"bottle": HOSTILE, "skills": [], "prompt": HOSTILE, HOSTILE: 1}},
    }
    listed = run(tmp_path, manifest, "list")
    assert listed.stdout.decode() == f"{SHOWN}\t{SHOWN}\n"
    for words in (["info", HOSTILE], ["info", f"no{HOSTILE}"], ["edit", f"no{HOSTILE}"], [HOSTILE]):
        done = run(tmp_path, manifest, *words)
        assert SHOWN in done.stderr.decode()
        assert log.visible(done.stderr.decode().replace("\n", "")) == done.stderr.decode().replace("\n", "")
        assert not any(line.startswith(b"\x9b") for line in done.stderr.splitlines())


def test_dockers_own_words_are_spelt_out_and_its_lines_stay_lines(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    bottle.fake.fault("agent create: first \x1b[2J\nsecond \u202e")
    _, err = bottle.begin().communicate(timeout=60)
    assert "error: docker run failed: first \\x1b[2J\nsecond \\u202e\n" in err


def test_what_a_build_says_stays_as_it_is(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    bottle.fake.during_build("printf '\\033[31mred\\n' >&2")
    _, err = bottle.begin().communicate(timeout=60)
    assert "\x1b[31mred\n" in err


MANY = {"agents": {f"{number:04}-{'x' * 60}": {} for number in range(2000)}}  # more than a pipe holds


@pytest.mark.parametrize("command", ["list", "info"])
@pytest.mark.parametrize(("path", "reason"), [("/dev/full", "No space left on device"), ("closed", "Bad file")])
def test_an_output_that_takes_nothing_is_an_error(tmp_path: Path, command: str, path: str, reason: str) -> None:
    words = [command] + ["a"] * (command == "info")
    how: dict[str, object] = {"preexec_fn": lambda: os.close(1)}
    if path != "closed":
        how = {"stdout": os.open(path, os.O_WRONLY)}
    done = run(tmp_path, {"agents": {"a": {}}}, *words, **how)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith(f"claude-bottle: error: cannot write to stdout: {reason}")
    assert done.stderr.count(b"error:") == 1


def test_a_reader_who_has_seen_enough_ends_a_list_in_silence(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_text(json.dumps(MANY))
    line = '"$0" list | head -n 1; echo "${PIPESTATUS[0]}" >&2'
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", line, ROOT / "cli.sh"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.stderr, done.stdout.count("\n")) == ("141\n", 1)  # as a program that SIGPIPE has ended


def is_full(fd: int) -> bool:
    """Say whether a pipe takes no more."""
    held = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), "little")
    return held >= 60_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_pager_that_stands_still_leaves_the_launcher_its_ears(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "claude-bottle.json").write_text(json.dumps(MANY))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    child = subprocess.Popen([ROOT / "cli.sh", "list"], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    assert child.stdout
    assert until(lambda: is_full(child.stdout.fileno()))
    child.send_signal(number)
    assert child.wait(15) == 128 + number
    child.stdout.close()


def test_a_signal_while_a_reader_takes_a_list_leaves_him_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_text(json.dumps(MANY))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    child = subprocess.Popen([ROOT / "cli.sh", "list"], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    assert child.stdout
    assert until(lambda: is_full(child.stdout.fileno()))
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=60)
    assert (child.returncode, said.count(b"\n")) == (0, 2000)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Run, Terminal]]:
    """A start on a terminal that shows nothing, as after Ctrl-S, in its preflight."""
    bottle = Run(tmp_path / "bottle")
    terminal = Terminal(bottle.words, bottle.cwd, bottle.env, begin=False)
    termios.tcflow(terminal.slave, termios.TCOOFF)
    terminal.start()
    assert until(lambda: len(list(bottle.tmp.iterdir())) == 1)  # the stage dir
    yield bottle, terminal
    termios.tcflow(terminal.slave, termios.TCOON)
    terminal.close()


def test_a_terminal_that_stands_still_leaves_the_launcher_its_ears(stopped: tuple[Run, Terminal]) -> None:
    bottle, terminal = stopped
    terminal.child.send_signal(signal.SIGTERM)
    assert terminal.child.wait(30) == 143
    assert bottle.leftovers() == []


def test_a_terminal_that_goes_on_shows_all_that_was_held(stopped: tuple[Run, Terminal]) -> None:
    _, terminal = stopped
    termios.tcflow(terminal.slave, termios.TCOON)
    assert terminal.wait() == 0
    assert terminal.said.index("agent            : a") < terminal.said.index("attaching to claude-bottle-a")
    assert os.get_blocking(terminal.slave)


def test_a_teardown_goes_on_where_nobody_reads(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    go = tmp_path / "go"
    bottle.fake.session(f"while ! [ -e {go} ]; do sleep 0.05; done; exit 3")
    bottle.fake.fault("sidecar rm: cannot be done")
    ours, theirs = os.pipe()
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": theirs}
    child = subprocess.Popen(bottle.words, cwd=bottle.cwd, env=bottle.env, start_new_session=True, **how)
    said = b""
    while b"attaching to" not in said:
        said += os.read(ours, 65536)
    os.set_blocking(theirs, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)
    go.touch()
    assert child.wait(60) == 3
    assert bottle.leftovers() == ["claude-bottle-pipelock-a"] or any("pipelock" in name for name in bottle.leftovers())
    os.close(ours)
    os.close(theirs)


def test_an_output_that_another_program_made_non_blocking_gets_all(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_text(json.dumps(MANY))
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    child = subprocess.Popen([ROOT / "cli.sh", "list"], cwd=tmp_path, env=env, stdout=theirs)
    os.close(theirs)
    assert until(lambda: is_full(ours))
    end, said = time.monotonic() + 30, b""
    while (piece := os.read(ours, 65536)) and time.monotonic() < end:
        said += piece
    assert (child.wait(30), said.count(b"\n")) == (0, 2000)
    os.close(ours)
