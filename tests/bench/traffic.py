"""scripts/traffic: what inspection and the broker cost a request, in a sidecar and a broker as the launcher makes them.

Prints the tables of docs/bench/traffic.md.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.lib import pipelock
from claude_bottle.lib.egress import broker, broker_config, ca, inspection
from claude_bottle.lib.egress.credentials import Injection, placeholder
from claude_bottle.lib.files import tarstream

from tests.pipelock.engine import LabError, tar_of
from tests.pipelock.lab import PORT, Lab, Sidecar
from tests.pipelock.wire import Reply, read_reply
from tests.sidecar import SIDECAR

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = "node:22-slim"
VARIABLE = "UPSTREAM_TOKEN"
CREDENTIAL = f"Authorization: Bearer {placeholder(VARIABLE)}"
OPENED_BROKERED, PASSED_BROKERED, OPENED, PASSED = "inspect.test", "pass.test", "other.test", "sub.pass.test"
WAYS = {
    OPENED_BROKERED: "inspected, broker",
    PASSED_BROKERED: "passed through, broker",
    OPENED: "inspected",
    PASSED: "passed through",
}
MB = 1_000_000
SIZES = (1, 8, 20, 32)
HALF_A_PICTURE = 1_200_000  # bytes of one image in a conversation


def say(text: str) -> None:
    print(f"traffic: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Used:
    """What a container has used of the machine so far: seconds of a processor, and its most memory, in bytes."""

    seconds: float
    peak: int


def used(container: str) -> Used:
    """Return what a running container has used."""
    done = subprocess.run(["docker", "inspect", "-f", "{{.State.Pid}}", container], capture_output=True, text=True)
    lines = Path(f"/proc/{done.stdout.strip()}/cgroup").read_text().splitlines()
    places = {name: place for line in lines for _, names, place in [line.split(":", 2)] for name in names.split(",")}
    if "memory" in places:
        cpu, memory = (Path(f"/sys/fs/cgroup/{name}{places[name]}") for name in ("cpuacct", "memory"))
        nanoseconds = int((cpu / "cpuacct.usage").read_text())
        return Used(nanoseconds / 1e9, int((memory / "memory.max_usage_in_bytes").read_text()))
    place = Path(f"/sys/fs/cgroup{places['']}")
    stat = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
    return Used(int(stat["usage_usec"]) / 1e6, int((place / "memory.peak").read_text()))


class Road:
    """A client's way to an upstream: through a sidecar, and a broker behind it for some hosts.

    Args:
        lab: with the upstream.
        memory: the sidecar's, in bytes.
        broker_image: the broker's image.
        dlp: ``warn`` or ``block``.
    """

    def __init__(self, lab: Lab, memory: int, broker_image: str, dlp: str) -> None:
        self.lab, self.dlp = lab, dlp
        self.authority = ca.make_authority("traffic", [OPENED_BROKERED, PASSED_BROKERED])
        brokered = [OPENED_BROKERED, PASSED_BROKERED]
        self.box = Sidecar(lab, lab.name("sidecar"))
        self.broker = lab.name("broker")
        self._clients: list[subprocess.Popen[bytes]] = []
        try:
            self._start_sidecar(memory, brokered, dlp)
            self._start_broker(broker_image, brokered)
        except BaseException:
            self.close()
            raise

    def _start_sidecar(self, memory: int, brokered: Sequence[str], dlp: str) -> None:
        hosts = sorted(WAYS)
        watched = inspection.watched(hosts, [], {PASSED_BROKERED: False, PASSED: False})
        text = pipelock.pipelock_yaml(hosts, [], str(PORT), (), watched, brokered, dlp)
        places = broker_config.addresses(brokered)
        self.box.ip = str(self.lab.public_net[-6])
        words = ["--network", self.lab.public, "--ip", self.box.ip, "--dns", self.lab.public_ip]
        words += ["--mount", pipelock.AUTHORITY, *pipelock.AUTHORITY_SETTING]
        words += [word for host, at in places.items() for word in ("--add-host", f"{host}:{at}")]
        words += [*pipelock.CONFINEMENT, *pipelock.LIMITS, "--memory", str(memory), "--memory-swap", str(memory)]
        words += [SIDECAR, "run", "--config", pipelock.CONFIG, "--listen", f"{self.box.ip}:{PORT}"]
        self.lab.engine.make(self.box.name, *words)
        files = {
            "ca.pem": (self.authority.certificate, 0o600, pipelock.USER),
            "ca-key.pem": (self.authority.key, 0o600, pipelock.USER),
            "upstream.pem": (self.lab.pki.upstream_ca[1], 0o644, pipelock.USER),
        }
        self.lab.engine.run("cp", "-", f"{self.box.name}:{pipelock.AUTHORITY_FOLDER}", stdin=tar_of(files))
        self._attached(self.box.name, text.encode())
        self._until(lambda: self.box.get("/health", timeout=2).status == 200, "the sidecar does not come up")

    def _start_broker(self, image: str, brokered: Sequence[str]) -> None:
        words = ["--network", f"container:{self.box.name}", *broker.CONFINEMENT, *broker.LIMITS, image, *broker.COMMAND]
        self.lab.engine.make(self.broker, *words)
        injection = Injection(VARIABLE, placeholder(VARIABLE), tuple(brokered))
        text = broker_config.config([injection], brokered, {})
        text = text.replace(broker_config.ROOTS, f"{broker_config.FOLDER}/roots.pem")
        roots = b"".join(tarstream.member("roots.pem", self.lab.pki.upstream_ca[1], owner=broker.USER))
        values = broker_config.values([injection], {VARIABLE: "real-value"})
        feed = b"".join(broker.broker_feed(text, self.authority, values))
        self._attached(self.broker, roots + feed)
        ready = broker.READY.decode()
        self._until(lambda: ready in self.lab.engine.out("logs", self.broker), "the broker does not come up")

    def _attached(self, name: str, data: bytes) -> None:
        words, quiet = ["docker", "start", "-ai", name], subprocess.DEVNULL
        client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
        self._clients.append(client)
        assert client.stdin
        client.stdin.write(data)
        client.stdin.close()

    def _until(self, there: Callable[[], bool], problem: str) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if there():
                    return
            time.sleep(0.05)
        raise LabError(problem)

    def close(self) -> None:
        for client in self._clients:
            client.kill()
            client.wait()
        for name in (self.broker, self.box.name):
            self.lab.engine.sweep_run("rm", "-fv", name)

    @property
    def alive(self) -> bool:
        return bool(self.box.state()["Running"])

    def ask(self, host: str, path: str, body: bytes = b"", kind: str = "application/json") -> Reply:
        """Make one request on a tunnel of its own; return its reply, an empty one where none came."""
        trusted = self.lab.pki.upstream_ca[1] if host == PASSED else self.authority.certificate
        lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {host}", CREDENTIAL]
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
        try:
            with self.box.tls(f"{host}:443", trusted) as wire:
                wire.sock.settimeout(900)
                wire.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
                return read_reply(wire)
        except OSError:
            return Reply()

    def lags(self, host: str) -> list[float]:
        """Return by how much each of ten events, 100 ms apart, comes later than it was sent."""
        found, seen = [], b""
        with self.box.tls(f"{host}:443", self.authority.certificate) as wire:
            lines = ["GET /sse?n=10&ms=100&clock=1 HTTP/1.1", f"Host: {host}", CREDENTIAL]
            wire.send(("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode())
            while wire.fill():
                now = time.time()
                seen, wire.buf = seen + wire.buf, b""
                found += [now - float(at) / 1000 for at in re.findall(rb"data: ([\d.]+)\n", seen)[len(found) :]]
        return found


def code(size: int) -> bytes:
    """Return a JSON of about so many bytes with text in it that nothing is found in: a finding ends the look."""
    source = "".join(path.read_text() for path in sorted((ROOT / "lib").rglob("*.py")))
    words = sorted(set(re.findall(r"\b[a-z]{2,12}\b", source)))
    lines = (" ".join(random.choices(words, k=12)) for _ in range(size // 60))
    return json.dumps({"messages": [{"role": "user", "content": "\n".join(lines)[: size - 60]}]}).encode()


def pictures(size: int) -> bytes:
    """Return a JSON of so many bytes with images in it."""
    return _message("image", size, max(1, size // HALF_A_PICTURE))


def document(size: int) -> bytes:
    """Return a JSON of so many bytes with one document in it."""
    return _message("document", size, 1)


def text(size: int) -> bytes:
    """Return a JSON of about so many bytes with files of source text in it."""
    return json.dumps([json.loads(code(100_000)) for _ in range(size // 100_000)]).encode()


def _message(kind: str, size: int, count: int) -> bytes:
    data = [base64.b64encode(os.urandom((size // count - 150) * 3 // 4)).decode() for _ in range(count)]
    blocks = [{"type": kind, "source": {"type": "base64", "media_type": "image/png", "data": each}} for each in data]
    return json.dumps({"messages": [{"role": "user", "content": blocks}]}).encode()


KINDS = {"pictures": pictures, "document": document, "text": text}


def small_requests(road: Road, count: int) -> Iterator[str]:
    """Yield the rows of so many requests of 100 KB each, on every way."""
    yield "| 100 KB of JSON | s a request, median | processor ms a MB: sidecar | broker |\n| --- | --- | --- | --- |\n"
    for host, way in WAYS.items():
        before = used(road.box.name), used(road.broker)
        seconds, sent = [], 0
        for _ in range(count):
            body, began = code(100_000), time.monotonic()
            status = road.ask(host, "/", body).status
            if status != 200:
                raise LabError(f"{way}: status {status}")
            seconds.append(time.monotonic() - began)
            sent += len(body)
        spent = [
            (now.seconds - then.seconds) * 1000 / (sent / MB)
            for now, then in zip((used(road.box.name), used(road.broker)), before, strict=True)
        ]
        yield f"| {way} | {statistics.median(seconds):.3f} | {spent[0]:.0f} | {spent[1]:.0f} |\n"


def streams(road: Road, times: int) -> Iterator[str]:
    """Yield the rows of event streams."""
    yield "\n| ten events, 100 ms apart | ms late, median | most |\n| --- | --- | --- |\n"
    for host in (OPENED_BROKERED, PASSED_BROKERED):
        found = [lag * 1000 for _ in range(times) for lag in road.lags(host)]
        if len(found) != 10 * times:
            raise LabError(f"{host}: {len(found)} events")
        yield f"| {WAYS[host]} | {statistics.median(found):.1f} | {max(found):.1f} |\n"


def one_size(road: Road, kind: str, size: int, at_once: int) -> str:
    """Return the row of large requests."""
    before, began, statuses = used(road.box.name), time.monotonic(), []
    bodies = [KINDS[kind](size * MB) for _ in range(at_once)]
    asking = [
        threading.Thread(target=lambda body=body: statuses.append(road.ask(OPENED_BROKERED, "/", body).status))
        for body in bodies
    ]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    took = time.monotonic() - began
    if not road.alive:
        state = road.box.state()
        return f"the sidecar's end after {took:.0f} s{' (out of memory)' if state.get('OOMKilled') else ''} |  | "
    after = used(road.box.name)
    said = ", ".join(map(str, sorted(statuses)))
    return f"{said} after {took:.0f} s | {after.seconds - before.seconds:.0f} s | {after.peak / (1 << 20):.0f} MiB"


def sizes(make: Callable[[int], Road], args: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of large requests, each in a sidecar of its own."""
    yield "\n| sidecar's memory | request | answer | processor | most memory |\n| --- | --- | --- | --- | --- |\n"
    for memory, size in itertools.product(args.memory, args.sizes):
        what = f"{f'{args.at_once} x ' if args.at_once > 1 else ''}{size} MB of {args.kind}"
        say(f"{what} in {memory} MiB")
        road = make(memory << 20)
        try:
            row = one_size(road, args.kind, size, args.at_once)
        finally:
            road.close()
        yield f"| {memory} MiB | {what} | {row} |\n"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/traffic", description=__doc__)
    parser.add_argument("--broker", default="claude-bottle-broker:latest", help="its image")
    parser.add_argument("--requests", type=int, default=100, help="of 100 KB; 0 for none of it")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="of large requests, in MB")
    parser.add_argument("--kind", choices=KINDS, default="pictures", help="what is in them")
    parser.add_argument("--at-once", type=int, default=1, help="how many of them")
    parser.add_argument("--memory", type=int, nargs="*", default=[pipelock.MEMORY_THAT_OPENS >> 20], help="in MiB")
    parser.add_argument("--dlp", choices=("warn", "block"), default="warn")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    args = parse(words)
    with Lab(SIDECAR, UPSTREAM) as lab:

        def make(memory: int) -> Road:
            return Road(lab, memory, args.broker, args.dlp)

        if args.requests:
            road = make(pipelock.MEMORY_THAT_OPENS)
            try:
                for rows in (small_requests(road, args.requests), streams(road, 5)):
                    for row in rows:
                        print(row, end="", flush=True)
                print(f"\nmost memory of the broker: {used(road.broker).peak / (1 << 20):.1f} MiB", flush=True)
            finally:
                road.close()
        for row in sizes(make, args) if args.sizes else ():
            print(row, end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
