"""The fake engine answers as a real one does."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fake_docker import FakeDocker
from tests.sweep import until

# What docker said on a real engine (20.10) to the same calls, in an engine with the container `up` (running, on `net`)
# and the container `made` (not running). Ids are put in where it prints them.
REAL_TEXTS: list[tuple[str, int, str]] = [
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
    ("start -ai no", 1, "Error response from daemon: No such container: no"),
    ("start -ai up made", 1, "you cannot start and attach multiple containers at once"),
    (
        "rm -f -v no made neither",
        0,
        "Error response from daemon: No such container: no\nError response from daemon: No such container: neither",
    ),
    (
        "network rm no net",
        1,
        "Error response from daemon: network no not found"
        "\nError response from daemon: error while removing network: network net id {net} has active endpoints"
        "\nexit status 1",
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
    ("wait no", 1, "Error response from daemon: No such container: no"),
    ("image ls -q --filter id=abc", 1, "Error response from daemon: Invalid filter 'id'"),
    (
        "create --env-file /nope/x here true",
        125,
        "docker: open /nope/x: no such file or directory\n\nRun 'docker create --help' for more information",
    ),
    ("build -q -t x --iidfile /nope/x /", 1, "open /nope/x: no such file or directory"),
]
# What docker said (20.10) where no engine answered.
UNREACHABLE = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
OUTAGE_TEXTS = [
    ("ps -a", 1, UNREACHABLE),
    ("create here true", 1, UNREACHABLE),
    ("run here true", 125, f"docker: {UNREACHABLE}\n\nRun 'docker run --help' for more information"),
    ("rm -f up", 1, UNREACHABLE),
    ("network create x", 1, UNREACHABLE),
    ("network rm x", 1, f"{UNREACHABLE}\nexit status 1"),
    ("exec up true", 1, UNREACHABLE),
    ("container inspect up", 1, UNREACHABLE),
    ("start up", 1, f"{UNREACHABLE}\nError: failed to start containers: up"),
    ("start -ai up", 1, UNREACHABLE),
    ("rm -f -v up x", 1, f"{UNREACHABLE}\n{UNREACHABLE}"),
    ("network rm x y", 1, f"{UNREACHABLE}\n{UNREACHABLE}\nexit status 1"),
    ("image rm x", 1, UNREACHABLE),
    ("info", 1, UNREACHABLE),
]


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path / "engine", {"images": [{"name": "here:latest"}]})


def ask(fake: FakeDocker, line: str, stdin: bytes = b"", **env: str) -> tuple[int, str, str]:
    words = [fake.bin / "docker", *line.split()]
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=20, env={**os.environ, **env})
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


@pytest.mark.parametrize(("line", "status", "text"), OUTAGE_TEXTS, ids=[row[0] for row in OUTAGE_TEXTS])
def test_in_an_outage_it_says_what_a_real_client_says(fake: FakeDocker, line: str, status: int, text: str) -> None:
    ask(fake, "run -d --name up here sleep 9")
    fake.down()
    got = ask(fake, line)
    assert (got[0], got[2]) == (status, text)
    fake.up()
    assert ask(fake, "info")[0] == 0


def test_an_outage_ends_a_session_and_a_wait_and_leaves_the_containers(fake: FakeDocker, tmp_path: Path) -> None:
    fake.session(f"touch {tmp_path}/in; exec sleep 60")
    ask(fake, "run -d --name up here sleep 9")
    session = subprocess.Popen([fake.bin / "docker", "exec", "up", "x", "claude"], stdout=subprocess.PIPE)
    wait = subprocess.Popen([fake.bin / "docker", "wait", "up"], stderr=subprocess.PIPE)
    assert until(lambda: (tmp_path / "in").exists() and ["wait", "up"] in fake.argvs())
    fake.down()
    fake.up()
    assert session.communicate(timeout=20)[0] == b"" and session.returncode == 255  # as a real client does
    assert [box["status"] for box in fake.containers()] == ["running"]
    assert wait.communicate(timeout=20)[1] == b"unexpected EOF\n" and wait.returncode == 1


def test_an_engine_that_was_restarted_has_its_containers_stopped(fake: FakeDocker) -> None:
    ask(fake, "run -d --name up here sleep 9")
    ask(fake, "create --name made here sleep 9")
    fake.down()
    fake.up(restarted=True)
    assert {box["name"]: box["status"] for box in fake.containers()} == {"up": "exited", "made": "created"}
    assert ask(fake, "wait up") == (0, "137", "")


def test_a_wait_ends_with_its_container(fake: FakeDocker) -> None:
    ask(fake, "run -d --name up here sleep 9")
    with subprocess.Popen([fake.bin / "docker", "wait", "up"], stdout=subprocess.PIPE) as child:
        assert until(lambda: ["wait", "up"] in fake.argvs()) and child.poll() is None
        ask(fake, "rm -f up")
        assert child.communicate(timeout=20)[0] == b"137\n"


def test_a_late_call_has_its_effect_after_its_client_is_gone(fake: FakeDocker) -> None:
    number = fake.fault("agent create", mode="late")
    words = [fake.bin / "docker", "create", "--name", "claude-bottle-a", "here", "true"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert fake.wait_for_pause(number) == child.pid
        child.kill()
        assert child.communicate(timeout=20) == (b"", b"")  # nothing holds the pipes
    assert fake.containers() == []
    fake.release(number)
    assert fake.wait_for_effect(number) == "done"
    assert [box["name"] for box in fake.containers()] == ["claude-bottle-a"]


def test_a_late_call_may_fail_in_the_end(fake: FakeDocker) -> None:
    number = fake.fault("agent rm", mode="late")
    with subprocess.Popen([fake.bin / "docker", "rm", "claude-bottle-a"]) as child:
        fake.wait_for_pause(number)
        fake.release(number)
        assert fake.wait_for_effect(number) == "Error response from daemon: No such container: claude-bottle-a"
        assert child.poll() is None
        child.kill()


def test_a_late_copy_has_what_its_client_was_fed(fake: FakeDocker) -> None:
    ask(fake, "create --name up here true")
    number = fake.fault("* cp", mode="late")
    with subprocess.Popen([fake.bin / "docker", "cp", "-", "up:/x"], stdin=subprocess.PIPE) as child:
        assert child.stdin
        child.stdin.write(b"\0" * 1024)
        child.stdin.close()
        fake.wait_for_pause(number)
        child.kill()
    fake.release(number)
    fake.wait_for_effect(number)
    assert fake.containers()[0]["files"] == [{"to": "/x", "members": []}]


def engine_of(fake: FakeDocker, home: Path, **env: str) -> str:
    status, out, err = ask(fake, "info", HOME=str(home), **env)
    return out.splitlines()[-1].strip() if status == 0 else err


def test_a_call_goes_to_the_engine_that_a_real_client_would_ask(fake: FakeDocker, tmp_path: Path) -> None:
    other = fake.serve("tcp://other:2375", {"id": "OTHER"})
    fake.point("elsewhere", "tcp://other:2375")
    assert engine_of(fake, tmp_path) == "ID: FAKE:ENGINE"
    assert engine_of(fake, tmp_path, DOCKER_HOST="tcp://other:2375") == "ID: OTHER"
    assert engine_of(fake, tmp_path, DOCKER_CONTEXT="elsewhere") == "ID: OTHER"
    used = ask(fake, "context use elsewhere", HOME=str(tmp_path))
    assert used == (0, "elsewhere", 'Current context is now "elsewhere"')
    assert engine_of(fake, tmp_path) == "ID: OTHER"
    assert engine_of(fake, tmp_path, DOCKER_CONTEXT="default") == "ID: FAKE:ENGINE"
    assert engine_of(fake, tmp_path, DOCKER_CONFIG=str(tmp_path)) == "ID: FAKE:ENGINE"
    ask(fake, "network create net", HOME=str(tmp_path))
    assert (fake.networks(), [net["name"] for net in other.networks()]) == ([], ["net"])
    fake.point("elsewhere", "tcp://nobody:1")
    text = "Cannot connect to the Docker daemon at tcp://nobody:1. Is the docker daemon running?"
    assert ask(fake, "ps", HOME=str(tmp_path)) == (1, "", text)


def test_a_socket_may_answer_as_another_engine(fake: FakeDocker, tmp_path: Path) -> None:
    fake.serve("unix:///var/run/docker.sock", {"id": "OTHER"})
    assert engine_of(fake, tmp_path) == "ID: OTHER"


def test_a_relative_socket_is_one_of_the_working_directory(fake: FakeDocker, tmp_path: Path) -> None:
    fake.serve(f"unix://{Path.cwd()}/x.sock", {"id": "OTHER"})
    assert engine_of(fake, tmp_path, DOCKER_HOST="unix://x.sock") == "ID: OTHER"


def test_a_context_or_a_key_that_is_not_there_is_named(fake: FakeDocker, tmp_path: Path) -> None:
    fake.serve("tcp://other:2375")
    said = "Failed to initialize: unable to resolve docker endpoint: "
    hashed = "283bb9deef02e6843abfb538efa1eca70801bd8a701c3f98191e123496339247"
    file = f"rel/contexts/meta/{hashed}/meta.json"
    text = f'{said}context "gone": context not found: open {file}: no such file or directory'
    assert engine_of(fake, tmp_path, DOCKER_CONTEXT="gone", DOCKER_CONFIG="rel") == text
    secure = {"DOCKER_HOST": "tcp://other:2375", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "rel"}
    assert engine_of(fake, tmp_path, **secure) == f"{said}open rel/ca.pem: no such file or directory"


def build(fake: FakeDocker, *more: str, **env: str) -> tuple[int, str, str]:
    return ask(fake, " ".join(["build", "-q", "-t", "x", *more, str(fake.bin)]), **env)


def test_two_builds_of_one_tag_may_interleave(fake: FakeDocker, tmp_path: Path) -> None:
    number = fake.fault("image build#1", mode="pause", when="between")
    words = [fake.bin / "docker", "build", "-q", "-t", "x", "--iidfile", tmp_path / "id", fake.bin]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as child:
        fake.wait_for_pause(number)
        assert build(fake, "--iidfile", f"{tmp_path}/other")[0] == 0
        assert not (tmp_path / "id").exists()
        fake.release(number)
        assert child.wait(20) == 0
    first, second = (tmp_path / "id").read_text(), (tmp_path / "other").read_text()
    held = {image["name"]: image["id"] for image in fake.images()}
    assert (held["x:latest"], held["<none>:<none>"]) == (second, first)
    assert ask(fake, f"create {first} true")[0] == 0


@pytest.mark.parametrize(("how", "held"), [("none", None), ("empty", ""), ("", "sha256:")])
def test_a_client_may_write_no_id_file_or_an_empty_one(tmp_path: Path, how: str, held: str | None) -> None:
    fake = FakeDocker(tmp_path / "engine", {"id_file": how})
    assert build(fake, "--iidfile", f"{tmp_path}/id")[0] == 0
    assert ((tmp_path / "id").read_text()[:7] if (tmp_path / "id").exists() else None) == held


def test_a_confined_client_does_not_see_the_hosts_files(tmp_path: Path) -> None:
    fake = FakeDocker(tmp_path / "engine", {"cannot_see": str(tmp_path), "images": [{"name": "here:latest"}]})
    (tmp_path / "env").write_text("A=1\n")
    text = f"docker: open {tmp_path}/env: no such file or directory"
    assert ask(fake, f"create --env-file {tmp_path}/env here true")[2].startswith(text)
    assert ask(fake, f"build -q --iidfile {tmp_path}/id /")[2] == f"open {tmp_path}/id: no such file or directory"


@pytest.mark.parametrize(("words", "last"), [("legacy", "Successfully tagged x:latest"), ("buildkit", "")])
def test_a_builds_last_words_name_its_image(tmp_path: Path, words: str, last: str) -> None:
    fake = FakeDocker(tmp_path / "engine", {"words": words})
    _, out, err = build(fake)
    identity = fake.images()[0]["id"]
    assert out.splitlines()[-1:] == ([last] if last else [])
    assert (identity[7:19] if words == "legacy" else f"writing image {identity} done") in out + err


def test_a_builder_elsewhere_loads_nothing(fake: FakeDocker) -> None:
    assert build(fake, BUILDX_BUILDER="remote")[0] == 0
    assert [image["name"] for image in fake.images()] == ["here:latest"]
    assert build(fake, BUILDX_BUILDER="default")[0] == 0
    assert {image["name"] for image in fake.images()} == {"here:latest", "x:latest"}


def test_a_removal_may_fail_without_a_word_or_with_words_of_something_else(fake: FakeDocker) -> None:
    foreign = "Could not kill running container 1, cannot remove - container not found inside the runtime"
    fake.fault("* rm#1")
    fake.fault(f"* rm#1: {foreign}")
    ask(fake, "run -d --name up here sleep 9")
    assert ask(fake, "rm -f up") == (1, "", "")
    assert ask(fake, "rm -f up") == (1, "", foreign)
    assert [box["name"] for box in fake.containers()] == ["up"]


def test_things_are_found_by_id_and_shown_with_labels(fake: FakeDocker) -> None:
    box = ask(fake, "create --label own=a --init --hostname h --env A=1 --name up here true")[1]
    net = ask(fake, "network create --ipv6=false --label own=b net")[1]
    assert ask(fake, f"ps -aq --no-trunc --filter id={box[:6]}")[1] == box
    assert ask(fake, f"ps -aq --filter id={box[3:9]}")[1] == ""
    assert ask(fake, f"network ls -q --no-trunc --filter id={net[3:9]}")[1] == net  # a real one looks inside
    plain = ask(fake, "create here true")[1]
    assert len(ask(fake, f"ps -aq --filter id={box} --filter id={plain}")[1].split()) == 2
    assert ask(fake, f"ps -aq --filter label=own --filter label=own=b --filter id={box}")[1] == ""
    label = '--format={{.ID}}|{{.Label"own"}}'
    assert ask(fake, f"ps -a --no-trunc --filter name=up {label}")[1] == f"{box}|a"
    assert ask(fake, f"network ls --no-trunc {label}")[1] == f"{net}|b"
