"""What killed launches have left: removed where launcher and reaper are provably dead, and never otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.host.locks import locked
from claude_bottle.lib.host.state import state_folder, state_make
from claude_bottle.lib.teardown import owner, sweep
from claude_bottle.lib.teardown.owner import Owner, Place, owner_here, place_here, process_mark

from tests.sweep import SIBLING, Run, wrong_words

HERE = place_here()
LAUNCH = "0f" * 16
DIED = "4194304 17"  # no process has a pid as high as that
DEAD = Owner(LAUNCH, HERE, DIED, DIED)
SAID = "removed what a killed launch of old had left: 2 containers, 2 networks, 1 folder"
ROLES = {"agent": "claude-bottle-old", "sidecar": "pinned-name"}
NETWORKS = {"internal": "claude-bottle-net-old", "egress": "claude-bottle-egress-old"}


def living() -> str:
    return process_mark(os.getpid())


def reused() -> str:
    """Return the mark of a process whose pid is another one's by now."""
    return f"{os.getpid()} 17"


UNPROVEN = {
    "another host": replace(DEAD, place=replace(HERE, host="elsewhere")),
    "another boot": replace(DEAD, place=replace(HERE, boot="3e0fbf54-0000-4000-8000-000000000000")),
    "another pid namespace": replace(DEAD, place=replace(HERE, namespaces="pid:[1] time:[1]")),
    "another user": replace(DEAD, place=replace(HERE, user=str(os.getuid() + 1))),
    "no host": replace(DEAD, place=replace(HERE, host="")),
    "no boot": replace(DEAD, place=replace(HERE, boot="")),
    "no namespaces": replace(DEAD, place=replace(HERE, namespaces="")),
    "no user": replace(DEAD, place=replace(HERE, user="")),
    "no launcher": replace(DEAD, launcher=""),
    "no reaper": replace(DEAD, reaper=""),
    "a launcher without a start time": replace(DEAD, launcher="4194304"),
    "a reaper without a start time": replace(DEAD, reaper="4194304"),
    "a live launcher": replace(DEAD, launcher=living()),
    "a live reaper": replace(DEAD, reaper=living()),
    "a pid that is none": replace(DEAD, launcher="-1 17"),
    "a pid beyond all": replace(DEAD, launcher=f"{10**30} 17"),
    "a pid of a group": replace(DEAD, reaper="0 17"),
    "a word for a pid": replace(DEAD, reaper="x 17"),
    "no launch": replace(DEAD, launch=""),
    "nothing at all": Owner(""),
}


def labels(of: Owner, role: str) -> dict[str, str]:
    pairs = {"slug": "old", "role": role, **of.facts()}
    return {f"claude-bottle.{name}": value for name, value in pairs.items() if value}


def left_by(of: Owner) -> dict[str, Any]:
    """Return an engine's state with all that a launch makes, beside a sibling's."""
    boxes = [{"name": name, "labels": labels(of, role)} for role, name in ROLES.items()]
    nets = [{"name": name, "labels": labels(of, role)} for role, name in NETWORKS.items()]
    return {"containers": [*SIBLING["containers"], *boxes], "networks": [*SIBLING["networks"], *nets]}


class Scene(Run):
    """An engine and a temporary folder with what a launch has left."""

    def __init__(self, folder: Path, of: Owner, **engine: Any) -> None:
        super().__init__(folder, **{**left_by(of), **engine})
        self.stage = self.tmp / "claude-bottle-stage.aB3dE5"
        self.stage.mkdir(mode=0o700)
        (self.stage / "agent.env").write_text("A=literal\n")
        (self.stage / "owner").write_text(json.dumps({**of.facts(), "slug": "old"}))
        self.all = sorted([*ROLES.values(), *NETWORKS.values(), self.stage.name])

    def start(self, *words: str) -> tuple[int, str]:
        child = subprocess.run(
            [self.program[0], "start", *(words or ("-y",)), "a"],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert wrong_words(child.stderr) == ""
        return child.returncode, child.stderr


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, DEAD)


def test_the_next_start_removes_what_a_killed_one_has_left_and_says_so_in_a_line(scene: Scene) -> None:
    status, err = scene.start()
    assert (status, scene.leftovers(), err.count(SAID)) == (0, [], 1), err
    assert "warning: could not" not in err


def test_a_start_after_a_clean_one_says_nothing_and_removes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    _, err = run.begin().communicate(timeout=60)
    assert "killed launch" not in err and run.leftovers() == []


@pytest.mark.parametrize("what", UNPROVEN)
def test_what_is_not_proven_to_be_dead_stays(tmp_path: Path, what: str) -> None:
    scene = Scene(tmp_path, UNPROVEN[what])
    status, err = scene.start()
    assert (status, sorted(scene.leftovers())) == (0, scene.all), err
    done = scene.command("cleanup", "--stale", "--yes")
    assert (done.returncode, sorted(scene.leftovers())) == (0, scene.all), done.stderr
    assert "nothing to clean up" in done.stderr and "killed launch" not in err


def test_one_living_owner_among_a_launchs_things_saves_them_all(tmp_path: Path) -> None:
    state = left_by(DEAD)
    state["networks"][-1]["labels"]["claude-bottle.reaper"] = living()
    scene = Scene(tmp_path, DEAD, **state)
    scene.start()
    assert sorted(scene.leftovers()) == scene.all


@pytest.mark.parametrize("mark", ["launcher", "reaper"])
def test_a_pid_that_another_process_has_by_now_is_no_sign_of_life(tmp_path: Path, mark: str) -> None:
    scene = Scene(tmp_path, replace(DEAD, **{mark: reused()}))
    assert (scene.start()[0], scene.leftovers()) == (0, [])


@pytest.fixture
def zombie() -> Iterator[str]:
    """The mark of a process that has ended and that nobody has asked about."""
    child = subprocess.Popen(["/bin/sleep", "100"])
    mark = process_mark(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield mark
    child.wait()


def test_a_process_that_nobody_has_asked_about_is_dead(zombie: str) -> None:
    assert replace(DEAD, launcher=zombie, reaper=zombie).is_dead(HERE)


def test_a_living_process_that_proc_hides_is_no_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = replace(DEAD, launcher=reused())
    assert hidden.is_dead(HERE)
    monkeypatch.setattr(owner, "_process", lambda pid: ("", ""))
    assert not hidden.is_dead(HERE)


def test_a_proc_of_another_pid_namespace_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"/proc/self": "1", "/proc/self/ns/pid": "pid:[4026531836]", "/proc/self/ns/time": "time:[4026531834]"}
    monkeypatch.setattr(os, "readlink", shown.__getitem__)
    assert place_here().namespaces == ""
    shown["/proc/self"] = str(os.getpid())
    assert place_here().namespaces.startswith("pid:[4026531836]")


@pytest.mark.parametrize(("platform", "same"), [("linux", False), ("darwin", True)])
def test_only_a_system_without_namespaces_may_have_none(
    monkeypatch: pytest.MonkeyPatch, platform: str, same: bool
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    place = Place("host", "boot", "", "501")
    assert place.is_certainly(place) is same


def test_everything_that_is_made_says_whose_it_is_from_its_create_call_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.begin().communicate(timeout=60)
    creates = [argv for argv in run.fake.argvs() if "create" in argv[:2]]
    names = [f"claude-bottle.{name}=" for name in owner.FACTS]
    assert len(creates) >= 4
    for argv in creates:
        said = [word for word in argv if word.startswith("claude-bottle.")]
        assert all(any(word.startswith(name) for word in said) for name in names), argv
        assert f"claude-bottle.namespaces={HERE.namespaces}" in said and f"claude-bottle.user={os.getuid()}" in said


def test_a_dry_run_removes_nothing(scene: Scene) -> None:
    scene.start("--dry-run")
    assert sorted(scene.leftovers()) == scene.all


@pytest.mark.parametrize("call", ["* ps#1", "* ls#1"])
def test_a_look_that_fails_is_a_warning(scene: Scene, call: str) -> None:
    scene.fake.fault(f"{call}: it broke")
    status, err = scene.start()
    assert status == 0 and "warning: could not look for what killed launches have left: it broke" in err, err


def test_what_cannot_be_removed_is_a_warning_and_the_start_goes_on(scene: Scene) -> None:
    for _ in range(sweep.TRIES):  # each counts the calls that the one before lets through
        scene.fake.fault("* rm#1: busy")
    status, err = scene.start()
    for name in ROLES.values():
        assert f"warning: could not remove container '{name}': busy" in err
    assert status == 0 and set(ROLES.values()) <= set(scene.leftovers()) <= set(scene.all), err
    assert (scene.start()[0], scene.leftovers()) == (0, [])


def test_a_sweep_leaves_the_work_to_one_that_is_under_way(scene: Scene) -> None:
    state = state_folder(scene.env)
    assert state
    state_make(state / sweep.LOCK)
    with locked([state / sweep.LOCK]):
        assert scene.start()[0] == 0
    assert sorted(scene.leftovers()) == scene.all
    assert (scene.start()[0], scene.leftovers()) == (0, [])


def test_two_starts_at_once_sweep_without_a_warning(scene: Scene) -> None:
    both = [scene.begin() for _ in range(2)]
    said = "".join(child.communicate(timeout=60)[1] for child in both)
    assert [child.returncode for child in both] == [0, 0]
    assert scene.leftovers() == [] and "could not" not in said and SAID in said, said


def test_cleanup_stale_lists_and_removes_the_dead_ones_only(scene: Scene) -> None:
    done = scene.command("cleanup", "--stale", "--yes")
    listed = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted([*ROLES.values(), *NETWORKS.values(), str(scene.stage)])
    assert (done.returncode, scene.leftovers()) == (0, []) and SAID in done.stderr
    again = scene.command("cleanup", "--stale", "--yes")
    assert (again.returncode, again.stderr) == (0, "claude-bottle: nothing to clean up\n")


def test_cleanup_stale_asks(scene: Scene) -> None:
    done = subprocess.run(
        [scene.program[0], "cleanup", "--stale"],
        cwd=scene.cwd,
        env=scene.env,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 1 and "claude-bottle-old" in done.stderr
    assert sorted(scene.leftovers()) == scene.all


def test_cleanup_takes_yes_with_stale_only(scene: Scene) -> None:
    done = scene.command("cleanup", "--yes")
    assert done.returncode == 2 and "--yes goes with --stale or --images only" in done.stderr
    assert sorted(scene.leftovers()) == scene.all


def test_a_cleanup_that_docker_refuses_ends_with_one(scene: Scene) -> None:
    scene.fake.fault("* rm: it broke")
    done = scene.command("cleanup", "--stale", "--yes")
    assert done.returncode == 1 and "could not remove container 'claude-bottle-old': it broke" in done.stderr


def test_list_and_cleanup_show_stale_and_live_apart(scene: Scene) -> None:
    rows = dict(line.split("\t", 1) for line in scene.command("list", "active").stdout.splitlines())
    assert rows["claude-bottle-old"].endswith(" (stale)") and not rows["claude-bottle-a"].endswith(" (stale)")
    shown = scene.command("cleanup").stderr.splitlines()
    assert "  container claude-bottle-old (stale)" in shown and "  network claude-bottle-net-old (stale)" in shown
    assert "  container claude-bottle-a" in shown and "  network claude-bottle-net-a" in shown


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"owner": 1}', "[" * 5000, "\x00", "5"])
def test_a_stage_dir_that_does_not_say_whose_it_is_stays(scene: Scene, text: str) -> None:
    (scene.stage / "owner").write_text(text)
    scene.start()
    assert scene.leftovers() == [scene.stage.name]


def test_a_stage_dir_that_is_a_link_or_has_a_link_for_a_mark_stays(scene: Scene, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    scene.stage.rename(elsewhere)
    scene.stage.symlink_to(elsewhere)
    other = scene.tmp / "claude-bottle-stage.zzzzzz"
    other.mkdir()
    (other / "owner").symlink_to(elsewhere / "owner")
    scene.start()
    assert sorted(scene.leftovers()) == sorted([scene.stage.name, other.name])
    assert (elsewhere / "agent.env").exists()


def test_a_stage_dir_of_another_user_proves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = json.loads((scene.stage / sweep.OWNER_FILE).read_text())
    assert [item.slug for item in sweep.stages(str(scene.tmp))] == [facts["slug"]]
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert list(sweep.stages(str(scene.tmp))) == []


def test_a_stage_dir_says_whose_it_is_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.session(f"cp -a {run.tmp}/claude-bottle-stage.*/owner {tmp_path}/kept; exit 0")
    run.begin().communicate(timeout=60)
    facts = json.loads((tmp_path / "kept").read_text())
    assert facts["slug"] == "a" and owner.owner_from(facts).place == HERE
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    assert owner.owner_from(facts).is_dead(HERE) and not owner_here("x", os.getpid()).is_dead(HERE)


def test_a_launch_killed_with_its_reaper_is_swept_by_the_next_start(tmp_path: Path) -> None:
    run = Run(tmp_path)
    within = tmp_path / "within"
    child = run.begin_lasting(within)
    os.kill(run.reaper(), 9)
    os.kill(child.pid, 9)
    child.wait(60)
    assert run.leftovers()
    run.fake.session("exit 0")
    _, err = run.begin().communicate(timeout=60)
    assert (run.leftovers(), "removed what a killed launch of a had left" in err) == ([], True), err
    within.unlink()
    child.communicate(timeout=60)
