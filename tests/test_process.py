"""What the launcher does to its own process: no core files, descriptors that are there, a Ctrl-C before it is ready."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from claude_bottle.lib.host import process, wait

from tests.conftest import ROOT
from tests.sweep import Run, until, wrong_words

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PR_GET_DUMPABLE = 3


def env(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}


def core_limit(pid: int) -> str:
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line)
    return line.split()[4]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@linux_only
def test_neither_launcher_nor_reaper_nor_docker_may_write_a_core(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    bottle.fake.session("echo in session; exec sleep 60")
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    child = bottle.begin()
    assert child.stdout and child.stderr and child.stdout.readline() == "in session\n"
    reaper, *clients = children(child.pid)  # the session's client, and those that look after sidecar and broker
    assert len(clients) == 3 and {core_limit(pid) for pid in (child.pid, reaper, *clients)} == {"0"}
    child.send_signal(signal.SIGQUIT)
    assert (child.wait(60), bottle.leftovers()) == (131, [])
    for stream in (child.stdout, child.stderr):
        stream.close()


@linux_only
def test_a_process_that_forbids_cores_is_not_dumpable_and_its_child_is() -> None:
    code = (
        "import ctypes, subprocess, sys; sys.path[:0] = sys.argv[1:];"
        "import process; process.forbid_cores();"
        f"look = 'import ctypes; print(ctypes.CDLL(None).prctl({PR_GET_DUMPABLE}))';"
        "exec(look); sys.stdout.flush(); subprocess.run([sys.executable, '-c', look])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT / "lib" / "host"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "1"]
    assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE) == 1  # the tests' own process is left alone


@linux_only
def test_the_editor_gets_the_users_own_limit(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_text('{"agents": {"a": {}}}')
    editor = tmp_path / "editor"
    editor.write_text(f"ulimit -c >{tmp_path}/limit\n")
    how = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_CORE, (512000, resource.RLIM_INFINITY))}
    words = [ROOT / "cli.sh", "edit", "a"]
    variables = {**env(tmp_path), "EDITOR": f"bash {editor}"}
    subprocess.run(words, cwd=tmp_path, env=variables, timeout=60, check=True, **how)
    assert (tmp_path / "limit").read_text().strip() == "500"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_closed_descriptors_are_opened_before_anything_takes_their_numbers(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    bottle = Run(tmp_path)
    bottle.fake.session(f"for fd in 0 1 2; do readlink /proc/self/fd/$fd; done >{tmp_path}/seen 2>&1")
    out = tmp_path / "out"

    def close() -> None:
        for fd in closed:
            os.close(fd)

    with out.open("wb") as file:
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        words = {"cwd": bottle.cwd, "env": bottle.env, "preexec_fn": close, "timeout": 60}
        done = subprocess.run(bottle.words, start_new_session=True, **streams, **words)
    said = out.read_text()
    assert (done.returncode, bottle.leftovers(), wrong_words(said)) == (0, [], "")
    assert ("attaching to claude-bottle-a" in said) == (2 not in closed)
    assert not any(word in said for word in ("{", "\0", "GET"))  # what goes to the reaper or to docker


def many_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, most))
    for fd in range(3, 1100):
        os.dup2(0, fd)


def test_more_descriptors_than_select_can_count_are_no_matter(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(
        bottle.words, cwd=bottle.cwd, env=bottle.env, preexec_fn=many_descriptors, close_fds=False, **how
    )
    assert (done.returncode, bottle.leftovers(), wrong_words(done.stderr)) == (0, [], ""), done.stderr


def test_no_descriptor_left_is_one_clear_line(tmp_path: Path) -> None:
    """The limit is lowered once the program runs, where it matters: in front of the first pipe."""
    code = (
        "import resource, sys, types; package = types.ModuleType('claude_bottle'); package.__path__ = [sys.argv[1]];"
        "sys.modules['claude_bottle'] = package; from claude_bottle.cli.main import main;"
        "from claude_bottle.lib.commands import listing; from claude_bottle.lib import docker;"
        "from claude_bottle.lib.host import run; run.load();"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)); sys.exit(main('cli.sh', ['list', 'active']))"
    )
    bottle = Run(tmp_path)
    words = [sys.executable, "-I", "-c", code, str(ROOT)]
    done = subprocess.run(words, cwd=bottle.cwd, env=bottle.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "claude-bottle: error: too many open files"
    assert "ulimit -n" in done.stderr and wrong_words(done.stderr) == ""


def test_poll_is_as_select_where_a_number_is_too_high() -> None:
    ours, theirs = os.pipe()
    high = 1500
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.dup2(theirs, high)
    begin = time.monotonic()
    assert wait.wait_for([ours], [], begin + 0.05) == (set(), set())
    assert wait.wait_for([ours], [high], begin + 30) == (set(), {high})
    os.write(high, b"x")
    assert wait.wait_for([ours], [high], begin + 30) == ({ours}, {high})
    os.close(ours)
    assert wait.wait_for([], [high], begin + 30) == (set(), {high})  # nobody reads: the write will say so
    os.close(theirs)
    os.close(high)


def test_ctrl_c_ends_the_launcher_in_silence_from_its_first_moment(tmp_path: Path) -> None:
    bottle = Run(tmp_path)
    bottle.fake.session("exec sleep 60")
    for milliseconds in range(0, 210, 10):
        child = bottle.begin()
        time.sleep(milliseconds / 1000)  # the moment is what is tried
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert child.returncode in (130, -signal.SIGINT), (milliseconds, err)
        assert (out, wrong_words(err), "KeyboardInterrupt" in err) == ("", "", False), (milliseconds, err)
        assert until(lambda: bottle.leftovers() == []), milliseconds


def test_ctrl_c_during_a_list_shows_all_of_it_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "claude-bottle.json").write_text(json.dumps({"agents": {f"agent-{n}": {} for n in range(20)}}))
    for milliseconds in range(0, 210, 10):
        child = subprocess.Popen(
            [ROOT / "cli.sh", "list"],
            cwd=tmp_path,
            env=env(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(milliseconds / 1000)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out.count("\n")) in (
            (130, 0),
            (-signal.SIGINT, 0),
            (0, 20),
        ), (milliseconds, err)
        assert wrong_words(err) == "" and "KeyboardInterrupt" not in err
    assert process._core_limit == []  # the tests' own process is left alone
