"""The page of what is left when things go wrong, and the names of the docker calls; the rest is seen on an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reliability import kept, shim
from tests.reliability.kept import Broken, Outcome


def test_the_page_is_made_from_what_is_kept() -> None:
    assert kept.page() == kept.PAGE.read_text()


def test_what_is_left_or_wrong_is_counted_in_its_own_line() -> None:
    outcomes = [
        Outcome("build", "before", "fail", 1, 0, [], 0.5, ""),
        Outcome("rm", "before", "fail", 0, 0, ["a", "b"], 90.0, "status 0"),
        Outcome("rm", "after", "both", -9, 5, [], 1.0, ""),
    ]
    lines = kept.faults_table(outcomes).splitlines()[2:]
    assert lines == [
        "| the call fails | before | 2 | 0, 1 |  | 2 | 1 | 90.0 s |",
        "| KILL of both | after | 1 | -9 | 5 | 0 | 0 | 1.0 s |",
    ]


def test_what_becomes_of_launches_whose_line_breaks_is_counted_by_way_and_break() -> None:
    outcomes = [
        Broken("tcp", "cut", "after", "create", "nothing", 1, 6.2, 31.0, 0, [], 4.4, "", ""),
        Broken("tcp", "cut", "after", "session", "nothing", 69, 28.0, 35.2, 0, ["a"], 40.0, "lost", "it lived on"),
        Broken("tcp", "cut", "within", "session", "nothing", 69, 2.0, None, 0, [], 9.0, "home", ""),
        Broken("tcp", "cut", "within", "session", "nothing", 69, 2.0, None, 0, [], 9.0, "kept", ""),
        Broken("ssh", "hole", "after", "session", "both", -9, 0.1, None, 5, [], None, "home", ""),
    ]
    assert kept.links_table(outcomes).splitlines()[2:] == [
        "| tcp | is cut | after | nothing | 2 | 1, 69 | 28 s | 35 s |  | 1 | 0 of 1 | 1 | 40 s |",
        "| tcp | is cut | within | nothing | 2 | 69 | 2 s |  |  | 0 | 1 of 2, 1 kept | 0 | 9 s |",
        "| ssh | swallows all | after | KILL of both | 1 | -9 | 0 s | not | 5 | 0 | 1 of 1 | 0 |  |",
    ]


def test_outcomes_take_the_place_of_earlier_ones_of_the_same_fault_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(kept, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(kept, "engine", lambda: ("20.1", "28.2"))
    for act, point in (("fail", "build"), ("INT", "build"), ("fail", "rm")):
        kept.keep_faults([Outcome(point, "before", act, 1, 0, [], 0.5, "")])
    rows = json.loads((tmp_path / "20.json").read_text())["faults"]
    assert [row[:3] for row in rows] == [["rm", "before", "fail"], ["build", "before", "INT"]]
    assert "2 runs, 0 things left" in kept.PAGE.read_text()


@pytest.mark.parametrize(
    "words, name",
    [
        (["info"], "info"),
        (["create", "--name", "x", "--label", "claude-bottle.role=sidecar"], "create sidecar"),
        (["network", "create", "--label", "claude-bottle.role=egress"], "network create egress"),
        (["start", "-ai", "x"], "start sidecar"),
        (["exec", "-it", "x", "claude"], "exec session"),
        (["exec", "-i", "x", "env"], "exec seals"),
        (["exec", "-i", "x", "guard", "--renew", "600"], "exec renewal"),
        (["exec", "-i", "x", "/usr/bin/perl", "-t", "-", "list", "/tmp/x"], "exec work list"),
        (["network", "rm", "x"], "network rm"),
    ],
)
def test_a_docker_call_is_named_by_what_it_is(words: list[str], name: str) -> None:
    assert shim.kind(words) == name
