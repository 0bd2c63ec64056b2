"""The command line as a user types it, through the checkout's own launcher."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from claude_bottle.cli.commands import commands
from claude_bottle.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = "[--dry-run] [--cwd] [--remote-control] [--yes] [--quiet] [--receipt <file>] [--json] [--no-bring] [--place]"
OPTION = re.compile(r"^  (-[^<\n]*?)( <[\w ]+>)?  +\S.{8,}$", re.MULTILINE)
USAGE = f"usage: cli.sh start {OPTIONS} <agent> [-- <claude args>]\n"


def cli(*words: str | bytes, cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ROOT / "cli.sh", *words], cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, timeout=300
    )


@pytest.fixture(autouse=True, scope="module")
def packages() -> None:
    cli("--help")  # the first run says that it sets up


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["start"], "missing agent name"),
        (["start", ""], "missing agent name"),
        (["start", "--nope", "a", "b"], "unknown option: --nope"),
        (["start", "a", "b", "--nope"], "unexpected argument: b"),
        (["start", "-h"], "unknown option: -h"),
        (["start", "--", "a", "--cwd"], "unexpected argument: --cwd"),
        (["start", "a", "--yes=1"], "unknown option: --yes=1"),
        (["start", "a", "--receipt"], "missing value for --receipt"),
        (["start", "a", "--receipt="], "missing value for --receipt"),
        (["start", "--receipt", "", "a"], "missing value for --receipt"),
        (["start", "--receipt", "--yes", "a"], "missing value for --receipt"),
        (["start", "--receipt", "--", "a"], "missing value for --receipt"),
        (["start", "--receipt", "a"], "missing agent name"),
        (["start", "a", "--receipts=x"], "unknown option: --receipts=x"),
    ],
)
def test_wrong_words_end_with_the_usage_line(words: list[str], what: str) -> None:
    done = cli(*words)
    assert done.returncode == 2
    assert done.stderr.decode() == f"claude-bottle: error: {what}\n{USAGE}"


@pytest.mark.parametrize("words", [["start", "a", "--help"], ["help", "start"]], ids=str)
def test_help_of_a_command_begins_with_its_usage_line(words: list[str]) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode().startswith(USAGE + "\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_options_an_example_and_its_exit_statuses(name: str) -> None:
    said = cli(name, "--help").stderr.decode()
    purpose, options, examples, statuses = said.split("\n\n", 1)[1].rsplit("\n\n", 3)
    assert len(purpose.splitlines()[0]) > 20
    told = {word for words, _ in OPTION.findall(options) for word in words.split(", ")}
    declared = [each for each in commands.commands[name].params if each.param_type_name == "option"]
    assert options.startswith("Options:\n") and told == {word for each in declared for word in each.opts} | {"--help"}
    assert examples.startswith(f"Examples:\n  cli.sh {name}")
    assert re.findall(r"^  (\w+)  ", statuses, re.MULTILINE)


def test_the_list_has_every_command() -> None:
    assert set(COMMANDS) == set(commands.commands)
    listed = cli("help").stderr.decode()
    assert re.findall(r"^  (\S+) +\S", listed, re.MULTILINE) == list(COMMANDS) == sorted(COMMANDS)


def test_the_readme_has_every_command_in_its_table() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([a-z]+)", " ".join(rows))) == list(COMMANDS)


def test_the_version_is_data() -> None:
    done = cli("--version")
    assert (done.returncode, done.stderr) == (0, b"") and re.fullmatch(rb"claude-bottle \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(("word", "near"), [("strat", "start"), ("veryfy", "verify"), ("LIST", "list"), ("frob", "")])
def test_an_unknown_command_names_the_nearest(word: str, near: str) -> None:
    for words in ([word, "a"], ["help", word]):
        done = cli(*words)
        hint = f"claude-bottle: hint: did you mean '{near}'?\n" if near else ""
        assert done.returncode == 2
        assert done.stderr.decode().startswith(f"claude-bottle: error: unknown command: {word}\n{hint}\nusage: cli.sh ")


def test_bytes_that_are_not_utf8_come_out_as_they_went_in() -> None:
    done = cli(b"caf\xe9")
    assert done.returncode == 2
    assert done.stderr.startswith(b"claude-bottle: error: unknown command: caf\xe9\n\nusage: cli.sh ")


@pytest.mark.parametrize("name", ["click", "plumbum", "jsonschema", "claude_bottle"])
def test_a_module_in_the_users_folder_is_never_imported(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("import os; os._exit(99)")
    assert cli("--help", cwd=tmp_path).returncode == 0


def test_a_chain_of_links_leads_to_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "first").symlink_to(os.path.relpath(ROOT / "cli.sh", tmp_path / "a folder"))
    (tmp_path / "bottle").symlink_to("a folder/first")
    done = subprocess.run([tmp_path / "bottle", "help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr.startswith("usage: bottle <command> [args...]\n")


def test_help_loads_neither_plumbum_nor_jsonschema() -> None:
    script = (
        "import sys,types;p=types.ModuleType('claude_bottle');p.__path__=[sys.argv[1]];sys.modules['claude_bottle']=p\n"
        "from claude_bottle.cli.main import main\nmain('x',['start','--help'])\n"
        "sys.exit(bool({'plumbum','jsonschema'} & set(sys.modules)))"
    )
    python = next((ROOT / ".venv-run").glob("*/bin/python"))
    assert subprocess.run([python, "-I", "-c", script, ROOT], capture_output=True, timeout=60).returncode == 0
