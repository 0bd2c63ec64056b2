"""The cases' own order: where recordings come from, and that every difference is declared. The cases are run by
`scripts/golden check`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.golden.case import REPO, Case, load, load_all, recording, without_additions
from tests.golden.main import digest, verdict

CASES = load_all()
DIFFERENCES = REPO / "docs" / "differences.md"


def test_every_recording_comes_from_the_shell_side_kept_here() -> None:
    want = digest(REPO / "fixtures" / "shell" / "cli.sh")
    assert [case.name for case in CASES if (case.folder / "launcher").read_text().strip() != want] == []


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120


def test_every_port_folder_names_declared_differences() -> None:
    unexplained = [c.name for c in CASES if (c.folder / "port").exists() and not c.entries]
    assert unexplained == []
    assert {n for case in CASES for n in case.entries} <= set(declared(DIFFERENCES))


def test_every_declared_difference_is_used_by_a_case_or_pinned_by_a_test() -> None:
    used = {n for case in CASES for n in case.entries}
    tests = "".join(path.read_text() for path in sorted((REPO / "tests").rglob("test_*.py")))
    unused = [n for n, pin in declared(DIFFERENCES).items() if n not in used and not pinned(pin, tests)]
    assert unused == []


def pinned(pin: str, tests: str) -> bool:
    """Say whether the page's last column names a test that exists."""
    names = re.findall(r"`([^`]+)`", pin)
    return any(f"def {name}(" in tests or (REPO / name).is_file() for name in names)


def declared(page: Path) -> dict[int, str]:
    """Return the page's entries: number, and what pins it."""
    rows = (line.strip().strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("| "))
    cells = ((row[0].strip(), row[-1]) for row in rows)
    return {int(n): pin for numbers, pin in cells if numbers[0].isdigit() for n in numbers.split(",")}


def doctored(tmp_path: Path, name: str, **files: str) -> Case:
    """Return a copy of a case with files of a port folder of its own."""
    folder = tmp_path / name
    shutil.copytree(CASES[0].folder.parent / name, folder, ignore=shutil.ignore_patterns("port"))
    (folder / "port").mkdir()
    for file, text in files.items():
        (folder / "port" / file.replace("_", ".")).write_text(text)
    return load(folder)


def test_a_port_folder_without_an_entry_is_refused(tmp_path: Path) -> None:
    assert "without an entry" in verdict(doctored(tmp_path, "list-no-agents"))


def test_a_port_folder_that_explains_nothing_is_refused(tmp_path: Path) -> None:
    assert "explains nothing" in verdict(doctored(tmp_path, "list-no-agents", entry="15"))


def test_a_patch_of_another_recording_is_refused(tmp_path: Path) -> None:
    case = doctored(tmp_path, "list-no-agents", entry="15", stderr_patch="  something else\n+ more")
    assert "does not belong" in verdict(case)


def test_a_patch_for_hints_may_only_add_lines(tmp_path: Path) -> None:
    lines = recording(load(CASES[0].folder.parent / "list-no-agents"))["stderr"].split("\n")
    patch = "\n".join(["- " + lines[0], "+ other", *("  " + line for line in lines[1:])])
    case = doctored(tmp_path, "list-no-agents", entry="15", stderr_patch=patch)
    assert "may only add" in verdict(case)


def test_a_users_own_manifest_is_tried_with_their_skills_keys_and_variables(tmp_path: Path) -> None:
    (tmp_path / ".claude" / "skills" / "review").mkdir(parents=True)
    (tmp_path / "key").write_text("a key\n")
    ssh = {"Host": "g", "IdentityFile": "~/key", "Hostname": "git.example.org", "User": "git", "Port": 22}
    bottle = {"env": {"A": "${MY_OWN}", "S": "?one", "T": "?"}, "ssh": [ssh]}
    manifest = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b", "skills": ["review"]}}}
    (tmp_path / "claude-bottle.json").write_text(json.dumps(manifest))
    done = diff_of(tmp_path / "claude-bottle.json", "a", HOME=str(tmp_path), MY_OWN="x", CLAUDE_BOTTLE_IMAGE="my:1")
    changed = [line for line in done.stdout.splitlines()[3:] if line.startswith(("-", "+"))]
    assert changed == ["-claude-bottle: one: ", "-claude-bottle: enter value for T: "], done.stdout + done.stderr


def test_a_manifest_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = diff_of(tmp_path / "nothing.json", "a")
    assert (done.returncode, done.stderr) == (1, f"golden: {tmp_path}/nothing.json is no file\n")


@pytest.mark.parametrize("words", [("check", "--case", "nothing"), ("accept", "nothing", "--entry", "1")])
def test_a_case_that_is_none_is_said(words: tuple[str, ...]) -> None:
    done = subprocess.run([REPO / "scripts" / "golden", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "golden: there is no case 'nothing'\n")


def diff_of(manifest: Path, agent: str, **env: str) -> subprocess.CompletedProcess[str]:
    launcher = REPO / "fixtures" / "shell" / "cli.sh"
    words = [REPO / "scripts" / "golden", "diff", "--launcher", launcher, "--manifest", manifest, "--agent", agent]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **env})


def test_only_a_shell_launcher_is_recorded_from() -> None:
    done = subprocess.run(
        [REPO / "scripts" / "golden", "record", "--launcher", REPO / "cli.sh"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "is not a shell launcher" in done.stderr


SHELLS = "claude-bottle: remote-control   : disabled\n"
ADDED = (
    "claude-bottle: credentials      : TOKEN  never enters the bottle; api.example, any path\n"
    "claude-bottle:                  : ASKED  IN THE BOTTLE (env)\n"
    "claude-bottle: inspection       : api.example  inspected, findings logged  broker\n"
    "claude-bottle:                  : git.example  NOT inspected (ssh)\n"
)


def test_what_a_broker_adds_to_a_start_is_left_out() -> None:
    said = "claude-bottle: {}\n".format
    more = said("building image claude-bottle-broker:latest") + said("starting broker claude-bottle-broker-a-2")
    sealed = {count: said(f"sealed: {count} of {count} probes (0.2 s)") for count in (9, 12, 11)}
    assert without_additions({"stderr": more + sealed[12]}) == {"stderr": sealed[9]}
    assert without_additions({"stderr": sealed[11]}) == {"stderr": sealed[11]}


def test_what_a_plan_adds_in_every_case_is_left_out_and_nothing_else_is() -> None:
    whole = {"stderr": f"{SHELLS}{ADDED}\n", "stdout": ADDED}
    assert without_additions(whole) == {"stderr": f"{SHELLS}\n", "stdout": ADDED}
    for wrong in (ADDED.replace("never enters", "enters"), ADDED.replace("NOT ", ""), ADDED[: ADDED.index("git")]):
        assert without_additions({"stderr": wrong})["stderr"]
    nothing = "claude-bottle: credentials      : (none)\n" + ADDED[ADDED.index("claude-bottle: inspection") :]
    assert without_additions({"stderr": nothing + SHELLS})["stderr"] == SHELLS
