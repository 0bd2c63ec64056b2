"""The manifest as a user writes it: what the launcher says of it, in the shell's words."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from claude_bottle.lib import env_resolve, manifest, plan, skills, slug, ssh
from claude_bottle.lib.egress import pipelock_hosts
from claude_bottle.lib.errors import BottleError

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker

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
    assert [(entry.name, entry.text) for entry in found.bottles["b"].env] == [("A", "1"), ("B", "2"), ("C", "2")]
    assert list(found.agents) == ["x"]
    place = f"{tmp_path}/cwd/claude-bottle.json: $.other"
    assert found.warnings == (f"claude-bottle.json: unknown key 'other' is ignored ({place})",)


def test_no_manifest_is_an_error_that_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        manifest.manifest_load("/nowhere", str(tmp_path))
    assert caught.value.message == f"no claude-bottle.json found in /nowhere or {tmp_path}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{\n  "agents": }', "line 2, column 13"),
        ("", "line 1, column 1"),
        ('{"NaN": 1,\n "a": NaN}', "line 2, column 7: NaN is not a JSON number"),
        ('{"a": -Infinity}', "line 1, column 7: -Infinity"),
        ('{"a": 007}', "line 1, column 8"),
        ('{"a": .5}', "line 1, column 7: a value is expected"),
        ("{} {}", "line 1, column 4: the end of the file is expected"),
        ('{"a": 1,\r\n "b": "x\ty"}', "line 2, column 9: a control character in a string"),
        ('{"a": "\\x"}', "line 1, column 8: no such escape"),
        ('{"a": "x}', "line 1, column 7: a string without an end"),
        ("[" * 100_000, "line 1, column 257: nested deeper than 256 levels"),
        ('{"[": [\n' + "[" * 255 + "]" * 256 + "}", "line 2, column 255: nested deeper"),
    ],
)
def test_broken_json_is_named_with_its_place(tmp_path: Path, text: str, hint: str) -> None:
    write(tmp_path, text)
    with pytest.raises(BottleError) as caught:
        load(tmp_path)
    assert caught.value.message == f"claude-bottle.json at {tmp_path}/claude-bottle.json is not valid JSON"
    assert caught.value.hints[0].startswith(hint)


def test_bytes_that_are_not_utf8_are_named_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_bytes('{\r\n "a": "\u00e9'.encode() + b'\xe9"}')
    with pytest.raises(BottleError, match="is not valid JSON") as caught:
        load(tmp_path)
    assert caught.value.hints == ("line 2, column 9: a byte that is not UTF-8",)


def test_both_broken_files_are_named_the_working_folders_first(tmp_path: Path) -> None:
    write(tmp_path / "cwd", "[]")
    write(tmp_path / "home", "{")
    with pytest.raises(BottleError) as caught:
        load(tmp_path / "cwd", home=tmp_path / "home")
    assert caught.value.message == f"claude-bottle.json at {tmp_path}/cwd/claude-bottle.json must be a JSON object"
    assert caught.value.hints[0] == f"also: claude-bottle.json at {tmp_path}/home/claude-bottle.json is not valid JSON"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "{} is a folder, not a manifest"),
        (lambda path: path.symlink_to("gone"), "{} is a link to a file that does not exist"),
        (lambda path: path.symlink_to(path.name), "cannot read {}"),
        (os.mkfifo, "{} is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "{} is no regular file"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 34), "{} is larger than 16 MiB"),
    ],
)
def test_what_is_no_manifest_file_is_said_and_not_read(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "claude-bottle.json")
    with pytest.raises(BottleError) as caught:
        load(tmp_path)
    assert caught.value.message == said.format(tmp_path / "claude-bottle.json")


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {})

    def refuse(*words: object) -> None:  # root, who may run the tests, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BottleError) as caught:
        load(tmp_path)
    assert caught.value.message == f"cannot read {tmp_path}/claude-bottle.json"
    assert caught.value.hints == ("Permission denied",)


def test_numbers_beyond_any_machine_are_only_numbers(tmp_path: Path) -> None:
    write(tmp_path, '{"_a": 1e400, "_b": -' + "9" * 10_000 + ', "agents": {"a": {"prompt": 1e400}}}')
    with pytest.raises(BottleError, match="agent 'a': prompt must be a string"):
        manifest.manifest_require_agent(load(tmp_path), "a")


def test_half_of_a_character_is_refused_where_it_is_used(tmp_path: Path) -> None:
    write(tmp_path, '{"bottles": {"b": {"env": {"A": "\\ud800"}}, "c": {}}, "agents": {}}')
    found = load(tmp_path)
    env_resolve.env_check(found, "c")
    with pytest.raises(BottleError, match=r"bottle 'b': env\.A must be text of whole characters"):
        env_resolve.env_check(found, "b")


def test_the_last_of_two_equal_keys_counts_and_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path, '{"agents": {"a": {"prompt": "x", "bottle": "b", "prompt": "y"}}}')
    found = load(tmp_path)
    assert manifest.manifest_agent_prompt(found, "a") == "y"
    what = "an object has the key 'prompt' twice; the last one counts"
    assert found.warnings == (f"claude-bottle.json at {tmp_path}/claude-bottle.json: {what}",)


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
    file = f"{tmp_path}/claude-bottle.json"
    assert caught.value.hints == (
        f"{file}: $.agents.a.skills[1]: null; allowed: a string",
        "also: agent 'a': prompt must be a string",
        f"{file}: $.agents.a.prompt: a number; allowed: a string",
    )


def test_comment_keys_are_silent_and_unknown_keys_are_not(tmp_path: Path) -> None:
    write(tmp_path, {"$schema": "x", "//": "y", "agents": {"a": {"promt": "", "_why": 1}}})
    place = f"{tmp_path}/claude-bottle.json: $.agents.a.promt"
    assert load(tmp_path).warnings == (f"agent 'a': unknown key 'promt' is ignored ({place}; did you mean 'prompt'?)",)


def test_keys_that_begin_like_comments_are_names_where_names_are_free(tmp_path: Path) -> None:
    found = bottle(tmp_path, {"env": {"_A": "1", "//": "2"}})
    assert manifest.manifest_env_names(found, "b") == ("_A", "//")
    with pytest.raises(BottleError, match="bottle 'b': invalid env name '//'"):
        env_resolve.env_check(found, "b")


def test_wrong_types_elsewhere_are_warnings(tmp_path: Path) -> None:
    write(tmp_path, {"agents": {"a": {}, "b": 5}, "bottles": {"c": {"ssh": [{"Host": "h", "HostName": "x"}]}}})
    found = load(tmp_path)
    manifest.manifest_require_agent(found, "a")
    unknown, wrong, *missing = found.warnings
    file = f"{tmp_path}/claude-bottle.json"
    assert "ssh[0]: unknown key 'HostName' is ignored" in unknown and "did you mean 'Hostname'?" in unknown
    lacks = f"{file}: $.bottles.c.ssh[0].IdentityFile: missing; allowed: a string"
    assert wrong == f"bottle 'c': ssh[0].IdentityFile is missing ({lacks})"
    assert missing[-1] == f"agent 'b' must be an object ({file}: $.agents.b: a number; allowed: an object)"


def test_a_problem_is_looked_for_in_the_file_that_says_it(tmp_path: Path) -> None:
    write(tmp_path / "home", {"agents": {"a": {"prompt": 1, "bottle": 2}}})
    write(tmp_path / "cwd", {"agents": {"a": {"bottle": 3}}})
    with pytest.raises(BottleError) as caught:
        manifest.manifest_require_agent(load(tmp_path / "cwd", home=tmp_path / "home"), "a")
    assert [hint.split(": ")[0] for hint in caught.value.hints if "$" in hint] == [
        f"{tmp_path}/home/claude-bottle.json",
        f"{tmp_path}/cwd/claude-bottle.json",
    ]


def test_a_password_in_a_host_is_not_shown(tmp_path: Path) -> None:
    found = bottle(tmp_path, {"egress": {"allowlist": [f"https://me:{SECRET}@x"]}})
    with pytest.raises(BottleError, match="has a user name in it") as caught:
        pipelock_hosts.pipelock_check_allowlist(found, "b")
    assert SECRET not in repr((caught.value, caught.value.hints, found.warnings))


def test_env_problems_never_show_a_value(tmp_path: Path) -> None:
    found = bottle(tmp_path, {"env": {"1BAD": SECRET, "NUMBER": 5, "OK": SECRET}})
    with pytest.raises(BottleError) as caught:
        env_resolve.env_check(found, "b")
    assert caught.value.message == "bottle 'b': invalid env name '1BAD'"
    assert "also: bottle 'b': env value for 'NUMBER' must be a string" in caught.value.hints
    assert SECRET not in repr((caught.value, caught.value.hints, found.warnings))


def test_values_are_literal_asked_for_or_the_hosts(tmp_path: Path) -> None:
    env = {"LIT": "a $b ${c} ", "ASK": "?your key", "HOST": "${VAR}", "HTTPS_PROXY": "${NONE}", "NEARLY": "${A}\n"}
    entries = env_resolve.env_entries(bottle(tmp_path, {"env": {**env, "NEARLY": "x${A}"}}), "b")
    secrets = env_resolve.env_resolve(entries, {"VAR": ""}, lambda name, question: f"{name}:{question}", plan.RESERVED)
    assert secrets.payload() == b"LIT=a $b ${c} \0ASK=ASK:your key\0HOST=\0NEARLY=x${A}\0"
    assert env_resolve.env_file(entries, plan.RESERVED) == "LIT=a $b ${c} \nNEARLY=x${A}\n"
    assert "your key" not in repr(secrets)


def check_values(found: manifest.Manifest, environ: dict[str, str] | None, has_terminal: bool = True) -> list[str]:
    """Return the lines of all values that cannot be had."""
    try:
        env_resolve.env_check_values(found, "b", plan.RESERVED, environ, has_terminal)
    except BottleError as problem:
        assert SECRET not in repr(problem.hints)
        return [problem.message, *(hint for hint in problem.hints if "$.bottles.b.env." not in hint)]
    return []


def test_all_values_that_cannot_be_had_are_named_in_order(tmp_path: Path) -> None:
    env = {"ASK": "?", "A": "${TOKN}", "B": f"{SECRET}\n", "HTTPS_PROXY": "${NONE}", "OK": "${TOKEN}"}
    found = bottle(tmp_path, {"env": env})
    host, literal = "host variable 'TOKN' (for 'A') is not set", "env 'B': literal value contains a newline"
    assert check_values(found, {"TOKEN": ""}) == [host, "did you mean 'TOKEN'?", f"also: {literal}"]
    assert check_values(found, {"TOKEN": ""}, has_terminal=False)[:2] == [
        "cannot prompt for 'ASK': no terminal",
        f"also: {host}",
    ]
    assert check_values(found, None) == [literal]


def warned(found: manifest.Manifest) -> list[str]:
    return [line.split("env '")[1].split("'")[0] for line in env_resolve.env_warnings(found, "b")]


def test_only_what_reads_as_if_it_were_expanded_gets_a_hint(tmp_path: Path) -> None:
    env = {"PATH": "$PATH:/x", "A": "x${HOME}", "B": "$HOME", "C": f"{SECRET}$x"}
    plain = {"D": "${HOME}", "E": "?what is $HOME", "F": "~/x", "G": "5$", "H": "$5", "I": "$(id)", "J": "a$"}
    found = bottle(tmp_path, {"env": {**env, **plain}})
    assert warned(found) == list(env)
    assert SECRET not in repr(env_resolve.env_warnings(found, "b"))


LOGINS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK")


@pytest.mark.parametrize("name", LOGINS)
def test_a_manifest_that_has_a_login_gets_no_warning_of_one(tmp_path: Path, name: str) -> None:
    def login(value: str) -> bool:
        return env_resolve.env_has_login(
            env_resolve.env_entries(bottle(tmp_path, {"env": {name: value}}), "b"), environ
        )

    environ = {"SET": "1", "EMPTY": ""}
    assert [login(value) for value in ("1", "?", "${SET}", "${EMPTY}", "")] == [True, True, True, False, False]


@pytest.mark.parametrize(("value", "asks"), [("${KEY}", False), ("", True)])
def test_the_warning_of_a_login_is_given_when_one_is_asked_for(tmp_path: Path, value: str, asks: bool) -> None:
    write(tmp_path, {"bottles": {"b": {"env": {"ANTHROPIC_API_KEY": value}}}, "agents": {"a": {"bottle": "b"}}})
    fake = FakeDocker(tmp_path / "engine")
    done = subprocess.run(
        [ROOT / "cli.sh", "start", "--dry-run", "a"],
        cwd=tmp_path,
        env={"PATH": fake.path(), "HOME": str(tmp_path), "KEY": SECRET, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and ("will ask for a login" in done.stderr) == asks


def test_git_commits_with_the_variables_of_the_sample(tmp_path: Path) -> None:
    sample = json.loads((ROOT / "claude-bottle.json").read_text())
    env = {**sample["bottles"]["default"]["env"], "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    env |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "1"}  # as in a bottle, git may not guess a name
    env |= {"GIT_CONFIG_KEY_0": "user.useConfigOnly", "GIT_CONFIG_VALUE_0": "true"}
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        done = subprocess.run(["git", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_an_empty_answer_is_no_secret(tmp_path: Path) -> None:
    entries = env_resolve.env_entries(bottle(tmp_path, {"env": {"A": "?"}}), "b")
    with pytest.raises(BottleError, match="no value entered for 'A'"):
        env_resolve.env_resolve(entries, {}, lambda name, question: "", plan.RESERVED)


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
        "167772165",
        "0x0a000005",
        "012.0.0.5",
        "10.77.5",
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


def test_texts_with_a_nul_arrive_or_are_refused(tmp_path: Path) -> None:
    agent = {"bottle": "b\0", "prompt": "p\0\n"}
    write(tmp_path, {"bottles": {"b\0": {"env": {"A": "x\0"}}}, "agents": {"a\0": agent}})
    found = load(tmp_path)
    assert manifest.manifest_agent_prompt(found, "a\0") == "p\0\n"
    manifest.manifest_require_bottle(found, "a\0", manifest.manifest_agent_bottle(found, "a\0"))
    with pytest.raises(BottleError, match="literal value contains a NUL"):
        env_resolve.env_check_values(found, "b\0", frozenset(), {}, False)
    with pytest.raises(BottleError, match="invalid skill name"):
        skills.skills_check(str(tmp_path), ["a\0b"])


def test_ssh_entries_need_their_fields(tmp_path: Path) -> None:
    with pytest.raises(BottleError) as caught:
        ssh.ssh_load(bottle(tmp_path, {"ssh": [{"Host": "h", "Port": 22}]}), "b")
    assert caught.value.message == "ssh entry for host 'h' missing required field 'IdentityFile'"
    assert caught.value.hints == (
        f"{tmp_path}/claude-bottle.json: $.bottles.b.ssh[0]",
        "also: ssh entry for host 'h' missing required field 'Hostname'",
        "also: ssh entry for host 'h' missing required field 'User'",
    )


@pytest.mark.parametrize(("name", "expected"), [("My Agent!", "my-agent"), ("--a--B__", "a-b"), ("\u00c4x", "x")])
def test_slugs_are_as_the_shells(name: str, expected: str) -> None:
    assert slug.agent_slug(name) == expected == slug.agent_slug(expected)


def test_a_name_without_usable_characters_has_no_slug() -> None:
    with pytest.raises(BottleError, match="agent name '---' has no usable characters"):
        slug.agent_slug("---")


def test_problems_of_all_parts_come_in_one_go_the_shells_first(tmp_path: Path) -> None:
    forge = {"Host": "forge", "IdentityFile": "gone", "Hostname": "a b", "User": "git", "Port": 22}
    part = {
        "evn": {},
        "ssh": [forge, {"Host": "two"}],
        "egress": {"allowlist": ["a b"]},
        "env": {"A": None, "B": f"{SECRET}\n", "C": "${NOT_SET}"},
    }
    agents = {"a": {"skills": ["gone"], "bottle": "b"}, "other": {"prompt": 5}}
    write(tmp_path, {"bottles": {"b": part}, "agents": agents})
    fake = FakeDocker(tmp_path / "engine")
    done = subprocess.run(
        [ROOT / "cli.sh", "start", "a"],
        cwd=tmp_path,
        env={"PATH": fake.path(), "HOME": str(tmp_path / "home"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, *hints = done.stderr.splitlines()
    assert first == f"claude-bottle: error: skill 'gone' not found at {tmp_path}/home/.claude/skills/gone"
    assert [hint.removeprefix("claude-bottle: hint: also: ") for hint in hints if "also: " in hint] == [
        "ssh entry for host 'two' missing required field 'IdentityFile'",
        "ssh entry for host 'two' missing required field 'Hostname'",
        "ssh entry for host 'two' missing required field 'User'",
        "ssh entry for host 'two' missing required field 'Port'",
        f"ssh key file not found for host 'forge': {tmp_path}/gone",
        "bottle 'b': env value for 'A' must be a string",
        "env 'B': literal value contains a newline",
        "host variable 'NOT_SET' (for 'C') is not set",
        "bottle 'b': ssh[0].Hostname must be a host name or an IPv4 address",
        "bottle 'b': egress.allowlist[0]: 'a b' is not a host name",
    ]
    assert "unknown key 'evn' is ignored" in hints[-1] and "did you mean 'env'?" in hints[-1]
    assert SECRET not in done.stderr
    assert "'other'" not in done.stderr
    assert done.returncode == 1 and fake.containers() == [] and fake.networks() == []


@pytest.mark.parametrize("page", ["docs/manifest.md", "README.md"])
def test_the_pages_examples_are_accepted(tmp_path: Path, page: str) -> None:
    lines = (ROOT / page).read_text().split("\n    {\n")[1].split("\n    }\n")[0]
    write(tmp_path, "{" + lines + "}")
    found = load(tmp_path)
    assert found.warnings == ()
    assert list(found.agents) == ["implementer"] and list(found.bottles) == ["default"]
