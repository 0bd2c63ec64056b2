"""``top`` on a terminal, over a fake engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_bottle.lib.host.report import INTERNAL_STATUS

from tests.sweep import TOKEN, impatient, until
from tests.terminal import Terminal
from tests.test_refused import denied
from tests.test_seeing import HOST, Seen


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Seen]:
    made = Seen(tmp_path)
    yield made
    made.close()


@pytest.fixture
def shown(run: Seen) -> Iterator[Terminal]:
    env = {**run.env, "TERM": "xterm-256color", "COLUMNS": "150", "LINES": "30"}
    made = Terminal([*run.program, "top"], run.cwd, env, begin=False)
    yield made
    made.close()


DOWN = "\x1b[B"


def test_it_shows_what_there_is_and_its_denials(run: Seen, shown: Terminal) -> None:
    run.session(*[denied(HOST)] * 12, denied("b\x1b[31m.test"), times=12, then="exec sleep 60")
    run.launch("12]")
    shown.start()
    shown.until("100 MiB", 60)
    shown.type("d")
    shown.until("claude-bottle-a has no sidecar any more")  # the sibling's, whose launcher tells us nothing
    shown.type(DOWN)
    shown.until(f'denied: {HOST} (12 times); to allow: bottles.b.egress.allowlist += "{HOST}"')
    assert "\\x1b[31m.test" in shown.said and "\x1b[31m.test" not in shown.said
    shown.type("q")
    assert shown.wait() == 0
    assert shown.settings() == shown.before


def test_a_bottle_that_comes_is_shown_and_one_that_goes_is_not(run: Seen, shown: Terminal) -> None:
    run.fake.session("exec sleep 60")
    shown.start()
    shown.until("claude-bottle-a ", 60)
    run.launch('"running"')
    shown.until("claude-bottle-a-2")
    run.close()

    def last_frame() -> str:
        shown.read_on()
        return shown.said.rpartition(" AGENT ")[2]

    assert until(lambda: " claude-bottle-a " in last_frame() and "claude-bottle-a-2" not in last_frame())
    shown.child.send_signal(signal.SIGTERM)
    assert shown.wait() == 128 + signal.SIGTERM
    assert shown.settings() == shown.before


def test_a_bottle_is_stopped_when_the_user_is_sure(run: Seen, shown: Terminal) -> None:
    run.fake.session("exec sleep 60")
    child = run.launch('"running"')
    shown.start()
    shown.until("claude-bottle-a-2", 60)
    shown.type(DOWN)
    for answer in "ny":
        shown.type("s")
        shown.until("stop claude-bottle-a-2? [y/N]")
        shown.said = ""
        shown.type(answer)
        shown.until("claude-bottle-a-2")
    shown.until("stopping claude-bottle-a-2")
    child.communicate(timeout=60)
    shown.until("stopped claude-bottle-a-2")
    assert run.leftovers() == []
    shown.type("q")
    assert shown.wait() == 0


def test_an_engine_that_goes_away_ends_it_with_its_words_and_the_terminal_as_it_was(run: Seen, shown: Terminal) -> None:
    shown.start()
    shown.until("claude-bottle-a ", 60)
    run.fake.down()
    assert shown.wait() == 1
    assert "Cannot connect to the Docker daemon" in shown.said
    assert "docker ps failed\r\n" in shown.said and "Traceback" not in shown.said
    assert shown.settings() == shown.before


def test_a_defect_is_told_as_one_and_shows_no_values(run: Seen, shown: Terminal) -> None:
    defect = "from claude_bottle.lib.commands import active\nactive.find = lambda engine: engine.nothing\n"
    *python, program, root = map(str, impatient())
    at = program.index("from claude_bottle.cli")
    shown.words = [*python, program[:at] + defect + program[at:], root, "top"]
    shown.start()
    assert shown.wait() == INTERNAL_STATUS
    assert ": internal error: lib/commands/top.py, line " in shown.said
    assert "Traceback" not in shown.said and "locals" not in shown.said and TOKEN not in shown.said
    assert shown.settings() == shown.before


def test_without_a_terminal_it_is_an_error(run: Seen) -> None:
    done = run.command("top")
    assert done.returncode == 1 and "top needs a terminal" in done.stderr
