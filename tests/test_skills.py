"""Links in a skill: what arrives in the bottle, what the plan says, and what is refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from claude_bottle.lib import skills
from claude_bottle.lib.errors import BottleError

from tests.sweep import Run


def skill(home: Path) -> Path:
    folder = home / ".claude" / "skills" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_skills_links_to_files_outside_arrive_as_files_and_the_plan_shows_them(tmp_path: Path) -> None:
    run = Run(tmp_path)
    folder, notes = skill(tmp_path / "home"), tmp_path / "notes"
    notes.mkdir()
    (notes / "SKILL.md").write_text("# Outside\n")
    (folder / "SKILL.md").symlink_to(notes / "SKILL.md")
    (folder / "too.md").symlink_to("SKILL.md")
    (folder / "real").write_text("inside")
    (folder / "near").symlink_to("real")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    said = ", ".join(f"s/{name} -> {notes}/SKILL.md" for name in ("SKILL.md", "too.md"))
    assert f"claude-bottle:   followed       : {said}\n" in err
    given = {each["name"]: each for call in run.fake.calls() for each in call.get("tar") or []}
    where = "home/node/.claude/skills/s/"
    assert [given[where + name]["type"] for name in ("SKILL.md", "too.md", "near")] == ["0", "0", "2"]
    assert given[where + "SKILL.md"]["sha256"] == hashlib.sha256(b"# Outside\n").hexdigest()


def test_a_start_with_a_skill_that_cannot_be_taken_along_makes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (skill(tmp_path / "home") / "SKILL.md").symlink_to("/nowhere/SKILL.md")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    want = "skill 's': the link SKILL.md leads to /nowhere/SKILL.md, which is no file that can be read"
    assert (child.returncode, err) == (1, f"claude-bottle: error: {want}\n")
    assert [argv for argv in run.fake.argvs() if argv[0] in ("build", "create")] == []


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def nothing(path: Path) -> None:
    assert not path.exists()


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [folder, pipe, nothing, device])
@pytest.mark.parametrize("whole", [True, False])
def test_a_link_to_anything_but_a_file_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], None], whole: bool
) -> None:
    make(tmp_path / "target")
    (skill(tmp_path) / "sub").mkdir()
    (skill(tmp_path) / "sub" / "x").symlink_to(tmp_path / "target" if whole else "../../../../target")
    with pytest.raises(BottleError, match=r"skill 's': the link sub/x leads to .*, which is no file that can be read"):
        skills.skills_check(str(tmp_path), ["s"])


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").touch()
    (skill(tmp_path) / "x").symlink_to(tmp_path / "target")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root could read it
    with pytest.raises(BottleError, match="which is no file that can be read"):
        skills.skills_check(str(tmp_path), ["s"])


def test_a_skill_that_is_a_link_itself_and_links_inside_are_as_they_were(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "sub" / "up").symlink_to("../file")
    (elsewhere / "dangling").symlink_to("not-yet")
    (tmp_path / ".claude" / "skills").mkdir(parents=True)
    (tmp_path / ".claude" / "skills" / "s").symlink_to(elsewhere)
    skills.skills_check(str(tmp_path), ["s"])
    assert skills.skills_followed(str(tmp_path), "s") == {}
