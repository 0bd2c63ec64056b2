"""Where the values of credentials come from, when, and that they are nowhere else, on the fake engine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib import env, withhold
from claude_bottle.lib.egress import credential_values
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER, Injection, git_helpers, model_injection, placeholder
from claude_bottle.lib.env_resolve import Secrets
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import redact, run
from claude_bottle.lib.manifest import Manifest
from claude_bottle.lib.schema.manifest_parse import Credential
from hypothesis import given, settings

from tests.sweep import TOKEN, Run, gone, until
from tests.terminal import Terminal
from tests.test_properties import steady, values

VALUE = "a-value-that-is-nowhere-5501"
SAID = "what-the-command-says-7719"
INJECTION = Injection("X", "stands-for-x", ("api.example",))


class Box(Run):
    """A start of an agent whose bottle has one credential from a variable, and one from a command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ran = folder / "ran"
        self.env["A_TOKEN"] = VALUE
        self.credentials: dict[str, Any] = {"GH_TOKEN": {"value": "${A_TOKEN}", "hosts": ["api.github.com"]}}
        self.says(f"touch {self.ran}; echo {SAID}")

    def says(self, script: str) -> None:
        self.credentials["COMMANDED"] = {"value": {"command": ["sh", "-c", script]}, "hosts": ["api.example"]}
        self.write(self.home)

    def write(self, folder: Path, **more: Any) -> None:
        bottle = {"credentials": self.credentials, **more}
        document = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b"}}}
        (folder / "claude-bottle.json").write_text(json.dumps(document))

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command("start", *words, "a")

    def answer(self, answer: str) -> tuple[int, str]:
        """Start on a terminal with an answer to the question; the command has not run before it."""
        terminal = Terminal([*self.program, "start", "a"], self.cwd, self.env)
        terminal.until("[y/N] ")
        assert not self.ran.exists()
        terminal.type(f"{answer}\n")
        status = terminal.wait()
        terminal.close()
        return status, terminal.said

    def made(self) -> list[str]:
        return [words[0] for words in self.fake.argvs() if words[0] in ("build", "create", "network")]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def fed(box: Run, *injections: Injection, **pairs: str) -> bool:
    """Say whether a session was fed these values, and git's settings for these credentials."""
    git = (setting for injection in injections for setting in git_helpers(injection))
    entries = [*(f"{name}={value}" for name, value in pairs.items()), *(f"={name}\n{value}" for name, value in git)]
    payload = "".join(f"{entry}\0" for entry in entries).encode()
    return [call.get("stdin") for call in box.fake.calls()].count(hashlib.sha256(payload).hexdigest()) == 1


def everything(box: Run) -> str:
    """Return all that docker was asked, and with which environment."""
    return json.dumps(box.fake.calls())


def test_the_bottle_is_fed_placeholders_and_no_child_knows_a_value(box: Box) -> None:
    status, said = box.answer("y")
    assert (status, box.ran.exists(), box.leftovers()) == (0, True, []), said
    assert f"said by the command: sh -c 'touch {box.ran}; echo" in said
    stands = {"GH_TOKEN": placeholder("GH_TOKEN"), "CLAUDE_CODE_OAUTH_TOKEN": TOKEN_PLACEHOLDER}
    stands["COMMANDED"] = "bottle-placeholder-commanded"
    asked = (("GH_TOKEN", "api.github.com"), ("COMMANDED", "api.example"))
    injections = (Injection(name, stands[name], (host,)) for name, host in asked)
    assert fed(box, *injections, **stands), box.fake.calls()
    for value in (VALUE, TOKEN):
        assert value not in everything(box) + said
    assert SAID not in everything(box)


def test_the_token_goes_in_where_the_user_wants_it_so(box: Box) -> None:
    box.credentials = {}
    box.write(box.home)
    box.env["CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"] = "1"
    done = box.start("-y")
    assert done.returncode == 0 and fed(box, CLAUDE_CODE_OAUTH_TOKEN=TOKEN)
    assert "CLAUDE_CODE_OAUTH_TOKEN  IN THE BOTTLE (CLAUDE_BOTTLE_TOKEN_IN_BOTTLE=1)" in done.stderr
    assert TOKEN not in everything(box)


def test_a_command_runs_neither_in_a_dry_run_nor_after_a_no(box: Box) -> None:
    assert box.start("--dry-run").returncode == 0
    assert box.command("info", "a").returncode == 0
    assert box.answer("n")[0] == 0
    assert not box.ran.exists() and not box.made()


def test_a_dry_run_takes_no_value(box: Box) -> None:
    del box.env["A_TOKEN"]
    box.says("exit 1")
    assert box.start("--dry-run").returncode == 0


def test_what_the_folders_manifest_would_run_is_not_run_unapproved(box: Box) -> None:
    (box.home / "claude-bottle.json").write_text("{}")
    box.write(box.cwd)
    done = box.start("--yes")
    assert done.returncode == 1 and "--yes does not cover" in done.stderr and not box.ran.exists() and not box.made()
    assert "put in for api.example, any path" in done.stderr and VALUE not in done.stderr
    assert box.answer("y")[0] == 0 and box.ran.exists()
    box.ran.unlink()
    assert box.start("--yes").returncode == 0 and box.ran.exists()
    assert VALUE not in everything(box)
    box.ran.unlink()
    box.credentials["COMMANDED"]["paths"] = ["/other"]
    box.write(box.cwd)
    assert box.start("--yes").returncode == 1 and not box.ran.exists()


BAD = {
    f"echo {SAID}; echo why >&2; exit 3": ("the command for 'COMMANDED' failed with status 3", "hint: why"),
    "true": ("what the command for 'COMMANDED' says is empty", ""),
    "echo": ("what the command for 'COMMANDED' says is empty", ""),
    f"echo {SAID}; echo b": ("what the command for 'COMMANDED' says has a line break or a control character in it", ""),
    f"printf '{SAID}\\r\\n'": ("says has a line break or a control character in it", ""),
    f"printf '{SAID}\\0'": ("says has a line break or a control character in it", ""),
    f"echo {SAID}; kill -9 $$": ("the command for 'COMMANDED' failed with status 137", ""),
}


@pytest.mark.parametrize("script", BAD)
def test_a_command_that_says_no_value_ends_the_start_before_anything_is_made(box: Box, script: str) -> None:
    box.says(script)
    done = box.start("-y")
    error, hint = BAD[script]
    assert done.returncode == 1 and error in done.stderr and hint in done.stderr, done.stderr
    assert "$.bottles.b.credentials.COMMANDED" in done.stderr
    shown = done.stderr.replace(shlex.join(["sh", "-c", script]), "")
    assert SAID not in shown and not box.made() and box.leftovers() == []


def test_a_command_has_the_callers_variables_but_for_credentials_and_no_shell(box: Box) -> None:
    box.says(f"env >{box.ran}; echo x")
    box.env["OTHER"] = "kept"
    assert box.start("-y").returncode == 0
    there = box.ran.read_text()
    assert "OTHER=kept" in there and VALUE not in there and TOKEN not in there
    box.credentials["COMMANDED"]["value"]["command"] = ["echo", "$OTHER", "&&"]
    box.write(box.home)
    done = box.start("--receipt", str(box.tmp / "r"), "-y")
    assert done.returncode == 0, done.stderr


def test_a_signal_ends_a_command_with_the_start(box: Box) -> None:
    box.says(f"echo $$ >{box.ran}; exec sleep 60")
    child = box.begin()
    assert until(lambda: box.ran.exists() and box.ran.read_text().endswith("\n"))
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, gone(int(box.ran.read_text())), box.leftovers()) == (143, True, []), err
    assert not box.made()


def test_a_program_that_is_not_there_is_said_before_the_question(box: Box) -> None:
    box.credentials["COMMANDED"]["value"]["command"] = ["no-such-program-here"]
    box.write(box.home)
    done = box.start("-y")
    assert done.returncode == 1 and "env (names only)" not in done.stderr
    assert "error: the command for 'COMMANDED' cannot be found: no-such-program-here" in done.stderr


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "host variable 'A_TOKEN' (for 'GH_TOKEN') is not set"),
        ("", "host variable 'A_TOKEN' (for 'GH_TOKEN') is empty"),
        (f"{VALUE}\nb", "host variable 'A_TOKEN' (for 'GH_TOKEN') has a line break or a control character in it"),
        (f"{VALUE}\x1b", "host variable 'A_TOKEN' (for 'GH_TOKEN') has a line break or a control character in it"),
    ],
)
def test_a_variable_that_holds_no_credential_is_said_without_its_value(box: Box, value: str | None, line: str) -> None:
    box.env.pop("A_TOKEN")
    box.env |= {"A_TOKEN": value} if value is not None else {}
    done = box.start("-y")
    assert done.returncode == 1 and f"error: {line}" in done.stderr and VALUE not in done.stderr
    assert "$.bottles.b.credentials.GH_TOKEN" in done.stderr and not box.ran.exists()


def test_a_token_that_no_header_can_hold_is_said(box: Box) -> None:
    box.env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = f"{TOKEN}\r"
    done = box.start("-y")
    assert done.returncode == 1 and "error: CLAUDE_BOTTLE_OAUTH_TOKEN has a line break" in done.stderr
    assert TOKEN not in done.stderr


def test_an_asked_credential_is_asked_without_echo_and_only_where_there_is_a_terminal(box: Box) -> None:
    box.credentials["COMMANDED"] = {"value": "?the one of api", "hosts": ["api.example"]}
    box.write(box.home)
    done = box.start("-y")
    assert done.returncode == 1 and "error: cannot prompt for 'COMMANDED': no terminal" in done.stderr
    terminal = Terminal([*box.program, "start", "-y", "a"], box.cwd, box.env)
    terminal.until("the one of api: ")
    terminal.type(f"{SAID}\n")
    assert terminal.wait() == 0, terminal.said
    terminal.close()
    assert SAID not in terminal.said + everything(box)


def test_an_editor_and_the_reaper_do_not_get_what_feeds_a_credential(box: Box, tmp_path: Path) -> None:
    there = tmp_path / "editor-env"
    box.env["VISUAL"] = f"{tmp_path}/editor"
    Path(box.env["VISUAL"]).write_text(f"#!/bin/sh\nenv >{there}\n")
    Path(box.env["VISUAL"]).chmod(0o755)
    assert box.command("edit", "a").returncode == 0
    assert "PATH=" in there.read_text() and VALUE not in there.read_text() and TOKEN not in there.read_text()
    children = tmp_path / "children"
    box.says(f"for each in $(cat /proc/$PPID/task/*/children); do cat /proc/$each/environ; done >{children}; echo x")
    assert box.start("-y").returncode == 0
    if os.path.isdir("/proc/self"):
        assert b"PATH=" in children.read_bytes() and VALUE.encode() not in children.read_bytes()


def take(*commands: list[str], seconds: float = 30.0) -> Secrets:
    secrets = Secrets()
    listed = [Credential(INJECTION, "command", command=tuple(command)) for command in commands]
    credential_values.credentials_run(secrets, listed, {"PATH": os.environ["PATH"]})
    return secrets


def test_a_command_that_is_not_done_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_values, "COMMAND_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(BottleError, match=r"^the command for 'X' was not done within 0 s$") as failed:
        take(["sh", "-c", "echo 'which card?' >&2; while echo x; do sleep 0.05; done"])
    assert time.monotonic() - began < 10
    assert failed.value.hints[-1] == "which card?"


def test_what_is_injected_is_the_brokers_alone() -> None:
    secrets = take(["printf", "%s", "a \u00fc value: with=all \\\n"])
    assert dict(secrets.injected) == {"X": "a \u00fc value: with=all \\"}
    assert secrets.payload().startswith(
        b"X=stands-for-x\0=credential.https://api.example.helper\n!f() "
    ) and "value" not in repr(secrets)
    assert "value: with" not in redact.redact("it was a \u00fc value: with=all \\ there")


def test_a_value_of_the_bottles_own_env_is_not_the_brokers() -> None:
    secrets = Secrets()
    secrets.add("CLAUDE_CODE_OAUTH_TOKEN", "the manifest's")
    token = model_injection()
    assert token
    secrets.inject(token, "the real one")
    assert secrets.payload() == f"CLAUDE_CODE_OAUTH_TOKEN={TOKEN_PLACEHOLDER}\0".encode()


@pytest.fixture
def kept_apart(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], set[str]]:
    """Return what finds the variables that are kept from children, for a home and the folder in it."""

    def find(home: Path) -> set[str]:
        monkeypatch.setattr(env, "withheld", set())
        monkeypatch.chdir(home)
        withhold.withhold({"HOME": str(home)})
        return env.withheld

    return find


@settings(steady, max_examples=150)
@given(values)
def test_what_is_looked_through_for_variables_may_be_anything(value: Any) -> None:
    assert list(withhold._variables(value)) == []
    found = Manifest({"bottles": {"b": {"credentials": value}}})
    own = [each.text for each in found.bottles["b"].credentials if each.mode == "host"]
    assert set(own) <= set(withhold._variables(found.merged))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"bottles": 3}', None])
def test_a_manifest_that_cannot_be_read_keeps_nothing_back(
    kept_apart: Callable[[Path], set[str]], tmp_path: Path, text: bytes | None
) -> None:
    if text is None:
        os.mkfifo(tmp_path / "claude-bottle.json")  # nobody waits for a writer
    else:
        (tmp_path / "claude-bottle.json").write_bytes(text)
    assert kept_apart(tmp_path) == set()


def test_what_docker_needs_is_kept_from_nobody(kept_apart: Callable[[Path], set[str]], tmp_path: Path) -> None:
    names = ("A", "PATH", "HOME", "DOCKER_TLS_VERIFY")
    credentials = {name: {"value": f"${{{name}}}", "hosts": ["a.example"]} for name in names}
    (tmp_path / "claude-bottle.json").write_text(json.dumps({"bottles": {"b": {"credentials": credentials}}}))
    assert kept_apart(tmp_path) == {"A"}


def test_no_child_gets_what_is_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT_BACK", "x")
    monkeypatch.setattr(run, "withheld", {"KEPT_BACK"})
    assert "KEPT_BACK" not in run.child_env() and "PATH" in run.child_env()
