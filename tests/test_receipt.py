"""The receipt of a start: when it is written, what it holds, and what it never does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from claude_bottle.lib.files.replace import replace
from claude_bottle.lib.inside.seals import at_launch
from claude_bottle.lib.version import launcher_version

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run
from tests.terminal import Terminal

SCHEMA = json.loads((ROOT / "lib" / "schema" / "receipt.schema.json").read_text())
SECRETS = {"FROM_HOST": "${SOME_VALUE}", "LITERAL": "a-literal-5512"}
VALUE = "a-value-of-the-host-7721"


class Receipted(Run):
    """Starts of agent ``a`` that are to leave a receipt."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "receipt.json"
        self.env["SOME_VALUE"] = VALUE
        self.manifest()

    def manifest(self, **bottle: Any) -> None:
        """Write the manifest anew."""
        bottles = {"b": {"env": SECRETS, **bottle}}
        agents = {"a": {"bottle": "b", "prompt": "x", "skills": ["s"]}}
        (self.home / "claude-bottle.json").write_text(json.dumps({"bottles": bottles, "agents": agents}))

    def start(self, *words: str, status: int = 0) -> str:
        """Run a start to its end; return what it says."""
        done = self.command("start", "--receipt", str(self.path), *(words or ("-y", "a")))
        assert (done.returncode, self.leftovers()) == (status, []), done.stderr
        return done.stderr

    def receipt(self) -> dict[str, Any]:
        """Return the receipt, which is as the schema has it."""
        found: dict[str, Any] = json.loads(self.path.read_text())
        jsonschema.validate(found, SCHEMA, jsonschema.Draft202012Validator)
        return found

    def plan(self) -> str:
        """Return the plan's digest of one more start."""
        self.start()
        return str(self.receipt()["plan"])

    def making(self) -> list[list[str]]:
        """Return the calls that make something."""
        return [argv for argv in self.fake.argvs() if {"create", "build"} & set(argv[:2])]


@pytest.fixture
def run(tmp_path: Path) -> Receipted:
    return Receipted(tmp_path)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_receipt_tells_of_the_start_and_of_no_value(run: Receipted) -> None:
    run.fake.session("exit 7")
    run.start(status=7)
    found = run.receipt()
    assert (found["agent"], found["status"], found["launcher"]) == ("a", 7, launcher_version())
    names = at_launch(["placeholder=", "minted="])
    assert [(probe["name"], probe["outcome"]) for probe in found["probes"]] == [(name, "held") for name in names]
    times = found["times"]
    assert times["begun"] <= times["tested"] <= times["ended"]
    (sidecar,) = (f"sha256:{image['id']}" for image in run.fake.images() if "pipelock" in image["name"])
    agent, broker = (
        next(image["id"] for image in run.fake.images() if image["name"] == f"claude-bottle{which}:latest")
        for which in ("", "-broker")
    )
    assert found["images"] == {"agent": agent, "sidecar": sidecar, "broker": broker}
    for value in (TOKEN, VALUE, SECRETS["LITERAL"]):
        assert value not in run.path.read_text()
    assert run.fake.unknown() == []


def test_a_start_that_puts_nothing_in_has_no_broker_in_its_receipt(run: Receipted) -> None:
    run.env["CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"] = "1"
    first = run.plan()
    found = run.receipt()
    assert set(found["images"]) == {"agent", "sidecar"}
    assert [probe["name"] for probe in found["probes"]] == list(at_launch(["opened="]))
    run.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = "another:1"
    assert run.plan() == first


def test_a_receipt_costs_one_call_and_a_start_without_one_costs_none(run: Receipted) -> None:
    run.start()
    asked = [argv for argv in run.fake.argvs() if "{{.Image}}" in argv]
    assert len(asked) == 1
    run.command("start", "-y", "a")
    assert [argv for argv in run.fake.argvs() if "{{.Image}}" in argv] == asked


def test_it_is_there_while_the_session_runs(run: Receipted) -> None:
    run.fake.session(f"cp {run.path} {run.path}.seen")
    run.start()
    seen = json.loads(Path(f"{run.path}.seen").read_text())
    assert seen["images"] and seen["times"]["tested"]
    assert (seen["times"]["ended"], seen["status"]) == (None, None)


def test_a_start_that_fails_leaves_a_receipt_that_says_so(run: Receipted) -> None:
    run.path.write_text("of an earlier start")
    run.fake.fault("agent start: no space left on device")
    run.start(status=1)
    found = run.receipt()
    assert (found["status"], found["images"], found["probes"], found["times"]["tested"]) == (1, None, [], None)


def test_a_killed_launcher_leaves_the_receipt_of_its_own_start(run: Receipted) -> None:
    run.path.write_text("of an earlier start")
    run.words = [*run.program, "start", "-y", f"--receipt={run.path}", "a"]
    run.kill_during("agent start")
    assert run.receipt()["status"] is None


def test_the_end_by_a_signal_is_in_the_receipt(run: Receipted) -> None:
    run.words = [*run.program, "start", "-y", f"--receipt={run.path}", "a"]
    fault = run.fake.fault("agent start", mode="pause")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    child.send_signal(signal.SIGTERM)
    run.fake.release(fault)
    child.communicate(timeout=60)
    assert run.receipt()["status"] == child.returncode == 128 + signal.SIGTERM


def test_an_engine_that_does_not_tell_the_images_ends_the_start(run: Receipted) -> None:
    run.fake.fault("agent inspect: nothing to tell")
    assert "docker container inspect failed: nothing to tell" in run.start(status=1)
    assert run.receipt()["status"] == 1


def test_the_plans_digest_is_that_of_what_is_granted(run: Receipted) -> None:
    first = run.plan()
    assert run.plan() == first
    run.manifest(egress={"allowlist": ["example.org"]})
    other = run.plan()
    run.manifest(egress={"allowlist": ["example.com"]})
    assert len({first, other, run.plan()}) == 3


def test_it_is_that_of_credentials_and_inspection_too(run: Receipted) -> None:
    seen = {run.plan()}
    run.env["OTHER_VALUE"] = "another-value"
    one = {"value": "${OTHER_VALUE}", "hosts": ["a.example"]}
    said = {"value": {"command": ["echo", "x"]}, "hosts": ["a.example"]}
    for credential in (one, {**one, "paths": ["/a"]}, {**one, "header": "x-api-key"}, said):
        run.manifest(credentials={"X": credential})
        seen.add(run.plan())
    for egress in ({"inspect": {"sentry.io": False}}, {"dlp": "block"}):
        run.manifest(egress=egress)
        seen.add(run.plan())
    run.env["CLAUDE_BOTTLE_BROKER_IMAGE"] = "not-there:1"
    run.start(status=1)
    seen.add(run.receipt()["plan"])
    run.env["CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"] = "1"
    assert len({*seen, run.plan()}) == 9


def test_a_value_of_the_host_does_not_change_the_digest_and_a_literal_does(run: Receipted) -> None:
    first = run.plan()
    run.env["SOME_VALUE"] = "another"
    assert run.plan() == first
    run.manifest(env={**SECRETS, "LITERAL": "another"})
    assert run.plan() != first


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("absent/receipt.json", "there is no such folder"),
        ("project", "it is a folder"),
        ("file/receipt.json", "there is no such folder"),
        ("pipe", "it is no file that could be replaced"),
    ],
)
def test_a_path_that_cannot_be_is_said_before_anything_is_made(run: Receipted, path: str, why: str) -> None:
    folder = run.path.parent
    (folder / "file").write_text("kept")
    os.mkfifo(folder / "pipe")
    run.path = folder / path
    said = run.start("a", status=1)  # nothing is asked either: there is no terminal here
    assert said == (f"claude-bottle: error: cannot write the receipt to {run.path}\nclaude-bottle: hint: {why}\n")
    assert (run.making(), (folder / "file").read_text()) == ([], "kept")


def test_a_dry_run_writes_none_and_says_so(run: Receipted) -> None:
    run.path.write_text("of an earlier start")
    assert run.start("--dry-run", "a").endswith("claude-bottle: a dry run writes no receipt\n")
    assert run.path.read_text() == "of an earlier start"


def test_a_no_leaves_an_earlier_receipt(run: Receipted) -> None:
    run.path.write_text("of an earlier start")
    terminal = Terminal([*run.program, "start", "--receipt", run.path, "a"], run.cwd, run.env)
    terminal.until("launch this agent?")
    terminal.type("n\n")
    assert terminal.wait() == 0
    terminal.close()
    assert run.path.read_text() == "of an earlier start"


@pytest.mark.parametrize(("own", "status"), [(0, 1), (7, 7)])
def test_what_cannot_be_written_after_all_is_an_error_and_a_sessions_own_failure_stays(
    run: Receipted, own: int, status: int
) -> None:
    folder = run.path.parent / "gone"
    folder.mkdir()
    run.path = folder / "receipt.json"
    run.fake.session(f"rm -r {folder}; exit {own}")
    assert f"error: cannot write the receipt to {run.path}" in run.start(status=status)


def test_a_link_stays_one_and_a_file_keeps_its_mode(run: Receipted) -> None:
    file = run.path.parent / "file.json"
    file.touch(0o640)
    file.chmod(0o640)
    run.path.symlink_to(file)
    run.start()
    assert run.path.is_symlink()
    assert (run.receipt()["agent"], file.stat().st_mode & 0o777) == ("a", 0o640)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace(str(file), b"after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]
