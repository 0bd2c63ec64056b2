"""A plan as data, and what a folder's manifest adds as data: their schemas, their digests, and no value."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run

SCHEMAS = {
    name: json.loads((ROOT / "lib" / "schema" / f"{name}.schema.json").read_text()) for name in ("plan", "approval")
}
VALUE = "a-value-of-the-host-7721"
BOTTLE: dict[str, Any] = {
    "env": {"LITERAL": "a-literal-5512", "FROM_HOST": "${SOME_VALUE}", "ASKED": "?which \x7f one"},
    "egress": {"allowlist": ["example.org"]},
    "credentials": {
        "A": {"value": "${OTHER_VALUE}", "hosts": ["a.test"]},
        "B": {"value": {"command": ["pass", "b"]}, "hosts": ["b.test"], "paths": ["/v1/*"]},
    },
    "limits": {"pids": 100},
}


class Planned(Run):
    """Plans of agent ``a``, with values on the host and a manifest that the folder has too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"SOME_VALUE": VALUE, "OTHER_VALUE": f"{VALUE}-other"}
        self.manifest()

    def manifest(self, **more: Any) -> None:
        agents = {"a": {"bottle": "b", "prompt": "x", "skills": ["s"]}}
        (self.home / "claude-bottle.json").write_text(json.dumps({"bottles": {"b": BOTTLE | more}, "agents": agents}))

    def data(self, kind: str, *words: str) -> dict[str, Any]:
        """Return what a command prints as JSON, which is as its schema has it, without any value."""
        done = self.command(*words)
        assert done.returncode == 0, done.stderr
        assert not [value for value in (TOKEN, VALUE, "a-literal-5512") if value in done.stdout + done.stderr]
        found: dict[str, Any] = json.loads(done.stdout)
        jsonschema.validate(found, SCHEMAS[kind], jsonschema.Draft202012Validator)
        return found

    def plan(self, *words: str) -> dict[str, Any]:
        return self.data("plan", "start", "--dry-run", "--json", *words, "a")


@pytest.fixture
def run(tmp_path: Path) -> Planned:
    return Planned(tmp_path)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_a_plan_is_data_and_makes_nothing(run: Planned) -> None:
    found = run.plan("--cwd")
    granted = found["grants"]
    assert granted["env"] == [
        {"name": "ASKED", "question": "which \x7f one"},
        {"name": "FROM_HOST", "variable": "SOME_VALUE"},
        {"name": "LITERAL", "digest": f"sha256:{hashlib.sha256(b'a-literal-5512').hexdigest()}"},
    ]
    sources = {each["name"]: each.get("variable", each.get("command")) for each in granted["credentials"]}
    assert sources == {"A": "OTHER_VALUE", "B": ["pass", "b"], "CLAUDE_CODE_OAUTH_TOKEN": None}
    assert {"example.org", "a.test", "api.anthropic.com"} <= set(granted["hosts"])
    assert granted["limits"] == [{"name": "pids", "value": "100"}]
    assert (found["folder"], granted["workspace"], found["pending"]) == (str(run.cwd), True, [])
    assert run.plan()["folder"] is None
    made = [argv for argv in run.fake.argvs() if {"create", "build"} & set(argv[:2])]
    assert (made, run.leftovers()) == ([], [])


def test_its_digest_is_that_of_what_it_prints_and_of_the_receipt(run: Planned, tmp_path: Path) -> None:
    run.manifest(env={"LITERAL": "a-literal-5512"}, credentials={})
    found = run.plan()
    text = json.dumps(found["grants"], sort_keys=True, separators=(",", ":"))
    assert found["digest"] == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    done = run.command("start", "-y", "--receipt", str(tmp_path / "receipt"), "a")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "receipt").read_text())["plan"] == found["digest"]
    run.manifest(env={"LITERAL": "another"}, credentials={})
    assert run.plan()["digest"] != found["digest"]


def test_json_without_a_dry_run_is_wrong(run: Planned) -> None:
    done = run.command("start", "--json", "a")
    assert done.returncode == 2 and "error: --json goes with --dry-run only\n" in done.stderr
    run.env["CLAUDE_BOTTLE_DRY_RUN"] = "1"
    assert run.data("plan", "start", "--json", "a")["plan"] == 1


def test_what_a_folder_adds_is_data_with_the_digest_that_ci_pins(run: Planned) -> None:
    nothing = run.data("approval", "approve", "--json")
    assert nothing["entries"] == []
    added = {"bottles": {"b": {**BOTTLE, "egress": {"allowlist": ["example.org", "example.com"]}}}}
    (run.cwd / "claude-bottle.json").write_text(json.dumps(added))
    for approved in (False, True):
        found = run.data("approval", "approve", "--json")
        (entry,) = found["entries"]
        assert (entry["path"], entry["approved"]) == ("$.bottles.b.egress.allowlist[1]", approved)
        assert found["digest"] != nothing["digest"]
        pending = run.plan()["pending"]
        assert pending == ([] if approved else [{"path": entry["path"], "reaches": "the host example.com"}])
        done = run.command("approve", "--yes")
        assert done.returncode == 0 and f"digest: {found['digest']}" in done.stderr
    done = run.command("approve", "--json", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
