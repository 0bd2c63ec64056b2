"""The sidecar's file and port."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from claude_bottle.lib import pipelock
from claude_bottle.lib.egress import inspection, pipelock_hosts
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker

SECRET = "hunter2-never-shown"

CONTRACT = """\
mode: strict
enforce: true
api_allowlist:
  - "100.64.0.7"
  - "git.example.org"
trusted_domains:
  - "git.example.org"
ssrf:
  ip_allowlist:
    - "100.64.0.7/32"
forward_proxy:
  enabled: true
"""


def test_the_sidecars_file_begins_as_the_contract_has_it() -> None:
    text = pipelock.pipelock_yaml(["100.64.0.7", "git.example.org"], ["git.example.org", "100.64.0.7"], "8888")
    assert text.startswith(CONTRACT)
    assert "\ndlp:\n  include_defaults: true\n  scan_env: true\n" in text
    assert 'metrics_listen: "127.0.0.1:9091"' in text


def test_the_metrics_port_steps_aside_for_the_proxys() -> None:
    assert 'metrics_listen: "127.0.0.1:9092"' in pipelock.pipelock_yaml(["a.test"], [], "9091")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8 8", "\u0661", "000008888"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(BottleError, match="CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number"):
        pipelock.pipelock_check_port(port)


def test_a_port_of_thousands_of_digits_is_one_short_line() -> None:
    with pytest.raises(BottleError, match="CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number") as caught:
        pipelock.pipelock_check_port("7" * 5000)
    assert len(caught.value.message) < 200


def keys(text: str) -> dict[str, int]:
    """Return the keys of a YAML text like ours, with their depths."""
    found = (re.match(r"( *)(\w+):", line) for line in text.splitlines())
    return {key[2]: len(key[1]) // 2 for key in found if key}


def section(text: str, *path: str) -> list[str]:
    """Return the items of a list in a YAML text like ours; none where the list is not there."""
    lines, depth = text.splitlines(), 0
    for key in path:
        name = "  " * depth + key + ":"
        if name not in lines:
            return []
        lines, depth = lines[lines.index(name) + 1 :], depth + 1
    items = itertools.takewhile(lambda line: line.startswith("  " * depth + "- "), lines)
    return [json.loads(item.strip()[2:]) for item in items]


RANDOM = "q7x2k9m4z8w1v5b3n6j0"  # twenty different characters
LISTED = (f"{RANDOM}.example.org", "*.example.org", "*.internal", "git.corp.example", "nas", "10.77.0.5", "8.8.8.8")


def written(listed: tuple[str, ...], ssh: tuple[str, ...] = (), dlp: str = "", model: str = "") -> str:
    """Return the sidecar's file; nothing is inspected without a word about secrets."""
    hosts = sorted({*pipelock_hosts.DEFAULT_HOSTS, *listed, *ssh})
    watched = inspection.watched(hosts, ssh, {}) if dlp else ()
    brokered, models = ["api.anthropic.com"] if dlp else (), {"api.anthropic.com", model}
    return pipelock.pipelock_yaml(hosts, ssh, "8888", listed, watched, brokered, dlp, models)


def test_the_page_has_every_key_beyond_the_contract_and_no_other() -> None:
    text = written(LISTED, ("100.64.0.7", "git.example.org"), "block")
    contract = set(keys(CONTRACT)) | {"dlp", "include_defaults", "scan_env"}
    page = (ROOT / "docs" / "differences.md").read_text().split("\n## Keys of `pipelock.yaml` beyond the contract\n")[1]
    bullets = " ".join(line for line in page.split("\n## ")[0].split("\n- ")[1:])
    named = {name for name in re.findall(r"`([a-z_]+)`", bullets)}
    assert set(keys(text)) - contract <= named
    assert named <= set(keys(text)), "the page has a key that is not written"


def test_a_listed_host_that_looks_random_is_excluded_from_that_check() -> None:
    excluded = section(written(LISTED), "fetch_proxy", "monitoring", "subdomain_entropy_exclusions")
    assert excluded == ["*.example.org", f"{RANDOM}.example.org"]
    assert section(written((), (f"a.{RANDOM}.x.test",)), "fetch_proxy", "monitoring", "subdomain_entropy_exclusions")
    assert "subdomain_entropy_exclusions" not in written(("github.com", "abcdefghijklmnop.x.test", f"{RANDOM}.test"))


def test_listed_names_may_be_private_but_not_what_a_wildcard_stands_for() -> None:
    text = written((*LISTED, "claude.ai"), ("ssh.example.org", "10.0.0.7"))
    assert section(text, "trusted_domains") == [
        "git.corp.example",
        "nas",
        f"{RANDOM}.example.org",
        "ssh.example.org",
    ]
    assert section(text, "ssrf", "ip_allowlist") == ["10.0.0.7/32", "10.77.0.5/32"]


def test_what_is_found_is_taken_out_only_where_it_would_be_refused() -> None:
    warn, block = (yaml.safe_load(written(LISTED, dlp=dlp)) for dlp in ("warn", "block"))
    assert warn["request_body_scanning"]["action"] == "warn" and block["request_body_scanning"]["action"] == "block"
    redaction, patterns = block.pop("redaction"), block["dlp"].pop("patterns")
    assert {**block, "request_body_scanning": warn["request_body_scanning"]} == warn
    assert redaction["limits"]["max_body_bytes"] == warn["request_body_scanning"]["max_body_bytes"] > 32 * 1024**2
    assert {each["action"] for each in patterns} == {"warn"}


def test_what_is_no_json_may_go_to_all_inspected_hosts_but_the_models() -> None:
    listed = ("*.Example.org", "api.example.com.", "a_host.test", "gitlab.example.org", "fd00::7", "ssh.example.com")
    text = written((*listed, "model.example"), ("ssh.example.com",), "block", "model.example")
    opaque = section(text, "redaction", "allowlist_unparseable")
    assert {"*.example.org", "example.org", "api.example.com"} <= set(opaque)
    assert not {
        "api.anthropic.com",
        "model.example",
        "ssh.example.com",
        "gitlab.example.org",
        "a_host.test",
        "fd00::7",
    } & set(opaque)


def test_what_is_no_secret_of_anybodys_is_only_logged() -> None:
    patterns = yaml.safe_load(written((), dlp="block"))["dlp"]["patterns"]
    found = {each["name"]: re.compile(each["regex"], re.IGNORECASE) for each in patterns}
    assert found["Environment Variable Secret"].search("DB_PASSWORD=hunter2-and-more")
    assert not found["Environment Variable Secret"].search("max_token = 12345678")
    assert found["Credential in URL"].search("https://a.test/?token=abcdef")
    assert found["Social Security Number"].search("078-05-1120")
    assert found["Credit Card Number"].search("4111 1111 1111 1111") and found["Credit Card Number"].search(
        "378282246310005"
    )
    assert found["IBAN"].search("DE89370400440532013000")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "localhost", "a.localhost."])
def test_addresses_that_no_other_machine_has_are_refused(host: str) -> None:
    found = Manifest({"bottles": {"b": {"egress": {"allowlist": [host]}}}})
    with pytest.raises(BottleError, match="would be an address of the sidecar itself"):
        pipelock_hosts.pipelock_check_allowlist(found, "b")


@pytest.mark.parametrize("words", [["info", "a"], ["start", "--dry-run", "a"]])
def test_private_hosts_are_marked_and_hints_are_given(tmp_path: Path, words: list[str]) -> None:
    bottle = {"egress": {"allowlist": [*LISTED, "wiki.internal"]}, "env": {"PATH": f"$PATH:/{SECRET}"}}
    value = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b"}}}
    (tmp_path / "claude-bottle.json").write_text(json.dumps(value))
    fake = FakeDocker(tmp_path / "engine")
    env = {"PATH": fake.path(), "HOME": str(tmp_path), "CLAUDE_BOTTLE_OAUTH_TOKEN": "t"}
    done = subprocess.run([ROOT / "cli.sh", *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if ":   egress         : 15 hosts allowed" in line)
    assert lines[at + 1] == "claude-bottle:                  : private address: 10.77.0.5, nas, wiki.internal"
    assert [line for line in lines if "warning" in line] == [
        "claude-bottle: warning: bottle 'b': env 'PATH' has a $NAME in it, which nothing expands; "
        "only a value that is ${NAME} and no more takes the host's"
    ]
    assert done.returncode == 0 and SECRET not in done.stderr
