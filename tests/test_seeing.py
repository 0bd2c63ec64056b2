"""What the user sees of bottles: what was denied, and the list of those there are, on a fake engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import ROOT
from tests.sweep import Run, until
from tests.terminal import Terminal
from tests.test_refused import by_broker, denied

SCHEMA = json.loads((ROOT / "lib" / "schema" / "active.schema.json").read_text())
HOST, API = "registry.example", "api.anthropic.com"
LINE = f'claude-bottle: denied: {HOST} (12 times); to allow: bottles.b.egress.allowlist += "{HOST}"\n'


class Seen(Run):
    """Starts of agent ``a``, of bottle ``b``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.words = [*self.program, "start", "-y", "a"]
        self.child: subprocess.Popen[str] | None = None
        self.says = self.fake.folder / "says"
        self.state = self.home / ".local" / "state" / "claude-bottle"
        manifest = {"bottles": {"b": {}}, "agents": {"a": {"bottle": "b", "prompt": "x"}}}
        (self.home / "claude-bottle.json").write_text(json.dumps(manifest))

    def session(self, *lines: bytes, times: int, then: str = "") -> None:
        """Have the sidecar say something in the session, which goes on when so many refusals are counted."""
        (self.fake.folder / "more").write_bytes(b"".join(lines))
        counted = f"grep -q '{times}\\]' {self.state}/launch-*/presence.json"
        self.fake.session(f"cat {self.fake.folder}/more >> {self.says}; until {counted}; do sleep 0.02; done; {then}")

    def told(self) -> dict[str, Any]:
        """Return what the one launch says of itself."""
        (path,) = self.state.glob("launch-*/presence.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def active(self) -> list[dict[str, Any]]:
        """Return the list as data, which is as the schema has it."""
        done = self.command("list", "active", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        jsonschema.validate(found, SCHEMA, jsonschema.Draft202012Validator)
        return found

    def launch(self, what: str) -> subprocess.Popen[str]:
        """Begin a start, and wait until what it says of itself has some text in it."""
        self.child = self.begin()
        assert until(lambda: any(what in path.read_text() for path in self.state.glob("launch-*/presence.json")))
        return self.child

    def close(self) -> None:
        """End what was begun."""
        if self.child:
            self.child.terminate()
            self.child.communicate(timeout=60)
            self.child = None


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Seen]:
    made = Seen(tmp_path)
    yield made
    made.close()


def test_what_was_denied_is_told_after_the_session_and_in_the_receipt(run: Seen, tmp_path: Path) -> None:
    run.session(*[denied(HOST)] * 12, denied("\x1b[31m.test", reason="\x1b"), times=12)
    done = run.command("start", "--receipt", str(tmp_path / "receipt"), "-y", "a")
    assert done.returncode == 0 and LINE in done.stderr, done.stderr
    assert "\x1b" not in done.stderr
    found = json.loads((tmp_path / "receipt").read_text())
    schema = json.loads((ROOT / "lib" / "schema" / "receipt.schema.json").read_text())
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
    assert {"host": HOST, "reason": "not listed", "times": 12} in found["denied"]
    assert run.leftovers() == [] and list(run.state.glob("launch-*")) == []


def test_a_session_that_was_denied_nothing_is_told_nothing(run: Seen, tmp_path: Path) -> None:
    done = run.command("start", "--receipt", str(tmp_path / "receipt"), "-y", "a")
    assert "denied: " not in done.stderr and json.loads((tmp_path / "receipt").read_text())["denied"] == []


def test_it_is_told_of_a_session_that_a_signal_has_ended(run: Seen) -> None:
    run.session(*[denied(HOST)] * 12, times=12, then="exec sleep 60")
    child = run.launch("12]")
    child.send_signal(signal.SIGTERM)
    assert LINE in child.communicate(timeout=60)[1]


def test_a_loop_of_denials_is_counted_and_keeps_nobody_waiting(run: Seen) -> None:
    began = time.monotonic()
    run.session(*[denied(f"{number % 999}.test") for number in range(50_000)], denied(HOST), times=37_151)
    done = run.command("start", "-y", "a")
    assert done.returncode == 0 and "denied: others (" in done.stderr, done.stderr
    assert time.monotonic() - began < 30


def test_a_running_bottle_is_listed_with_what_it_takes_was_refused_and_where_it_was_started(run: Seen) -> None:
    run.session(*[denied(HOST)] * 12, times=12, then="exec sleep 60")
    run.launch("12]")
    calls = len(run.fake.argvs())
    mine, sibling = sorted(run.active(), key=lambda one: one["state"] != "running" or one["folder"] is None)
    assert (mine["agent"], mine["state"], mine["folder"]) == ("a", "running", str(run.cwd))
    assert (mine["processor"], mine["memory"]) == (12.34, int(100.5 * (1 << 20)))
    assert mine["denied"] == [{"host": HOST, "reason": "not listed", "times": 12}] and mine["age"] < 60
    assert (sibling["denied"], sibling["folder"], sibling["state"]) == (None, None, "running")
    assert [argv[0] for argv in run.fake.argvs()[calls:]] == ["info", "ps", "stats"]


def test_a_terminal_gets_a_table_and_a_pipe_what_the_shell_prints(run: Seen) -> None:
    run.fake.session("exec sleep 60")
    run.launch('"running"')
    name = run.told()["container"]
    shown = Terminal([*run.program, "list", "active"], run.cwd, run.env)
    assert shown.wait() == 0
    head, *rows = [line.split() for line in shown.said.splitlines()]
    assert head == ["AGENT", "CONTAINER", "AGE", "STATE", "PROCESSOR", "MEMORY", "DENIED", "FOLDER"]
    (mine,) = (row for row in rows if row[1] == name)
    assert mine[0] == "a" and mine[-4:-1] == ["100", "MiB", "0"] and "running" in mine
    piped = run.command("list", "active").stdout
    assert name in piped and all(line.count("\t") == 2 for line in piped.splitlines()) and "AGENT" not in piped


def test_a_start_is_listed_before_it_has_a_container_and_a_killed_one_is_not(run: Seen) -> None:
    fault = run.fake.fault("* build", mode="pause")
    run.child = run.begin()
    run.fake.wait_for_pause(fault)
    (mine,) = (one for one in run.active() if one["folder"])
    assert (mine["container"], mine["state"], mine["agent"]) == (None, "starting", "a")
    os.killpg(run.child.pid, signal.SIGKILL)
    run.fake.release(fault)
    run.child.communicate()
    assert until(lambda: not list(run.state.glob("launch-*")))
    assert not [one for one in run.active() if one["folder"]]


def test_what_an_earlier_boot_has_left_is_not_listed_and_goes(run: Seen, tmp_path: Path) -> None:
    run.fake.session(f"cp -R {run.state} {tmp_path}/kept")
    assert run.command("start", "-y", "a").returncode == 0
    (kept,) = (tmp_path / "kept").glob("launch-*")
    said = json.loads((kept / "presence.json").read_text())
    said["owner"]["boot"] = "another"
    (kept / "presence.json").write_text(json.dumps(said))
    kept.rename(run.state / kept.name)
    odd = run.state / f"launch-{'0' * 32}"
    odd.mkdir()
    (odd / "presence.json").write_text("[1")
    assert not [one for one in run.active() if one["folder"]]
    run.fake.session("")
    assert run.command("start", "-y", "a").returncode == 0
    assert [path.name for path in run.state.glob("launch-*")] == [odd.name]


OPENED = {"event": "tunnel_open", "method": "CONNECT", "target": "api.test:443", "time": "2026-01-02T03:04:05Z"}


def test_a_running_bottles_log_is_read_by_line_by_host_and_as_it_comes(run: Seen) -> None:
    opened = json.dumps(OPENED).encode() + b"\n"
    run.session(opened, *[denied(HOST)] * 12, denied("b\x1b[31m.test"), b"no json\n", times=12, then="exec sleep 60")
    child = run.launch("12]")
    lines = run.command("logs", "a").stdout.splitlines()
    assert lines[0].split("\t") == [OPENED["time"], "tunnel_open", "CONNECT", "api.test", ""]
    assert [line.split("\t")[1:] for line in lines[1:13]] == [["denied", "CONNECT", HOST, "not listed"]] * 12
    done = run.command("logs", "--denied", str(run.told()["container"]))
    assert done.stdout.splitlines()[0] == LINE.strip().removeprefix("claude-bottle: ") and "\x1b" not in done.stdout
    rows = [json.loads(line) for line in run.command("logs", "--denied", "--json", "a").stdout.splitlines()]
    wanted = {"host": HOST, "reason": "not listed", "times": 12, "allow": f'bottles.b.egress.allowlist += "{HOST}"'}
    assert rows[0] == wanted and len(rows) == 2
    following = subprocess.Popen(
        [*run.program, "logs", "--denied", "-f", "--json", "a"], cwd=run.cwd, env=run.env, stdout=subprocess.PIPE
    )
    assert following.stdout
    assert [json.loads(following.stdout.readline())["host"] for _ in range(13)][-2:] == [HOST, "b\x1b[31m.test"]
    with open(run.says, "ab") as says:
        says.write(opened + denied("late.test"))
    late = json.loads(following.stdout.readline())
    assert (late["host"], late["denied"], late["method"]) == ("late.test", "not listed", "CONNECT")
    child.terminate()
    assert following.communicate(timeout=60)[0] == b"" and following.returncode == 0


def test_what_another_launcher_was_refused_is_counted_in_the_log(run: Seen) -> None:
    run.session(*[denied(HOST)] * 12, times=12, then="exec sleep 60")
    run.launch("12]")
    env = {**run.env, "XDG_STATE_HOME": str(run.tmp.parent / "elsewhere")}
    done = subprocess.run([*run.program, "logs", "--denied", "a"], cwd=run.cwd, env=env, capture_output=True, text=True)
    assert done.stdout == f'denied: {HOST} (12 times); to allow: bottles.NAME.egress.allowlist += "{HOST}"\n', done


def test_what_the_broker_has_refused_is_told_after_the_session_in_its_log_and_in_the_list(run: Seen) -> None:
    (run.fake.folder / "broker-says").write_bytes(by_broker(API) * 7 + by_broker(API, 403, "--"))
    said = [denied(host, time=f"{year}-01-01T00:00:00Z") for host, year in ((HOST, 2025), ("b.test", 2027))]
    run.session(*said, times=7, then="exec sleep 60")
    child = run.launch("7]")
    rows = [json.loads(line) for line in run.command("logs", "--denied", "--json", "a").stdout.splitlines()]
    assert {"host": API, "reason": "credential", "times": 7, "allow": None} in rows
    lines = [line.split("\t") for line in run.command("logs", "a").stdout.splitlines()]
    assert [line[3] for line in lines] == [HOST, *[API] * 7, "b.test"]  # by their times
    assert lines[1][1:3] == ["denied", "GET"] and lines[1][4].endswith(", or off its paths: /v1/files")
    assert {row["host"]: row["times"] for row in run.active()[0]["denied"] or run.active()[1]["denied"]}[API] == 7
    env = {**run.env, "XDG_STATE_HOME": str(run.tmp.parent / "elsewhere")}
    done = subprocess.run([*run.program, "logs", "--denied", "a"], cwd=run.cwd, env=env, capture_output=True, text=True)
    assert f"denied: {API} (7 times): it was asked without the credential" in done.stdout, done
    child.send_signal(signal.SIGTERM)
    assert f"claude-bottle: denied: {API} (7 times): it was asked without" in child.communicate(timeout=60)[1]


def test_the_log_of_what_does_not_run_is_an_error(run: Seen) -> None:
    done = run.command("logs", "nobody")
    assert done.returncode == 1 and "no bottle of 'nobody' runs" in done.stderr


def test_a_word_about_a_form_that_there_is_not_is_refused(run: Seen) -> None:
    done = run.command("list", "--json")
    assert done.returncode == 2 and "--json goes with active only" in done.stderr
