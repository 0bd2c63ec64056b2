"""How the work of a session comes home, seen from the host: with the fake engine, and git on both sides."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.sweep import Run, until
from tests.test_project import git, write

WORK = "claude-bottle/a-1/work"


class Bottle(Run):
    """A start with --cwd of a repository, and a folder that stands for the bottle's workspace."""

    def __init__(self, folder: Path, bounds: dict[str, float] | None = None) -> None:
        super().__init__(folder, bounds)
        self.inside, self.state = folder / "inside", self.home / ".local" / "state" / "claude-bottle" / "work"
        git(self.cwd, "init", "-q")
        write(self.cwd, a="one\n")
        git(self.cwd, "add", ".")
        git(self.cwd, "commit", "-qm", "first")
        subprocess.run(["cp", "-a", self.cwd, self.inside], check=True)
        self.fake.workspace(self.inside)
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
