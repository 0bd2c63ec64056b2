"""The lease of a bottle: its guard, who renews it, and what is known by its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.engine import Engine, Facts, moment
from claude_bottle.lib.teardown import sweep
from claude_bottle.lib.teardown.inventory import AGENT, CONTAINER, INTERNAL, NETWORK, Item
from claude_bottle.lib.teardown.owner import Owner, Place, login_here, owner_here, place_here

from tests.conftest import ROOT
from tests.sweep import Run, until

GUARD = ["/usr/bin/perl", "-t", str(ROOT / "lib" / "inside" / "guard.pl")]
NOW = 1_800_000_000.0
ENGINE = Engine("docker", "", "default", "", "", facts=Facts(clock=NOW))
ELSEWHERE = Owner("0f" * 16, Place("elsewhere", "1", "pid:[1]", "501"), "7 1", "8 1", login_here())


@pytest.mark.parametrize("text", ["29", "86401", "0", "-60", "ten", "60s", "1e3", " 60", "٣٠", "9" * 30])
def test_a_patience_that_is_none_is_one_clear_error_and_makes_nothing(tmp_path: Path, text: str) -> None:
    run = Run(tmp_path)
    run.env["CLAUDE_BOTTLE_PATIENCE"] = text
    _, err = run.begin().communicate(timeout=60)
    line = f"error: CLAUDE_BOTTLE_PATIENCE must be a number of seconds from 30 to 86400, not '{text}'"
    assert line in err and not [argv for argv in run.fake.argvs() if "create" in argv]


@pytest.mark.parametrize("words", [["cleanup", "--stale", "--yes"], ["start", "-y", "a"]])
def test_a_patience_that_is_none_is_an_error_whatever_there_is(tmp_path: Path, words: list[str]) -> None:
    run = Run(tmp_path, containers=[], networks=[])
    run.env["CLAUDE_BOTTLE_PATIENCE"] = "soon"
    done = run.command(*words)
    assert done.returncode == 1 and "error: CLAUDE_BOTTLE_PATIENCE must be a number of seconds" in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("", "600"), ("30", "30"), ("86400", "86400"), ("0060", "60")])
def test_bottle_and_broker_are_guarded_for_so_long(tmp_path: Path, text: str, seconds: str) -> None:
    run = Run(tmp_path)
    run.env |= {"CLAUDE_BOTTLE_PATIENCE": text, "CLAUDE_BOTTLE_OAUTH_TOKEN": "value"}
    child = run.begin()
    assert (child.communicate(timeout=60), child.returncode)[1] == 0
    made = {role: words for words in run.fake.argvs() for role in ("agent", "broker") if is_create(words, role)}
    assert made["agent"][-1] == seconds and made["agent"][made["agent"].index("--user") + 1] == "0:0"
    assert made["broker"][made["broker"].index("--") + 1] == seconds and "--init" not in made["agent"]
    ran = [words for words in run.fake.argvs() if words[0] == "exec"]
    assert ran and all("-u" in words for words in ran)  # the container's own user is root


def is_create(words: list[str], role: str) -> bool:
    return words[0] == "create" and f"claude-bottle.role={role}" in words


def guard(*words: str, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*GUARD, *words], start_new_session=True, **how)


def test_a_guard_ends_with_75_when_its_patience_is_over_and_later_when_it_is_renewed() -> None:
    began = time.monotonic()
    with guard("2") as left, guard("3") as renewed, guard("60") as ended:
        time.sleep(1.5)  # what is measured is time
        renewed.send_signal(signal.SIGUSR1)
        assert left.wait(20) == 75 and renewed.poll() is None
        ended.terminate()
        assert ended.wait(20) == 0
        assert renewed.wait(20) == 75 and time.monotonic() - began > 4


def test_a_guard_with_words_ends_as_these_do_and_feeds_them() -> None:
    done = subprocess.run([*GUARD, "60", "/bin/sh", "-c", "read word; exit $word"], input=b"7\n", timeout=20)
    assert done.returncode == 7
    killed = subprocess.run([*GUARD, "60", "/bin/sh", "-c", "kill -9 $$"], timeout=20)
    assert killed.returncode == 137


@pytest.mark.parametrize("called", ["", "mine:latest"])
def test_a_bottle_whose_guard_has_ended_is_one_clear_error_and_leaves_nothing(tmp_path: Path, called: str) -> None:
    run = Run(tmp_path)
    run.env |= {"CLAUDE_BOTTLE_IMAGE": called} if called else {}
    fault = run.fake.fault("agent start", mode="pause", when="after")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    run.fake.end("claude-bottle-a-2", 3)
    run.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (1, []), err
    error, hint, *_ = (line for line in err.splitlines() if ": error: " in line or ": hint: " in line)
    assert error == "claude-bottle: error: the bottle's first process, its guard, has ended with status 3"
    assert f"/usr/bin/perl of image {called or 'claude-bottle:latest'} must be a perl that runs" in hint


def bottle(owner: Owner, status: str) -> Item:
    return Item(CONTAINER, "c" * 64, "claude-bottle-a", "", status, shown(NOW - 5), "a", AGENT, "", "", owner)


def network(owner: Owner, age: float) -> Item:
    return Item(NETWORK, "d" * 64, "claude-bottle-net-a", "", "", shown(NOW - age), "a", INTERNAL, "", "", owner)


def shown(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S.123456789 +0000 UTC", time.gmtime(when))


@pytest.mark.parametrize(
    ("items", "stale"),
    [
        ([bottle(ELSEWHERE, "Exited (75) 2 seconds ago")], True),
        ([bottle(ELSEWHERE, "Exited (75) 2 seconds ago"), network(ELSEWHERE, 10)], True),
        ([bottle(ELSEWHERE, "Exited (0) 2 seconds ago")], False),
        ([bottle(ELSEWHERE, "Exited (175) 2 seconds ago")], False),
        ([bottle(ELSEWHERE, "Up 2 hours"), network(ELSEWHERE, 7200)], False),
        ([bottle(replace(ELSEWHERE, login="other"), "Exited (75) 2 seconds ago")], False),
        ([bottle(replace(ELSEWHERE, login=""), "Exited (75) 2 seconds ago")], False),
        ([bottle(owner_here("0f" * 16, os.getpid()), "Exited (75) 2 seconds ago")], False),  # its launcher lives
        ([network(ELSEWHERE, 599)], False),
        ([network(ELSEWHERE, 601)], True),
        ([network(ELSEWHERE, 601), network(ELSEWHERE, 10)], False),
        ([network(replace(ELSEWHERE, place=place_here()), 7200)], False),  # here its processes prove it, or nothing
        ([replace(network(ELSEWHERE, 601), created="")], False),
    ],
)
def test_what_has_lapsed_is_known_by_the_engine_alone(items: list[Item], stale: bool) -> None:
    assert sweep.lapsed(ENGINE, items) == ({ELSEWHERE.launch} if stale else set())


def test_an_engine_that_does_not_say_its_time_makes_nothing_stale() -> None:
    assert sweep.lapsed(replace(ENGINE, facts=Facts()), [network(ELSEWHERE, 10**9)]) == set()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-27T22:10:11.123456789Z", 1795817411.0),
        ("2026-11-28 00:10:11 +0200 EET", 1795817411.0),
        ("2026-11-27T23:10:11+01:00", 1795817411.0),
        ("2026-13-27T22:10:11Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_moment_is_read_as_docker_writes_it(text: str, seconds: float | None) -> None:
    assert moment(text) == seconds


def test_a_killed_reapers_leases_are_renewed_by_its_launcher(tmp_path: Path) -> None:
    run = Run(tmp_path)
    within = tmp_path / "within"
    child = run.begin_lasting(within)
    os.kill(run.reaper(), signal.SIGKILL)
    assert until(lambda: any("--renew" in words for words in run.fake.argvs()), 30)
    within.unlink()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err


def test_lists_have_ones_own_and_all_has_everybodys(tmp_path: Path) -> None:
    mine, others = owner_here("1" * 32, os.getpid()), ELSEWHERE
    namesake = replace(mine, launch="2" * 32, login="somebody-else")  # whose number and machine's name are the same
    boxes = [box("claude-bottle-mine", mine), box("claude-bottle-others", others), box("claude-bottle-same", namesake)]
    boxes.append({"name": "claude-bottle-shells"})
    run = Run(tmp_path, containers=[{"status": "running", **each} for each in boxes], networks=[])
    note = "claude-bottle: 2 more of other users or machines: --all has them too"
    few, every = run.command("list", "active"), run.command("list", "active", "--all")
    assert [row.partition("\t")[0] for row in few.stdout.splitlines()] == ["claude-bottle-mine", "claude-bottle-shells"]
    assert note in few.stderr and "claude-bottle-others" in every.stdout and "more of" not in every.stderr
    data = [one["container"] for one in json.loads(run.command("list", "active", "--json").stdout)]
    assert data == ["claude-bottle-mine", "claude-bottle-shells"]
    offered = run.command("cleanup").stderr
    assert "container claude-bottle-mine" in offered and note in offered
    assert "claude-bottle-others" not in offered and "claude-bottle-same" not in offered
    assert "container claude-bottle-others" in run.command("cleanup", "--all").stderr
    wrong = run.command("cleanup", "--all", "--stale")
    assert wrong.returncode == 2 and "--all and --stale do not go together" in wrong.stderr
    assert run.command("list", "--all").returncode == 2


def box(name: str, owner: Owner) -> dict[str, Any]:
    labels = {"slug": "a", "role": "agent", **owner.facts()}
    return {"name": name, "labels": {f"claude-bottle.{key}": value for key, value in labels.items()}}
