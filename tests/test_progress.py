"""What a terminal is told of the time a start takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sweep import Run
from tests.terminal import Terminal

TIME = re.compile(r"claude-bottle:   ([\w' ]+): \d+\.\d s\r?$", re.MULTILINE)


def on_terminal(run: Run, *options: str) -> str:
    run.words[-1:-1] = options
    terminal = Terminal(run.words, run.cwd, run.env)
    try:
        assert terminal.wait() == 0, terminal.said
        return terminal.said
    finally:
        terminal.close()


def test_a_terminal_is_told_how_long_each_step_took(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.during_build("sleep 2.5")  # longer than a step may take without a word
    (run.cwd / "large").write_bytes(bytes(64 << 20))  # so that it takes long enough to be told
    said = on_terminal(run)
    titles = TIME.findall(said)
    assert titles[: titles.index("image")] in ([], ["look for the images"]) and {
        "internal network",
        "bottle",
        "working directory",
    } <= set(titles)
    assert re.search(r"^claude-bottle: ready after \d+\.\d s\r?$", said, re.MULTILINE)
    assert said.count("waiting for the image\r\n") == 1
    assert said.index("waiting for the image") < said.index("  image: ") < said.index("creating network")


def test_a_terminal_that_obeys_is_shown_the_seconds_that_pass_in_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.env["TERM"] = "xterm"
    run.fake.during_build("sleep 3.5")
    said = on_terminal(run)
    waits = re.findall(r"(?:\n|\r\x1b\[K)claude-bottle:   waiting for the image: (\d) s", said)
    assert len(waits) >= 2 and waits == sorted(set(waits))
    last = said.rindex("waiting for the image: ")
    assert said.count("\r\x1b[K") >= len(waits) and "\r\x1b[K" in said[last : said.index("claude-bottle:   image: ")]


def test_an_interrupt_takes_the_passing_line_away(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.env["TERM"] = "xterm"
    run.fake.during_build("sleep 20")
    terminal = Terminal(run.words, run.cwd, run.env)
    try:
        terminal.until("waiting for the image: ")
        terminal.type("\x03")
        assert terminal.wait() == 130
        shown, wiped = (terminal.said.count(mark) for mark in ("waiting for the image: ", "\r\x1b[K"))
        assert shown == wiped
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("env", "painted"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
    ids=str,
)
def test_colours_are_for_a_terminal_that_has_them_and_a_user_who_wants_them(
    tmp_path: Path, env: dict[str, str], painted: bool
) -> None:
    run = Run(tmp_path)
    run.env.update(env)
    terminal = Terminal([*run.program, "info", "nobody"], run.cwd, run.env)
    try:
        assert terminal.wait() == 1
    finally:
        terminal.close()
    assert ("claude-bottle: \x1b[31;1merror\x1b[0m: " in terminal.said) == painted
    assert painted or "\x1b" not in terminal.said
    assert "\x1b" not in run.command("info", "nobody").stderr


def test_quiet_means_nothing_of_it(tmp_path: Path) -> None:
    said = on_terminal(Run(tmp_path), "--quiet")
    assert "creating network" in said and not TIME.search(said) and "ready after" not in said


@pytest.mark.parametrize("options", [(), ("--quiet",)], ids=str)
def test_without_a_terminal_there_is_nothing_of_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = Run(tmp_path)
    run.words[-1:-1] = options
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0 and not TIME.search(err) and "ready after" not in err
