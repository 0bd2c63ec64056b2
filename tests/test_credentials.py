"""What a manifest may say of credentials and inspection, and what a plan makes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from claude_bottle.lib import env, log
from claude_bottle.lib.consent.summary import Grants
from claude_bottle.lib.egress import credential_values, pipelock_hosts
from claude_bottle.lib.egress.broker_config import model_hosts
from claude_bottle.lib.egress.credentials import (
    MODEL_HOST,
    MODEL_PATHS,
    TOKEN_PLACEHOLDER,
    Injection,
    model_injection,
    placeholder,
    shared_target,
)
from claude_bottle.lib.egress.inspection import Watched, plain, watched
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest
from claude_bottle.lib.problems import Gathered
from claude_bottle.lib.schema.manifest_parse import SshEntry
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.test_properties import host, steady, variable

ONE = {"value": "${A_TOKEN}", "hosts": ["api.example"]}
TOKEN = {"CLAUDE_BOTTLE_OAUTH_TOKEN": "a-token"}
SSH = SshEntry("forge", "id", "git.example.org", "git", "22", "")


def of(environ: dict[str, str] | None = None, **bottle: object) -> Manifest:
    return Manifest({"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b"}}})


def problems(environ: dict[str, str] | None = None, **bottle: object) -> list[str]:
    """Return all that is said of a bottle."""
    found, gathered, surroundings = of(**bottle), Gathered(), TOKEN if environ is None else environ
    with gathered:
        pipelock_hosts.pipelock_check_allowlist(found, "b")
    with gathered:
        credential_values.credentials_check(found, "b", env.read_settings(surroundings), surroundings)
    try:
        gathered.fail()
    except BottleError as problem:
        return [problem.message, *problem.hints]
    return []


def granted(environ: dict[str, str] | None = None, ssh: tuple[SshEntry, ...] = (), **bottle: object) -> Grants:
    surroundings = TOKEN if environ is None else environ
    assert problems(surroundings, **bottle) == []
    return Grants.of(of(**bottle), "a", ssh, env.read_settings(surroundings), surroundings)


def said(grants: Grants) -> list[str]:
    pieces: list[bytes] = []
    with log.held(pieces):
        grants.say_traffic()
    return b"".join(pieces).decode().splitlines()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"hosts": ["a.example"]}, ".value is missing"),
        ({"value": "?"}, ".hosts is missing"),
        ({**ONE, "value": "literal"}, '.value must be "${VARIABLE}", "?question" or {"command": [...]}'),
        ({**ONE, "value": "${A} "}, '.value must be "${VARIABLE}", "?question" or {"command": [...]}'),
        ({**ONE, "value": 5}, ".value must be a string or an object"),
        ({**ONE, "value": {}}, ".value.command is missing"),
        ({**ONE, "value": {"command": []}}, ".value.command must be an array of a program and its arguments"),
        ({**ONE, "value": {"command": "gh auth token"}}, ".value.command must be an array"),
        ({**ONE, "value": {"command": ["gh", "\0"]}}, ".value.command[1] must be text without a NUL"),
        ({**ONE, "hosts": []}, ".hosts must be an array of at least one host name"),
        ({**ONE, "hosts": ["*.a.example"]}, ".hosts[0]: '*.a.example' has a *; a credential goes to whole names only"),
        ({**ONE, "hosts": ["10.0.0.1"]}, ".hosts[0]: '10.0.0.1' is an address; a credential goes to names only"),
        ({**ONE, "hosts": ["API.example."]}, ".hosts[0]: 'API.example.' must be written as 'api.example'"),
        ({**ONE, "hosts": ["https://a"]}, ".hosts[0]: 'https://a' is a URL; write the host name alone"),
        ({**ONE, "hosts": ["u:p@a.example"]}, ".hosts[0]: has a user name in it; write the host name alone"),
        ({**ONE, "paths": []}, ".paths must be an array of at least one path, or left out for every path"),
        ({**ONE, "paths": ["a"]}, ".paths[0] must be a path that begins with /, with a * at most at its end"),
        ({**ONE, "paths": ["/a*b"]}, ".paths[0] must be a path that begins with /, with a * at most at its end"),
        ({**ONE, "paths": ["/a?b"]}, ".paths[0] must be a path that begins with /, with a * at most at its end"),
        ({**ONE, "scheme": "Bearer"}, '.scheme must be "bearer", "token" or "basic"'),
        ({**ONE, "header": "X Y"}, ".header must be the name of a header"),
        ({**ONE, "header": "Cookie"}, ": the header 'cookie' is not one that holds a credential"),
        ({**ONE, "header": "Authorization"}, ": leave header out for Authorization; scheme says which"),
        ({**ONE, "scheme": "bearer", "header": "X-Y"},
            " must be an object with scheme or header, not with both"),
        ({**ONE, "user": "u"}, " must be an object with a user only where its scheme is basic"),
        ({**ONE, "scheme": "basic", "user": "u:v"}, ".user must be a name without blanks or :"),
        ({**ONE, "value": "${PATH}"}, ": the host variable 'PATH' is what docker itself needs, and no credential"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line_with_its_place(wrong: dict[str, Any], line: str) -> None:
    message, where, *more = problems(credentials={"X": wrong})
    assert message == f"bottle 'b': credentials.X{line}"
    assert where.startswith("claude-bottle.json: $.bottles.b.credentials.X")
    assert "also: " not in " ".join(more)


@pytest.mark.parametrize(
    ("bottle", "line"),
    [
        ({"credentials": {"1X": ONE}}, 'credentials["1X"] must be letters, digits and _, no digit first'),
        ({"credentials": []}, "credentials must be an object"),
        ({"egress": {"dlp": "off"}}, 'egress.dlp must be "warn" or "block"'),
        ({"egress": {"inspect": "all"}}, 'egress.inspect must be "default", or an object of hosts with true or false'),
        ({"egress": {"inspect": {"a.example": "no"}}}, 'egress.inspect["a.example"] must be true or false'),
        ({"egress": {"inspect": {"a:22": True}}}, 'egress.inspect["a:22"] must be a host name, or *. and a host name'),
    ],
)
def test_so_is_what_is_wrong_beside_them(bottle: dict[str, Any], line: str) -> None:
    message, where = problems(**bottle)
    assert message == f"bottle 'b': {line}" and where.startswith("claude-bottle.json: $.bottles.b.")


def test_a_variable_is_in_env_or_in_credentials() -> None:
    assert problems(credentials={"X": ONE}, env={"X": "${X}"}) == [
        "bottle 'b': 'X' is in env and in credentials",
        "claude-bottle.json: $.bottles.b.credentials.X",
    ]
    assert problems(credentials={"https_proxy": ONE})[0].endswith("the variable is set by claude-bottle")


@pytest.mark.parametrize(
    ("one", "other", "target"),
    [
        ({}, {}, "api.example/*"),
        ({}, {"paths": ["/a"]}, "api.example/a"),
        ({"paths": ["/a*"]}, {"paths": ["/b", "/a/b*"]}, "api.example/a/b*"),
        ({"paths": ["/a*"]}, {"paths": ["/b*"]}, ""),
        ({"paths": ["/a"]}, {"paths": ["/a/"]}, ""),
        ({"header": "x-api-key"}, {"header": "X-Api-Key"}, "api.example/*"),
        ({"header": "x-api-key"}, {"scheme": "bearer"}, ""),
        ({"hosts": ["b.example", "c.example"]}, {"hosts": ["c.example"]}, "c.example/*"),
        ({"hosts": ["b.example"]}, {}, ""),
    ],
)
def test_two_credentials_for_one_host_and_path_are_an_error(
    one: dict[str, Any], other: dict[str, Any], target: str
) -> None:
    line = [f"bottle 'b': the credentials X and Y are both for {target}"] if target else []
    assert problems(credentials={"Y": {**ONE, **other}, "X": {**ONE, **one}})[:1] == line


def test_none_is_for_what_the_token_is_for() -> None:
    wrong = {**ONE, "hosts": [MODEL_HOST], "paths": ["/v1/*"]}
    assert problems(credentials={"X": wrong})[0] == (
        "bottle 'b': the credentials CLAUDE_CODE_OAUTH_TOKEN and X are both for api.anthropic.com/v1/messages"
    )
    assert problems({}, credentials={"X": wrong}) == []
    assert problems(credentials={"ANTHROPIC_API_KEY": {**wrong, "header": "x-api-key"}}) == []
    assert problems(credentials={"X": {**wrong, "paths": ["/v1/files*"]}}) == []


@settings(steady, max_examples=100)
@given(
    st.lists(variable | st.sampled_from(["GH_TOKEN", "GITHUB_TOKEN", "CLAUDE", "claude", "A_B", "a_b"]), unique=True)
)
@example(["X" * 40, "X" * 41, "X" * 42, "x" * 40])
@example(["CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE", "claude"])
def test_each_variable_has_a_placeholder_of_its_own(names: list[str]) -> None:
    made = [placeholder(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{10,70}", each) for each in made)


def test_a_placeholder_begins_as_clients_expect_it() -> None:
    begins = {"GITHUB_TOKEN": "ghp_", "GITLAB_TOKEN": "glpat-", "NPM_TOKEN": "npm_", "ANTHROPIC_API_KEY": "sk-ant-"}
    for name, begin in begins.items():
        assert re.fullmatch(f"{begin}[0-9a-f]{{6}}", placeholder(name))
    assert placeholder("MY_KEY") == "bottle-placeholder-my-key"
    assert placeholder("CLAUDE_CODE_OAUTH_TOKEN") == TOKEN_PLACEHOLDER == "bottle-placeholder-claude"


def test_a_credential_becomes_what_the_broker_needs() -> None:
    forge = {"value": "?", "hosts": ["b.example", "a.example"], "scheme": "basic", "user": "me", "paths": ["/x*"]}
    grants = granted(credentials={"GH_TOKEN": ONE, "FORGE": forge, "K": {**ONE, "header": "X-Api-Key"}, "NO": None})
    token, *own = grants.credentials
    assert token == Injection("CLAUDE_CODE_OAUTH_TOKEN", TOKEN_PLACEHOLDER, (MODEL_HOST,), MODEL_PATHS, scheme="bearer")
    assert own == [
        Injection("GH_TOKEN", placeholder("GH_TOKEN"), ("api.example",)),
        Injection("FORGE", "bottle-placeholder-forge", ("b.example", "a.example"), ("/x*",), scheme="basic", user="me"),
        Injection("K", "bottle-placeholder-k", ("api.example",), header="x-api-key"),
    ]
    assert grants.brokered == ("a.example", MODEL_HOST, "api.example", "b.example")
    assert {"a.example", "b.example", "api.example"} <= {*grants.hosts}
    assert grants.env_names == ("GH_TOKEN", "FORGE", "K", "CLAUDE_CODE_OAUTH_TOKEN")
    assert [one.host for one in grants.watched] == list(grants.hosts) == sorted(grants.hosts)


def test_without_a_token_nothing_is_brokered() -> None:
    grants = granted({})
    assert (grants.credentials, grants.brokered, grants.token_goes) == ((), (), "")


def test_the_old_way_is_told_in_capitals() -> None:
    grants = granted({**TOKEN, "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE": "1"})
    assert (grants.credentials, grants.token_goes) == ((), "bottle")
    assert said(grants)[0] == (
        "claude-bottle: credentials      : CLAUDE_CODE_OAUTH_TOKEN  IN THE BOTTLE (CLAUDE_BOTTLE_TOKEN_IN_BOTTLE=1)"
    )


def test_a_manifests_own_credential_takes_the_tokens_place() -> None:
    own = {"value": {"command": ["x"]}, "hosts": [MODEL_HOST]}
    for environ in (TOKEN, {**TOKEN, "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE": "1"}, {}):
        grants = granted(environ, credentials={"CLAUDE_CODE_OAUTH_TOKEN": own})
        assert grants.credentials == (Injection("CLAUDE_CODE_OAUTH_TOKEN", TOKEN_PLACEHOLDER, (MODEL_HOST,)),)
        assert (grants.token_goes, grants.exposed, grants.env_names) == ("", (), ("CLAUDE_CODE_OAUTH_TOKEN",))


@pytest.mark.parametrize(
    ("url", "hosts", "first"),
    [
        ("https://gw.example", "gw.example", "/v1/messages"),
        ("https://GW.example:443/", "gw.example", "/v1/messages"),
        ("https://gw.example/team/one/", "gw.example", "/team/one/v1/messages"),
        ("", MODEL_HOST, "/v1/messages"),
    ],
)
def test_the_token_goes_where_the_manifest_has_the_model(url: str, hosts: str, first: str) -> None:
    injected = model_injection(url)
    assert injected and (injected.hosts, injected.paths[0], len(injected.paths)) == ((hosts,), first, 4)
    assert granted(env={"ANTHROPIC_BASE_URL": url}).credentials == (injected,)
    assert granted({**TOKEN, "U": url}, env={"ANTHROPIC_BASE_URL": "${U}"}).credentials == (injected,)
    assert model_hosts([injected]) == {MODEL_HOST, hosts}


BAD_URLS = (
    "http://gw.example",
    "https://gw.example:8443",
    "https://10.0.0.1",
    "https://u@gw.example",
    "gw",
    "https://a b",
)


@pytest.mark.parametrize(
    "url", [*BAD_URLS, "gw", "?", "https://gw.example/?x", "https://gw.example/a//b", "https://a.b/\n"]
)
def test_a_place_where_no_token_can_be_put_in_is_an_error(url: str) -> None:
    wrong = {"env": {"ANTHROPIC_BASE_URL": url}}
    line, at, fix = problems(**wrong)
    assert line == "bottle 'b': env 'ANTHROPIC_BASE_URL' must be https://, a host's name and at most a path"
    assert at == "claude-bottle.json: $.bottles.b.env.ANTHROPIC_BASE_URL" and "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE=1" in fix
    assert problems({}, **wrong) == problems({**TOKEN, "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE": "1"}, **wrong) == []
    assert problems(env={**wrong["env"], "ANTHROPIC_AUTH_TOKEN": "?"}) == []
    assert problems(env={**wrong["env"], "CLAUDE_CODE_OAUTH_TOKEN": "x"})[0] == line


def seen(hosts: Sequence[str], ssh: Sequence[str] = (), **wishes: bool) -> dict[str, str]:
    """Return the hosts that are passed through, and why."""
    found = watched(hosts, ssh, {name.replace("__", "."): wish for name, wish in wishes.items()})
    assert all(one.inspected != bool(one.reason) for one in found)
    return {one.host: one.reason for one in found if not one.inspected}


def test_apis_are_inspected_and_what_carries_much_is_passed_through() -> None:
    apis = [
        "api.anthropic.com",
        "api.github.com",
        "api.openai.com",
        "gitlabber.example",
        "10.0.0.5",
        "nas",
        "*.a.example",
    ]
    assert seen(apis) == {}
    passed = {
        "github.com": "git",
        "GitHub.com.": "git",
        "gitlab.example.org": "git",
        "registry.npmjs.org": "packages",
        "files.pythonhosted.org": "packages",
        "index.crates.io": "packages",
        "objects.githubusercontent.com": "files",
        "bucket.s3.eu-central-1.amazonaws.com": "files",
        "wss.example": "websocket",
        "*.github.com": "git",
        "*.s3.amazonaws.com": "files",
    }
    assert seen([*passed]) == passed


def test_ssh_hosts_are_passed_through_whatever_is_wished() -> None:
    assert seen(["forge.example", "a.example"], ["Forge.example"], forge__example=True) == {"forge.example": "ssh"}


def test_the_manifests_word_counts_for_one_host() -> None:
    hosts = ["api.example", "github.com", "a.b.example"]
    assert seen(hosts, api__example=False, github__com=True) == {"api.example": "manifest"}


def test_what_lies_below_a_wildcard_that_is_passed_through_is_not_called_inspected() -> None:
    found = watched(["*.b.example", "a.b.example", "b.example", "c.example"], [], {"*.b.example": False})
    assert [(one.inspected, one.reason) for one in found] == [
        (False, "manifest"),
        (False, "*.b.example"),
        (False, "*.b.example"),
        (True, ""),
    ]


some_hosts = st.lists(host.map(str.lower) | st.sampled_from(["github.com", "a.x.test", "*.github.com"]), unique=True)


@settings(steady, max_examples=200)
@given(some_hosts, st.data())
def test_nothing_is_called_inspected_that_is_not(hosts: list[str], data: st.DataObject) -> None:
    wishes = data.draw(st.dictionaries(st.sampled_from(hosts), st.booleans())) if hosts else {}
    ssh = data.draw(st.lists(st.sampled_from(hosts), max_size=2)) if hosts else []
    found = watched(hosts, ssh, wishes)
    assert [one.host for one in found] == hosts
    passed = [one.host for one in found if not one.inspected]
    for one in found:
        covers = [each for each in passed if each.startswith("*.") and f".{one.host}".endswith(each[1:])]
        if one.inspected:
            assert one.host not in ssh and wishes.get(one.host, True) and not covers


def test_the_plan_tells_what_becomes_of_everything() -> None:
    github = {"value": "${GITHUB_TOKEN}", "hosts": ["api.github.com", "github.com"]}
    npm = {"value": {"command": ["pass", "show", "npm"]}, "hosts": ["registry.npmjs.org"], "paths": ["/-/*"]}
    grants = granted(
        ssh=(SSH,),
        credentials={"GITHUB_TOKEN": github, "NPM_TOKEN": npm},
        env={"AWS_SECRET_ACCESS_KEY": "${KEY}", "ASKED": "?", "EDITOR": "vi", "NO_PROXY": "${X}"},
        egress={"inspect": {"sentry.io": False}},
    )
    assert [line.removeprefix("claude-bottle: ") for line in said(grants)] == [
        "credentials      : CLAUDE_CODE_OAUTH_TOKEN  never enters the bottle; api.anthropic.com, 4 paths",
        "                 : GITHUB_TOKEN             never enters the bottle; api.github.com, github.com, any path",
        "                 : NPM_TOKEN                never enters the bottle; registry.npmjs.org, /-/*; said by the "
        "command: pass show npm",
        "                 : AWS_SECRET_ACCESS_KEY    IN THE BOTTLE (env)",
        "                 : ASKED                    IN THE BOTTLE (env)",
        "inspection       : api.anthropic.com          inspected, findings logged  broker",
        "                 : api.github.com             inspected, findings logged  broker",
        "                 : claude.ai                  inspected, findings logged",
        "                 : downloads.claude.ai        NOT inspected (files)",
        "                 : git.example.org            NOT inspected (ssh)",
        "                 : github.com                 NOT inspected (git)         broker",
        "                 : platform.claude.com        inspected, findings logged",
        "                 : raw.githubusercontent.com  NOT inspected (files)",
        "                 : registry.npmjs.org         NOT inspected (packages)    broker",
        "                 : sentry.io                  NOT inspected (manifest)",
        "                 : statsig.anthropic.com      inspected, findings logged",
    ]


def test_block_is_told_where_it_holds() -> None:
    grants = granted({}, egress={"dlp": "block"})
    assert grants.dlp == "block"
    lines = said(grants)
    assert lines[0] == "claude-bottle: credentials      : (none)"
    assert sum("inspected, findings refused" in line for line in lines) == sum(one.inspected for one in grants.watched)


def test_words_about_inspection_that_are_not_kept_are_warned_of() -> None:
    wishes = {"a.example": True, "sentry.oi": False, "git.example.org": True, "*.b.example": False, "x.b.example": True}
    listed = ["A.example", "*.b.example", "x.b.example"]
    grants = granted(ssh=(SSH,), egress={"inspect": wishes, "allowlist": listed})
    assert list(grants.inspect_warnings()) == [
        "bottle 'b': egress.inspect names 'sentry.oi': it is not among the allowed hosts; did you mean 'sentry.io'?",
        "bottle 'b': 'git.example.org' cannot be inspected (ssh)",
        "bottle 'b': 'x.b.example' cannot be inspected (*.b.example)",
    ]


def test_what_block_costs_at_the_model_is_warned_of() -> None:
    (warned,) = granted(egress={"dlp": "block"}).inspect_warnings()
    assert warned == (
        "bottle 'b': egress.dlp is block: a picture in a conversation is refused at each turn, "
        "unless egress.inspect passes api.anthropic.com"
    )
    assert not [*granted(egress={"dlp": "block", "inspect": {"api.anthropic.com": False}}).inspect_warnings()]
    assert not [*granted(egress={"dlp": "warn"}).inspect_warnings()]


def test_what_block_costs_is_warned_of_where_the_model_has_moved_to() -> None:
    entry = {"ANTHROPIC_BASE_URL": "https://gw.example/x"}
    warned = [*granted(env=entry, egress={"dlp": "block", "inspect": {"api.anthropic.com": False}}).inspect_warnings()]
    assert [line.rpartition(" passes ")[2] for line in warned] == ["gw.example"]


def test_hosts_are_compared_in_one_form() -> None:
    assert plain("A.Example.") == "a.example"
    assert watched(["A.Example."], [], {"a.example": False}) == (Watched("A.Example.", False, "manifest"),)
    assert shared_target(Injection("A", "a", ("x",)), Injection("B", "b", ("y",))) == ""
