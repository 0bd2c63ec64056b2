"""Secrets that are typed or pasted, and what becomes of the keys that nobody asked for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER
from claude_bottle.lib.host.terminal import _HiddenLine

from tests.sweep import Run, until
from tests.terminal import Terminal

QUESTION = "enter value for KEY: "


class Asking(Run):
    """A start that asks for secrets on a terminal."""

    def __init__(self, folder: Path, **env: str) -> None:
        super().__init__(folder)
        manifest = {"bottles": {"b": {"env": env}}, "agents": {"a": {"bottle": "b"}}}
        (self.home / "claude-bottle.json").write_text(json.dumps(manifest))
        self.fake.session("exit 0")
        self.terminal = Terminal(self.words, self.cwd, self.env)

    def got(self, **values: str) -> bool:
        """Say whether these values, and the token's placeholder, went to the bottle; the fake keeps a digest alone."""
        pairs = {**values, "CLAUDE_CODE_OAUTH_TOKEN": TOKEN_PLACEHOLDER}
        fed = "".join(f"{name}={value}\0" for name, value in pairs.items()).encode()
        return hashlib.sha256(fed).hexdigest() in [call.get("stdin") for call in self.fake.calls()]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path / "bottle", KEY="?", OTHER="?the other")
    made.terminal.until(QUESTION)
    yield made
    made.terminal.close()


def paste(terminal: Terminal, text: str) -> None:
    """Write as a terminal does that pastes: all at once, as fast as it is taken."""
    writer = threading.Thread(target=os.write, args=(terminal.master, text.encode()))
    writer.start()
    writer.join(30)
    assert not writer.is_alive()


@pytest.mark.parametrize("length", [5_000, 70_000])
def test_a_long_secret_arrives_whole(asking: Asking, length: int) -> None:
    secret = "".join(chr(ord("a") + number % 26) for number in range(length))
    paste(asking.terminal, secret + "\n")
    asking.terminal.until("the other: ")
    asking.terminal.type("short\n")
    assert asking.terminal.wait() == 0, asking.terminal.said
    assert asking.got(KEY=secret, OTHER="short")
    assert secret[:20] not in asking.terminal.said


@pytest.mark.parametrize("end", ["", "\n", "\r"])
def test_several_lines_at_once_are_an_error_and_nobody_reads_them(asking: Asking, end: str) -> None:
    terminal = asking.terminal
    paste(terminal, "first-line\nsecond-line\ny\necho owned" + end)
    assert terminal.wait() == 1, terminal.said
    assert "error: the value for 'KEY' has several lines" in terminal.said and "${NAME}" in terminal.said
    assert not any(word in terminal.said for word in ("first-line", "second-line", "owned"))
    assert terminal.settings() == terminal.before and asking.leftovers() == []
    assert left_to_read(terminal) == b""


def left_to_read(terminal: Terminal) -> bytes:
    """Return what the shell would read next."""
    os.set_blocking(terminal.slave, False)
    try:
        return os.read(terminal.slave, 4096)
    except BlockingIOError:
        return b""


def test_blank_lines_behind_a_pasted_secret_do_not_matter(asking: Asking) -> None:
    asking.terminal.type("secret\n\n\n")
    asking.terminal.until("the other: ")
    asking.terminal.type("x\n")
    assert asking.terminal.wait() == 0 and asking.got(KEY="secret", OTHER="x")


def test_what_is_typed_before_the_question_is_no_answer(tmp_path: Path) -> None:
    asking = Asking(tmp_path, KEY="?")
    asking.terminal.type("ahead\n")
    asking.terminal.until(QUESTION)
    asking.terminal.type("secret\n")
    assert asking.terminal.wait() == 0, asking.terminal.said
    assert asking.got(KEY="secret")
    asking.terminal.close()


def test_the_keys_that_edit_a_line_edit_a_secret(asking: Asking) -> None:
    asking.terminal.type("wrong\x15two words \x17abcü\x7f\x08d\n")
    asking.terminal.until("the other: ")
    asking.terminal.type("end of file\x04")
    assert asking.terminal.wait() == 0, asking.terminal.said
    assert asking.got(KEY="two abd", OTHER="end of file")


def test_a_key_that_is_switched_off_is_a_byte_like_any_other() -> None:
    special: list[bytes | int] = [b"\0"] * termios.NCCS if hasattr(termios, "NCCS") else [b"\0"] * 32
    line = _HiddenLine(special)
    assert line.take(b"a\x15b\0\n") == b"" and line.text == "a\x15b\0"


def test_a_signal_in_the_middle_of_a_secret_leaves_nothing(asking: Asking) -> None:
    asking.terminal.type("half of a secret")
    asking.terminal.child.terminate()
    assert asking.terminal.wait() == 143
    assert "half" not in asking.terminal.said and left_to_read(asking.terminal) == b""
    assert asking.terminal.settings() == asking.terminal.before


JOB = """
set -m
{program} start -y a -- -p question {out} &
wait $!
echo "status $?"
"""


@pytest.mark.parametrize("out", [">out", "", ">out 2>err"])
def test_a_bottle_in_the_background_answers_at_once(tmp_path: Path, out: str) -> None:
    """Under a shell with job control, which stops whoever reads the terminal, or sets it, from the background."""
    bottle = Run(tmp_path / "bottle")
    bottle.fake.session("cat; echo the answer")  # cat ends at once where there is no stdin
    script = JOB.format(program=bottle.words[0], out=out)
    terminal = Terminal(["bash", "-c", script], bottle.cwd, bottle.env)
    assert terminal.wait(60) == 0, terminal.said
    said = terminal.said + ((bottle.cwd / "out").read_text() if out else "")
    assert "status 0" in terminal.said and "the answer" in said
    assert bottle.leftovers() == []
    terminal.close()


def test_a_session_whose_output_goes_elsewhere_does_not_wait_for_a_terminal(tmp_path: Path) -> None:
    bottle = Run(tmp_path / "bottle")
    bottle.fake.session("cat; echo the answer")
    with (tmp_path / "out").open("wb") as out:
        terminal = Terminal([*bottle.words, "--", "-p", "question"], bottle.cwd, bottle.env, out=out)
        assert terminal.wait(60) == 0, terminal.said
    assert (tmp_path / "out").read_text() == "the answer\n"
    (session,) = (argv for argv in bottle.fake.argvs() if "claude" in argv)
    assert not {"-i", "-t", "-it"} & set(session)
    terminal.close()


def test_a_pipe_still_reaches_the_session(tmp_path: Path) -> None:
    bottle = Run(tmp_path / "bottle")
    bottle.fake.session("cat")
    done = subprocess.run(bottle.words, cwd=bottle.cwd, env=bottle.env, input=b"piped", capture_output=True, timeout=60)
    assert done.stdout == b"piped"


def test_keys_that_the_session_left_unread_do_not_reach_the_shell(tmp_path: Path) -> None:
    """What a client asks its terminal, and is answered too late, would be typed into the shell."""
    bottle = Run(tmp_path / "bottle")
    go = tmp_path / "go"
    bottle.fake.session(f"stty raw -echo; echo in session; while ! [ -e {go} ]; do sleep 0.05; done")
    terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    terminal.until("in session")
    terminal.type("\x1b[?62;c\x1b]11;rgb:0000/0000/0000\x07rm -rf x\n")
    go.touch()
    assert terminal.wait() == 0, terminal.said
    assert left_to_read(terminal) == b"" and "rm -rf" not in terminal.said
    assert until(lambda: bottle.leftovers() == [])
    terminal.close()
