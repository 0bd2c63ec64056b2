"""The configuration, and what is refused in it."""

from __future__ import annotations

import re
from types import SimpleNamespace

from tests.pipelock.checks import (
    body_block,
    exact,
    interception,
    like,
    same,
    strict,
)
from tests.pipelock.engine import to_yaml
from tests.pipelock.lab import CONFIG_PATH, PORT, Lab
from tests.pipelock.table import CORE, DETAIL, add, case, group

# == argv and config ===========================================================


@group("config", 14)
def _(lab: Lab) -> SimpleNamespace:
    return SimpleNamespace(lab=lab)


BASE = 'mode: strict\nenforce: true\napi_allowlist:\n  - "plain.allowed.test"\nforward_proxy:\n  enabled: true\n'
INVALID = "loading config: invalid config: "
PARSING = f"loading config: parsing config {CONFIG_PATH}: "


def _refuses(
    slug: str, klass: str, title: str, config: str | None, pattern: str, argv: tuple[str, ...] = (), **how: object
) -> None:
    def run(c: SimpleNamespace) -> None:
        code, _out, err = c.lab.one_shot(config, *argv, **how)
        same("exit code", code, 1)
        like("stderr", err, pattern)

    add("config", slug, klass, title, run)


for _row in (
    (
        "missing",
        CORE,
        "no config file",
        None,
        "^" + re.escape(f"loading config: reading config {CONFIG_PATH}: ") + ".*no such file",
    ),
    ("unknown-key", CORE, "an unknown key", BASE + "foo: 1\n", re.escape(PARSING) + ".*line 7: field foo not found"),
    (
        "unknown-nested",
        CORE,
        "an unknown nested key",
        BASE + "dlp:\n  foo: 1\n",
        re.escape(PARSING) + ".*line 8: field foo not found",
    ),
    (
        "unknown-all",
        DETAIL,
        "all unknown keys are named at once",
        BASE + "foo: 1\nbar: 2\n",
        "line 7: field foo not found.*line 8: field bar not found",
    ),
    ("wrong-type", CORE, "a wrong type", "mode: strict\nenforce: maybe\n", re.escape(PARSING) + ".*line 2: .*maybe"),
    (
        "scalar-for-list",
        CORE,
        "a scalar where a list belongs",
        "mode: strict\napi_allowlist: plain.allowed.test\n",
        re.escape(PARSING) + ".*line 2: ",
    ),
    ("broken-yaml", CORE, "broken YAML", "mode: [strict\n", re.escape(PARSING) + "yaml: "),
    ("duplicate-key", DETAIL, "a key twice", BASE + "mode: audit\n", re.escape(PARSING) + '.*line 7: .*"mode"'),
    (
        "two-documents",
        DETAIL,
        "a second document",
        BASE + "---\nmode: audit\n",
        re.escape(PARSING + "multiple YAML documents not supported"),
    ),
    (
        "bad-mode",
        CORE,
        "an unknown mode",
        BASE.replace("strict", "paranoid"),
        exact(INVALID + 'invalid mode "paranoid": must be strict, balanced, or audit'),
    ),
    (
        "strict-empty",
        CORE,
        "strict without an allowlist",
        "mode: strict\nforward_proxy:\n  enabled: true\n",
        exact(INVALID + "strict mode requires at least one domain in api_allowlist"),
    ),
    (
        "strict-empty-list",
        CORE,
        "strict with an empty allowlist",
        "mode: strict\napi_allowlist: []\n",
        exact(INVALID + "strict mode requires at least one domain in api_allowlist"),
    ),
    (
        "cidr-bare-ip",
        CORE,
        "ip_allowlist without a prefix length",
        BASE + 'ssrf:\n  ip_allowlist: ["10.0.0.5"]\n',
        re.escape(INVALID + 'invalid ssrf.ip_allowlist CIDR "10.0.0.5"'),
    ),
    (
        "cidr-host-bits",
        CORE,
        "ip_allowlist with host bits",
        BASE + 'ssrf:\n  ip_allowlist: ["10.0.0.5/8"]\n',
        exact(INVALID + 'ssrf.ip_allowlist CIDR "10.0.0.5/8" has host bits set (did you mean "10.0.0.0/8"?)'),
    ),
    (
        "cidr-all",
        CORE,
        "ip_allowlist /0",
        BASE + 'ssrf:\n  ip_allowlist: ["0.0.0.0/0"]\n',
        re.escape(INVALID + 'ssrf.ip_allowlist CIDR "0.0.0.0/0" is a catch-all (/0)'),
    ),
    (
        "trusted-port",
        CORE,
        "trusted_domains with a port",
        BASE + 'trusted_domains: ["a.test:22"]\n',
        exact(INVALID + 'trusted_domains[0] "a.test:22": use a hostname pattern, not a URL or host:port'),
    ),
    (
        "trusted-star",
        DETAIL,
        "trusted_domains with a bare wildcard",
        BASE + 'trusted_domains: ["*"]\n',
        exact(INVALID + "trusted_domains[0]: bare wildcard disables all SSRF protection"),
    ),
    (
        "trusted-tld",
        DETAIL,
        "trusted_domains with a top-level wildcard",
        BASE + 'trusted_domains: ["*.test"]\n',
        exact(INVALID + 'trusted_domains[0] "*.test": wildcard must target a concrete domain like *.example.com'),
    ),
    (
        "body-action",
        DETAIL,
        "an unknown body action",
        BASE + "request_body_scanning:\n  enabled: true\n  action: no\n",
        re.escape("loading config: "),
    ),
    (
        "metrics-port",
        DETAIL,
        "metrics_listen on the proxy's port",
        BASE + 'fetch_proxy:\n  listen: "0.0.0.0:8888"\nmetrics_listen: "127.0.0.1:8888"\n',
        exact(INVALID + "metrics_listen port 8888 collides with fetch_proxy.listen port 8888"),
    ),
    ("bad-flag", DETAIL, "an unknown flag", BASE, exact("unknown flag: --nope"), ("run", "--nope")),
    ("bad-command", DETAIL, "an unknown command", BASE, 'unknown command "frob"', ("frob",)),
):
    _refuses(*_row)


@case("config", "unreadable", CORE, "a config the user may not read")
def _(c):
    code, _out, err = c.lab.one_shot(
        None, files={CONFIG_PATH: (BASE.encode(), 0o600, 0)}, create=("--user", "65534:65534")
    )
    same("exit code", code, 1)
    like("stderr", err, "^" + re.escape(f"loading config: reading config {CONFIG_PATH}: ") + ".*permission denied")


@case("config", "exact-unknown", DETAIL, "the whole text of the unknown-key error")
def _(c):
    _code, _out, err = c.lab.one_shot(BASE + "foo: 1\n")
    same("stderr", err, PARSING + "yaml: unmarshal errors:\n  line 7: field foo not found in type config.Config\n")


@case("config", "before-listening", CORE, "a refused config prints nothing on stdout")
def _(c):
    same("stdout", c.lab.one_shot(BASE + "foo: 1\n")[1], "")


@case("config", "bind-failure", CORE, "an address that cannot be bound: startup event, then exit 1")
def _(c):
    code, out, err = c.lab.one_shot(BASE, "run", "--config", CONFIG_PATH, "--listen", "203.0.113.9:8888")
    same("exit code", code, 1)
    like("stderr", err, r"(?m)^proxy error: listen tcp 203\.0\.113\.9:8888: ")
    same("startup event", '"event":"startup"' in out, True)


@case("config", "no-ca", CORE, "interception without a CA")
def _(c):
    block, _ = interception(c.lab)
    code, _out, err = c.lab.one_shot(to_yaml(strict(tls_interception=block)))
    same("exit code", code, 1)
    like("stderr", err, "^" + re.escape(INVALID + "CA cert not found at /etc/pipelock-ca.pem"))


@case("config", "open-ca-key", CORE, "a CA key that others can read")
def _(c):
    block, how = interception(c.lab)
    files = {**how["files"], "/etc/pipelock-ca-key.pem": (c.lab.pki.mitm_ca[0], 0o644, 0)}
    code, _out, err = c.lab.one_shot(to_yaml(strict(tls_interception=block)), files=files)
    same("exit code", code, 1)
    same(
        "stderr",
        err,
        INVALID + "CA key /etc/pipelock-ca-key.pem is too permissive (mode 0644): restrict to 0600 or 0640\n",
    )


@case("config", "pkcs8-ca-key", CORE, "a CA key in PKCS#8 form")
def _(c):
    block, how = interception(c.lab)
    files = {**how["files"], "/etc/pipelock-ca-key.pem": (c.lab.pki.pkcs8(c.lab.pki.mitm_ca[0]), 0o600, 0)}
    code, _out, err = c.lab.one_shot(to_yaml(strict(tls_interception=block)), files=files)
    same("exit code", code, 1)
    like("stderr", err, r"(?m)^load TLS CA: parse CA key: ")


@case("config", "not-a-ca", DETAIL, "a certificate that is no CA")
def _(c):
    block, _how = interception(c.lab)
    files = {
        "/etc/pipelock-ca.pem": (c.lab.pki.good_crt, 0o644, 0),
        "/etc/pipelock-ca-key.pem": (c.lab.pki.good_key, 0o600, 0),
    }
    code, _out, err = c.lab.one_shot(to_yaml(strict(tls_interception=block)), files=files)
    same("exit code", code, 1)
    like("stderr", err, r"(?m)^load TLS CA: certificate is not a CA")


for _slug, _entry, _said in (
    ("exclusion-tld", "*.com", "wildcard must target a concrete domain"),
    ("exclusion-url", "https://a.test", "use a hostname pattern, not a URL or host:port"),
    ("exclusion-inner", "a.*.test", "only exact hosts and"),
    ("exclusion-empty", "", "is empty"),
):
    _refuses(
        _slug,
        DETAIL,
        f"subdomain_entropy_exclusions with {_entry!r}",
        to_yaml(strict("plain.allowed.test", fetch_proxy={"monitoring": {"subdomain_entropy_exclusions": [_entry]}})),
        re.escape(f"{INVALID}subdomain_entropy_exclusions[0] ") + f".*{re.escape(_said)}",
    )


@case("config", "wide-keys", CORE, "the keys a launcher sets beyond the shell's are all accepted")
def _(c):
    block, how = interception(c.lab, passthrough_domains=["pass.test"])
    box = c.lab.sidecar(
        strict(
            fetch_proxy={
                "listen": f"0.0.0.0:{PORT}",
                "timeout_seconds": 120,
                "max_response_mb": 50,
                "monitoring": {
                    "max_url_length": 4096,
                    "entropy_threshold": 4.5,
                    "subdomain_entropy_threshold": 4.0,
                    "subdomain_entropy_exclusions": ["*.wild.test"],
                    "max_requests_per_minute": 1200,
                    "max_data_per_minute": 0,
                },
            },
            forward_proxy={
                "enabled": True,
                "max_tunnel_seconds": 14400,
                "idle_timeout_seconds": 14400,
                "sni_verification": True,
            },
            request_body_scanning=body_block(),
            response_scanning={"enabled": True, "action": "warn", "sse_streaming": {"enabled": True, "action": "warn"}},
            tls_interception=block,
            logging={"format": "json", "output": "stdout"},
            sentry={"enabled": False},
            metrics_listen="127.0.0.1:9091",
            trusted_domains=["private.test"],
            ssrf={"ip_allowlist": ["10.213.0.4/32"]},
            default_agent_identity="main",
            bind_default_agent_identity=True,
        ),
        **how,
    )
    same("health", box.get("/health").status, 200)
    box.remove()
