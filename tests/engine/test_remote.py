"""An engine over ssh: one connection for all of a launch, and nothing left of it, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.http_engine import HttpEngine
from tests.terminal import Terminal

from .conftest import AGENT, Desk, client_runs, docker, leftovers, until
from .far import HOST, NAME, Far
from .ways import context, local

REFUSED = "claude-bottle: error: cannot reach the Docker daemon (ssh to 'far' failed)"
Serve = Callable[..., Far]
Begin = Callable[[], Terminal]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Makes servers, which end with the test."""
    made: list[Far] = []

    def begin(*options: str, docker_host: str = "") -> Far:
        far = Far(tmp_path / f"far-{len(made)}", *options, docker_host=docker_host)
        made.append(far)
        until(far.up)
        return far

    yield begin
    for far in made:
        far.close()


@pytest.fixture
def session(desk: Desk) -> Iterator[Callable[[], Terminal]]:
    """Begins a start on a terminal of its own, up to its session."""
    made: list[Terminal] = []

    def begin() -> Terminal:
        made.append(Terminal([desk.launcher, "start", "-y", AGENT], desk.cwd, desk.env))
        made[-1].until("attaching to", 120)
        until(client_runs)
        return made[-1]

    yield begin
    for each in made:
        each.close()


def go(desk: Desk, far: Far) -> None:
    desk.env |= far.env(desk.env["PATH"])


def needed() -> int:
    """Return how many connections a command needs: another one where the socket is not where it usually is."""
    return 1 if local() == "/var/run/docker.sock" else 2


def links(desk: Desk) -> list[Path]:
    return list(desk.tmp.glob("claude-bottle-link*"))


def test_a_start_and_its_end_need_one_connection(shell: Desk, serve: Serve) -> None:
    far = serve()
    go(shell, far)
    (shell.cwd / "file").write_text("from here")
    done = shell.run("start", "-y", "--cwd", AGENT, stdin="cat file; head -c 300000 /dev/zero | tr '\\0' x; false\n")
    assert (done.returncode, done.stdout) == (1, "from here" + "x" * 300_000), done.stderr
    version = docker("version", "--format", "{{.Server.Version}}")
    name = docker("info", "--format", "{{.Name}}")
    assert f": {HOST}, by one ssh connection: Docker {version} on {name}\n" in done.stderr
    assert (far.logins(), leftovers(shell), links(shell)) == (needed(), [], [])


def test_two_starts_over_one_host_go_side_by_side_through_the_eye_of_a_needle(shell: Desk, serve: Serve) -> None:
    far = serve("MaxStartups 2:100:2", "MaxSessions 1")  # no more that are not yet let in, or in one connection
    go(shell, far)
    words = [shell.launcher, "start", "-y", AGENT]
    both = [Terminal(words, shell.cwd, shell.env) for _ in range(2)]
    for each in both:
        each.until("attaching to", 120)
    for each in both:
        each.type("exit 7\n")
        assert each.wait(120) == 7, each.said
        each.close()
    assert (far.logins(), leftovers(shell), links(shell)) == (2 * needed(), [], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_context_over_ssh_is_left_with_nothing_there(
    desk: Desk, serve: Serve, session: Begin, number: signal.Signals
) -> None:
    far = serve()
    go(desk, far)
    desk.env.pop("DOCKER_HOST")
    desk.env |= context(desk.home / ".docker", f"host={HOST}", desk.env)
    child = session()
    assert f"{HOST} (context 'big'), by one ssh connection: Docker" in child.said
    child.child.send_signal(number)
    assert child.wait(120) == (-9 if number == signal.SIGKILL else 143), child.said
    until(lambda: not leftovers(desk) and not links(desk))
    assert far.logins() == needed()


def test_a_connection_that_breaks_in_a_session_is_opened_again_for_the_removal(
    desk: Desk, serve: Serve, session: Begin
) -> None:
    far = serve()
    go(desk, far)
    child = session()
    far.cut()
    assert child.wait(120) == 69, child.said  # not what docker says of a session that it has lost: 0
    assert f"the connection to {HOST} was lost" in child.said
    assert (far.logins(), leftovers(desk), links(desk)) == (needed() + 1, [], []), child.said


def test_what_runs_beside_a_session_says_that_its_connection_broke(desk: Desk, serve: Serve, session: Begin) -> None:
    child, far = session(), serve()
    go(desk, far)
    commands = [["logs", "--follow", AGENT], ["exec", AGENT, "sh", "-c", "echo startup; exec sleep 1000"]]
    both = [Terminal([desk.launcher, *words], desk.cwd, desk.env) for words in commands]
    for each in both:
        each.until("startup")
    far.cut()
    for each in both:
        assert each.wait(60) == 69 and f"the connection to {HOST} was lost" in each.said, each.said
        each.close()
    child.child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143


def test_another_engine_behind_the_same_host_gets_nothing(
    desk: Desk, serve: Serve, session: Begin, tmp_path: Path
) -> None:
    place, other = tmp_path / "d", HttpEngine(tmp_path / "o", "OTHER")
    place.symlink_to(local())
    far = serve(docker_host=f"unix://{place}")
    go(desk, far)
    child = session()
    place.unlink()
    place.symlink_to(other.path)
    far.cut()
    assert child.wait(120) == 69, child.said
    assert f"another engine answers at {HOST}: OTHER instead of" in child.said
    assert set(other.asked) == {"GET /info"} and leftovers(desk)
    place.unlink()
    place.symlink_to(local())
    other.close()
    done = desk.run("cleanup", "--stale", "--yes")
    assert (done.returncode, leftovers(desk)) == (0, []), done.stderr


def test_a_server_that_forwards_no_socket_is_used_by_dockers_own_way(shell: Desk, serve: Serve) -> None:
    far = serve("AllowStreamLocalForwarding no", "MaxStartups 100")  # it opens more at once than a server usually takes
    go(shell, far)
    (shell.cwd / "file").write_text("from here")
    done = shell.run("start", "-y", "--cwd", AGENT, stdin="cat file; exit 7\n")
    assert (done.returncode, done.stdout) == (7, "from here"), done.stderr
    assert f"no link to {HOST}: /" in done.stderr and "opens an ssh connection of its own" in done.stderr
    assert f"{HOST}, by an ssh connection for every call: Docker" in done.stderr
    assert far.logins() > 10 and (leftovers(shell), links(shell)) == ([], [])


def test_a_master_connection_of_the_users_is_gone_through_and_stays(desk: Desk, serve: Serve) -> None:
    far = serve()
    go(desk, far)
    with (far.folder / "ssh_config").open("a") as config:
        config.write(f"  ControlMaster auto\n  ControlPath {far.folder}/c\n  ControlPersist yes\n")
    ssh = far.folder / "bin" / "ssh"
    subprocess.run([ssh, NAME, "true"], check=True, capture_output=True)  # opened by hand, once
    done = desk.run("start", "--dry-run", AGENT)
    assert done.returncode == 0 and f"{HOST}, by one ssh connection: Docker" in done.stderr, done.stderr
    subprocess.run([ssh, "-O", "check", NAME], check=True, capture_output=True)
    assert (far.logins(), links(desk)) == (1, [])
    subprocess.run([ssh, "-O", "exit", NAME], check=True, capture_output=True)


def no_password(far: Far) -> None:
    (far.folder / "key").write_text("none")


def another_host_key(far: Far) -> None:
    far.trust((far.folder / "key.pub").read_text())


def closed(far: Far) -> None:
    far.go_by(1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (no_password, "Permission denied (publickey,password)"),
        (another_host_key, "Host key verification failed."),
        (closed, "Connection refused"),
    ],
)
def test_what_keeps_ssh_out_is_said_with_what_to_try(
    desk: Desk, serve: Serve, fault: Callable[[Far], None], words: str
) -> None:
    far = serve("PasswordAuthentication yes", "KbdInteractiveAuthentication no")
    go(desk, far)
    fault(far)
    done = desk.run("list", "active")
    error, why, hint, *_ = done.stderr.splitlines()
    assert (done.returncode, error) == (1, REFUSED)
    assert words in why and hint.endswith("try: ssh far docker version"), done.stderr
    assert links(desk) == []
