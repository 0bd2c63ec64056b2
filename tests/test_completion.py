"""Completion of command lines, in the shells themselves."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = ("implementer", "imp two", "imp$(touch taken)", "-i", "reviewer")
MANIFEST = json.dumps({"bottles": {"b": {}}, "agents": {name: {"bottle": "b"} for name in NAMES}})
LINES = {  # what is typed, and what is offered
    "ver": ["verify"],
    "ed": ["edit"],
    "start imp": ["implementer"],
    "start --cwd r": ["reviewer"],
    "start --re": ["--receipt", "--remote-control"],
    "list a": ["active", "agents"],
    "completion z": ["zsh"],
    "start --receipt claude-b": ["claude-bottle.json"],
}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a manifest of names that a shell would do something with, and a link to the launcher."""
    (tmp_path / "claude-bottle.json").write_text(MANIFEST)
    (tmp_path / "cli.sh").symlink_to(ROOT / "cli.sh")
    (tmp_path / "home").mkdir()
    return tmp_path


def environment(desk: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(desk / "home"), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def say(desk: Path, *words: str) -> list[str]:
    done = subprocess.run(words, cwd=desk, env=environment(desk), capture_output=True, text=True, timeout=60)
    assert done.stderr == "", done.stderr
    return done.stdout.splitlines()


BASH = """
eval "$(./cli.sh completion bash)"
[[ $(complete -p cli.sh) == *_clish_completion* ]]
COMP_WORDS=(./cli.sh "$@") COMP_CWORD=$#
_clish_completion ./cli.sh
printf '%s\\n' "${COMPREPLY[@]}"
"""


def in_bash(desk: Path, line: str) -> list[str]:
    offered = say(desk, "bash", "--norc", "-c", BASH, "bash", *line.split(" "))
    return ["claude-bottle.json"] if offered == [""] else offered  # it is told to look for files itself


def in_fish(desk: Path, line: str) -> list[str]:
    script = "./cli.sh completion fish | source; complete -C $argv"
    said = say(desk, "fish", "--no-config", "-c", script, f"./cli.sh {line}")
    return [row.split("\t")[0] for row in said]


ZSH = """
compdef() { [[ $2 == cli.sh ]] }
compadd() { print -l -- ${(P)@[-1]} }
_describe() { print -l -- ${${(P)3}%%:*} }
_path_files() { print claude-bottle.json }
eval "$(./cli.sh completion zsh)"
words=(./cli.sh "$@") CURRENT=$(($# + 1))
_clish_completion
"""


def in_zsh(desk: Path, line: str) -> list[str]:
    return say(desk, "zsh", "-f", "-c", ZSH, "zsh", *line.split(" "))  # what a TAB itself uses needs a terminal


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", [in_bash, in_fish, in_zsh])
def test_a_line_is_completed(desk: Path, shell: Callable[[Path, str], list[str]], line: str) -> None:
    assert sorted(shell(desk, line)) == LINES[line]


def test_nothing_of_a_strangers_manifest_is_offered_that_a_shell_would_obey(desk: Path) -> None:
    assert sorted(in_bash(desk, "start ")) == ["implementer", "reviewer"]


@pytest.mark.parametrize("text", ["{", "", None])
def test_a_manifest_that_cannot_be_read_is_no_word_in_the_midst_of_a_line(desk: Path, text: str | None) -> None:
    (desk / "claude-bottle.json").unlink() if text is None else (desk / "claude-bottle.json").write_text(text)
    assert in_fish(desk, "start imp") == []


def test_another_shell_is_named_as_unknown() -> None:
    done = subprocess.run([ROOT / "cli.sh", "completion", "tcsh"], capture_output=True, text=True, timeout=60)
    usage = "usage: cli.sh completion bash|fish|zsh\n"
    assert (done.returncode, done.stderr) == (2, f"claude-bottle: error: unexpected argument: tcsh\n{usage}")
