"""``edit``: what the user has typed is lost in no way, and no change of somebody else's is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sweep import until, wrong_words
from tests.terminal import Terminal
from tests.test_process import linux_only

MANIFEST = '{"agents": {"a": {"prompt": "old"}, "b": {"prompt": "other"}}}\n'
NEW = '{"prompt": "mine"}'


class Desk:
    """A project with a manifest, and an editor that is a shell script; ``$1`` is the text."""

    def __init__(self, folder: Path) -> None:
        self.project, self.tmp = folder / "project", folder / "tmp"
        for path in (self.project, self.tmp):
            path.mkdir()
        self.manifest = self.project / "claude-bottle.json"
        self.manifest.write_text(MANIFEST)
        self.script = folder / "editor"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(self.tmp)}
        self.env["VISUAL"] = f"sh {self.script}"
        self.words = [ROOT / "cli.sh", "edit", "a"]

    def edit(self, script: str, **how: object) -> subprocess.CompletedProcess[str]:
        self.script.write_text(script)
        return subprocess.run(
            self.words, cwd=self.project, env=self.env, capture_output=True, text=True, timeout=60, **how
        )

    def kept(self) -> str:
        """Return the one text that is kept."""
        (path,) = self.tmp.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        return path.read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


SAVE = f"echo '{NEW}' >\"$1\"\n"
BREAKS = {
    "another change of the agent": "sed -i s/old/theirs/ claude-bottle.json",
    "the agent removed": "echo '{\"agents\": {}}' >claude-bottle.json",
    "the manifest removed": "rm claude-bottle.json",
    "the manifest broken": "echo '{' >claude-bottle.json",
    "the editor fails": "exit 1",
    "the editor is killed": "kill -9 $$",
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_text_that_cannot_be_written_back_is_kept_and_said(desk: Desk, what: str) -> None:
    done = desk.edit(SAVE + BREAKS[what])
    assert done.returncode == 1
    assert desk.kept() == NEW + "\n" and f"hint: your text is kept in {desk.tmp}" in done.stderr
    assert "mine" not in (desk.manifest.read_text() if desk.manifest.exists() else "")
    assert wrong_words(done.stderr) == ""


def test_a_change_of_the_agent_by_somebody_else_is_named(desk: Desk) -> None:
    done = desk.edit(SAVE + BREAKS["another change of the agent"])
    assert f"error: agent 'a' was changed meanwhile in {desk.manifest}" in done.stderr
    assert "theirs" in desk.manifest.read_text()


def test_a_change_of_another_agent_is_no_matter(desk: Desk) -> None:
    done = desk.edit(SAVE + "sed -i s/other/theirs/ claude-bottle.json")
    assert done.returncode == 0, done.stderr
    assert "mine" in desk.manifest.read_text() and "theirs" in desk.manifest.read_text()
    assert list(desk.tmp.iterdir()) == []


@linux_only
def test_a_full_disk_loses_neither_the_text_nor_the_manifest(desk: Desk) -> None:
    def no_file_beyond_a_kilobyte() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk, the write fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    whole = MANIFEST.replace('"other"', f'"{"x" * 2000}"')
    desk.manifest.write_text(whole)
    done = desk.edit(SAVE, preexec_fn=no_file_beyond_a_kilobyte)
    assert done.returncode == 1 and f"error: cannot write {desk.manifest}" in done.stderr
    assert desk.manifest.read_text() == whole and desk.kept() == NEW + "\n"
    assert [path.name for path in desk.project.iterdir()] == ["claude-bottle.json"]


@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$", 'rm "$1"', ":"])
def test_a_text_that_is_as_it_was_is_not_kept(desk: Desk, script: str) -> None:
    done = desk.edit(script)
    assert list(desk.tmp.iterdir()) == [] and "kept" not in done.stderr
    assert desk.manifest.read_text() == MANIFEST


@pytest.mark.parametrize("ending", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_after_the_text_was_saved_keeps_it(desk: Desk, ending: signal.Signals) -> None:
    desk.script.write_text(SAVE + "echo saved; exec sleep 100")
    terminal = Terminal(desk.words, desk.project, desk.env)
    terminal.until("saved")
    terminal.child.send_signal(ending)
    assert terminal.wait() == 128 + ending
    assert desk.kept() == NEW + "\n" and "your text is kept in" in terminal.said
    assert desk.manifest.read_text() == MANIFEST
    terminal.close()


def test_a_window_that_is_closed_on_a_saved_text_keeps_it(desk: Desk) -> None:
    desk.script.write_text(SAVE + "echo saved; exec sleep 100")
    terminal = Terminal(desk.words, desk.project, desk.env)
    terminal.until("saved")
    terminal.hang_up()
    terminal.child.wait(30)
    assert until(lambda: desk.kept() == NEW + "\n")
