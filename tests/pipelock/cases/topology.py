"""The launcher's topology: an agent without any other way out."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

from tests.pipelock.checks import (
    same,
    strict,
)
from tests.pipelock.engine import LabError, to_yaml
from tests.pipelock.lab import CONFIG_PATH, PRIVATE_POOL, SIDECAR_ARGV, Lab, Sidecar
from tests.pipelock.table import CORE, DETAIL, Differs, case, group

# == the launcher's topology ===================================================


@group("topology", 6)
def _(lab: Lab) -> SimpleNamespace:
    e = lab.engine
    net, _ = lab.network("int", PRIVATE_POOL, 29, "--internal", "-o", "com.docker.network.bridge.inhibit_ipv4=true")
    name = lab.name("dual")
    e.make(name, "--network", net, "--dns", lab.public_ip, lab.image, *SIDECAR_ARGV)
    path = lab.folder / "dual.yaml"
    path.write_text(to_yaml(strict()))
    path.chmod(0o600)
    e.run("cp", str(path), f"{name}:{CONFIG_PATH}")
    e.run("network", "connect", lab.public, name)
    e.run("start", name)
    box = Sidecar(lab, name)
    end = time.monotonic() + 15
    while box.execute("healthcheck").returncode:
        if time.monotonic() > end:
            raise LabError("dual-homed sidecar not healthy: " + box.logs()[1][-300:])
        time.sleep(0.1)
    agent = lab.name("agent")
    e.make(agent, "--network", net, "--entrypoint", "node", lab.upstream_image, "-e", "setInterval(() => {}, 1000)")
    e.run("start", agent)
    return SimpleNamespace(lab=lab, box=box, agent=agent)


_AGENT = """
const http = require('http');
const [how, proxy, target] = process.argv.slice(1);
const show = (res) => { let b = ''; res.on('data', (d) => b += d);
  res.on('end', () => { console.log(JSON.stringify([res.statusCode, b])); process.exit(0); }); };
if (how === 'connect') {
  const r = http.request({ host: proxy, port: 8888, method: 'CONNECT', path: target });
  r.on('connect', (res, s) => { if (res.statusCode !== 200) return show(res);
    console.log(JSON.stringify([200, ''])); process.exit(0); });
  r.end();
} else http.get({ host: proxy, port: 8888, path: target }, show);
"""


def _agent(c: SimpleNamespace, how: str, target: str) -> list:
    done = c.lab.engine.run("exec", c.agent, "node", "-e", _AGENT, how, c.box.name, target, check=False, timeout=30)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise Differs("the agent's request", "an HTTP reply", done.stderr.decode()[-200:]) from None


@case("topology", "agent", CORE, "an agent on the internal network reaches a listed host by the sidecar's name")
def _(c):
    same("listed", _agent(c, "connect", "plain.allowed.test:443"), [200, ""])
    same("plain", _agent(c, "get", "http://plain.allowed.test/"), [200, "hello from http plain.allowed.test\n"])


@case("topology", "agent-denied", CORE, "and is refused an unlisted one")
def _(c):
    same("plain", _agent(c, "get", "http://evil.test/"), [403, "blocked: domain not in allowlist: evil.test\n"])


@case("topology", "agent-health", DETAIL, "and sees the sidecar's /health")
def _(c):
    same("status", _agent(c, "get", "/health")[0], 200)
