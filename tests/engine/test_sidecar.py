"""The running sidecar, as whoever broke into it would find it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from claude_bottle.lib.egress.pipelock_traffic import MOST_SENT

from tests.sidecar import SIDECAR

from .conftest import AGENT, Desk, container, docker, end, leftovers

REAL = "pipelock-real:2.3.0"
USER = 65534
IN_MEMORY = {"/dev/shm", "/dev/mqueue"}  # docker's own, from which nothing runs

# Goes where a process is, as the user that it is, and prints what it can write to there, but for devices and /proc. The
# image needs no program for this.
WRITABLE = r"""
import ctypes, json, os, stat, sys
pid, user, system = sys.argv[1], int(sys.argv[2]), ctypes.CDLL(None, use_errno=True)
assert system.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0) == 0, os.strerror(ctypes.get_errno())
os.setgroups([]); os.setgid(user); os.setuid(user)
found = []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        kind = os.lstat(path).st_mode
        if not (stat.S_ISLNK(kind) or stat.S_ISCHR(kind)) and os.access(path, os.W_OK):
            found.append(path)
print(json.dumps(found))
"""


def there(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0


@pytest.mark.parametrize("image", sorted({SIDECAR, REAL}))
def test_nothing_in_a_running_sidecar_can_be_written(desk: Desk, tmp_path: Path, image: str) -> None:
    if not there(image):
        pytest.skip(f"this engine has no {image}")
    desk.env["CLAUDE_BOTTLE_PIPELOCK_IMAGE"] = image
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    box = container("sidecar")
    pid = docker("inspect", "-f", "{{.State.Pid}}", box)
    words = [sys.executable, "-c", WRITABLE, pid, str(USER)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == IN_MEMORY
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    options = {mount[1]: set(mount[3].split(",")) for mount in mounts if mount[1] in IN_MEMORY}
    assert all(each >= {"noexec", "nosuid", "nodev"} for each in options.values()) and set(options) == IN_MEMORY
    (tmp_path / "file").write_text("mode: permissive\n")
    for target in ("/", "/etc/", "/pipelock.yaml"):
        tried = subprocess.run(["docker", "cp", tmp_path / "file", f"{box}:{target}"], capture_output=True, text=True)
        assert tried.returncode != 0 and "read-only" in tried.stderr, tried
    end(child)
    assert leftovers(desk) == []


# Asks the sidecar for each port of a host, in a tunnel and plainly, and prints what status each of them has.
PORTS = (80, 8888, 9091, 9092)
ASKS = r"""
const net = require('net'), proxy = new URL(process.env.HTTP_PROXY), host = process.argv[1];
const ask = (line) => new Promise((done) => {
  const link = net.connect(proxy.port, proxy.hostname);
  link.once('connect', () => link.write(`${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`));
  link.once('data', (data) => { done(Number(data.toString().split(' ')[1])); link.destroy(); });
  link.once('error', (error) => done(error.code));
});
(async () => {
  const found = {};
  for (const port of process.argv.slice(2)) {
    found[port] = [await ask(`CONNECT ${host}:${port}`), await ask(`GET http://${host}:${port}/stats`)];
  }
  console.log(JSON.stringify(found));
})();
"""


def asked_for(host: str, *ports: int) -> dict[str, list[int]]:
    """Return the status of a tunnel, and of a plain request, to each port of a host, asked for by the bottle."""
    words = ("node", "-e", ASKS, host, *map(str, ports))
    found: dict[str, list[int]] = json.loads(docker("exec", "-u", "node", container("agent"), *words))
    return found


@pytest.mark.parametrize("image", sorted({SIDECAR, REAL}))
def test_a_brokered_name_leads_to_the_broker_and_to_nothing_else_of_the_sidecars(desk: Desk, image: str) -> None:
    if not there(image):
        pytest.skip(f"this engine has no {image}")
    desk.env["CLAUDE_BOTTLE_PIPELOCK_IMAGE"] = image
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    found = asked_for("api.anthropic.com", 443, *PORTS)
    tunnel, plain = found.pop("443")
    assert tunnel == 200 and plain in (400, 502)  # haproxy's word, or none, for what is no TLS
    assert found == {str(port): [502, 502] for port in PORTS}
    for own in ("127.0.0.1", "127.0.0.2", "localhost"):
        assert asked_for(own, 443, *PORTS) == {str(port): [403, 403] for port in (443, *PORTS)}
    addresses = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container("sidecar")))
    outside = next(each["IPAddress"] for name, each in addresses.items() if "-egress-" in name)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, 8888), 5).close()
    end(child)
    assert leftovers(desk) == []


SENDS = "head -c {size} /dev/zero | curl -s -o /dev/null -H content-type:text/plain --data-binary @- {url}\n"


def test_what_was_refused_for_its_size_is_told_after_the_session(shell: Desk) -> None:
    url = "https://api.anthropic.com/v1/messages"
    sends = "".join(SENDS.format(size=size, url=url) for size in (MOST_SENT + 1, 1000, MOST_SENT + 1))
    done = shell.run("start", "-y", AGENT, stdin=sends + "curl -s https://Registry.test/\n" * 2 + "exit 3\n")
    assert done.returncode == 3, done.stderr
    allow = 'bottles.box.egress.allowlist += "registry.test"'
    registry, model = (line for line in done.stderr.splitlines() if "denied: " in line)
    assert registry == f"claude-bottle: denied: registry.test (2 times); to allow: {allow}"
    assert model.startswith("claude-bottle: denied: api.anthropic.com (once): it was asked without the credential")
    lines = [line for line in done.stderr.splitlines() if "refused for its size" in line]
    size = f"more than {MOST_SENT >> 20} MiB sent"
    assert lines == [f"claude-bottle: refused for its size: api.anthropic.com ({size}), 2 times"]


def test_the_engine_keeps_a_bounded_part_of_its_log(desk: Desk) -> None:
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    kept = json.loads(docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", container("sidecar")))
    assert kept == {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}
    end(child)
