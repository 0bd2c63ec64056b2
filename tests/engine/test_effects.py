"""What a bottle is made of, and what is left of it: the shell's launcher and ours on one engine, field by field.

Both run a scripted client on the same desk. Every field that differs needs a row of ``DECLARED``, which names the entry
of docs/differences.md that explains it; a row that nothing needs fails too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER
from claude_bottle.lib.inside import seals
from claude_bottle.lib.pipelock import MEMORY_THAT_OPENS

from tests.golden.test_golden import DIFFERENCES, declared

from . import inventory, sides
from .conftest import TOKEN
from .observe import Fields
from .scenarios import ANSWER, FLAG, HOME, OTHER_HOME, SCENARIOS, TOKEN_NAME
from .sides import STATUS


class Row(NamedTuple):
    """A declared difference: its entry, and the field and values on both sides; ``*`` is any text, None is none."""

    entry: int
    field: str
    shell: str | None
    port: str | None


ENVS = ("agent.Config.Env", "bottle.session.env")
LOWER = ("http_proxy", "https_proxy", "no_proxy")
PROXIES = (*LOWER, *(name.upper() for name in LOWER))
UNUSED = ("FTP_PROXY", "ftp_proxy", "ALL_PROXY", "all_proxy")
SWITCHES = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST",
    "DISABLE_AUTOUPDATER",
    "DISABLE_INSTALLATION_CHECKS",
)
AUTHORITY = ("", "/claude-bottle", "/claude-bottle/ca.pem")
VOLUME = ("HostConfig.Mounts", "Mounts", "Config.Env.SSL_CERT_DIR")
BUNDLES = (
    *("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO"),
    "AWS_CA_BUNDLE",
)
SEEDS = (".claude.json", ".claude/settings.json")
GUARD = "/usr/local/bin/claude-bottle-guard"
SESSION, STAGE = "/usr/local/bin/claude-bottle-session", "stage.claude-bottle-stage.XXXXXX"
DECLARED = [
    Row(6, f"{STAGE}/pipelock.yaml.content.*", None, "*"),
    Row(6, f"{STAGE}/pipelock.yaml.content.  enabled: true", "1", "*"),
    *(Row(7, f"{box}.HostConfig.CapDrop", None, '["ALL"]') for box in ("agent", "sidecar")),
    *(Row(7, f"{box}.HostConfig.SecurityOpt", None, '["no-new-privileges"]') for box in ("agent", "sidecar")),
    Row(7, "bottle.session.status.CapBnd", "*", "0000000000000000"),
    Row(7, "bottle.session.status.NoNewPrivs", "0", "1"),
    *(Row(8, f"agent.Config.Env.{name}", "*", None) for name in ("LINES", "NOTHING", "ASKED", TOKEN_NAME)),
    Row(8, "agent.HostConfig.Tmpfs./run/claude-bottle", None, "*noexec,nosuid,nodev,*uid=1000,gid=1000,mode=0700"),
    Row(8, "bottle.session.mounts./run/claude-bottle", None, "tmpfs *nosuid,nodev,noexec,*mode=700,uid=1000,gid=1000"),
    *(Row(8, f"bottle.changed.{path}", None, "C") for path in ("/run", "/usr", "/usr/local", "/usr/local/bin")),
    *(
        Row(8, f"bottle.files.{path}", None, "0:0 755 folder")
        for path in ("/run", "/usr", "/usr/local", "/usr/local/bin")
    ),
    *(Row(8, f"bottle.changed.{path}", None, "A") for path in ("/run/claude-bottle", SESSION)),
    Row(110, f"bottle.changed.{seals.PROGRAM}", None, "A"),
    Row(110, f"bottle.files.{seals.PROGRAM}", None, "0:0 755 *"),
    Row(119, f"{STAGE}/owner.kind", None, "100600"),
    Row(119, f"{STAGE}/owner.content", None, "*"),
    Row(8, "bottle.files./run/claude-bottle", None, "1000:1000 700 folder"),
    Row(8, f"bottle.files.{SESSION}", None, "0:0 755 *"),
    *(
        Row(9, f"{where}.http_proxy", "http://elsewhere.test:1", "http://claude-bottle-pipelock-*:8888")
        for where in ENVS
    ),
    Row(9, f"{STAGE}/agent.env.content.http_proxy=http://elsewhere.test:1", "1", None),
    *(Row(10, f"{box}.Config.Labels.claude-bottle.*", None, "*") for box in ("agent", "sidecar")),
    *(Row(10, f"{network}.Labels.claude-bottle.*", None, "*") for network in ("internal", "egress")),
    Row(17, "agent.Config.Image", "named-*:mine", "sha256:*"),
    Row(86, "agent.Config.Image", "fx-*-session:latest", "sha256:*"),
    Row(18, "agent.HostConfig.Dns", None, '["127.0.0.1"]'),
    Row(18, "agent.HostConfig.DnsOptions", None, '["timeout:1", "attempts:1"]'),
    Row(
        18,
        "bottle.session.resolv.conf",
        "*nameserver 127.0.0.11\noptions *",
        "*nameserver 127.0.0.11\noptions timeout:1 *",
    ),
    Row(18, "internal.Options.com.docker.network.bridge.inhibit_ipv4", None, "true"),
    Row(21, f"processes.1000 /usr/bin/perl -t {SESSION} /run/claude-bottle/environ claude *", None, "1"),
    *(Row(22, f"{where}.{name}", None, "http://claude-bottle-pipelock-*:*") for where in ENVS for name in LOWER[:2]),
    Row(22, "agent.Config.Env.no_proxy", None, "localhost,127.0.0.1"),
    Row(22, "bottle.session.env.no_proxy", None, "localhost,127.0.0.1,*"),
    *(Row(22, f"{where}.{name}", None, "1") for where in ENVS for name in SWITCHES),
    *(Row(26, f"agent.Config.Attach{stream}", "false", "true") for stream in ("Stdout", "Stderr")),
    Row(27, "bottle.changed./root", "C", None),
    Row(27, "bottle.changed./root/.claude-bottle-keys", "A", None),
    *(Row(27, f"bottle.files./root{folder}", "0:0 700 folder", None) for folder in ("", "/.claude-bottle-keys")),
    Row(27, "bottle.session.keys", "* /root/.claude-bottle-keys/key-1 (ECDSA)\n", "* (stdin) (ECDSA)\n"),
    Row(32, "bottle.changed.*/.claude", None, "*"),
    Row(32, "bottle.files.*/.claude", None, "1000:1000 755 folder"),
    *(Row(32, f"bottle.changed.*/{name}", None, "A") for name in SEEDS),
    *(Row(32, f"bottle.files.*/{name}", None, "1000:1000 600 *") for name in SEEDS),
    Row(33, "bottle.session.env.TERM", "xterm", "xterm-256color"),
    Row(33, "bottle.session.env.COLORTERM", None, "truecolor"),
    Row(50, "agent.Image", "sha256:*", "sha256:*"),
    Row(50, "agent.Config.Image", "claude-bottle:cwd-*", "sha256:*"),
    Row(50, "agent.Config.WorkingDir", f"{HOME}/workspace", HOME),
    Row(50, f"bottle.changed.{HOME}/workspace", "C", "A"),
    Row(50, f"bottle.changed.{HOME}/workspace*", None, "A"),
    Row(50, "afterwards.images", '["claude-bottle:cwd-*"]', None),
    *(
        Row(80, f"agent.Config.Env.{name}", "*", None)
        for name in ("LITERAL", "NO_LITERAL", "DISABLE_AUTOUPDATER", "TERM", "DOCKER_HOST")
    ),
    *(Row(80, f"{STAGE}/docker-args.{part}", "*", None) for part in ("kind", "content")),
    *(Row(81, f"agent.Config.Env.{name}", None, "") for name in UNUSED),
    *(Row(81, f"bottle.session.env.{name}", None, "") for name in UNUSED),
    *(Row(81, f"sidecar.Config.Env.{name}", None, "") for name in (*UNUSED, *PROXIES)),
    *(Row(80, f"processes.0 {helper} *", "1", None) for helper in ("ssh-agent", "socat")),
    *(Row(80, f"processes.0 /usr/bin/{helper} *", None, "1") for helper in ("ssh-agent", "socat")),
    Row(230, "agent.Path", "sleep", "/usr/bin/env"),
    Row(230, "agent.Args", '["infinity"]', '["-i", *'),
    Row(230, "agent.Config.User", "node", "0:0"),
    Row(230, "agent.Config.Cmd", '["sleep", "infinity"]', '["-i", *'),
    Row(230, "agent.Config.Entrypoint", None, '["/usr/bin/env"]'),
    Row(230, "agent.Config.Healthcheck.Test", None, '["NONE"]'),
    Row(230, f"bottle.changed.{GUARD}", None, "A"),
    Row(230, f"bottle.files.{GUARD}", None, "0:0 755 *"),
    Row(230, "processes.1000 sleep infinity", "1", None),
    Row(230, "processes.0 claude-bottle-guard", None, "1"),
    Row(84, "bottle.session.env.NO_PROXY", "localhost,127.0.0.1", "localhost,127.0.0.1,127.0.0.0/8,*"),
    Row(85, "bottle.session.env.LANG", None, "C.UTF-8"),
    Row(43, f'{STAGE}/pipelock.yaml.content.  - "github.com"', "1", "2"),
    *(Row(131, f"bottle.session.env.{name}", None, "/run/claude-bottle/bundle.pem") for name in BUNDLES),
    *(Row(137, f"bottle.changed./etc{path}", None, "*") for path in AUTHORITY),
    *(Row(137, f"bottle.files./etc{path}", None, "0:0 *") for path in AUTHORITY),
    *(Row(137, f"sidecar.{where}", None, "*/run/claude-bottle*") for where in VOLUME),
    *(
        Row(137, f"sidecar files./run{path}.{field}", None, "*")
        for path in ("", "/claude-bottle")
        for field in ("kind", "content")
    ),
    Row(131, "bottle.session.env.DENO_CERT", None, "/run/claude-bottle/ca.pem"),
    Row(131, "bottle.session.env.NODE_USE_ENV_PROXY", None, "1"),
    Row(132, "bottle.session.env.GIT_CONFIG_COUNT", None, "1"),
    Row(132, "bottle.session.env.GIT_CONFIG_KEY_0", None, "http.version"),
    Row(132, "bottle.session.env.GIT_CONFIG_VALUE_0", None, "HTTP/1.1"),
    *(
        Row(
            135,
            f"sidecar.{field}",
            '["run", "--config", "/etc/pipelock.yaml", "--listen", "0.0.0.0:*"]',
            '["run", "--config", "/dev/stdin", "--listen", "10.*.*.*:*"]',
        )
        for field in ("Args", "Config.Cmd")
    ),
    Row(135, "sidecar.Config.Healthcheck.Test", '["CMD", "/pipelock", "healthcheck"]', '["NONE"]'),
    Row(135, "sidecar.HostConfig.LogConfig.Config.max-file", None, "2"),
    Row(135, "sidecar.HostConfig.LogConfig.Config.max-size", None, "5m"),
    Row(182, "bottle.changed./etc/claude-bottle/*", None, "A"),
    Row(182, "bottle.files./etc/claude-bottle/*", None, "0:0 644 *"),
    Row(182, "bottle.changed.*/.claude/CLAUDE.md", None, "A"),
    Row(182, "bottle.files.*/.claude/CLAUDE.md", None, "* 777 link to /etc/claude-bottle/CLAUDE.md"),
    *(Row(182, f"bottle.changed.{path}", None, "C") for path in ("/home", HOME)),
    *(Row(182, f"bottle.files.{path}", None, "* folder") for path in ("/home", HOME)),
    Row(121, f"bottle.session.env.{TOKEN_NAME}", TOKEN, TOKEN_PLACEHOLDER),
    Row(286, "afterwards.remembered", None, '["claude-bottle/images"]'),
    Row(130, "containers", '["*"]', '["claude-bottle-broker-*"]'),
    Row(130, "sidecar.HostConfig.ExtraHosts", None, '["api.anthropic.com:127.0.0.2"]'),
    Row(137, f'{STAGE}/pipelock.yaml.content.  - "api.anthropic.com"', "1", "2"),
    # What is in the stage dir is what it is fed.
    *(Row(92, f"sidecar files./etc{field}", "*", None) for field in (".kind", ".content", "/pipelock.yaml.*")),
    *(Row(92, f"sidecar.Config.{field}", "false", "true") for field in ("AttachStdin", "OpenStdin", "StdinOnce")),
    Row(92, "sidecar.Config.User", "", "65534:65534"),
    Row(92, "sidecar.HostConfig.ReadonlyRootfs", "false", "true"),
    Row(92, "sidecar processes.0 * run --config /etc/pipelock.yaml *", "1", None),
    *(Row(100, f"agent.HostConfig.{name}", "0", "*") for name in ("Memory", "MemorySwap")),
    Row(100, "agent.HostConfig.PidsLimit", None, "4096"),
    *(Row(136, f"sidecar.HostConfig.{name}", "0", str(MEMORY_THAT_OPENS)) for name in ("Memory", "MemorySwap")),
    Row(101, "sidecar.HostConfig.PidsLimit", None, "256"),
    Row(92, "sidecar processes.65534 * run --config /dev/stdin *", None, "1"),
]
# Not on a kernel without IPv6; not with BuildKit; not before and not from engine 25 on; by the base image's own ENV.
BY_ENGINE = [
    *(Row(131, "bottle.session.env.NODE_EXTRA_CA_CERTS", was, "/run/claude-bottle/ca.pem") for was in (None, "*")),
    Row(82, "agent.NetworkSettings.Networks.claude-bottle-net-*.Aliases", "*", '["*", "*"]'),
    Row(34, "sidecar.NetworkSettings.Networks.claude-bottle-net-*.Aliases", "*", '["claude-bottle-pipelock", *]'),
    Row(34, "sidecar.NetworkSettings.Networks.claude-bottle-net-*.Aliases", None, '["claude-bottle-pipelock"]'),
    Row(34, "sidecar.NetworkSettings.Networks.claude-bottle-net-*.DNSNames", "*", '*"claude-bottle-pipelock"*'),
    Row(18, "agent.HostConfig.Sysctls.net.ipv6.conf.all.disable_ipv6", None, "1"),
    Row(31, f"bottle.files.{HOME}/workspace/.dockerignore", "1000:1000 644 *", "1000:1000 644 *"),
]

# What both sides must hold, lest two empty hands be taken for equal.
WORKSPACE, SKILLS = f"bottle.files.{HOME}/workspace", f"bottle.files.{HOME}/.claude/skills"
HELD = [
    ("plain", "bottle.session.argv", f'*"{FLAG}", "--append-system-prompt-file", "{HOME}/.claude-bottle-prompt.txt"]'),
    ("plain", "bottle.session.cwd", HOME),
    ("full", f"bottle.files.{HOME}/.claude-bottle-prompt.txt", "1000:1000 600 *"),
    ("full", f"{SKILLS}/review/tools/deep er/run.sh", "1000:1000 755 *"),
    ("full", f"{SKILLS}/review/empty", "1000:1000 700 folder"),
    ("full", f"{SKILLS}/review/link", "1000:1000 777 link to tools/deep er"),
    ("full", f"{SKILLS}/held/new", "1000:1000 644 *"),
    ("full", f"{SKILLS}/held/old/file", None),
    ("full", f"{SKILLS}/linked/SKILL.md", "1000:1000 644 *"),
    ("full", "bottle.session.env.LINES", "one\n two "),
    ("full", "bottle.session.env.NOTHING", ""),
    ("full", "bottle.session.env.ASKED", ANSWER),
    ("full", f"bottle.session.env.{TOKEN_NAME}", "*-*"),  # the token, and what stands for it
    ("full", "bottle.session.env.TERM", "vt100"),
    ("cwd", "bottle.session.cwd", f"{HOME}/workspace"),
    ("cwd", f"{WORKSPACE}/.git/objects/pack/pack-1.pack", "1000:1000 444 *"),
    ("cwd", f"{WORKSPACE}/größe [1]*?.txt", "1000:1000 644 *"),
    ("cwd", f"{WORKSPACE}/kept.log", "1000:1000 644 *"),
    ("cwd", f"{WORKSPACE}/left out.log", None),
    ("cwd", f"{WORKSPACE}/out", "1000:1000 777 link to /etc/hostname"),
    ("gitfile", f"{WORKSPACE}/.git", "1000:1000 644 *"),
    ("ssh", "bottle.files./run/claude-bottle-agent.sock", "0:0 600 special"),
    ("ssh", "bottle.files./run/claude-bottle-agent-public.sock", "0:0 666 special"),
    ("ssh", f"bottle.files.{HOME}/.ssh", "1000:1000 700 folder"),
    ("ssh", f"bottle.files.{HOME}/.ssh/config", "1000:1000 600 *"),
    ("ssh", f"bottle.files.{HOME}/.ssh/known_hosts", "1000:1000 600 *"),
    ("ssh", "bottle.session.keys", "256 SHA256:* a comment (ED25519)\n256 SHA256:* (ECDSA)\n"),
    ("empty", "bottle.session.argv", f'*"{FLAG}", "--remote-control"]'),
    ("settings", f"bottle.files.{OTHER_HOME}/a/b/talents/review/SKILL.md", "1000:1000 600 *"),
    ("settings", "afterwards.images", '["named-*:mine"]'),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Fields, Fields]]:
    """What each scenario made with the shell's launcher, and with ours."""
    folder = tmp_path_factory.mktemp("effects")
    desks = {scenario.name: scenario.desk(folder / scenario.name) for scenario in SCENARIOS}
    with sides.both_launchers(folder) as launchers:
        shell = sides.run_side(launchers[0], SCENARIOS, desks)
        inventory.expected.update(inventory.copied_files())  # the contract's --cwd leaves them
        port = sides.run_side(launchers[1], SCENARIOS, desks)
    return {name: (shell[name], port[name]) for name in desks}


def fits(pattern: str | None, value: str | None) -> bool:
    if pattern is None or value is None:
        return pattern is value
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL))


def different(shell: Fields, port: Fields) -> list[tuple[str, str | None, str | None]]:
    """Return each field that is not the same: its name and the two values."""
    fields = ((name, shell.get(name), port.get(name)) for name in {**shell, **port})
    return [found for found in fields if found[1] != found[2]]


def rows_for(*found: str | None) -> list[Row]:
    return [row for row in (*DECLARED, *BY_ENGINE) if all(map(fits, row[1:], found))]


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_bottle_differs_from_the_shells_by_declared_entries_only(
    both: dict[str, tuple[Fields, Fields]], name: str
) -> None:
    assert [found for found in different(*both[name]) if not rows_for(*found)] == []


def test_every_declared_effect_is_seen_and_on_the_page(both: dict[str, tuple[Fields, Fields]]) -> None:
    seen = {row for pair in both.values() for found in different(*pair) for row in rows_for(*found)}
    assert [row for row in DECLARED if row not in seen] == []
    assert {row.entry for row in (*DECLARED, *BY_ENGINE)} <= set(declared(DIFFERENCES))


@pytest.mark.parametrize(("name", "field", "value"), HELD)
def test_both_bottles_hold_what_the_scenario_is_about(
    both: dict[str, tuple[Fields, Fields]], name: str, field: str, value: str | None
) -> None:
    assert [side.get(field) for side in both[name] if not fits(value, side.get(field))] == []


def test_a_session_ends_with_the_clients_status_and_leaves_nothing(both: dict[str, tuple[Fields, Fields]]) -> None:
    ends = {"status": str(STATUS), "heard": "true", "terminal as before": "true", "host as before": "true"}
    want = {f"afterwards.{name}": value for name, value in ends.items()}
    for name, pair in both.items():
        for side in pair:
            left = {field: value for field, value in side.items() if field.startswith("afterwards.")}
            left.pop("afterwards.images", None)  # the shell's stays, and the one that the user has named
            left.pop("afterwards.remembered", None)  # has its row
            assert left == want, name
