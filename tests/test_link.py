"""One connection to an engine over ssh: what it serves, what becomes of it when it breaks, and that nothing stays."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from claude_bottle.lib.engine import Engine, engine_find
from claude_bottle.lib.errors import EngineUnfit, LinkLost
from claude_bottle.lib.far import link as link_module
from claude_bottle.lib.far.link import Link, Target, link_alive, link_lost, link_open, link_target

from tests.conftest import ROOT
from tests.http_engine import HttpEngine
from tests.sweep import gone, until

NEAR_SOCKET = re.compile(r"(?<= -L )[^: ]+")
PING = b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
INFO = b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Listens on the one socket and leads to the other, as ssh does with -L; the folder says what else.
SSH = """#!{python} -ISs
import asyncio, os, sys
folder = {folder!r}
def read(name):
    try:
        return open(os.path.join(folder, name)).read()
    except OSError:
        return ""
if "-O" in sys.argv:
    with open(os.path.join(folder, "cancelled"), "a") as cancelled:
        print(sys.argv[sys.argv.index("-L") + 1], file=cancelled)
    sys.exit(255)
with open(os.path.join(folder, "calls"), "a") as calls:
    calls.write(f"{{os.getpid()}} {{' '.join(sys.argv[1:])}}\\n")
if read("fault"):
    sys.exit(read("fault"))
near, far = sys.argv[sys.argv.index("-L") + 1].split(":")
async def way(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
async def both(reader, writer):
    try:
        far_reader, far_writer = await asyncio.open_unix_connection(far)
        await asyncio.gather(way(reader, far_writer), way(far_reader, writer))
        far_writer.close()
    except OSError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_unix_server(both, near)
    print(read("endpoint"), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)
asyncio.run(main())
"""


class Place:
    """An engine behind an ssh that is none, and links to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tmp = folder, folder / "t"
        self.tmp.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "ssh").write_text(SSH.format(python=sys.executable, folder=str(folder)))
        (self.bin / "ssh").chmod(0o755)
        self.socket = folder / "d.sock"
        self.engine = HttpEngine(folder / "one.sock", "ONE")
        self.lead_to(self.engine)
        self.say(f"unix://{self.socket}")
        self.links: list[Link] = []

    def lead_to(self, engine: HttpEngine) -> None:
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to(engine.path)

    def say(self, endpoint: str) -> None:
        (self.folder / "endpoint").write_text(endpoint)

    def link(self, host: str = "") -> Link:
        made = link_open(
            host or f"ssh://big{self.socket}", "ssh://big", {"PATH": str(self.bin), "TMPDIR": str(self.tmp)}
        )
        assert made
        self.links.append(made)
        return made

    def calls(self) -> list[tuple[int, str]]:
        """Return the process and the words of each ssh so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]

    def left(self) -> list[Path]:
        return list(self.tmp.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for link in made.links:
        link.close()
    made.engine.close()


def read(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def ask(link: Link, *requests: bytes, end: bool = False, seconds: float = 30) -> bytes:
    """Say some requests on one connection, awaiting a ping's answer, and that it was all; return what comes."""
    said = b""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(seconds)
        asked.connect(link.socket)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has been answered before all was said
            for request in requests:
                asked.sendall(request)
                if request is PING:
                    said += asked.recv(4096)
            if end:
                asked.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while got := asked.recv(65536):
                said += got
    return said


def test_a_ping_is_answered_here_and_the_rest_goes_there(place: Place) -> None:
    link = place.link()
    assert link.require() == ""
    said = ask(link, PING, PING, INFO)
    assert said.count(b"HTTP/1.1 200") == 3 and said.count(b"Api-Version: 1.41") == 3 and b'"ID": "ONE"' in said
    assert place.engine.asked == ["HEAD /_ping", "GET /info"]


def test_the_end_of_what_a_client_says_arrives_and_all_that_is_answered_then(place: Place) -> None:
    link = place.link()
    link.require()
    body = b"x" * 3_000_000
    assert ask(link, b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n" + body, end=True) == body.upper()


def test_a_broken_connection_is_said_and_opened_again_to_the_same_engine(place: Place) -> None:
    link = place.link()
    link.require()
    link.pin("ONE")
    engine = Engine("docker", "ssh://big", "default", "", "", line=link.held)
    engine.require_link()
    ((pid, words),) = place.calls()
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: link_lost(link.held) != "")
    assert b'"ID": "ONE"' in ask(link, PING, INFO)  # held until it is there again
    first, second = (NEAR_SOCKET.findall(said) for _, said in place.calls())
    assert first != second
    assert [NEAR_SOCKET.sub("", said) for _, said in place.calls()] == [NEAR_SOCKET.sub("", words)] * 2
    assert not Path(first[0]).exists()  # a connection of the user's may go on listening there
    with pytest.raises(LinkLost, match="the connection to ssh://big was lost"):
        engine.require_link()
    assert "the ssh connection to ssh://big is lost" in link_lost(link.held)


PATIENT = """
import sys, types
package = types.ModuleType("claude_bottle"); package.__path__ = [{root!r}]; sys.modules["claude_bottle"] = package
from claude_bottle.lib.host import tunnel
tunnel.HOLD_SECONDS = 12.0
tunnel.main(*sys.argv[1:])
"""


def test_what_is_asked_after_a_loss_is_held_once_and_not_each_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = place.folder / "tunnel.py"
    program.write_text(PATIENT.format(root=str(ROOT)))
    monkeypatch.setattr(link_module, "_PROGRAM", program)
    link = place.link()
    link.require()
    ((pid, _),) = place.calls()
    (place.folder / "fault").write_text("no way there")
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: link_lost(link.held) != "")
    assert b"the ssh connection to ssh://big is lost" in ask(link, INFO)
    for _ in range(3):
        assert b"503" in ask(link, PING, seconds=11)  # less than it was held before
    (place.folder / "fault").unlink()
    assert until(lambda: b'"ID": "ONE"' in ask(link, PING, INFO))


def test_another_engine_gets_nothing_until_the_first_is_back(place: Place) -> None:
    link = place.link()
    link.require()
    link.pin("ONE")
    other = HttpEngine(place.folder / "two.sock", "TWO")
    place.lead_to(other)
    os.kill(place.calls()[0][0], signal.SIGKILL)
    refusal = b"another engine answers at ssh://big: TWO instead of ONE"
    assert until(lambda: refusal in ask(link, b"POST /containers/create HTTP/1.1\r\n\r\n"))
    assert set(other.asked) == {"GET /info"}
    place.lead_to(place.engine)
    assert until(lambda: b'"ID": "ONE"' in ask(link, PING, INFO))
    other.close()


def test_the_far_sides_own_docker_says_where_its_engine_is(place: Place) -> None:
    link = place.link("ssh://me@big:2222")
    assert link.require() == "" and b'"ID": "ONE"' in ask(link, PING, INFO)
    first, second = (words for _, words in place.calls())
    assert ":/var/run/docker.sock -- big docker context inspect" in first
    assert f":{place.socket} -- big docker context inspect" in second
    forwarded = first.split(" -L ")[1].split()[0]  # which a connection of the user's would go on with
    assert until(lambda: read(place.folder / "cancelled") == [forwarded])
    for words in (first, second):
        assert words.startswith("-T -a -x -o BatchMode=yes -o ClearAllForwardings=no ")
        assert " -l me -p 2222 -L " in words


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2376", "npipe:////./pipe/docker", "unix:///a:b"])
def test_what_ssh_cannot_forward_is_left_to_docker(place: Place, endpoint: str) -> None:
    place.say(endpoint)
    assert place.link("ssh://big").require() == f"its docker uses {endpoint}"


def test_a_socket_that_nobody_answers_at_is_left_to_docker(place: Place) -> None:
    place.socket.unlink()
    assert place.link().require().startswith(f"{place.socket} there cannot be reached")


def test_ssh_that_is_not_let_in_is_an_error_with_what_to_try(place: Place) -> None:
    (place.folder / "fault").write_text("noise\nPermission denied (publickey).\n\n")
    with pytest.raises(EngineUnfit, match=r"\(ssh to 'big' failed\)") as failed:
        place.link("ssh://me@big:2222").require()
    assert failed.value.hints[0] == "Permission denied (publickey)."
    assert failed.value.hints[1].endswith("try: ssh -l me -p 2222 big docker version")


def test_it_lives_as_long_as_anybody_holds_it_and_leaves_nothing(place: Place) -> None:
    link = place.link()
    link.require()
    heir = os.dup(link.held)
    link.close()
    assert link_alive(link.socket) and b'"ID": "ONE"' in ask(link, PING, INFO)
    os.close(heir)
    assert until(lambda: place.left() == [] and gone(place.calls()[0][0]))


def test_its_folder_is_the_users_alone(place: Place) -> None:
    place.link().require()
    (folder,) = place.left()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_that_was_killed_is_done_without_and_the_next_one_removes_its_folder(place: Place) -> None:
    link = place.link()
    link.require()
    engine = Engine("docker", "ssh://big", "default", "", "", socket=link.socket)
    assert engine.reachable() is engine
    os.kill(link._process.pid, signal.SIGKILL)
    assert until(lambda: not link_alive(link.socket))
    assert engine.reachable().environment()["DOCKER_HOST"] == "ssh://big"
    (folder,) = place.left()
    assert place.link().require() == ""
    assert folder not in place.left() and len(place.left()) == 1


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("ssh://big", Target("", "big", "", "")),
        ("ssh://me@Big.Example:22/", Target("me", "Big.Example", "22", "")),
        ("ssh://big/run/user/1000/docker.sock", Target("", "big", "", "/run/user/1000/docker.sock")),
        ("ssh://me@[::1]:22", Target("me", "::1", "22", "")),
        ("ssh://me%40corp.com@big", Target("me@corp.com", "big", "", "")),
        ("ssh://%2Dlx@big", None),
        ("ssh://me:secret@big", None),
        ("ssh://big?x", None),
        ("ssh://big:port", None),
        ("ssh://-oProxyCommand=x", None),
        ("ssh://-lx@big", None),
        ("ssh://big/a b", None),
        ("ssh://", None),
        ("tcp://big:2375", None),
        ("", None),
    ],
)
def test_where_an_address_leads(host: str, target: Target | None) -> None:
    assert link_target(host) == target


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("unix:///run/user/501/docker.sock", True), ("ssh://me@far", False), ("tcp://far:2376", False), (3, False)],
)
def test_a_contexts_engine_is_local_where_its_socket_is(tmp_path: Path, host: object, is_local: bool) -> None:
    context(tmp_path, "one", host)
    assert Engine("docker", "", "one", str(tmp_path), "").is_local is is_local


def context(folder: Path, name: str, host: object) -> None:
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


@pytest.mark.parametrize(
    ("env", "described"),
    [
        ({}, ""),
        ({"DOCKER_HOST": "unix:///var/run/docker.sock"}, ""),
        ({"DOCKER_HOST": "unix:///x"}, "unix:///x: Docker ? on ?"),
        ({"DOCKER_HOST": "ssh://big"}, "ssh://big, by an ssh connection for every call: Docker ? on ?"),
        (
            {"DOCKER_CONTEXT": "far"},
            "ssh://me@far (context 'far'), by an ssh connection for every call: Docker ? on ?",
        ),
        ({"DOCKER_CONTEXT": "odd"}, "context 'odd': Docker ? on ?"),
        ({"DOCKER_CONTEXT": "none"}, "context 'none': Docker ? on ?"),
    ],
)
def test_the_plan_says_which_engine_it_is_unless_it_is_the_usual_one(
    tmp_path: Path, env: dict[str, str], described: str
) -> None:
    (tmp_path / "docker").write_text("")
    (tmp_path / "docker").chmod(0o755)
    context(tmp_path, "far", "ssh://me@far")
    context(tmp_path, "odd", 3)
    assert engine_find({"PATH": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), **env}).described() == described
