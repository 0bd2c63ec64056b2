"""The fake engine answers as a real one does."""

from __future__ import annotations

import io
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fake_docker import FakeDocker

# What docker said on a real engine (20.10) to the same calls, in an engine with the container `up` (running, on `net`)
# and the container `made` (not running). Ids are put in where it prints them.
REAL_TEXTS = [
    ("container inspect no", 1, "Error response from daemon: No such container: no"),
    ("network inspect no", 1, "Error response from daemon: network no not found"),
    ("image inspect no", 1, "Error response from daemon: no such image: no: No such image: no:latest"),
    ("rm -f no", 0, "Error response from daemon: No such container: no"),
    ("rm no", 1, "Error response from daemon: No such container: no"),
    ("network rm no", 1, "Error response from daemon: network no not found\nexit status 1"),
    (
        "start no",
        1,
        "Error response from daemon: No such container: no\nError: failed to start containers: no",
    ),
    ("exec no true", 1, "Error response from daemon: No such container: no"),
    ("cp /etc/hostname no:/x", 1, "Error response from daemon: No such container: no"),
    ("rmi no", 1, "Error response from daemon: No such image: no:latest"),
    ("logs no", 1, "Error response from daemon: No such container: no"),
    ("create --pull never no:x true", 1, "Error response from daemon: No such image: no:x"),
    ("network create net", 1, "Error response from daemon: network with name net already exists"),
    (
        "create --name up here sleep 1",
        1,
        'Error response from daemon: Conflict. The container name "/up" is already in use by container "{up}".'
        " You have to remove (or rename) that container to be able to reuse that name.",
    ),
    (
        "run -d --name up here sleep 1",
        125,
        'docker: Error response from daemon: Conflict. The container name "/up" is already in use by container "{up}".'
        " You have to remove (or rename) that container to be able to reuse that name."
        "\n\nRun 'docker run --help' for more information",
    ),
    ("exec made true", 1, "Error response from daemon: Container {made} is not running"),
    ("create --network no here true", 1, "Error response from daemon: network no not found"),
    (
        "network rm net",
        1,
        "Error response from daemon: error while removing network: network net id {net} has active endpoints"
        "\nexit status 1",
    ),
    ("cp up:/nope -", 1, "Error response from daemon: Could not find the file /nope in container up"),
]


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path / "engine", {"images": [{"name": "here:latest"}]})


def ask(fake: FakeDocker, line: str, stdin: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run([fake.bin / "docker", *line.split()], input=stdin, capture_output=True, timeout=20)
    return done.returncode, done.stdout.decode().strip(), done.stderr.decode().strip()


@pytest.mark.parametrize(("line", "status", "text"), REAL_TEXTS, ids=[row[0] for row in REAL_TEXTS])
def test_it_says_what_a_real_engine_says(fake: FakeDocker, line: str, status: int, text: str) -> None:
    net = ask(fake, "network create net")[1]
    up = ask(fake, "run -d --name up --network net here sleep 9")[1]
    made = ask(fake, "create --name made here sleep 9")[1]
    got = ask(fake, line)
    assert (got[0], got[2]) == (status, text.format(up=up, made=made, net=net))


def test_what_is_made_can_be_listed_by_label_and_removed_by_id(fake: FakeDocker) -> None:
    one = ask(fake, "create --name one --label own=a here true")[1]
    ask(fake, "create --name two --label own=b here true")
    assert ask(fake, "ps -aq --no-trunc --filter label=own=a")[1] == one
    ask(fake, f"rm -f {one}")
    assert [c["name"] for c in fake.containers()] == ["two"]


def test_a_network_lets_go_of_a_container_that_is_gone(fake: FakeDocker) -> None:
    ask(fake, "network create net")
    ask(fake, "run -d --name up --network net here sleep 9")
    assert ask(fake, "network rm net")[0] == 1
    ask(fake, "rm -f up")
    assert ask(fake, "network rm net")[0] == 0
    assert fake.networks() == []


def test_an_unknown_call_fails_loudly_and_is_recorded(fake: FakeDocker) -> None:
    assert ask(fake, "frob x")[0] == 125
    assert ask(fake, "ps --frob")[0] == 125
    assert fake.unknown() == [["frob", "x"], ["ps", "--frob"]]


def test_a_fault_hits_its_object_verb_and_occurrence_only(fake: FakeDocker) -> None:
    fake.fault("sidecar create#2: no space")
    assert ask(fake, "create --name claude-bottle-pipelock-a here true")[0] == 0
    assert ask(fake, "create --name claude-bottle-a here true")[0] == 0
    assert ask(fake, "create --name claude-bottle-pipelock-b here true") == (1, "", "no space")
    assert ask(fake, "create --name claude-bottle-pipelock-b here true")[0] == 0


def test_a_label_says_the_role_before_the_name_does(fake: FakeDocker) -> None:
    fake.fault("sidecar create: no")
    assert ask(fake, "create --label claude-bottle.role=sidecar --name x here true")[2] == "no"


@pytest.mark.parametrize(("when", "there"), [("before", 0), ("after", 1)])
def test_a_paused_call_waits_before_or_after_its_effect(fake: FakeDocker, when: str, there: int) -> None:
    number = fake.fault("internal-network create", mode="pause", when=when)
    with subprocess.Popen([fake.bin / "docker", "network", "create", "claude-bottle-net-a"], stdout=-3) as child:
        assert fake.wait_for_pause(number) == child.pid
        assert len(fake.networks()) == there
        fake.release(number)
        assert child.wait(20) == 0
    assert len(fake.networks()) == 1


def test_a_hanging_call_ends_only_when_killed(fake: FakeDocker) -> None:
    number = fake.fault("engine info", mode="hang")
    with subprocess.Popen([fake.bin / "docker", "info"]) as child:
        fake.wait_for_pause(number)
        assert child.poll() is None
        child.kill()


def test_calls_at_the_same_moment_do_not_lose_each_other(fake: FakeDocker) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: ask(fake, f"network create n{n}"), range(12)))
    assert sorted(n["name"] for n in fake.networks()) == sorted(f"n{n}" for n in range(12))
    assert len({n["id"] for n in fake.networks()}) == 12
    assert len(fake.calls()) == 12


def test_the_session_is_the_given_script_with_its_stdin_and_status(fake: FakeDocker) -> None:
    fake.session("cat; exit 7")
    ask(fake, "run -d --name up here sleep 9")
    assert ask(fake, "exec -i up perl x claude --flag", b"hello") == (7, "hello", "")


def test_a_tar_stream_is_taken_apart(fake: FakeDocker) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a b")
        member.mode, member.uid, member.size = 0o600, 1000, 2
        archive.addfile(member, io.BytesIO(b"hi"))
    ask(fake, "create --name up here true")
    assert ask(fake, "cp - up:/etc", buffer.getvalue())[0] == 0
    (entry,) = fake.calls()[-1]["tar"]
    assert (entry["name"], entry["uid"], entry["mode"]) == ("a b", 1000, "0o600")
    assert fake.containers()[0]["files"][0]["to"] == "/etc"


def test_an_image_that_cannot_be_pulled_fails_with_the_given_reason(tmp_path: Path) -> None:
    fake = FakeDocker(tmp_path / "engine", {"no_pull": "manifest unknown"})
    status, _, text = ask(fake, "create gone:1 true")
    assert (status, text.splitlines()[-1]) == (1, "Error response from daemon: manifest unknown")


def test_an_engine_that_is_down_answers_no_info(tmp_path: Path) -> None:
    assert ask(FakeDocker(tmp_path / "engine", {"down": True}), "info")[0] == 1
