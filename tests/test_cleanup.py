"""The teardown against an engine that misbehaves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from claude_bottle.lib import cleanup
from claude_bottle.lib.engine import Engine, engine_find
from claude_bottle.lib.journal import AGENT, INTERNAL, STAGE, Journal


@dataclass
class Scripted:
    """An engine whose client is a script, and the file in which it notes its words."""

    engine: Engine
    calls: Path


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Scripted:
    """Put a docker on PATH that notes its words and then does what the script says."""
    calls = folder / "calls"
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$*" >>"{calls}"\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Scripted(engine_find(os.environ), calls)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(cleanup, "PAUSE_SECONDS", 0.01)
    stage = tmp_path / "stage"
    stage.mkdir()
    made = Journal("0123")
    for role, name in ((STAGE, str(stage)), (INTERNAL, "net"), (AGENT, "box")):
        made.intend(role, name)
    return made


def test_things_go_by_id_in_the_contracts_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, 'case "$*" in ps*) echo c1;; "network ls"*) echo n1;; esac')
    assert cleanup.cleanup_all(fake.engine, journal)
    removals = [line for line in fake.calls.read_text().splitlines() if "rm" in line.split()[:2]]
    assert removals == ["rm -f -v c1", "network rm n1"]
    assert not (tmp_path / "stage").exists()
    assert cleanup.cleanup_all(fake.engine, journal)


def test_a_removal_that_fails_is_tried_again_named_and_the_walk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    script = 'case "$*" in ps*) echo c1;; rm*) echo busy >&2; exit 1;; esac'
    fake = fake_docker(tmp_path, monkeypatch, script)
    assert not cleanup.cleanup_all(fake.engine, journal)
    assert capfd.readouterr().err == "claude-bottle: warning: could not remove container 'box': busy\n"
    assert fake.calls.read_text().count("rm -f -v c1") == cleanup.TRIES
    assert not (tmp_path / "stage").exists()


def test_an_engine_that_cannot_be_asked_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, "echo down >&2; exit 1")
    assert not cleanup.cleanup_all(fake.engine, journal)


def test_what_is_gone_already_counts_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(
        tmp_path, monkeypatch, 'case "$*" in ps*) echo c1;; rm*) echo "No such container: c1" >&2; exit 1;; esac'
    )
    assert cleanup.cleanup_all(fake.engine, journal)


def test_without_a_docker_the_stage_dir_still_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "docker").unlink()
    assert not cleanup.cleanup_all(fake.engine, journal)
    assert not (tmp_path / "stage").exists()
