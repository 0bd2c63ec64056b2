"""The commands beside ``start``, on a fake engine: what no recording of the shell's shows."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pexpect
import pytest
from claude_bottle.lib.teardown.inventory import KEPT_PREFIX

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    for name in ("project", "home", "tmp"):
        (tmp_path / name).mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}


def run(tmp_path: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "cli.sh", *words], cwd=tmp_path / "project", env=env, capture_output=True, text=True, timeout=60
    )


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "project" / "claude-bottle.json"
    path.write_text(text)
    return path


def terminal(tmp_path: Path, env: dict[str, str], *words: str) -> pexpect.spawn:
    cwd = str(tmp_path / "project")
    return pexpect.spawn(str(ROOT / "cli.sh"), list(words), cwd=cwd, env=env, encoding="utf-8", timeout=30)


def test_an_agent_named_like_a_sidecar_is_listed(tmp_path: Path, env: dict[str, str]) -> None:
    boxes = [
        {"name": "claude-bottle-pipelock-x", "image": "i:1", "labels": {"claude-bottle.role": "agent"}},
        {"name": "claude-bottle-pipelock-x-2", "image": "i:1", "labels": {"claude-bottle.role": "sidecar"}},
    ]
    fake = FakeDocker(tmp_path / "engine", {"containers": boxes})
    done = run(tmp_path, {**env, "PATH": fake.path()}, "list", "active")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["claude-bottle-pipelock-x"]


def test_fifty_bottles_are_found_and_measured_in_as_many_calls_as_one(tmp_path: Path, env: dict[str, str]) -> None:
    labels = {"claude-bottle.owner": "o", "claude-bottle.role": "agent"}
    boxes = [{"name": f"claude-bottle-{number}", "labels": labels} for number in range(50)]
    fake = FakeDocker(tmp_path / "engine", {"containers": boxes})
    found = json.loads(run(tmp_path, {**env, "PATH": fake.path()}, "list", "active", "--json").stdout)
    assert len(found) == 50 and all(one["memory"] for one in found)
    assert [argv[0] for argv in fake.argvs()] == ["info", "ps", "stats"]


def test_an_engine_that_does_not_measure_costs_no_more_than_the_numbers(tmp_path: Path, env: dict[str, str]) -> None:
    kept = {"name": f"{KEPT_PREFIX}a.1", "status": "exited", "labels": {"claude-bottle.role": "agent"}}
    fake = FakeDocker(tmp_path / "engine", {"containers": [{"name": "claude-bottle-a"}, kept]})
    fake.fault("* stats: no")
    done = run(tmp_path, {**env, "PATH": fake.path()}, "list", "active", "--json")
    bottle, over = json.loads(done.stdout)
    assert (done.returncode, bottle["agent"], bottle["memory"], bottle["denied"]) == (0, "a", None, None)
    assert (bottle["state"], over["state"]) == ("running", "kept")


def test_cleanup_removes_by_id(tmp_path: Path, env: dict[str, str]) -> None:
    state = {
        "containers": [{"name": "claude-bottle-a"}, {"name": "other"}],
        "networks": [{"name": "claude-bottle-net-a"}],
    }
    fake = FakeDocker(tmp_path / "engine", state)
    child = terminal(tmp_path, {**env, "PATH": fake.path()}, "cleanup")
    child.expect_exact("[y/N] ")
    child.sendline("y")
    child.expect_exact("removed 1 containers and 1 networks")
    child.expect(pexpect.EOF)
    assert [box["name"] for box in fake.containers()] == ["other"] and fake.networks() == []
    assert not any("claude-bottle" in word for words in fake.argvs() if "rm" in words for word in words)


def test_a_pinned_bottle_is_listed_and_removed(tmp_path: Path, env: dict[str, str]) -> None:
    labels = {"claude-bottle.owner": "o", "claude-bottle.role": "agent"}
    boxes = [{"name": "mybox", "image": "i:1", "labels": labels}, {"name": "another"}]
    fake = FakeDocker(tmp_path / "engine", {"containers": boxes})
    env["PATH"] = fake.path()
    assert [line.split("\t")[0] for line in run(tmp_path, env, "list", "active").stdout.splitlines()] == ["mybox"]
    child = terminal(tmp_path, env, "cleanup")
    child.expect_exact("  container mybox\r\n")
    child.expect_exact("[y/N] ")
    child.sendline("y")
    child.expect(pexpect.EOF)
    assert [box["name"] for box in fake.containers()] == ["another"]


def test_what_an_earlier_start_left_is_told_once(tmp_path: Path, env: dict[str, str]) -> None:
    folder = tmp_path / "home" / ".local" / "state" / "claude-bottle" / "notes"
    folder.mkdir(parents=True)
    (folder / "1").write_text("could not remove container 'x': stuck\n")
    write(tmp_path, "{}")
    first, second = run(tmp_path, env, "list"), run(tmp_path, env, "list")
    said = "claude-bottle: warning: an earlier start could not remove container 'x': stuck\n"
    assert said in first.stderr and said not in second.stderr


NUMBERS = (
    """{"other": [1.50, 1e400, 123456789012345678901234567890, -0, 1E5], "agents": {"a": {"prompt": "x", "n": 2.0}}}"""
)


def test_numbers_stay_as_they_were_written(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path, NUMBERS)
    done = run(tmp_path, {**env, "EDITOR": "sed -i s/x/y/"}, "edit", "a")
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    for number in ("1.50", "1e400", "123456789012345678901234567890", "-0", "1E5", "2.0"):
        assert f" {number}" in text
    assert '"prompt": "y"' in text
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_edit_that_is_no_json_is_kept_and_the_manifest_is_as_it_was(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path, NUMBERS)
    done = run(tmp_path, {**env, "EDITOR": "sed -i s/}//"}, "edit", "a")
    assert done.returncode == 1 and path.read_text() == NUMBERS
    (kept,) = (tmp_path / "tmp").iterdir()
    assert f"your text is kept in {kept}" in done.stderr and '"prompt"' in kept.read_text()


def test_an_interrupt_at_a_question_of_init_writes_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    child = terminal(tmp_path, env, "init")
    child.expect_exact("agent name: ")
    child.sendline("a")
    child.expect_exact("bottle [default]: ")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 130
    assert list((tmp_path / "project").iterdir()) == []


def test_an_interrupt_belongs_to_the_editor(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path, NUMBERS)
    editor = tmp_path / "editor"
    editor.write_text('trap "echo heard" INT\necho ready\nread answer\nread answer\nsed -i s/x/z/ "$1"\n')
    child = terminal(tmp_path, {**env, "VISUAL": f"bash {editor}"}, "edit", "a")
    child.expect_exact("ready")
    child.sendintr()
    child.expect_exact("heard")
    child.sendline("")
    child.sendline("")
    child.expect_exact("updated agent 'a'")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0 and json.loads(path.read_text())["agents"]["a"]["prompt"] == "z"


def test_a_manifest_that_cannot_be_replaced_is_said(tmp_path: Path, env: dict[str, str]) -> None:
    target = tmp_path / "gone" / "claude-bottle.json"
    (tmp_path / "project" / "claude-bottle.json").symlink_to(target)
    child = terminal(tmp_path, env, "init")
    child.expect("error: .*link to a file that does not exist")
    child.expect(pexpect.EOF)


BROKEN = "claude-bottle.json at {path} is not valid JSON"
MEANWHILE = {
    "{": BROKEN,
    "[]": "claude-bottle.json at {path} must be a JSON object",
    '{"agents": []}': "'agents' in claude-bottle.json must be an object",
    '{"bottles": 5}': "'bottles' in claude-bottle.json must be an object",
    '{"agents": {"a": {"prompt": "mine"}}}': "agent 'a' already exists in {path}",
}


@pytest.mark.parametrize("text", MEANWHILE)
@pytest.mark.parametrize("answered", [0, 3])
def test_a_manifest_broken_while_init_asks_is_one_line_and_stays(
    tmp_path: Path, env: dict[str, str], text: str, answered: int
) -> None:
    path = write(tmp_path, '{"agents": {}}')
    child = terminal(tmp_path, env, "init")
    questions = ["agent name: ", "bottle [default]: ", "skills (space separated): ", "prompt: "]
    for number, question in enumerate(questions):
        child.expect_exact(question)
        if number == answered:
            path.write_text(text)
        child.sendline("a" if number == 0 else "")
        if number == answered == 0 and "bottles" not in text:
            break
    child.expect(pexpect.EOF)
    child.wait()
    said = [line for line in child.before.splitlines() if "error: " in line]
    wanted = MEANWHILE[text].format(path=path)
    if text == "[]" and answered:
        wanted = BROKEN.format(path=path)
    assert said == [f"claude-bottle: error: {wanted}"] and "Traceback" not in child.before
    assert child.exitstatus == 1 and path.read_text() == text
    assert list((tmp_path / "project").iterdir()) == [path]


def test_what_came_into_the_manifest_while_init_asked_is_kept(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path, '{"agents": {}}')
    child = terminal(tmp_path, env, "init")
    for question, answer in (("agent name: ", "a"), ("bottle [default]: ", "b"), ("skills", "")):
        child.expect_exact(question)
        child.sendline(answer)
    child.expect_exact("prompt: ")
    meanwhile = {"agents": {"other": {}}, "bottles": {"b": {"env": {"A": "1"}}}, "_note": 1}
    path.write_text(json.dumps(meanwhile))
    child.sendline("p")
    child.expect_exact("added agent 'a'")
    child.expect(pexpect.EOF)
    new = {"bottle": "b", "skills": [], "prompt": "p"}
    assert json.loads(path.read_text()) == {**meanwhile, "agents": {"other": {}, "a": new}}


def test_init_does_not_wait_for_the_writer_of_a_fifo(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path, "{}")
    child = terminal(tmp_path, env, "init")
    child.expect_exact("agent name: ")
    path.unlink()
    os.mkfifo(path)
    child.sendline("a")
    child.expect_exact(f"error: {path} is no regular file")
    child.expect(pexpect.EOF)
