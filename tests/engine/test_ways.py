"""An engine that is elsewhere, by each way that leads there: all that a local one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from fixtures.scenery import Scenery

from .conftest import AGENT, Desk, leftovers, resize, until
from .inside import inside
from .office import BEARER, MESSAGES, TOKEN, Office, ask
from .test_beside import runs
from .test_home import WORK, branches, project
from .test_seals import rows
from .test_signals import ENDINGS, wrong_at_any_moment
from .test_workspace import git
from .ways import SSH, TCP, TLS, TLS_CONTEXT, WAYS, go, way

WORKSPACE = "/home/node/workspace"
USUAL = [TCP, TLS_CONTEXT, SSH, pytest.param(TLS, marks=pytest.mark.slow)]


@pytest.fixture
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "way").mkdir()
    with way(request.param, tmp_path / "way", request.getfixturevalue("path")) as made:
        yield made


@pytest.fixture
def path(desk: Desk) -> str:
    return desk.env["PATH"]


@pytest.mark.parametrize("env", USUAL, indirect=True)
def test_a_session_has_its_folder_and_credentials_and_its_work_comes_home(
    env: dict[str, str], tmp_path: Path, clients: Path, scenery: Scenery
) -> None:
    office = Office(tmp_path / "office", clients)
    project(office.desk)
    go(office.desk, env)
    with inside(office.desk, "--cwd") as bottle:
        assert ask(bottle, MESSAGES, BEARER, body="{}") == "200", bottle.complaints()
        assert [each["headers"]["authorization"] for each in scenery.requests()] == [f"Bearer {office.values[TOKEN]}"]
        read = bottle.run("cat a; echo two >a; head -c 300000 /dev/zero | tr '\\0' x", folder=WORKSPACE)
        assert read.out == "one\n" + "x" * 300_000, read
    assert bottle.child.returncode == 143, bottle.complaints()
    assert (branches(office.desk), git(office.desk.cwd, "show", f"{WORK}:a")) == ([WORK], "two\n")
    assert leftovers(office.desk) == []


@pytest.mark.parametrize("env", USUAL, indirect=True)
def test_a_terminal_has_its_size_and_its_ctrl_c(env: dict[str, str], shell: Desk) -> None:
    go(shell, env)
    child = shell.terminal("start", "-y", AGENT)
    child.expect(r"engine +: \S+.*: Docker ")
    child.expect_exact("attaching to")
    child.sendline("stty size")
    child.expect_exact("40 120\r\n")
    resize(child)
    child.sendline("trap 'echo cau''ght' INT; sleep 4714")
    until(lambda: runs("sleep 4714"))
    child.sendintr()
    child.expect_exact("caught")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.wait()
    assert (child.exitstatus, leftovers(shell)) == (5, [])


@pytest.mark.slow
@pytest.mark.parametrize("env", WAYS, indirect=True)
def test_verify_finds_every_seal_held(env: dict[str, str], scene: Desk) -> None:
    go(scene, env)
    done = scene.run("verify", AGENT)
    assert done.returncode == 0 and set(rows(done).values()) <= {"held", "silent"}, (done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["TERM", "KILL", "INT", "closed"])
@pytest.mark.parametrize("env", WAYS, indirect=True)
def test_a_launcher_that_ends_at_any_moment_leaves_nothing(env: dict[str, str], tmp_path: Path, ending: str) -> None:
    assert ending in ENDINGS and wrong_at_any_moment(tmp_path / "launches", ending, env) == {}
