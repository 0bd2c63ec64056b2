"""The terminal: signals, its closing and its settings at each stage of a start, on the fake engine."""

from __future__ import annotations

import json
import signal
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sweep import TOKEN, Run, gone, state, until, wrong_words
from tests.terminal import Terminal

RAW_SESSION = "stty raw -echo; echo in session; exec sleep 100"
STAGES = ["question", "create", "session", "teardown"]
ENDINGS: dict[str, Callable[[Terminal], None]] = {
    "INT": lambda terminal: terminal.child.send_signal(signal.SIGINT),
    "HUP": lambda terminal: terminal.child.send_signal(signal.SIGHUP),
    "TERM": lambda terminal: terminal.child.send_signal(signal.SIGTERM),
    "closed": lambda terminal: terminal.hang_up(),
}
STATUS = {"INT": 130, "HUP": 129, "TERM": 143, "closed": 129}


class Bottle(Run):
    """A start on a terminal, brought to one of its stages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.terminal: Terminal
        self.pid = 0
        self.fault = -1

    def start(self, stage: str) -> Terminal:
        self.fake.session("echo in session" if stage == "teardown" else RAW_SESSION)
        if stage in ("create", "teardown"):
            self.fault = self.fake.fault("agent create" if stage == "create" else "agent rm", mode="pause")
        self.terminal = Terminal([w for w in self.words if w != "-y"], self.cwd, self.env)
        self.terminal.until("launch this agent? [y/N] ")
        if stage == "question":
            return self.terminal
        self.terminal.type("y\n")
        if stage == "session":
            self.terminal.until("in session")
        else:
            self.pid = self.fake.wait_for_pause(self.fault)
        return self.terminal

    def release(self) -> None:
        if self.fault >= 0:
            self.fake.release(self.fault)


@pytest.fixture
def bottle(tmp_path: Path) -> Iterator[Bottle]:
    made = Bottle(tmp_path / "bottle")
    yield made
    made.terminal.close()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_left_and_the_terminal_is_as_before(bottle: Bottle, stage: str, ending: str) -> None:
    terminal = bottle.start(stage)
    ENDINGS[ending](terminal)
    bottle.release()
    assert terminal.wait() == STATUS[ending], terminal.said
    assert bottle.leftovers() == []
    assert until(lambda: not bottle.pid or gone(bottle.pid))
    assert wrong_words(terminal.said) == ""
    if ending != "closed":
        assert terminal.settings() == terminal.before


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_launcher_leaves_the_terminal_as_before_too(bottle: Bottle, stage: str) -> None:
    terminal = bottle.start(stage)
    terminal.child.send_signal(signal.SIGKILL)
    bottle.release()
    assert terminal.wait() == -signal.SIGKILL
    assert until(lambda: terminal.settings() == terminal.before)
    assert until(lambda: bottle.leftovers() == [])


def test_more_signals_do_not_disturb_a_teardown(bottle: Bottle) -> None:
    terminal = bottle.start("teardown")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):  # a second Ctrl-C would hand it over
        terminal.child.send_signal(number)
    bottle.release()
    assert terminal.wait() in (129, 130, 143), terminal.said  # several at once arrive in any order
    assert bottle.leftovers() == []
    removals = Counter(tuple(argv) for argv in bottle.fake.argvs() if "rm" in argv[:2])
    assert removals and set(removals.values()) == {1}


def test_a_second_interrupt_leaves_the_rest_of_a_hung_teardown_to_the_background(bottle: Bottle) -> None:
    bottle.fake.session("exit 0")
    hung = bottle.fake.fault("agent rm#1", mode="hang")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    bottle.fake.wait_for_pause(hung)
    terminal.type("\x03")
    terminal.until("Ctrl-C leaves the rest to the background")
    terminal.type("\x03")
    assert terminal.wait(20) == 130, terminal.said
    assert "could not remove container 'claude-bottle-a-2'" in terminal.said
    assert "the background goes on" in terminal.said
    assert until(lambda: bottle.leftovers() == [])


def test_a_hung_teardown_says_what_it_waits_for(bottle: Bottle) -> None:
    bottle.fake.session("exit 0")
    bottle.fake.fault("agent rm#1", mode="hang")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    terminal.until(
        "still removing containers 'claude-bottle-a-2', 'claude-bottle-broker-a', 'claude-bottle-pipelock-a'; "
    )
    terminal.until("s more at most")


def test_ctrl_c_in_the_session_belongs_to_the_session(bottle: Bottle) -> None:
    # As the docker client does, the session makes the terminal raw, so that the key is a byte like any other.
    bottle.fake.session(
        "stty raw -echo; echo in session; dd bs=1 count=1 2>/dev/null | grep -q $(printf '\\003') && exit 7"
    )
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    terminal.until("in session")
    terminal.type("\x03")
    assert terminal.wait() == 7, terminal.said
    assert terminal.settings() == terminal.before
    assert bottle.leftovers() == []


@pytest.fixture
def asked(bottle: Bottle) -> Terminal:
    """A start that asks for a secret."""
    manifest = {"bottles": {"b": {"env": {"KEY": "?", "OTHER": "?the other"}}}, "agents": {"a": {"bottle": "b"}}}
    (bottle.home / "claude-bottle.json").write_text(json.dumps(manifest))
    bottle.fake.session("exit 0")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    terminal.until("enter value for KEY: ")
    return terminal


def test_a_secret_is_typed_without_echo(bottle: Bottle, asked: Terminal) -> None:
    assert not asked.echoes()
    asked.type("a-secret-value-1\n")
    asked.until("the other: ")
    assert not asked.echoes()
    asked.type("a-secret-value-2\n")
    assert asked.wait() == 0, asked.said
    assert "a-secret-value" not in asked.said and TOKEN not in asked.said
    assert asked.settings() == asked.before


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x1c", 131)])
def test_a_key_that_ends_the_launcher_at_a_secret_brings_the_echo_back(
    bottle: Bottle, asked: Terminal, key: str, status: int
) -> None:
    asked.type(f"half{key}")
    assert asked.wait() == status, asked.said
    assert until(lambda: asked.settings() == asked.before)
    assert until(lambda: bottle.leftovers() == [])
    assert "half" not in asked.said


def test_ctrl_z_at_a_question_stops_the_launcher_until_it_is_continued(bottle: Bottle) -> None:
    terminal = bottle.start("question")
    terminal.child.send_signal(signal.SIGSTOP)  # what Ctrl-Z comes to under a shell with job control
    assert until(lambda: state(terminal.child.pid).startswith("T"))
    terminal.child.send_signal(signal.SIGCONT)
    terminal.type("n\n")
    assert terminal.wait() == 0, terminal.said
    assert bottle.leftovers() == []


# What a client may have switched on, and what switches it off again.
MODES = {f"[?{mode}h": f"[?{mode}l" for mode in (1049, 1000, 1002, 1003, 1006, 1015, 1004, 2004, 2026, 1)}
MODES |= {"[?25l": "[?25h", "[2 q": "[0 q", "=": ">", "[31m": "[0m", "[>1u": "[<u", "[>4;2m": "[>4;0m", "[2;9r": "[r"}
FULL_SCREEN = "stty raw -echo; printf '%b' '" + "".join(f"\\033{on}" for on in MODES) + "in session'; "


def undone(said: str) -> bool:
    """Say whether all of the modes are off at the end."""
    return all(said.rfind(f"\x1b{off}") > said.rfind(f"\x1b{on}") for on, off in MODES.items())


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_a_session_that_is_ended_leaves_the_screen_as_before(bottle: Bottle, ending: signal.Signals) -> None:
    bottle.fake.session(FULL_SCREEN + "exec sleep 100")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    terminal.until("in session")
    assert not undone(terminal.said)
    terminal.child.send_signal(ending)
    terminal.wait()
    assert until(lambda: terminal.read_on() and undone(terminal.said)), terminal.said
    assert until(lambda: terminal.settings() == terminal.before and bottle.leftovers() == [])


def test_a_client_that_was_killed_leaves_the_screen_as_before(bottle: Bottle) -> None:
    bottle.fake.session(FULL_SCREEN + "exit 137")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    assert terminal.wait() == 137 and undone(terminal.said), terminal.said


def test_a_session_that_ends_itself_has_the_screen_to_itself(bottle: Bottle) -> None:
    bottle.fake.session("printf '\\033[?1049h\\033[?1049l'; exit 1")
    terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env)
    assert terminal.wait() == 1
    assert terminal.said.count("\x1b") == 2


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_an_output_that_is_no_terminal_gets_no_escape_sequences(bottle: Bottle, ending: signal.Signals) -> None:
    bottle.fake.session("echo in session >&2; exec sleep 100")
    with (bottle.cwd / "out").open("wb") as out:
        terminal = bottle.terminal = Terminal(bottle.words, bottle.cwd, bottle.env, out=out)
        terminal.until("in session")
        terminal.child.send_signal(ending)
        terminal.wait()
    assert until(lambda: bottle.leftovers() == [])
    assert "\x1b" not in terminal.said and (bottle.cwd / "out").read_bytes() == b""


def test_a_stopped_terminal_does_not_hold_up_its_restoring(bottle: Bottle) -> None:
    terminal = bottle.start("session")
    termios.tcflow(terminal.slave, termios.TCOOFF)
    terminal.child.send_signal(signal.SIGTERM)
    assert terminal.child.wait(30) == 143
    assert terminal.settings() == terminal.before
    termios.tcflow(terminal.slave, termios.TCOON)
