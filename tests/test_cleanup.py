"""The teardown against an engine that misbehaves."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from claude_bottle.lib import docker
from claude_bottle.lib.engine import Engine, engine_find
from claude_bottle.lib.host.calls import perform
from claude_bottle.lib.teardown import cleanup
from claude_bottle.lib.teardown.inventory import AGENT, INTERNAL
from claude_bottle.lib.teardown.journal import STAGE, Entry, Journal
from claude_bottle.lib.teardown.owner import Owner


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


def row(identity: str, name: str, role: str) -> str:
    """Return a line of docker's lists, as the inventory asks for them."""
    return "\\t".join((identity, name, "", "", "", "a", role, "", "", "0123", "", "", "", "", "", "", ""))


BOX = f"printf '{row('c1', 'box', AGENT)}\\n'"
NET = f"printf '{row('n1', 'net', INTERNAL)}\\n'"


def answers(**cases: str) -> str:
    """Return a script: what each command does; an underscore stands for a blank."""
    lines = (f'"{words.replace("_", " ")}"*) {action};;' for words, action in cases.items())
    return f'case "$*" in {" ".join(lines)} esac'


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(cleanup, "PAUSE_SECONDS", 0.01)
    stage = tmp_path / "stage"
    stage.mkdir()
    made = Journal(Owner("0123"))
    for role, name in ((STAGE, str(stage)), (INTERNAL, "net"), (AGENT, "box")):
        made.intend(role, name)
    return made


def box(journal: Journal) -> Entry:
    return journal.entries[-1]


def test_things_go_by_id_in_the_contracts_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=BOX, network_ls=NET, rm="echo c1", network_rm="echo n1"))
    assert not cleanup.cleanup_all(fake.engine, journal).left
    removals = [line for line in fake.calls.read_text().splitlines() if "rm" in line.split()[:2]]
    assert removals == ["rm -f -v c1", "network rm n1"]
    assert not (tmp_path / "stage").exists()
    assert not cleanup.cleanup_all(fake.engine, journal).left


@pytest.mark.parametrize(
    ("removal", "said"),
    [
        ("echo busy >&2; exit 1", "busy"),
        ("exit 1", "docker rm did nothing and gave no reason"),
        ("exit 0", "docker rm did nothing and gave no reason"),
        (
            "echo 'Could not kill running container c1: container not found inside the runtime' >&2; exit 1",
            "Could not kill running container c1: container not found inside the runtime",
        ),
    ],
)
def test_a_removal_that_fails_is_tried_again_named_and_the_walk_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    journal: Journal,
    capfd: pytest.CaptureFixture[str],
    removal: str,
    said: str,
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=BOX, rm=removal))
    remains = cleanup.cleanup_all(fake.engine, journal)
    assert (list(remains.left), remains.final) == (["container 'box'"], True)
    assert capfd.readouterr().err == f"claude-bottle: warning: could not remove container 'box': {said}\n"
    assert fake.calls.read_text().count("rm -f -v c1") == cleanup.TRIES
    assert not (tmp_path / "stage").exists()


def test_an_engine_that_cannot_be_asked_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr(cleanup, "LONGEST_PAUSE_SECONDS", 0.01)
    fake = fake_docker(tmp_path, monkeypatch, "echo down >&2; exit 1")
    remains = cleanup.Teardown(fake.engine, journal, seconds=0.3).run()
    assert sorted(remains.left) == ["container 'box'", "network 'net'"]
    assert not remains.final and "down" in remains.left["container 'box'"]


def test_a_list_that_fails_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, answers(ps="echo broken >&2; exit 1"))
    assert cleanup.cleanup_all(fake.engine, journal).left == {"container 'box'": "broken"}


def test_what_is_gone_already_counts_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    gone = f"grep -q 'rm -f' {tmp_path}/calls || {BOX}"
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=gone, rm="echo 'No such container: c1' >&2; exit 1"))
    assert not cleanup.cleanup_all(fake.engine, journal).left


def test_an_outage_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    monkeypatch.setattr(cleanup, "LONGEST_PAUSE_SECONDS", 0.01)
    down = f"[ $(grep -c info {tmp_path}/calls) -gt 5 ] || exit 1"
    fake = fake_docker(tmp_path, monkeypatch, answers(info=down, ps=BOX, rm="echo c1"))
    assert not cleanup.cleanup_all(fake.engine, journal).left
    assert fake.calls.read_text().count("rm -f -v c1") == 1


def test_another_engine_is_asked_for_our_ids_only_and_each_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    journal.answered(box(journal), "c1" * 32)
    refuses = f"echo 'No such container: {'c1' * 32}' >&2"
    fake = fake_docker(tmp_path, monkeypatch, answers(info='echo \'{"ID": "other"}\'', ps=BOX, rm=refuses))
    remains = cleanup.cleanup_all(fake.engine, journal)
    assert f"container 'box' ({'c1' * 32})" in remains.left and remains.final
    assert fake.calls.read_text() == f"rm -f -v {'c1' * 32}\ninfo --format {{{{json .}}}}\n"


def test_what_docker_gave_no_answer_about_is_looked_for_until_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    journal.lost(box(journal))
    late = f"[ $(grep -c ^ps {tmp_path}/calls) -lt 5 ] || {BOX}"
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=late, rm="echo c1"))
    assert not cleanup.cleanup_all(fake.engine, journal).left
    assert fake.calls.read_text().count("rm -f -v c1") == 1


def test_what_never_comes_is_named_and_looked_for_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    journal.lost(box(journal))
    fake = fake_docker(tmp_path, monkeypatch, "exit 0")
    remains = cleanup.Teardown(fake.engine, journal, late_seconds=0.1).run()
    assert list(remains.left) == ["container 'box'"] and not remains.final


def test_what_has_another_name_by_now_is_tried_again_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    journal.answered(box(journal), "c1")
    renamed = f"printf '{row('c1', 'renamed', AGENT)}\\n'"
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=renamed, rm="echo busy >&2; exit 1"))
    remains = cleanup.cleanup_all(fake.engine, journal)
    assert remains.left == {"container 'renamed'": "busy"}
    assert fake.calls.read_text().count("rm -f -v c1") == 2 * cleanup.TRIES  # by the journal, then by its label


def test_a_client_that_goes_on_talking_does_not_carry_the_teardown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr(cleanup, "OVERTIME_SECONDS", 0.1)
    fake = fake_docker(tmp_path, monkeypatch, answers(info="while :; do echo .; sleep 0.05; done"))
    began = time.monotonic()
    remains = cleanup.Teardown(fake.engine, journal, seconds=0.5).run()
    assert time.monotonic() - began < 10
    assert sorted(remains.left) == ["container 'box'", "network 'net'"] and not remains.final


def test_what_was_removed_is_no_business_of_the_reapers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    lines: list[bytes] = []
    told = Journal(Owner("0123"), lines.append)
    told.lost(told.intend(AGENT, "box"))
    fake = fake_docker(tmp_path, monkeypatch, answers(ps=BOX, rm="echo c1"))
    assert not cleanup.cleanup_all(fake.engine, told).left
    theirs = Journal(Owner("0123"))
    for line in lines:
        theirs.replay(line)
    assert theirs.on_the_engine() == []


@pytest.mark.parametrize(("script", "lost"), [("kill -9 $$", True), ("echo no >&2; exit 1", False)])
def test_a_create_whose_client_was_killed_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, lost: bool
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, answers(create=script))
    made = Journal(Owner("0123"))
    perform(docker.create(fake.engine, made, AGENT, "box", ["create", "--name", "box", "image"]))
    assert made.has_lost() is lost


def test_without_a_docker_the_stage_dir_still_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    fake = fake_docker(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "docker").unlink()
    assert cleanup.cleanup_all(fake.engine, journal).left
    assert not (tmp_path / "stage").exists()
