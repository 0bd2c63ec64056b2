"""What of a project goes into a bottle, seen from outside: what the plan says, and what the engine is given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import git_index, project

from tests.sweep import Run

SECRET = "hunter2-0123456789abcdef"


def git(folder: Path, *words: str, stdin: str | None = None) -> str:
    safe = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", "-C", folder, *who, *words], env=safe, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A start with --cwd of a project that is a repository."""
    made = Run(tmp_path)
    git(made.cwd, "init", "-q")
    return made


def start(run: Run, *words: str, status: int = 0) -> str:
    """Run the launcher to its end and return what it said."""
    run.words = [*run.words[:-3], *words, *run.words[-3:]]
    child = run.begin()
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, run.leftovers()) == (status, "", []), err
    return err


def members(run: Run) -> dict[str, dict[str, Any]]:
    """Return what the engine was given for the workspace: each path from there on."""
    found = [member for call in run.fake.calls() for member in call.get("tar") or []]
    prefix = "home/node/workspace/"
    return {each["name"].removeprefix(prefix): each for each in found if each["name"].startswith(prefix)}


def test_the_project_goes_in_as_one_stream_and_no_image_is_made(run: Run) -> None:
    write(run.cwd, **{".dockerignore": "*.log\n.git\n", "a": "", "b.log": "", "sub/c": ""})
    err = start(run)
    calls = [call["argv"] for call in run.fake.calls() if call["argv"][0] == "cp" and call.get("tar")]
    streams = [c for c in run.fake.calls() if any("workspace" in m["name"] for m in c.get("tar") or [])]
    assert len(streams) == 1 and streams[0]["argv"] in calls
    assert {".dockerignore", "a", "sub", "sub/c", ".git", ".git/HEAD"} <= members(run).keys()
    assert "b.log" not in members(run)
    assert [argv for argv in run.fake.argvs() if argv[0] == "build" and "-" in argv] == []
    copied = f"copying {run.cwd} into claude-bottle-a-2:/home/node/workspace\n"
    assert copied + "claude-bottle: copying .git into claude-bottle-a-2:/home/node/workspace/.git\n" in err


def test_nothing_of_the_repository_runs_on_the_host(run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    write(run.cwd, a="", **{".dockerignore": "a"})
    git(run.cwd, "add", "a")
    for name in ("core.fsmonitor", "core.hooksPath", "core.sshCommand"):
        git(run.cwd, "config", name, str(trap) if name != "core.hooksPath" else str(tmp_path))
    assert "left out       : 1 tracked files" in start(run)
    assert not (tmp_path / "sprung").exists()


def test_a_git_that_is_a_link_out_of_the_project_is_named_and_not_followed(run: Run, tmp_path: Path) -> None:
    (run.cwd / ".git").rename(tmp_path / "private")
    (run.cwd / ".git").symlink_to("../private")
    err = start(run)
    assert f".git is a link to ../private, outside {run.cwd}: it stays a link, not followed" in err
    assert "copying .git" not in err
    assert [name for name in members(run) if name.startswith(".git/")] == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_git_that_is_a_link_into_the_project_works(run: Run, whole: bool) -> None:
    write(run.cwd, **{".dockerignore": "meta\n.git\n", "meta/other": ""})
    (run.cwd / ".git").rename(run.cwd / "meta" / "git")
    (run.cwd / ".git").symlink_to(run.cwd / "meta" / "git" if whole else "meta/git")
    err = start(run)
    assert "copying .git into" in err and "stays a link" not in err
    assert {".git", "meta", "meta/git", "meta/git/HEAD"} <= members(run).keys()
    assert "meta/other" not in members(run)
    assert project.look(str(run.cwd)).links == {".git": "meta/git"}


def test_the_plan_counts_tracked_files_that_stay_out_and_not_deleted_ones(run: Run) -> None:
    write(run.cwd, **{"a.md": "", "b.md": "", "gone.md": "", "kept": "", ".dockerignore": "*.md"})
    git(run.cwd, "add", ".")
    (run.cwd / "gone.md").unlink()
    write(run.cwd, **{"untracked.md": ""})
    err = start(run)
    assert "  left out       : 2 tracked files, by .dockerignore; not deleted to git\n" in err
    (marked,) = [call for call in run.fake.argvs() if "update-index" in call]
    assert marked[marked.index("-u") + 1] == "node" and "core.fsmonitor=false" in marked
    assert "core.hooksPath=/dev/null" in marked and "--skip-worktree" in marked


@pytest.mark.parametrize("ignore", ["", "nothing-like-it"])
def test_nothing_is_marked_where_all_goes_in(run: Run, ignore: str) -> None:
    write(run.cwd, a="", **{".dockerignore": ignore})
    git(run.cwd, "add", "a")
    assert "left out" not in start(run)
    assert [call for call in run.fake.argvs() if "update-index" in call] == []


def split(folder: Path) -> None:
    git(folder, "update-index", "--split-index")


def cut(folder: Path) -> None:
    path = folder / ".git" / "index"
    path.write_bytes(path.read_bytes()[:50])


def foreign(folder: Path) -> None:
    (folder / ".git" / "index").write_bytes(b"\0" * 1000)


def linked(folder: Path) -> None:
    (folder / ".git" / "index").rename(folder.parent / "index")
    (folder / ".git" / "index").symlink_to(folder.parent / "index")


@pytest.mark.parametrize("spoil", [split, cut, foreign, linked])
def test_an_index_that_is_not_read_is_said(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = tmp_path / "project"
    write(folder, a="", **{".dockerignore": "a"})
    git(folder, "init", "-q")
    git(folder, "add", "a")
    spoil(folder)
    (said,) = warnings(folder)
    assert said.startswith(".git/index is not read (")
    assert said.endswith("): tracked files that .dockerignore leaves out look deleted in the bottle")


@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_an_index_of_any_version_is_read_as_git_reads_it(tmp_path: Path, version: str, kind: str) -> None:
    git(tmp_path, "init", "-q", f"--object-format={kind}")
    names = ["a", "ab/c", "ab/cd", "größe", "x" * 250, "/".join(["deep"] * 40), "y\nz", "skipped"]
    for name in names:
        write(tmp_path, **{name: ""})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "update-index", "--index-version", version)
    git(tmp_path, "update-index", "--skip-worktree", "skipped")
    data = (tmp_path / ".git" / "index").read_bytes()
    listed = subprocess.run(["git", "-C", tmp_path, "ls-files", "-z"], capture_output=True, check=True).stdout
    want = {os.fsdecode(name) for name in listed.split(b"\0") if name} - {"skipped"}
    assert data[7] >= int(version) or version == "3"
    assert set(git_index.tracked(data, 20 if kind == "sha1" else 32)) == want
    write(tmp_path, **{".dockerignore": "*"})
    assert set(project.look(str(tmp_path)).left_out) == want


def test_an_index_cut_at_any_place_is_an_error_of_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, a="", **{"b/c": ""})
    git(tmp_path, "add", ".")
    for version in ("2", "4"):
        git(tmp_path, "update-index", "--index-version", version)
        data = (tmp_path / ".git" / "index").read_bytes()
        for size in range(140):
            with pytest.raises(ValueError, match="index"):
                git_index.tracked(data[:size])


def warnings(folder: Path, **files: str) -> list[str]:
    """Return what is said of a folder with some files in it."""
    write(folder, **files)
    return project.look(str(folder)).warnings("/nowhere/home")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".ssh/id_ed25519", SECRET),
        (".aws/credentials", SECRET),
        (".netrc", f"password {SECRET}"),
        (".env", f"A={SECRET}"),
        (".env.production", f"A={SECRET}"),
        (".npmrc", f"//registry.example.org/:_authToken={SECRET}"),
        (".pypirc", f"[pypi]\npassword = {SECRET}"),
        (".docker/config.json", f'{{"auths": {{"x": {{"auth": "{SECRET}"}}}}}}'),
        (".config/gcloud/token", SECRET),
    ],
)
def test_what_may_hold_credentials_is_named_and_never_shown(tmp_path: Path, name: str, text: str) -> None:
    (said,) = warnings(tmp_path, **{name: text})
    assert "may hold credentials: " in said and name.startswith(said.split(": ")[-1])
    assert SECRET not in said


def test_one_line_of_the_plan_names_all_that_may_hold_credentials(run: Run) -> None:
    write(run.cwd, **{".netrc": SECRET, ".env": SECRET, ".ssh/id": SECRET, ".dockerignore": ".ssh\n"})
    (run.cwd / ".aws").symlink_to("/root")
    git(run.cwd, "config", "remote.origin.url", f"https://me:{SECRET}@git.example.org/x.git")
    run.env["HOME"] = str(run.cwd)
    write(
        run.cwd,
        **{".claude/skills/s/SKILL.md": "", "claude-bottle.json": (run.home / "claude-bottle.json").read_text()},
    )
    err = start(run)
    found = "your home folder, .netrc, .env, a token in .git/config"
    assert f"claude-bottle: warning: the bottle gets what may hold credentials: {found}\n" in err
    assert SECRET not in err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".npmrc", "registry=https://registry.example.org/\n//registry.example.org/:_authToken=${NPM_TOKEN}"),
        (".pypirc", "[pypi]\nusername = me"),
        (".docker/config.json", '{"credsStore": "desktop"}'),
        (".env.example", "A=yours"),
        ("environment", ""),
    ],
)
def test_what_holds_none_is_not_named(tmp_path: Path, name: str, text: str) -> None:
    assert warnings(tmp_path, **{name: text}) == []


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("remote.origin.url", f"https://me:{SECRET}@git.example.org/x.git", True),
        ("remote.origin.url", f"https://{SECRET}@git.example.org/x.git", True),
        ("http.https://git.example.org/.extraheader", f"AUTHORIZATION: basic {SECRET}", True),
        ("remote.origin.url", "https://me@git.example.org/x.git", False),
        ("remote.origin.url", "ssh://git@git.example.org/x.git", False),
    ],
)
def test_a_token_in_the_repositorys_configuration_is_named(tmp_path: Path, key: str, value: str, named: bool) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", key, value)
    said = ["the bottle gets what may hold credentials: a token in .git/config"]
    assert warnings(tmp_path) == (said if named else [])


@pytest.mark.parametrize("home", [".", "me", "../elsewhere"])
def test_a_home_folder_that_goes_in_is_named(tmp_path: Path, home: str) -> None:
    said = project.look(str(tmp_path)).warnings(str(tmp_path / home))
    assert said == ([] if ".." in home else ["the bottle gets what may hold credentials: your home folder"])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def bad(path: Path) -> None:
    path.write_text("a\n[\n")


def huge(path: Path) -> None:
    path.write_bytes(b"a\n" * (1 << 20))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "cannot read {}: not a plain file"),
        (dangling, "cannot read {}: a link to nothing"),
        (Path.mkdir, "cannot read {}: not a plain file"),
        (huge, "cannot read {}: larger than 1 MiB"),
        (bad, "{}: line 2 is no pattern that docker takes"),
    ],
)
def test_a_dockerignore_that_cannot_be_followed_is_named(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / ".dockerignore")
    with pytest.raises(BottleError) as failure:
        project.look(str(tmp_path))
    assert failure.value.message == said.format(tmp_path / ".dockerignore")


def test_a_dockerignore_that_cannot_be_followed_is_an_error_before_anything_is_made(run: Run) -> None:
    bad(run.cwd / ".dockerignore")
    err = start(run, status=1)
    assert err == f"claude-bottle: error: {run.cwd}/.dockerignore: line 2 is no pattern that docker takes\n"
    assert [argv for argv in run.fake.argvs() if argv[0] in ("build", "create")] == []


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_left(run: Run) -> None:
    inner = "/".join(["d" * 200] * 19 + ["e" * 150])
    os.makedirs(run.cwd / inner)
    fd = os.open(run.cwd / inner, os.O_RDONLY)
    os.mkdir("f" * 200, dir_fd=fd)
    os.close(fd)
    err = start(run, status=1)
    assert f"error: copying workspace failed: File name too long: {run.cwd}/" in err


def test_an_image_asked_for_by_name_is_made_with_one_warning(run: Run) -> None:
    write(run.cwd, a="")
    run.env["CLAUDE_BOTTLE_DERIVED_IMAGE"] = "mine:1"
    err = start(run)
    assert err.count("CLAUDE_BOTTLE_DERIVED_IMAGE is set: the engine keeps the project in 'mine:1'") == 1
    assert f"derived image    : mine:1 (from {run.cwd})" in err
    assert "a" not in members(run) and ".git/HEAD" in members(run)
    assert "mine:1" in [image["name"] for image in run.fake.images()]
