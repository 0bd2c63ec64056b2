"""On generated input: the port agrees with the schema, with jq, and with the shell side's own functions."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import os
import string
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from claude_bottle.lib import env_resolve, limits, manifest, plan, slug, ssh
from claude_bottle.lib.egress import pipelock_hosts
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host.calls import Begun, Work
from claude_bottle.lib.problems import fail_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.conftest import ROOT

# The same inputs in every run: a red run is about the change, not about luck.
steady = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
T = TypeVar("T")
SCHEMA = json.loads((ROOT / "lib" / "schema" / "claude-bottle.schema.json").read_bytes())
SHELL = "set -euo pipefail; CB_CWD=$PWD; for part in lib/*.sh; do source $part; done\n"

# Bash cannot hold a NUL, so no text has one. Lone surrogates, which jq refuses, are not in st.characters(codec=...).
characters = st.characters(codec="utf-8", exclude_characters="\0")
text = st.text(characters, max_size=12)
line = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=20)
variable = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


def shell(script: str, data: bytes = b"", *words: str) -> list[str]:
    """Return what a script says on the shell side's functions, split at its NULs."""
    done = subprocess.run(
        ["bash", "-c", SHELL + script, "bash", *words],
        cwd=ROOT / "fixtures" / "shell",
        input=data,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        timeout=60,
        check=True,
    )
    return done.stdout.decode().split("\0")[:-1]


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """Return that many inputs, for one process that looks at all of them."""
    found: list[T] = []

    @settings(steady, max_examples=count)
    @given(strategy)
    def keep(value: T) -> None:
        found.append(value)

    keep()
    return found


def of(value: object) -> manifest.Manifest:
    """Return the manifest that a file with this value makes."""
    with TemporaryDirectory() as folder:
        Path(folder, manifest.FILE_NAME).write_text(json.dumps(value))
        return manifest.manifest_load(folder, folder)


def port_slug(name: str) -> str:
    try:
        return slug.agent_slug(name)
    except BottleError:
        return ""


def test_slugs_are_the_shells() -> None:
    names = drawn(text | st.text(string.ascii_letters + "-_. 0", max_size=12), 200)
    script = "while IFS= read -r -d '' name; do (agent_slug \"$name\") 2>/dev/null || :; printf '\\0'; done"
    assert shell(script, "".join(name + "\0" for name in names).encode()) == [port_slug(name) for name in names]


keys = st.sampled_from("abc") | text
# Beyond 2**53 jq rounds, which is its own affair.
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
objects = st.dictionaries(keys, values, max_size=5)


def test_merging_is_jqs_multiplication() -> None:
    pairs = drawn(st.tuples(objects, objects), 150)
    done = subprocess.run(
        ["jq", "-c", ".[] | .[0] * .[1]"], input=json.dumps(pairs), capture_output=True, text=True, check=True
    )
    ours = [json.dumps(manifest.merge(home, cwd)) for home, cwd in pairs]
    # Split at newlines only: jq does not escape other line ends in texts. As text, since the order of keys counts.
    assert [json.dumps(json.loads(merged)) for merged in done.stdout.split("\n")[:-1]] == ours


odd = st.sampled_from(
    ["", " ", "a b", "'", '"', "\\", "$HOME", "`id`", "${A}x", " ${A}", "${A B}", "#", "=", "\r", "!"]
)
literal = (odd | line).filter(lambda value: not value.startswith("?") and value != "${A}")


def test_the_env_file_is_the_shells() -> None:
    env = dict(drawn(st.tuples(variable, literal), 300))
    document = {"bottles": {"b": {"env": env}}}
    entries = env_resolve.env_entries(of(document), "b")
    script = 'CB_MANIFEST="$(cat)"; env_resolve b "$1"; cat "$1/agent.env"; printf "\\0"'
    with TemporaryDirectory() as stage:
        (theirs,) = shell(script, json.dumps(document).encode(), stage)
    assert env_resolve.env_file(entries, frozenset()) == theirs


def test_prompt_lines_are_the_shells() -> None:
    prompts = drawn(st.text(characters | st.sampled_from("\n\r"), max_size=30), 30)
    agents = {f"a{index}": {"prompt": prompt} for index, prompt in enumerate(prompts)}
    script = 'CB_MANIFEST="$(cat)"; for name; do manifest_prompt_summary "$name"; printf "\\0"; done'
    assert shell(script, json.dumps({"agents": agents}).encode(), *agents) == [
        manifest.manifest_prompt_summary(prompt) for prompt in prompts
    ]


host = st.sampled_from([*pipelock_hosts.DEFAULT_HOSTS[:2], "Z.test", "_a", "10.0.0.1", "*.x.test"]) | st.from_regex(
    r"[A-Za-z0-9_][A-Za-z0-9_-]{0,5}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True
)


def test_egress_lines_are_the_shells() -> None:
    allowlists = drawn(st.lists(host, max_size=6), 30)
    bottles = {f"b{index}": {"egress": {"allowlist": hosts}} for index, hosts in enumerate(allowlists)}
    found = of({"bottles": bottles})
    script = 'CB_MANIFEST="$(cat)"; for name; do pipelock_allowlist_summary "$name"; printf "\\0"; done'
    theirs = shell(script, json.dumps({"bottles": bottles}).encode(), *bottles)
    ours = (pipelock_hosts.allowed_hosts(found, name, ()) for name in bottles)
    assert theirs == [pipelock_hosts.pipelock_allowlist_summary(hosts) + "\n" for hosts in ours]


def mostly(right: st.SearchStrategy[Any], *wrong: Any) -> st.SearchStrategy[Any]:
    """Return a strategy that is wrong about one time in ten, so that whole manifests are right often enough."""
    return st.integers(0, 9).flatmap(lambda n: right if n else st.sampled_from([None, True, 3, "x", [], {}, *wrong]))


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for objects that may lack any key, and may have a comment or an unknown one."""
    more = {"//": st.just("why"), "unknown": st.just([3])}
    return st.fixed_dictionaries({}, optional={**fields, **more})


names = st.sampled_from(["a", "b"])
FORMS = ("a b", "", "http://x", "x\n", "a:22", "*.x.test", "\u00e9.test", "..", "70000", "0", "022", 22.5, -1)
SSH = {
    "Host": mostly(st.just("forge"), *FORMS),
    "IdentityFile": mostly(st.just("key"), "gone", *FORMS),
    "Hostname": mostly(host.filter(lambda name: "*" not in name), *FORMS),
    "User": mostly(st.just("git"), *FORMS),
    "Port": mostly(st.sampled_from([22, "22"]), *FORMS),
}
ssh_entry = st.fixed_dictionaries(SSH, optional={"KnownHostKey": mostly(st.just("ssh-ed25519 AAAA"), *FORMS)})
value = st.sampled_from(["${A}", "?", "?q"]) | record(command=mostly(st.just(["gh", "auth"]), [""], "gh"))
CREDENTIAL = {"value": mostly(value, *FORMS), "hosts": mostly(st.just(["a.test"]), ["*.a"], ["A.test"], ["1.2.3.4"])}
credential = st.fixed_dictionaries(
    CREDENTIAL,
    optional={
        "paths": mostly(st.just(["/a*"]), ["a"], ["/a*b"]),
        "scheme": mostly(st.sampled_from(["bearer", "basic"]), *FORMS),
        "header": mostly(st.just("x-api-key"), *FORMS),
        "user": mostly(st.just("me"), *FORMS),
        "unknown": st.just([3]),
    },
)
bottle = record(
    env=mostly(st.dictionaries(mostly(variable, "1A", "A-B", "A\n").map(str), mostly(literal), max_size=3)),
    ssh=mostly(st.lists(mostly(ssh_entry | record(**SSH)), max_size=2)),
    egress=mostly(
        record(
            allowlist=mostly(st.lists(mostly(host, *FORMS), max_size=3)),
            inspect=mostly(st.dictionaries(mostly(host, *FORMS).map(str), mostly(st.booleans()), max_size=2), *FORMS),
            dlp=mostly(st.sampled_from(["warn", "block"]), *FORMS),
        )
    ),
    credentials=mostly(st.dictionaries(mostly(variable, "1A").map(str), mostly(credential), max_size=2)),
    limits=mostly(
        record(
            memory=mostly(st.from_regex(r"([3-9][0-9]{2}[mM]|[1-9](\.5)?[gG])", fullmatch=True), "255m", "4", *FORMS),
            cpus=mostly(st.sampled_from([1, 0.5]), 0, *FORMS),
            pids=mostly(st.integers(100, 5000), 99, *FORMS),
        )
    ),
    runtime=mostly(st.just("runc"), *FORMS),
)
agent = record(
    skills=mostly(st.lists(mostly(st.just("review")), max_size=2)), prompt=mostly(text), bottle=mostly(names)
)
document = record(
    **{"$schema": mostly(text)},
    bottles=mostly(st.dictionaries(names, mostly(bottle), max_size=2)),
    agents=mostly(st.dictionaries(names, mostly(agent), max_size=2)),
)


def complaints(value: Any) -> Iterator[str]:
    """Yield what the launcher has against a manifest: errors in what a command uses, else warnings about types."""
    checks = [
        lambda found, name: ssh.ssh_load(found, name),
        lambda found, name: pipelock_hosts.pipelock_check_allowlist(found, name),
        lambda found, name: limits.limits_check(found, name),
        lambda found, name: env_resolve.env_check(found, name),
        lambda found, name: fail_with(found.checks.problems("bottles", name, "credentials")),
    ]
    try:
        found = of(value)
        for name in found.agents:
            manifest.manifest_require_agent(found, name)
        for name in found.bottles:
            for check in checks:
                check(found, name)
    except BottleError as problem:
        yield problem.message
        return
    yield from (warning for warning in found.warnings if "unknown key" not in warning)


@settings(steady, max_examples=300)
@given(document)
def test_the_schema_and_the_launcher_agree(value: dict[str, Any]) -> None:
    valid = Draft202012Validator(SCHEMA).is_valid(value)
    assert valid == (not list(complaints(value)))


# What can be wrong with what a start uses, in the shell's order; where the shell does not look, the port comes last.
ENTRY = {"Host": "forge", "IdentityFile": "key", "Hostname": "git.test", "User": "git", "Port": 22}
WRONG: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("agents", "a", "prompt"), 5),
    (("agents", "a", "skills"), ["gone"]),
    (("bottles", "b", "ssh", "+"), {"Host": "forge"}),
    (("bottles", "b", "ssh", "+"), {**ENTRY, "Hostname": "a b"}),
    (("bottles", "b", "ssh", "+"), {**ENTRY, "IdentityFile": "gone"}),
    (("bottles", "b", "egress", "allowlist", "+"), "http://x"),
    (("bottles", "b", "egress", "allowlist", "+"), 3),
    (("bottles", "b", "env", "1A"), ""),
    (("bottles", "b", "env", "B"), None),
    (("bottles", "b", "env", "C"), "${UNSET}"),
    (("bottles", "b", "env", "D"), "x\ny"),
)


def spoilt(faults: Sequence[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Return a manifest with these faults, put in one after the other, and no other."""
    document: dict[str, Any] = {
        "agents": {"a": {"bottle": "b"}},
        "bottles": {"b": {"ssh": [], "egress": {"allowlist": []}, "env": {}}},
    }
    for (*path, key), wrong in faults:
        part = functools.reduce(operator.getitem, path, document)
        if key == "+":
            part.append(wrong)
        else:
            part[key] = wrong
    return document


START = """
cd "$1"; stage="$1"; shift
for CB_CWD; do
    ( exec 2>&1 >/dev/null; CB_HOST_HOME="$CB_CWD/home"; CB_MANIFEST="$(<"$CB_CWD/claude-bottle.json")"
      manifest_require_agent a; skills_load a; skills_check
      bottle="$(manifest_agent_bottle a)"; manifest_require_bottle a "$bottle"
      ssh_load "$bottle"; ssh_check_keys; pipelock_check_allowlist "$bottle"; env_resolve "$bottle" "$stage"
    ) || :
    printf '\\0'
done
"""


def lay_out(folder: Path, document: Any) -> str:
    folder.mkdir()
    (folder / "key").touch()
    (folder / manifest.FILE_NAME).write_text(json.dumps(document))
    return str(folder)


NO_ENGINE = Engine("/nowhere/docker", "", "default", "/nowhere", "")


def free_name() -> Work[str]:
    return "claude-bottle-a"
    yield


def planned(folder: str) -> plan.Plan:
    return plan.make_plan(NO_ENGINE, Begun(free_name()), plan.Request("a"), {"HOME": f"{folder}/home"}, folder)


def said_by_start(folder: str) -> str:
    try:
        planned(folder)
    except BottleError as problem:
        return f"claude-bottle: error: {problem.message}\n"
    return ""


def test_the_first_error_is_the_shells() -> None:
    neighbours = [*itertools.pairwise(WRONG), *itertools.pairwise(WRONG[:-5:-1])]
    some = drawn(st.lists(st.sampled_from(WRONG), min_size=2, max_size=4), 8)
    documents = [spoilt(faults) for faults in [*neighbours, *some]]
    with TemporaryDirectory() as scratch:
        folders = [lay_out(Path(scratch, str(index)), value) for index, value in enumerate(documents)]
        theirs = shell(START, b"", scratch, *folders)
        ours = [said_by_start(folder) for folder in folders]
    # Where the shell has nothing to say the port may: hosts and ssh fields.
    assert [(said, want) for said, want in zip(ours, theirs, strict=True) if want and said != want] == []
    assert sum(map(bool, theirs)) > 15
