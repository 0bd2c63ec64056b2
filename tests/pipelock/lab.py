"""The networks, the upstream and the sidecars of one run."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

from tests.pipelock.engine import Engine, LabError, Pki, tar_of, to_yaml
from tests.pipelock.wire import Reply, Wire, read_reply, start_tls

HERE = Path(__file__).resolve().parent


PUBLIC_POOL = ipaddress.ip_network("198.18.128.0/20")
PRIVATE_POOL = ipaddress.ip_network("10.213.0.0/16")
PORT = 8888
CONFIG_PATH = "/etc/pipelock.yaml"
SIDECAR_ARGV = ("run", "--config", CONFIG_PATH, "--listen", f"0.0.0.0:{PORT}")


class Sidecar:
    """One container of the image under test."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.ip = ""
        self.port = PORT
        self.seconds_to_healthy = 0.0

    # -- engine side ----------------------------------------------------
    def state(self) -> dict:
        return json.loads(self.lab.engine.out("inspect", "-f", "{{json .State}}", self.name))

    def wait_exit(self, seconds: float = 15) -> int | None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = self.state()
            if not state["Running"] and state["Status"] != "created":
                return state["ExitCode"]
            time.sleep(0.1)
        return None

    def logs(self) -> tuple[str, str]:
        done = self.lab.engine.run("logs", self.name)
        return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def events(self, **want: object) -> list[dict]:
        found = []
        for line in self.logs()[0].splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if all(event.get(k) == v for k, v in want.items()):
                found.append(event)
        return found

    def wait_event(self, seconds: float = 3, **want: object) -> list[dict]:
        end = time.monotonic() + seconds
        while True:
            found = self.events(**want)
            if found or time.monotonic() > end:
                return found
            time.sleep(0.1)

    def execute(self, *argv: str, timeout: float = 30) -> subprocess.CompletedProcess:
        return self.lab.engine.run("exec", self.name, "/pipelock", *argv, check=False, timeout=timeout)

    def kill(self, signal: str) -> None:
        self.lab.engine.run("kill", "-s", signal, self.name)

    def remove(self) -> None:
        self.lab.engine.sweep_run("rm", "-fv", self.name)

    # -- network side ---------------------------------------------------
    def open(self, timeout: float = 10) -> Wire:
        sock = socket.create_connection((self.ip, self.port), timeout)
        return Wire(sock)

    def send(self, request: bytes, timeout: float = 10, **how: bool) -> Reply:
        with self.open(timeout) as wire:
            wire.send(request)
            return read_reply(wire, **how)

    def get(
        self, path: str, headers: tuple[str, ...] = (), method: str = "GET", body: bytes = b"", timeout: float = 10
    ) -> Reply:
        """A request to the sidecar itself, or through it when path is a URL."""
        host = re.sub(r"^https?://([^/?#]*).*$", r"\1", path) if "://" in path else "sidecar"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + body, timeout, head=method == "HEAD")

    def connect(self, target: str, headers: tuple[str, ...] = (), timeout: float = 10) -> tuple[Reply, Wire]:
        wire = self.open(timeout)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers]
        wire.send("\r\n".join(lines).encode("latin1") + b"\r\n\r\n")
        return read_reply(wire, connect=True), wire

    def refused(self, target: str, headers: tuple[str, ...] = (), timeout: float = 10) -> Reply:
        reply, wire = self.connect(target, headers, timeout)
        wire.close()
        return reply

    def tls(
        self, target: str, ca: bytes, sni: str | None = None, verify: str | None = None, alpn: list[str] | None = None
    ) -> Wire:
        """CONNECT, then TLS with `sni` (default: the target's host)."""
        reply, wire = self.connect(target)
        if reply.status != 200:
            wire.close()
            raise LabError(f"CONNECT {target}: {reply.line} {reply.text.strip()}")
        return start_tls(wire, ca, sni if sni is not None else target.rsplit(":", 1)[0], alpn=alpn)

    def https(
        self,
        url: str,
        ca: bytes,
        headers: tuple[str, ...] = (),
        method: str = "GET",
        body: bytes = b"",
        host: str | None = None,
    ) -> Reply:
        where = re.match(r"https://([^/:]+)(:\d+)?(/.*)?$", url)
        assert where, url
        name, port, path = where[1], where[2] or ":443", where[3] or "/"
        with self.tls(name + port, ca) as wire:
            lines = [
                f"{method} {path} HTTP/1.1",
                f"Host: {host or name + (where[2] or '')}",
                "Connection: close",
                *headers,
            ]
            if body or method in ("POST", "PUT"):
                lines.append(f"Content-Length: {len(body)}")
            wire.send("\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + body)
            return read_reply(wire)


class Lab:
    """Networks, upstream and sidecars of one run."""

    HOSTS = (
        "plain.allowed.test",
        "deep.sub.allowed.test",
        "allowed.test",
        "other.test",
        "api.wild.test",
        "a.b.wild.test",
        "wild.test",
        "notwild.test",
        "blocked.test",
        "pass.test",
        "sub.pass.test",
        "inspect.test",
        "slow.test",
        "limit.test",
        "limit2.test",
        "budget.test",
        "xn--bcher-kva.test",
        "q7x2k9m4z8w1v5b3n6j0.wild.test",
        "q7x2k9m4z8w1v5b3n6j0.sub.allowed.test",
    )
    # Names only the upstream's resolver knows.
    ZONE: ClassVar = {
        "ten.test": "10.1.2.3",
        "oneseventwo.test": "172.20.1.1",
        "oneninetwo.test": "192.168.7.7",
        "cgnat.test": "100.64.1.1",
        "linklocal.test": "169.254.169.254",
        "loop.test": "127.0.0.1",
        "zero.test": "0.0.0.1",
        "multicast.test": "224.0.0.1",
    }
    PRIVATE_HOSTS = ("private.test", "trusted.test", "sub.trusted.test", "listed.test")

    def __init__(self, image: str, upstream_image: str, expect_version: str = "") -> None:
        self.image, self.upstream_image, self.expect_version = image, upstream_image, expect_version
        self.run_id = f"{os.getpid()}-{random.randrange(16**6):06x}"
        self.engine = Engine(self.run_id)
        self.folder = Path(tempfile.mkdtemp(prefix="plc-"))
        self.count = 0
        self.lock = threading.Lock()

    def name(self, what: str) -> str:
        with self.lock:
            self.count += 1
            return f"plc-{self.run_id}-{self.count}-{what}"

    def __enter__(self) -> Lab:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> None:
        for image in (self.image, self.upstream_image):
            if self.engine.run("image", "inspect", image, check=False).returncode:
                raise LabError(f"no image {image} on this engine")
        self.pki = Pki(self.folder, [*self.HOSTS, *self.PRIVATE_HOSTS])
        self.public, self.public_net = self.network("pub", PUBLIC_POOL, 26)
        self.private, self.private_net = self.network("priv", PRIVATE_POOL, 28)
        self.upstream = self.name("upstream")
        self.start_upstream()

    def close(self) -> None:
        left = self.engine.sweep()
        shutil.rmtree(self.folder, ignore_errors=True)
        if left:
            raise LabError("left behind: " + " ".join(left))

    def network(
        self, what: str, pool: ipaddress.IPv4Network, prefix: int, *options: str
    ) -> tuple[str, ipaddress.IPv4Network]:
        name, subnets = self.name(what), list(pool.subnets(new_prefix=prefix))
        for _ in range(60):
            subnet = random.choice(subnets)
            done = self.engine.run(
                "network", "create", *self.engine.label(), "--subnet", str(subnet), *options, name, check=False
            )
            if not done.returncode:
                return name, subnet
            if b"overlaps" not in done.stderr:
                raise LabError(done.stderr.decode().strip())
        raise LabError(f"no free /{prefix} in {pool}")

    def start_upstream(self) -> None:
        e = self.engine
        aliases = [w for h in self.HOSTS for w in ("--network-alias", h)]
        e.make(
            self.upstream,
            "--network",
            self.public,
            *aliases,
            "--user",
            "0",
            "--dns",
            "127.0.0.1",
            "--entrypoint",
            "node",
            self.upstream_image,
            "/upstream.js",
        )
        p = self.pki
        zone = {**self.ZONE, **{h: str(self.private_net[4]) for h in self.PRIVATE_HOSTS}}
        files = {
            "/zone.json": (json.dumps(zone).encode(), 0o644, 0),
            "/upstream.js": ((HERE / "upstream.js").read_bytes(), 0o644, 0),
            "/tls/good.key": (p.good_key, 0o600, 0),
            "/tls/good.crt": (p.good_crt, 0o644, 0),
            "/tls/bad.key": (p.bad_key, 0o600, 0),
            "/tls/bad.crt": (p.bad_crt, 0o644, 0),
        }
        e.run("cp", "-", f"{self.upstream}:/", stdin=tar_of(files))
        e.run(
            "network",
            "connect",
            "--ip",
            str(self.private_net[4]),
            *[w for h in self.PRIVATE_HOSTS for w in ("--alias", h)],
            self.private,
            self.upstream,
        )
        e.run("start", self.upstream)
        nets = json.loads(e.out("inspect", "-f", "{{json .NetworkSettings.Networks}}", self.upstream))
        self.public_ip = nets[self.public]["IPAddress"]
        self.private_ip = nets[self.private]["IPAddress"]
        end = time.monotonic() + 30
        while b"upstream ready" not in e.run("logs", self.upstream).stdout:
            if time.monotonic() > end:
                raise LabError("upstream did not start: " + e.run("logs", self.upstream).stderr.decode())
            time.sleep(0.1)

    def create(
        self,
        config: dict | str | None,
        *,
        argv: tuple[str, ...] = SIDECAR_ARGV,
        create: tuple[str, ...] = (),
        files: dict[str, tuple[bytes, int, int]] | None = None,
        private: bool = False,
    ) -> Sidecar:
        """A created, not started sidecar with its files copied in."""
        e = self.engine
        box = Sidecar(self, self.name("pl"))
        e.make(box.name, "--network", self.public, "--dns", self.public_ip, *create, self.image, *argv)
        content = dict(files or {})
        if config is not None:
            text = config if isinstance(config, str) else to_yaml(config)
            content.setdefault(CONFIG_PATH, (text.encode(), 0o644, 0))
        if content:
            e.run("cp", "-", f"{box.name}:/", stdin=tar_of(content))
        if private:
            e.run("network", "connect", self.private, box.name)
        return box

    def start(self, box: Sidecar, healthy: bool = True) -> Sidecar:
        began = time.monotonic()
        self.engine.run("start", box.name)
        if not healthy:
            return box
        nets = json.loads(self.engine.out("inspect", "-f", "{{json .NetworkSettings.Networks}}", box.name))
        box.ip = nets[self.public]["IPAddress"]
        end = began + 20
        while True:
            try:
                if box.ip and box.get("/health", timeout=2).status:
                    break
            except OSError:
                pass
            if not box.state()["Running"] or time.monotonic() > end:
                raise LabError(f"sidecar did not come up: {box.logs()[1].strip()[-400:]}")
            time.sleep(0.05)
        box.seconds_to_healthy = time.monotonic() - began
        return box

    def sidecar(self, config: dict | str | None, **how: object) -> Sidecar:
        return self.start(self.create(config, **how))

    def one_shot(self, config: dict | str | None, *argv: str, **how: object) -> tuple[int | None, str, str]:
        """Exit code, stdout and stderr of a run that is expected to end."""
        box = self.create(config, argv=argv or SIDECAR_ARGV, **how)
        try:
            self.start(box, healthy=False)
            code = box.wait_exit()
            out, err = box.logs()
            return code, out, err
        finally:
            box.remove()
