"""A golden case: a folder with a command, its surroundings, and what the shell launcher said to it."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
CASES = REPO / "fixtures" / "golden"
STREAMS = ("stdout", "stderr", "status", "files")
# What entry 120 adds behind the shell's own lines, in every plan: a line for each credential, and for each host.
_ADDED = "claude-bottle: {label:<16} : {row}\n(claude-bottle: {more:<16} : {row}\n)*"
_CREDENTIAL = r"(\(none\)|\S+ +(never enters the bottle; .+|IN THE BOTTLE \(.+\)))"
_HOST = r"\S+ +(inspected, findings (logged|refused)|NOT inspected \(.+\))( +broker)?"
TRAFFIC = re.compile(
    "^"
    + _ADDED.format(label="credentials", more="", row=_CREDENTIAL)
    + _ADDED.format(label="inspection", more="", row=_HOST),
    re.MULTILINE,
)
# What entry 130 adds to every start with a credential.
BROKER = re.compile(r"^claude-bottle: (building image claude-bottle-broker:latest|starting broker \S+)\n", re.MULTILINE)
# What entry 133 makes of the line of entry 110: one probe more, and three with a credential.
SEALS = re.compile(r"^(claude-bottle: sealed: )(?:10 of 10|12 of 12)( probes )", re.MULTILINE)
# The commands that the shell has not, in the list of all (201), and what a command's help says behind the shell's own
# usage line (200).
SHELL_COMMANDS = ("build", "cleanup", "edit", "info", "init", "list", "start")
COMMANDS = re.compile(r"(?<=^Commands:\n)(  [a-z]+ +.+\n)+", re.MULTILINE)
HELP = re.compile(r"\A(usage: .+\n)\n(?!Commands:\n)(?s:.+)")
# What the port has beyond the shell in the usage line of start (13, 95, 112, 240).
START = re.compile(
    r"^(usage: \S+ start (?:\[--[a-z-]+\] ){3})(?:\[.+\] )*(<agent>) \[-- <claude args>\]$", re.MULTILINE
)
# What entry 150 adds to a plan with a project.
WORK = re.compile(r"^claude-bottle: work             : (comes home|does not come home) .+\n", re.MULTILINE)
# Likewise in those of list (171, 244) and build (243).
LIST = re.compile(r"^(usage: \S+ list \[agents\|active)(?: \[--[a-z]+\])+(\])$", re.MULTILINE)
BUILD = re.compile(r"^(usage: \S+ build) \[--place\]$", re.MULTILINE)
# What is said behind an error that doctor looks into (205).
DOCTOR = re.compile(r"^claude-bottle: hint: '.+ doctor' looks at what a start depends on\n", re.MULTILINE)
ONLY_ADD = {15, 19, 105, 110, 202}  # entries that add lines: hints, a missing token, what a folder adds, the seals


@dataclass(frozen=True)
class Case:
    """What case.json holds; paths are relative to the case's scratch folder.

    Attributes:
        args: the launcher's words.
        env: variables beside the fixed ones; `@ROOT@` is the scratch folder; null takes a variable away.
        cwd: the working directory, as the user typed it (symlinks kept).
        dirs: empty folders to make.
        links: symlinks, name to target.
        terminal: null without one, else pairs of what to wait for on stderr and what is typed then.
        faults: as FakeDocker.fault takes them: the text, or an object of its arguments.
        state: the engine at the start.
        session: a shell script in place of claude.
        during_build: a shell script that each build of an image runs.
        program: a symlink to make to the launcher, and to call it by.
        without: tools to leave off PATH.
    """

    folder: Path
    args: list[str]
    env: dict[str, str | None] = field(default_factory=dict)
    cwd: str = "project"
    dirs: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    terminal: list[list[str]] | None = field(default_factory=list)
    faults: list[str | dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    session: str = ""
    during_build: str = ""
    program: str = ""
    without: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def entries(self) -> list[int]:
        """The numbers of the declared differences that explain the case's port folder."""
        path = self.folder / "port" / "entry"
        return [int(word) for word in path.read_text().split()] if path.exists() else []


def load(folder: Path) -> Case:
    """Read a case; an unknown key is an error."""
    return Case(folder=folder, **json.loads((folder / "case.json").read_text()))


def load_all(names: Sequence[str] = ()) -> list[Case]:
    """Return the named cases, or all; a name that is none ends the program."""
    every = {path.parent.name: path.parent for path in sorted(CASES.glob("*/case.json"))}
    for name in names:
        if name not in every:
            sys.exit(f"golden: there is no case '{name}'")
    chosen = [every[name] for name in names or every]
    return [load(folder) for folder in chosen]


def recording(case: Case) -> dict[str, str]:
    """Return what the shell launcher said."""
    return {stream: read(case.folder / stream) for stream in STREAMS}


def expected(case: Case) -> dict[str, str]:
    """Return what the port has to say: the recording with the case's patch, if it has one.

    Raises:
        ValueError: the patch does not belong to this recording, or does more than its entry allows.
    """
    said = recording(case)
    for stream in STREAMS:
        path = case.folder / "port" / (stream + ".patch")
        if path.exists():
            lines = read(path).split("\n")
            if "\n".join(difflib.restore(lines, 1)) != said[stream]:
                raise ValueError(f"{path.name} does not belong to the recording")
            if set(case.entries) <= ONLY_ADD and any(line.startswith("- ") for line in lines):
                raise ValueError(f"{path.name} takes lines away, entry {case.entries} may only add")
            said[stream] = "\n".join(difflib.restore(lines, 2))
    return said


def without_additions(said: dict[str, str]) -> dict[str, str]:
    """Return what the port said without what is declared to be beside the shell's own words everywhere.

    Entries 120 and 150 add to a plan, 130 to a start, 133 to its seals, 200 to the help of a command, 205 to an error;
    the list of commands, and the usage lines of start, list and build, have what the shell has not.
    """
    err = TRAFFIC.sub("", WORK.sub("", DOCTOR.sub("", said["stderr"])))
    err = SEALS.sub(r"\g<1>9 of 9\2", BROKER.sub("", err))
    err = BUILD.sub(r"\1", LIST.sub(r"\1\2", START.sub(r"\1\2", HELP.sub(r"\1", err))))
    return {**said, "stderr": COMMANDS.sub(_shells_own, err)}


def _shells_own(commands: re.Match[str]) -> str:
    return "".join(row for row in commands[0].splitlines(True) if row.split()[0] in SHELL_COMMANDS)


def accept(case: Case, got: dict[str, str], entries: str) -> None:
    """Write the patch that makes the port's words the expected ones, tied to declared differences."""
    folder = case.folder / "port"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "entry").write_text(entries + "\n")
    for stream, before in recording(case).items():
        if before != got[stream]:
            lines = difflib.ndiff(before.split("\n"), got[stream].split("\n"))
            write(folder / (stream + ".patch"), "\n".join(line for line in lines if not line.startswith("? ")))


def differences(want: dict[str, str], got: dict[str, str]) -> str:
    """Return a unified diff of all streams; empty when they are equal."""
    found: list[str] = []
    for stream in STREAMS:
        before, after = want[stream].splitlines(True), got[stream].splitlines(True)
        found += difflib.unified_diff(before, after, f"shell/{stream}", f"port/{stream}")
    return "".join(line if line.endswith("\n") else line + "\n" for line in found)


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
