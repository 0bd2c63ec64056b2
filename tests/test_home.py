"""How the work of a session comes home, seen from the host: with the fake engine, and git on both sides."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from claude_bottle.lib import log
from claude_bottle.lib.home import bring

from tests.sweep import Run, until
from tests.terminal import Terminal
from tests.test_project import git, write

WORK = "claude-bottle/a-1/work"


def begin_work(run: Run, inside: Path) -> None:
    """Make a start's folder a repository, with a copy that stands for the bottle's workspace."""
    git(run.cwd, "init", "-q")
    write(run.cwd, a="one\n")
    git(run.cwd, "add", ".")
    git(run.cwd, "commit", "-qm", "first")
    subprocess.run(["cp", "-a", run.cwd, inside], check=True)
    run.fake.workspace(inside)


class Bottle(Run):
    """A start with --cwd of a repository, and a folder that stands for the bottle's workspace."""

    def __init__(self, folder: Path, bounds: dict[str, float] | None = None) -> None:
        super().__init__(folder, bounds)
        self.inside, self.state = folder / "inside", self.home / ".local" / "state" / "claude-bottle" / "work"
        begin_work(self, self.inside)
        self.before = self.snapshot()

    def session(self, script: str) -> None:
        who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"
        self.fake.session(f"set -e\ncd '{self.inside}'\n{who}\n{script}")

    def snapshot(self) -> dict[str, bytes]:
        """Return what no session may change: the checkout, the index, HEAD, the settings, the other refs."""
        found = {}
        for path in sorted(self.cwd.rglob("*")):
            name = path.relative_to(self.cwd).as_posix()
            ours = "/claude-bottle" in name or name.startswith((".git/objects", ".git/logs/refs/heads/claude-bottle"))
            if path.is_file() and not ours:
                found[name] = path.read_bytes()
        return found

    def refs(self) -> list[str]:
        return git(self.cwd, "for-each-ref", "--format=%(refname:short)", "refs/heads/claude-bottle").split()

    def show(self, what: str) -> str:
        return git(self.cwd, "show", what)

    def ends(self, status: int = 0, *words: str) -> str:
        """Run a start to its end; return what it said."""
        self.words = [*self.words[:-1], *words, "a"]
        _, err = self.begin().communicate(timeout=60)
        assert "Traceback" not in err and self.snapshot() == self.before, err
        assert not list((self.cwd / ".git" / "objects").glob("tmp_objdir*")), err
        return err

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.state.glob("*/*")) if self.state.exists() else []


@pytest.fixture
def bottle(tmp_path: Path) -> Bottle:
    return Bottle(tmp_path)


def test_commits_and_files_come_home_as_branches_and_nothing_else_changes(bottle: Bottle) -> None:
    bottle.session("""
        echo two > a; git commit -qam second
        git branch side; git checkout -q -b other; echo x > x; git add x; git commit -qm x; git checkout -q main
        echo three >> a; mkdir -p new; echo n > new/n; echo no > ignored; echo ignored > .gitignore
        printf '#!/bin/sh\\necho ran >> ../ran\\n' > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change
    """)
    err = bottle.ends()
    assert bottle.refs() == ["claude-bottle/a-1/heads/other", "claude-bottle/a-1/heads/side", WORK]
    assert bottle.show(f"{WORK}:a") == "two\nthree\n" and bottle.show(f"{WORK}:new/n") == "n\n"
    assert git(bottle.cwd, "ls-tree", "--name-only", WORK).split() == [".dockerignore", ".gitignore", "a", "new"]
    assert git(bottle.cwd, "log", "--format=%an %s", f"main..{WORK}").splitlines() == [
        "claude-bottle a What was not committed in the bottle of a",
        "a second",
    ]
    told = f"work came home: {WORK} and 2 more below claude-bottle/a-1/ (3 commits); to look: git -C {bottle.cwd} log"
    assert told in err
    assert not (bottle.inside.parent / "ran").exists()
    assert (bottle.leftovers(), bottle.kept()) == ([], [])


def test_nothing_new_says_nothing_even_where_something_was_not_committed_before(tmp_path: Path) -> None:
    bottle = Bottle(tmp_path)
    write(bottle.inside, a="not committed\n", new="nor this\n")
    err = bottle.ends()
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([], [], [])
    assert "work came home" not in err
    assert "work             : comes home as branches claude-bottle/a-N/... of " in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_work_comes_home_whatever_ends_the_launcher(tmp_path: Path, number: signal.Signals) -> None:
    bottle = Bottle(tmp_path, {})
    within = tmp_path / "within"
    bottle.session(f"echo two > a; touch {within}; exec sleep 100")
    child = bottle.begin()
    assert until(within.exists)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert until(lambda: bottle.leftovers() == [] and bottle.refs() == [WORK]), (err, bottle.leftovers())
    assert bottle.show(f"{WORK}:a") == "two\n" and bottle.snapshot() == bottle.before
    told = err if number == signal.SIGTERM else bottle.note()  # nobody was there to read it otherwise
    assert f"work came home: {WORK}" in told
    assert until(lambda: bottle.kept() == [])


EVIL = r"""
    inner=$(printf '100644 blob %s\tconfig\n' $(echo x | git hash-object -w --stdin) | git mktree)
    tree=$(printf '040000 tree %s\t.git\n' $inner | git mktree)
    git update-ref refs/heads/evil $(git commit-tree $tree -p HEAD -m evil)
"""
MENDED = "git update-ref -d refs/heads/evil; git config x.y z; rm -f .git/hooks/*; echo mended > a"


def test_refused_objects_are_kept_unopened_and_can_be_tried_again(bottle: Bottle) -> None:
    bottle.session(EVIL + "git merge -q --no-edit -s ours evil; echo two > a")
    err = bottle.ends()
    (raw,) = bottle.state.glob("*/work.tar")
    assert "warning: the work of a did not come home: git index-pack: " in err and "hasDotgit" in err
    assert f"it is kept in {raw}; to try again: ./cli.sh bring a" in err
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([], [], ["session.json", "work.tar"])
    again = bottle.command("bring", "a")
    assert again.returncode == 1 and "hasDotgit" in again.stderr and bottle.leftovers() == []
    assert (bottle.refs(), bottle.kept()) == ([], ["session.json", "work.tar"])
    subprocess.run(["sh", "-c", f"cd '{bottle.inside}'; git reset -q HEAD~; {MENDED}"], check=True)
    subprocess.run(
        ["tar", "-cf", raw, "-C", bottle.inside.parent, "--transform", "s/^inside/workspace/", "inside"], check=True
    )
    again = bottle.command("bring", "a")
    assert (again.returncode, bottle.refs(), bottle.kept(), bottle.leftovers()) == (0, [WORK], [], []), again.stderr
    assert bottle.show(f"{WORK}:a") == "mended\n"
    assert bottle.command("bring", "a").returncode == 1  # there is nothing any more


def test_a_refused_branch_costs_no_other_and_is_all_that_is_kept(bottle: Bottle) -> None:
    others = "for b in one two; do git checkout -q -b $b main; echo $b > f; git add f; git commit -qm $b; done"
    bottle.session(f"{others}; git checkout -q main {EVIL} echo two > a")
    err = bottle.ends()
    good = [f"claude-bottle/a-1/heads/{name}" for name in ("one", "two")]
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([*good, WORK], [], ["session.json", "work.tar"])
    assert f"work came home: {WORK} and 2 more below claude-bottle/a-1/ (3 commits)" in err
    assert "warning: some of the work of a did not come home: 1 of 4 branches: git index-pack: " in err, err
    assert bottle.show(f"{WORK}:a") == "two\n" and git(bottle.cwd, "fsck", "--strict", "--no-dangling") == ""
    again = bottle.command("bring", "a")
    assert again.returncode == 1 and "hasDotgit" in again.stderr and bottle.refs() == [*good, WORK]


def test_a_repository_that_git_does_not_read_is_kept_unopened(bottle: Bottle) -> None:
    bottle.session("printf '%s refs/heads/../../hooks/x\\n' $(git rev-parse HEAD) >> .git/packed-refs; echo two > a")
    err = bottle.ends()
    assert "did not come home: the bottle's repository cannot be read: " in err and "work.tar; to try again" in err
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([], [], ["session.json", "work.tar"])


def test_without_a_place_the_container_stays_stopped_and_is_not_swept(bottle: Bottle) -> None:
    bottle.session(EVIL + "echo two > a")
    bottle.fake.fault("agent read#2: no space left on device")
    err = bottle.ends()
    (box,) = [box for box in bottle.fake.containers() if box["name"].startswith("claude-bottle-kept.a.")]
    assert box["status"] == "exited" and f"it is kept in container '{box['name']}'" in err
    assert bottle.leftovers() == [box["name"]]
    for words in (("cleanup", "--stale", "--yes"), ("start", "-y", "a")):
        done = bottle.command(*words)
        assert bottle.leftovers() == [box["name"]], done.stderr
    assert bottle.refs() == [WORK]
    subprocess.run(["sh", "-c", f"cd '{bottle.inside}'; {MENDED}"], check=True)
    done = bottle.command("bring", "a")
    assert (bottle.leftovers(), bottle.kept()) == ([], []), done.stderr
    assert bottle.refs() == [WORK, "claude-bottle/a-2/work"]


def test_bring_while_the_session_runs_brings_what_is_new_since(tmp_path: Path) -> None:
    bottle = Bottle(tmp_path)
    first, second, go = (tmp_path / name for name in ("first", "second", "go"))
    wait = "while [ ! -e {} ]; do sleep 0.05; done"
    bottle.session(f"echo two > a; touch {first}; {wait.format(go)}; echo three > a; touch {second}; exec sleep 100")
    child = bottle.begin()
    assert until(first.exists)
    done = bottle.command("bring", "a")
    assert f"work came home: {WORK} (1 commit)" in done.stderr, done.stderr
    again = bottle.command("bring", "claude-bottle-a-2")
    assert "nothing new in claude-bottle-a-2" in again.stderr
    go.touch()
    assert until(second.exists)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert "work came home: claude-bottle/a-2/work" in err and bottle.leftovers() == []
    assert [bottle.show(f"claude-bottle/a-{number}/work:a") for number in (1, 2)] == ["two\n", "three\n"]
    assert bottle.kept() == []


def test_without_a_wish_nothing_comes_home(bottle: Bottle) -> None:
    bottle.session("echo two > a; git commit -qam second")
    err = bottle.ends(0, "--no-bring")
    assert "work             : does not come home (--no-bring)" in err
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([], [], [])


def dead_bottle(tmp_path: Path, status: str) -> Bottle:
    """Return a bottle whose launcher and reaper were killed amid the session, running still or stopped."""
    bottle = Bottle(tmp_path, {})
    within = tmp_path / "within"
    bottle.session(f"echo two > a; touch {within}; exec sleep 100")
    child = bottle.begin()
    assert until(within.exists)
    reapers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(child.pid)], capture_output=True, text=True).stdout
    for pid in map(int, reapers.split()):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"reaper.py" in command:
            os.kill(pid, signal.SIGKILL)
    os.killpg(child.pid, signal.SIGKILL)  # and the client of its session
    child.communicate(timeout=60)
    (name,) = [
        box["name"]
        for box in bottle.fake.containers()
        if box["labels"].get("claude-bottle.role") == "agent" and box["name"] in bottle.leftovers()
    ]
    if status == "exited":
        bottle.fake.end(name, 137)
    return bottle


START, STALE = ("start", "-y", "a"), ("cleanup", "--stale", "--yes")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", START),
        ("exited", START),
        ("running", STALE),
        ("exited", STALE),
        ("running", ("stop", "claude-bottle-a-2")),
    ],
)
def test_what_a_dead_launch_has_left_comes_home_before_it_is_removed(
    tmp_path: Path, status: str, words: tuple[str, ...]
) -> None:
    bottle = dead_bottle(tmp_path, status)
    bottle.fake.session("true")
    done = bottle.command(*words)
    assert bottle.refs() == [WORK] and f"work came home: {WORK}" in done.stderr, done.stderr
    assert bottle.show(f"{WORK}:a") == "two\n"
    left = [name for name in bottle.leftovers() if words[0] != "stop" or not name.startswith("claude-bottle-stage.")]
    assert (left, bottle.kept()) == ([], [])


@pytest.mark.parametrize(
    ("status", "words", "returned", "home"),
    [
        ("running", START, 0, STALE),
        ("exited", STALE, 1, ("bring", "a")),
        ("running", ("stop", "claude-bottle-a-2"), 1, ("bring", "a")),
    ],
)
def test_who_has_no_record_of_a_bottle_keeps_it_for_who_has(
    tmp_path: Path, status: str, words: tuple[str, ...], returned: int, home: tuple[str, ...]
) -> None:
    bottle = dead_bottle(tmp_path, status)
    bottle.fake.session("true")
    own, another = bottle.env["HOME"], tmp_path / "another"
    shutil.copytree(bottle.home / ".claude", another / ".claude")
    shutil.copy(bottle.home / "claude-bottle.json", another)
    bottle.env["HOME"] = str(another)
    done = bottle.command(*words)
    (box,) = [box for box in bottle.fake.containers() if box["name"].startswith("claude-bottle-kept.a.")]
    assert (done.returncode, box["status"], bottle.refs()) == (returned, "exited", []), done.stderr
    take_out = f"to take it out: docker cp {box['id'][:12]}:/home/node/workspace ."
    assert (
        f"it is kept in container '{box['name']}'; to bring it home, under that HOME: ./cli.sh bring a" in done.stderr
    )
    for again in (bottle.command("cleanup", "--stale", "--yes"), bottle.command("bring", "a")):
        assert [each for each in bottle.fake.containers() if each["name"] == box["name"]] == [box], again.stderr
    assert take_out in done.stderr and take_out in again.stderr and again.returncode == 1
    bottle.env["HOME"] = own
    done = bottle.command(*home)
    assert (done.returncode, bottle.refs(), bottle.kept()) == (0, [WORK], []), done.stderr
    assert box["name"] not in bottle.leftovers()


def test_cleanup_brings_home_before_it_removes_and_leaves_what_cannot_come(tmp_path: Path) -> None:
    for name, script, refs in (("good", "echo two > a", [WORK]), ("evil", EVIL, [])):
        bottle = Bottle(tmp_path / name, {})
        within = tmp_path / name / "within"
        bottle.session(f"{script}\ntouch {within}; exec sleep 100")
        if name == "evil":
            for number in (2, 3):  # the cleanup's, and the launcher's, whose session ends with its container
                bottle.fake.fault(f"agent read#{number}: no space left on device")
        child = bottle.begin()
        assert until(within.exists)
        terminal = Terminal([*bottle.program, "cleanup"], bottle.cwd, bottle.env)
        terminal.until("remove all of the above?")
        terminal.type("y\n")
        assert terminal.wait() == (name == "evil"), terminal.said
        child.communicate(timeout=60)
        assert bottle.refs() == refs, terminal.said
        kept = [box["name"] for box in bottle.fake.containers() if "kept" in box["name"]]
        assert len(kept) == (name == "evil") and all(
            f"it is kept in container '{box}'" in terminal.said for box in kept
        )


def test_work_in_a_linked_worktree_and_in_a_subfolder_comes_home_to_the_one_repository(tmp_path: Path) -> None:
    bottle = Bottle(tmp_path)
    other = tmp_path / "other"
    write(bottle.cwd, **{"sub/s": "s\n"})
    git(bottle.cwd, "add", ".")
    git(bottle.cwd, "commit", "-qm", "sub")
    git(bottle.cwd, "worktree", "add", "-q", "-b", "linked", str(other))
    subprocess.run(["rm", "-r", bottle.inside], check=True)
    git(tmp_path, "clone", "-q", str(bottle.cwd), str(bottle.inside))
    main, bottle.before = bottle.cwd, bottle.snapshot()
    bottle.session("echo two > a")
    for number, folder in enumerate((other, bottle.cwd / "sub"), 1):
        bottle.cwd = folder
        _, err = bottle.begin().communicate(timeout=60)
        assert f"comes home as branches claude-bottle/a-N/... of {main}/.git" in err, err
        assert f"work came home: claude-bottle/a-{number}/work" in err, err
        bottle.session("echo three > a")
    bottle.cwd = main
    assert bottle.refs() == [f"claude-bottle/a-{number}/work" for number in (1, 2)]
    assert bottle.snapshot() == bottle.before and git(other, "status", "--porcelain") == ""


def test_ctrl_c_while_work_comes_home_leaves_it_in_the_stopped_container(bottle: Bottle) -> None:
    bottle.session("echo two > a")
    fault = bottle.fake.fault("agent exec perl#3", mode="hang")  # the pack
    child = bottle.begin()
    bottle.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert len(bottle.leftovers()) == 1, (bottle.leftovers(), err)
    (name,) = bottle.leftovers()
    assert child.returncode == 130 and f"it was interrupted; it is kept in container '{name}'" in err, err
    assert not list((bottle.cwd / ".git" / "objects").glob("tmp_objdir*")) and bottle.refs() == []
    done = bottle.command("bring", "a")
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([WORK], [], []), done.stderr


def test_a_bottle_that_stops_while_its_work_comes_home_is_one_that_has_stopped(bottle: Bottle) -> None:
    bottle.session("echo two > a")
    fault = bottle.fake.fault("agent exec perl#2", mode="pause")  # the list
    child = bottle.begin()
    bottle.fake.wait_for_pause(fault)
    bottle.fake.end("claude-bottle-a-2", 137)
    bottle.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert (bottle.refs(), bottle.leftovers(), bottle.kept()) == ([WORK], [], []), err


def test_a_repository_without_a_commit_gets_the_work_and_the_command_to_look_at_it(bottle: Bottle) -> None:
    for folder in (bottle.cwd, bottle.inside):
        subprocess.run(["rm", "-rf", folder / ".git"], check=True)
        git(folder, "init", "-q")
    bottle.before = bottle.snapshot()
    bottle.session("echo two > a")
    assert f"to look: git -C {bottle.cwd} log -p {WORK}\n" in bottle.ends() and bottle.show(f"{WORK}:a") == "two\n"


def test_where_no_note_can_be_made_the_end_of_the_start_still_brings_home_or_says_how(bottle: Bottle) -> None:
    bottle.state.parent.mkdir(parents=True)
    bottle.state.write_text("in the way")
    bottle.session("echo two > a")
    err = bottle.ends()
    assert "cannot note where the work goes" in err and bottle.refs() == [WORK], err
    bottle.session("echo three > a; printf '%s refs/heads/../../x\\n' $(git rev-parse HEAD) >> .git/packed-refs")
    _, err = bottle.begin().communicate(timeout=60)
    assert len(bottle.leftovers()) == 1, (bottle.leftovers(), err)
    (name,) = bottle.leftovers()
    assert f"it is kept in container '{name}'; to take it out: docker cp " in err, err


@pytest.mark.parametrize("obeys", [True, False])
def test_a_terminal_that_obeys_is_shown_how_long_the_work_is_on_its_way(
    obeys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []
    monkeypatch.setattr(log, "obeys", lambda: obeys)
    patience = bring.Patience(60)
    with log.held(said):
        assert patience.check() == patience.began + bring.TALK_SECONDS and said == []
        patience.began -= 7.5
        again = patience.check()
        assert patience.check() == again == (patience.began + 8 if obeys else patience.until)
        log.passing("")
    first, *shown = b"".join(said).decode().splitlines()
    assert first.startswith("claude-bottle: still bringing the work home; Ctrl-C leaves it")
    assert shown == ["claude-bottle:   bringing the work home: 7 s"] * obeys
