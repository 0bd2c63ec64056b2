"""Whatever text is in a manifest or a name: no crash, no line of its own on the terminal, nothing added to a file."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import unicodedata
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from claude_bottle.lib import env, log, manifest, pipelock, plan, ssh
from claude_bottle.lib.egress import credential_values, pipelock_hosts
from claude_bottle.lib.egress.credentials import Injection
from claude_bottle.lib.egress.inspection import Watched
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import project
from claude_bottle.lib.host import report
from claude_bottle.lib.schema.manifest_parse import Credential, SshEntry
from claude_bottle.lib.schema.manifest_words import host_problem, is_address
from claude_bottle.lib.teardown.inventory import Owner
from claude_bottle.lib.teardown.journal import Journal
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.test_properties import SCHEMA, document, host, lay_out, planned, steady

any_text = st.text(st.characters() | st.sampled_from("\n\r\t\x1b\x9b\x07\x7f\u2028\u202e\u200b\ud800"), max_size=12)


def said(pieces: list[bytes]) -> list[str]:
    """Return what was written, line by line; a character in it that a terminal obeys, or hides, fails."""
    whole = b"".join(pieces).decode("utf-8", "surrogateescape")
    bad = {each for each in whole if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") and each != "\n"}
    assert not bad, whole
    return whole.split("\n")


def spoil(data: bytes, at: int, what: bytes) -> bytes:
    at %= len(data)
    return data[:at] + what + data[at + 1 :]


good = st.builds(json.dumps, document).map(str.encode)
file_bytes = st.binary(max_size=40) | st.builds(spoil, good, st.integers(0, 10_000), st.binary(max_size=3))


NO_SETTINGS = env.read_settings({})


def use(found: manifest.Manifest) -> None:
    """Ask for all that a start asks a manifest for."""
    for name in found.agents:
        manifest.manifest_require_agent(found, name)
        manifest.manifest_require_bottle(found, name, manifest.manifest_agent_bottle(found, name))
    for name in found.bottles:
        pipelock_hosts.pipelock_check_allowlist(found, name)
        ssh.ssh_load(found, name)
        credential_values.credentials_check(found, name, NO_SETTINGS, {})


@settings(steady, max_examples=250)
@given(file_bytes)
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"agents": ' + b"9" * 10_000 + b"}")
@example(b'{"agents": {"\\ud800\\u001b[2J": 3}}')
@example(b'{"bottles": {"b": {"env": {"A\\n": "\\u0000"}}}}')
def test_any_bytes_are_a_manifest_or_one_clean_error(data: bytes) -> None:
    pieces: list[bytes] = []
    with TemporaryDirectory() as folder, log.held(pieces):
        Path(folder, manifest.FILE_NAME).write_bytes(data)
        try:
            use(found := manifest.manifest_load(folder, folder))
        except BottleError as problem:
            assert report.report(problem, "cli.sh") in (1, 2)
        else:
            for warning in found.warnings:
                log.log_warn(warning)
    assert all(line.startswith(log.PREFIX) for line in said(pieces)[:-1])


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> plan.Plan:
    document = {"bottles": {"b": {}}, "agents": {"a": {"bottle": "b"}}}
    return planned(lay_out(tmp_path_factory.mktemp("plan") / "a", document))


def shown(harmless: plan.Plan, text: str) -> list[str]:
    """Return the preflight, and the bottle as `info` shows it, where one text is all that can be any text."""
    texts = dict.fromkeys(("agent", "bottle", "prompt", "cwd", "container"), text)
    lists = dict.fromkeys(("env_names", "skills", "hosts"), (text, text))
    ssh_entries = (SshEntry(text, text, text, text, text, text),)
    image = replace(harmless.settings, image=text, derived_image=text)
    request = replace(harmless.request, agent=text, with_cwd=True)
    workspace = project.Project(text, left_out=(text,))
    more: dict[str, Any] = {"followed": {text: {text: text}}, "project": workspace, "ssh": ssh_entries}
    more |= {"exposed": ((text, text),), "watched": (Watched(text, False, text), Watched(text, True))}
    injection = Injection(text, text, (text, text), (text,))
    more |= {"credentials": (injection,), "sources": (Credential(injection, "command", command=(text, text)),)}
    made = replace(harmless, **texts, **lists, **more, settings=image, request=request)
    pieces: list[bytes] = []
    with log.held(pieces):
        plan.print_preflight(made, text)
        made.say_bottle(with_entries=True)
    return said(pieces)


@settings(steady, max_examples=150)
@given(any_text)
@example("\n\nclaude-bottle: launch this agent? [y/N] y")
@example("\x1b[2J\x1b]0;title\x07")
def test_no_text_draws_a_plan_of_its_own(harmless: plan.Plan, text: str) -> None:
    lines, plain = shown(harmless, text or "x"), shown(harmless, "x")
    assert [bool(line) for line in lines] == [bool(line) for line in plain]
    assert all(line.startswith(log.PREFIX) for line in lines if line)


label = st.text(st.sampled_from("aZ09_-xXfF*"), min_size=1, max_size=6)
host_like = st.lists(label | st.sampled_from(["127", "0x7f", "0177", "169", "254", "localhost", "10"]), max_size=5)
host_text = host_like.map(".".join) | st.builds("{}{}{}".format, host_like.map(".".join), any_text, label)
SPELLINGS = [
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
    "0177.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "a.localhost",
    "::1",
    "10.1",
]


def is_accepted(host: str) -> bool:
    found = manifest.Manifest({"bottles": {"b": {"egress": {"allowlist": [host]}}}})
    try:
        pipelock_hosts.pipelock_check_allowlist(found, "b")
    except BottleError:
        return False
    return True


def as_the_system_reads(host: str) -> str:
    """Return the address that a C library takes a text for, or an empty text."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError, ValueError):
        return ""


@settings(steady, max_examples=400)
@given(host_text)
def test_a_host_that_is_taken_is_a_name_or_an_address_in_one_spelling(host: str) -> None:
    check_host(host)


@pytest.mark.parametrize("host", SPELLINGS)
def test_another_spelling_of_an_address_is_not_taken(host: str) -> None:
    assert not is_accepted(host)
    check_host(host)


def check_host(host: str) -> None:
    if not is_accepted(host):
        assert host_problem(host)
        return
    assert host.isascii() and host.isprintable() and not set(host) & set(" :/@#'\"\\[]{},")
    address = as_the_system_reads(host.rstrip("."))
    assert address in ("", host)
    if address:
        parsed = ipaddress.IPv4Address(address)
        assert not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


PATTERN = SCHEMA["$defs"]["egress"]["properties"]["allowlist"]["items"]["pattern"]
some_hosts = st.lists((host | st.ip_addresses(v=4).map(str)).filter(re.compile(PATTERN).search), max_size=4)
KEYS = set(yaml.safe_load(pipelock.pipelock_yaml([], [], "8888")))


@settings(steady, max_examples=100)
@given(some_hosts, some_hosts)
@example(["on", "null", "*.no", "1e3.test", "0o7", "_", "a-"], ["true", "10.0.0.1"])
def test_a_yaml_parser_reads_what_was_listed(listed: list[str], ssh_hosts: list[str]) -> None:
    hosts = sorted({*listed, *ssh_hosts})
    read = yaml.load(pipelock.pipelock_yaml(hosts, ssh_hosts, "8888", listed), yaml.CSafeLoader)
    assert read["api_allowlist"] == (hosts or None)
    assert set(read) - {"trusted_domains", "ssrf"} == KEYS
    trusted = {*read.get("trusted_domains", ())}
    assert trusted == {host for host in (*listed, *ssh_hosts) if not is_address(host)} - wildcards(listed, ssh_hosts)
    networks = read.get("ssrf", {}).get("ip_allowlist", [])
    assert {each.removesuffix("/32") for each in networks} <= {*listed, *ssh_hosts}
    assert (read["mode"], read["enforce"]) == ("strict", True)


def wildcards(listed: list[str], ssh_hosts: list[str]) -> set[str]:
    """Return what of a bottle's own list may not have a private address."""
    return {host for host in listed if host.startswith("*.") or host in pipelock_hosts.DEFAULT_HOSTS} - {*ssh_hosts}


happenings = st.lists(
    st.tuples(st.just("intend"), st.sampled_from(["agent", "sidecar", "stage"]), any_text)
    | st.tuples(st.just("answered"), st.integers(0, 9), any_text)
    | st.tuples(st.just("lost"), st.integers(0, 9), st.none())
    | st.tuples(st.just("child"), st.integers(1, 2**22), st.booleans())
    | st.tuples(st.just("saved_terminal"), any_text, st.none()),
    max_size=12,
)


def happen(journal: Journal, what: str, first: Any, second: Any) -> None:
    if what in ("answered", "lost"):
        if not journal.entries:
            return
        first = journal.entries[first % len(journal.entries)]
    getattr(journal, what)(first, *([] if second is None else [second]))


@settings(steady, max_examples=120)
@given(happenings, any_text)
def test_a_journal_that_is_read_back_is_the_one_that_was_written(what: list[tuple[str, Any, Any]], host: str) -> None:
    lines: list[bytes] = []
    written, read = Journal(Owner("launch"), lines.append), Journal(Owner("launch"))
    written.on_engine(Engine("/docker", host, host, host, host))
    for each in what:
        happen(written, *each)
    assert not any(read.replay(line) for line in b"".join(lines).split(b"\n")[:-1])
    assert [vars(entry) for entry in read.entries] == [vars(entry) for entry in written.entries]
    assert (read.children, read.terminal, read.engine) == (written.children, written.terminal, written.engine)
    written.done()
    assert read.replay(lines[-1])
