"""The fake engine answers as a real one does to calls that go on for a bottle's life, or name several things."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fake_docker import FakeDocker
from tests.sweep import until
from tests.test_fake_docker import ask


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path / "engine", {"images": [{"name": "here:latest"}]})


STARTED = b'{"event":"startup"}\n'
SIDECAR, AGENT = "claude-bottle-pipelock-a", "claude-bottle-a"


def make_bottle(fake: FakeDocker) -> None:
    for name in ("claude-bottle-net-a", "claude-bottle-egress-a"):
        ask(fake, f"network create {name}")
    limits = "-i --read-only --user 65534:65534 --network-alias claude-bottle-pipelock --ip 10.97.0.2"
    assert (
        ask(fake, f"create --name {SIDECAR} {limits} --network claude-bottle-net-a here run --config /dev/stdin")[0]
        == 0
    )
    assert ask(fake, f"create --name {AGENT} --network claude-bottle-net-a here sleep 9")[0] == 0


def begin(fake: FakeDocker, line: str, fed: bytes = b"") -> subprocess.Popen[bytes]:
    words = [fake.bin / "docker", *line.split()]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if fed:
        assert child.stdin
        child.stdin.write(fed)
        child.stdin.close()
        child.stdin = None
    return child


def ended(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes, int]:
    return (*child.communicate(timeout=20), child.returncode)


def box(fake: FakeDocker, name: str = SIDECAR) -> dict[str, Any]:
    return next(box for box in fake.containers() if box["name"] == name)


def attached(fake: FakeDocker) -> subprocess.Popen[bytes]:
    make_bottle(fake)
    child = begin(fake, f"start -ai {SIDECAR}", b"a: 1\n")
    assert until(lambda: "config" in box(fake) and select.select([child.stdout], [], [], 0)[0])  # its word is there
    return child


def test_an_attached_start_feeds_its_container_and_stays_while_it_runs(fake: FakeDocker) -> None:
    child = attached(fake)
    assert (box(fake)["status"], box(fake)["config"]) == ("running", "a: 1\n")
    assert ["-i", ""] in box(fake)["options"] and ["--read-only", ""] in box(fake)["options"]
    assert child.poll() is None
    fake.end(SIDECAR, 3)
    assert ended(child) == (STARTED, b"", 3)
    form = "{{.State.Status}} {{.State.ExitCode}}"
    asked = subprocess.run([fake.bin / "docker", "container", "inspect", "--format", form, SIDECAR], stdout=-1)
    assert asked.stdout == b"exited 3\n"


def test_an_attached_start_runs_its_container_before_it_has_fed_it(fake: FakeDocker) -> None:
    make_bottle(fake)
    child = begin(fake, f"start --attach --interactive {SIDECAR}")
    assert until(lambda: box(fake)["status"] == "running") and "config" not in box(fake)
    assert child.stdin
    child.stdin.write(b"a: 1\n")
    child.stdin.close()
    child.stdin = None
    assert until(lambda: "config" in box(fake))
    fake.end(SIDECAR, 0)
    assert ended(child)[2] == 0


# What docker (20.10 and 28) said at the end of `start -ai`, and its status; the client of 20.10 hands a TERM on.
LOST = b'level=error msg="error waiting for container: unexpected EOF"\n'
ENDS: dict[str, tuple[Callable[[FakeDocker, subprocess.Popen[bytes]], object], int, bytes]] = {
    "removed": (lambda fake, child: ask(fake, f"rm -f -v {SIDECAR}"), 137, b""),
    "outage": (lambda fake, child: fake.down(), 125, LOST),
    "terminated": (lambda fake, child: child.terminate(), 0, b""),
    "killed": (lambda fake, child: child.kill(), -9, b""),
}
AFTER = {"removed": [], "outage": ["running"], "terminated": ["exited"], "killed": ["running"]}


@pytest.mark.parametrize("how", ENDS)
def test_an_attached_start_ends_as_a_real_one(fake: FakeDocker, how: str) -> None:
    end, status, text = ENDS[how]
    child = attached(fake)
    end(fake, child)
    out, err, got = ended(child)
    assert (out, got) == (STARTED, status) and err.endswith(text) and bool(err) == bool(text)
    assert [box["status"] for box in fake.containers() if box["name"] == SIDECAR] == AFTER[how]


def test_a_fault_of_an_attached_start_is_one_of_any_start(fake: FakeDocker) -> None:
    make_bottle(fake)
    fake.fault("sidecar start#1: boom")
    assert ask(fake, f"start -ai {SIDECAR}", b"x") == (1, "", "boom")
    assert box(fake)["status"] == "created"
    paused = fake.fault("sidecar start", mode="pause", when="after")
    child = begin(fake, f"start -ai {SIDECAR}", b"a: 1\n")
    assert fake.wait_for_pause(paused) == child.pid
    assert (box(fake)["status"], box(fake)["config"]) == ("running", "a: 1\n")
    fake.end(SIDECAR, 4)
    fake.release(paused)
    assert ended(child)[2] == 4


def test_a_late_attached_start_runs_its_container_without_its_client(fake: FakeDocker) -> None:
    make_bottle(fake)
    number = fake.fault("sidecar start", mode="late")
    child = begin(fake, f"start -ai {SIDECAR}", b"a: 1\n")
    assert fake.wait_for_pause(number) == child.pid
    child.kill()
    assert child.communicate(timeout=20) == (b"", b"") and box(fake)["status"] == "created"
    fake.release(number)
    assert fake.wait_for_effect(number) == "done"
    assert (box(fake)["status"], box(fake)["config"]) == ("running", "a: 1\n")


def test_a_fault_of_one_of_several_removals_leaves_the_others(fake: FakeDocker) -> None:
    make_bottle(fake)
    fake.fault("agent rm#1: stuck")
    fake.fault("internal-network rm: busy\nexit status 1")
    assert ask(fake, f"rm -f -v {AGENT} {SIDECAR}") == (1, SIDECAR, "stuck")
    assert ask(fake, f"rm -f -v {box(fake, AGENT)['id']} gone")[0::2] == (
        0,
        "Error response from daemon: No such container: gone",
    )
    removal = "network rm claude-bottle-net-a claude-bottle-egress-a"
    assert ask(fake, removal) == (1, "claude-bottle-egress-a", "busy\nexit status 1")
    assert [net["name"] for net in fake.networks()] == ["claude-bottle-net-a"]


def test_each_of_several_removals_may_fail_in_its_own_way(fake: FakeDocker) -> None:
    make_bottle(fake)
    fake.fault("agent rm")
    fake.fault("sidecar rm: odd", when="after")
    assert ask(fake, f"rm -f -v {AGENT} {SIDECAR}") == (1, SIDECAR, "odd")
    assert [box["name"] for box in fake.containers()] == [AGENT]


def test_several_removals_pause_as_one(fake: FakeDocker) -> None:
    make_bottle(fake)
    number = fake.fault("sidecar rm", mode="pause")
    child = begin(fake, f"rm -f -v {AGENT} {SIDECAR}")
    assert fake.wait_for_pause(number) == child.pid and len(fake.containers()) == 2
    fake.release(number)
    assert child.communicate(timeout=20)[0] == f"{AGENT}\n{SIDECAR}\n".encode() and fake.containers() == []


PROVE = f"exec -i {AGENT} /usr/bin/env -i PATH=/bin /usr/local/bin/claude-bottle-seals /run/v proxy 8888"


def test_a_proof_waits_for_a_sidecar_with_a_configuration(fake: FakeDocker) -> None:
    make_bottle(fake)
    ask(fake, f"start {AGENT}")
    said = "the sidecar does not answer at proxy:8888: Connection refused"
    assert ask(fake, f"{PROVE} 0.1", b"A=1") == (1, "", said)
    waiting = begin(fake, f"{PROVE} 20", b"A=1\0")
    other = begin(fake, f"start -ai {SIDECAR}", b"a: 1\n")
    out, err, status = ended(waiting)
    assert (out.splitlines()[0], err, status) == (b"routes\theld\t", b"", 0)
    fake.fault("agent exec claude-bottle-seals: no")
    assert ask(fake, f"{PROVE} 1") == (1, "", "no")
    fake.end(SIDECAR, 0)
    assert ended(other)[2] == 0


def test_a_proof_ends_with_its_bottle_or_the_engine(fake: FakeDocker) -> None:
    make_bottle(fake)
    ask(fake, f"start {AGENT}")
    waiting = begin(fake, f"{PROVE} 20", b"A=1\0")
    assert until((fake.folder / "proving").exists)
    fake.down()
    assert ended(waiting)[2] == 255
    fake.up()
    waiting = begin(fake, f"{PROVE} 20", b"A=1\0")
    assert until(lambda: len([argv for argv in fake.argvs() if argv[0] == "exec"]) == 2)
    ask(fake, f"rm -f {AGENT}")
    assert ended(waiting)[2] in (1, 137)  # before or while it waits


def test_the_calls_of_one_moment_count_each_other_for_faults(fake: FakeDocker) -> None:
    for number in (3, 9):
        fake.fault(f"* create#{number}: no")
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda n: ask(fake, f"create --name n{n} here true")[0], range(12)))
    assert sorted(made) == [0] * 10 + [1, 1] and len(fake.argvs()) == len(fake.calls()) == 12
