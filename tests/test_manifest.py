"""The manifest as a user writes it: what the launcher says of it, in the shell's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from claude_bottle.lib import env_resolve, manifest, pipelock_hosts, plan, skills, slug, ssh
from claude_bottle.lib.errors import BottleError

SECRET = "hunter2-never-shown"


def load(cwd: Path, *, home: Path | None = None) -> manifest.Manifest:
    return manifest.manifest_load(str(cwd), str(home or cwd))


def write(folder: Path, value: object) -> None:
    folder.mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "claude-bottle.json").write_text(text)


def bottle(tmp_path: Path, value: object) -> manifest.Manifest:
    write(tmp_path, {"bottles": {"b": value}, "agents": {}})
    return load(tmp_path)


def test_cwds_keys_win_and_homes_come_first(tmp_path: Path) -> None:
    write(tmp_path / "home", {"bottles": {"b": {"env": {"A": "1", "B": "1"}}}, "agents": {"x": {"bottle": "b"}}})
    write(tmp_path / "cwd", {"bottles": {"b": {"env": {"B": "2", "C": "2"}}}, "agents": {}, "other": 1})
    found = load(tmp_path / "cwd", home=tmp_path / "home")
    assert list(found.bottles["b"]["env"].items()) == [("A", "1"), ("B", "2"), ("C", "2")]
    assert list(found.agents) == ["x"]
    assert found.warnings == ("claude-bottle.json: unknown key 'other' is ignored",)


def test_no_manifest_is_an_error_that_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        manifest.manifest_load("/nowhere", str(tmp_path))
    assert caught.value.message == f"no claude-bottle.json found in /nowhere or {tmp_path}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{\n  "agents": }', "line 2, column 13"),
        ("", "line 1, column 1"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 007}', "line 1"),
        ("{} {}", "line 1, column 4"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_broken_json_is_named_with_its_place(tmp_path: Path, text: str, hint: str) -> None:
    write(tmp_path, text)
    with pytest.raises(BottleError) as caught:
        load(tmp_path)
    assert caught.value.message == f"claude-bottle.json at {tmp_path}/claude-bottle.json is not valid JSON"
    assert hint in caught.value.hints[0]


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_bytes(b'\xef\xbb\xbf{"agents": {"a": {}}}\r\n')
    assert list(load(tmp_path).agents) == ["a"]


def test_an_unknown_agent_gets_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, {"agents": {"implementer": {}, "other": {}}})
    with pytest.raises(BottleError) as caught:
        manifest.manifest_require_agent(load(tmp_path), "implementor")
    assert caught.value.message == "agent 'implementor' not found. Available agents: implementer, other"
    assert caught.value.hints == ("did you mean 'implementer'?",)


def test_all_problems_of_an_agent_come_in_one_go(tmp_path: Path) -> None:
    write(tmp_path, {"agents": {"a": {"skills": ["ok", None], "prompt": 3, "bottle": None}}})
    with pytest.raises(BottleError) as caught:
        manifest.manifest_require_agent(load(tmp_path), "a")
    assert caught.value.message == "agent 'a': skills must be an array of strings"
    assert caught.value.hints == ("also: agent 'a': prompt must be a string",)


def test_comment_keys_are_silent_and_unknown_keys_are_not(tmp_path: Path) -> None:
    write(tmp_path, {"$schema": "x", "//": "y", "agents": {"a": {"promt": "", "_why": 1}}})
    assert load(tmp_path).warnings == ("agent 'a': unknown key 'promt' is ignored (did you mean 'prompt'?)",)


def test_env_problems_never_show_a_value(tmp_path: Path) -> None:
    found = bottle(tmp_path, {"env": {"1BAD": SECRET, "NUMBER": 5, "OK": SECRET}})
    with pytest.raises(BottleError) as caught:
        env_resolve.env_check(found, "b")
    assert caught.value.message == "bottle 'b': invalid env name '1BAD'"
    assert caught.value.hints == ("also: bottle 'b': env value for 'NUMBER' must be a string",)
    assert SECRET not in repr(caught.value)


def test_values_are_literal_asked_for_or_the_hosts(tmp_path: Path) -> None:
    env = {"LIT": "a $b ${c} ", "ASK": "?your key", "HOST": "${VAR}", "HTTPS_PROXY": "${NONE}", "NEARLY": "${A}\n"}
    entries = env_resolve.env_entries(bottle(tmp_path, {"env": {**env, "NEARLY": "x${A}"}}), "b")
    secrets = env_resolve.env_resolve(entries, {"VAR": ""}, lambda name, question: f"{name}:{question}", plan.RESERVED)
    assert secrets.payload() == b"ASK=ASK:your key\0HOST=\0"
    assert env_resolve.env_file(entries, plan.RESERVED) == "LIT=a $b ${c} \nNEARLY=x${A}\n"
    assert "your key" not in repr(secrets)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"A": "${NOT_SET}"}, "host variable 'NOT_SET' (for 'A') is not set"),
        ({"A": "?"}, "no value entered for 'A'"),
    ],
)
def test_a_value_that_cannot_be_had_is_an_error(tmp_path: Path, env: dict[str, str], message: str) -> None:
    entries = env_resolve.env_entries(bottle(tmp_path, {"env": env}), "b")
    with pytest.raises(BottleError) as caught:
        env_resolve.env_resolve(entries, {}, lambda name, question: "", plan.RESERVED)
    assert caught.value.message == message


def test_a_literal_that_the_env_file_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        env_resolve.env_check(bottle(tmp_path, {"env": {"A": "x\ny", "B": "x\0y", "C": "?x\ny"}}), "b")
    assert caught.value.message == "env 'A': literal value contains a newline"
    assert caught.value.hints == ("also: env 'B': literal value contains a NUL",)


@pytest.mark.parametrize("host", ["example.org", "*.example.org", "Example.ORG.", "10.0.0.5", "xn--bcher-kva.test"])
def test_hosts_that_the_sidecar_matches_are_accepted(tmp_path: Path, host: str) -> None:
    found = bottle(tmp_path, {"egress": {"allowlist": [host]}})
    pipelock_hosts.pipelock_check_allowlist(found, "b")
    assert host in pipelock_hosts.allowed_hosts(found, "b", ())


@pytest.mark.parametrize(
    "host",
    [
        "http://x",
        "a b",
        "",
        "a:443",
        "*",
        "a.*.b",
        ".x",
        "b\u00fccher.test",
        "\u0430pi.test",
        'x"\n- "y',
        "10.0.0.0/8",
        "a?",
    ],
)
def test_hosts_that_it_would_never_match_are_refused(tmp_path: Path, host: str) -> None:
    found = bottle(tmp_path, {"egress": {"allowlist": ["ok.test", host]}})
    with pytest.raises(BottleError, match=r"bottle 'b': egress\.allowlist\[1\]: "):
        pipelock_hosts.pipelock_check_allowlist(found, "b")


def test_the_summary_counts_hosts_in_c_order(tmp_path: Path) -> None:
    hosts = pipelock_hosts.allowed_hosts(bottle(tmp_path, {"egress": {"allowlist": ["Z.test", "claude.ai"]}}), "b", ())
    summary = pipelock_hosts.pipelock_allowlist_summary(hosts)
    assert summary == "8 hosts allowed (Z.test, api.anthropic.com, claude.ai, +5 more)"


def test_missing_skills_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        skills.skills_check(str(tmp_path), ["../x", "gone"])
    assert caught.value.message == "invalid skill name '../x'"
    assert caught.value.hints == (f"also: skill 'gone' not found at {tmp_path}/.claude/skills/gone",)


def test_ssh_entries_need_their_fields(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        ssh.ssh_load(bottle(tmp_path, {"ssh": [{"Host": "h", "Port": 22}]}), "b")
    assert caught.value.message == "ssh entry for host 'h' missing required field 'IdentityFile'"
    assert len(caught.value.hints) == 2


@pytest.mark.parametrize(("name", "expected"), [("My Agent!", "my-agent"), ("--a--B__", "a-b"), ("\u00c4x", "x")])
def test_slugs_are_as_the_shells(name: str, expected: str) -> None:
    assert slug.agent_slug(name) == expected == slug.agent_slug(expected)


def test_a_name_without_usable_characters_has_no_slug() -> None:
    with pytest.raises(BottleError, match="agent name '---' has no usable characters"):
        slug.agent_slug("---")
