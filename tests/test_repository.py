"""Of which repository a folder is a part, what of it goes into a bottle, and whom nobody believes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from claude_bottle.lib.files import own_git, project, repository
from claude_bottle.lib.host.calls import one, perform
from claude_bottle.lib.host.git import git_call

from tests import projects
from tests.projects import git, status, unsettle, write
from tests.sweep import Run

LEADS_OUT = "which does not say that it is its: it is not followed"


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return projects.repository(tmp_path / "main")


@pytest.fixture
def tree(main: Path, tmp_path: Path) -> Path:
    """A linked worktree."""
    git(main, "worktree", "add", "-q", "-b", "topic", str(tmp_path / "tree"))
    return tmp_path / "tree"


def with_submodule(folder: Path, inner: Path) -> Path:
    outer = projects.repository(folder)
    git(outer, "submodule", "add", "-q", str(inner), "lib/größe x")
    return outer / "lib" / "größe x"


def look(folder: Path) -> project.Project:
    return project.look(str(folder))


def refused(folder: Path) -> str:
    """Return why a repository does not go in; nothing of it may."""
    found = look(folder)
    assert (found.repository, found.host_git) == (None, "")
    assert found.refused in found.warnings("/nowhere/home")
    return found.refused


def test_a_worktree_and_a_submodule_are_followed_to_the_repository_that_names_them(main: Path, tree: Path) -> None:
    found = look(tree).repository
    assert found and (found.kind, found.common) == ("linked worktree", f"{main}/.git")
    assert found.folder == f"{main}/.git/worktrees/tree"
    assert look(tree).host_git == f"{main}/.git"
    module = with_submodule(main.parent / "outer", main)
    found = look(module).repository
    assert found and (found.kind, found.folder) == ("submodule", f"{main.parent}/outer/.git/modules/lib/größe x")


def test_the_submodules_that_go_in_are_named_since_work_on_them_does_not_come_home(main: Path) -> None:
    module = with_submodule(main.parent / "outer", main)
    (said,) = look(main.parent / "outer").warnings("/nowhere/home")
    assert said == "work on submodules does not come home, but where one is what is started in: lib/größe x"
    subprocess.run(["rm", "-r", module], check=True)  # one that is not there has no work
    module.mkdir()
    assert look(main.parent / "outer").warnings("/nowhere/home") == look(main).warnings("/nowhere/home") == []


def test_a_git_file_that_leads_to_somebody_elses_repository_is_not_followed(main: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    write(evil, **{".git": f"gitdir: {main}/.git\n"})
    assert refused(evil) == f".git is a file that leads to {main}/.git, {LEADS_OUT}"
    # A worktree's own folder, played in the project: what it says of itself counts for nothing.
    write(evil, **{"fake/HEAD": "ref: refs/heads/main\n", "fake/commondir": f"{main}/.git\n"})
    write(evil, **{"fake/gitdir": f"{evil}/.git\n", ".git": "gitdir: fake\n"})
    assert LEADS_OUT in refused(evil)
    # Nor is the worktree of another folder this one's.
    git(main, "worktree", "add", "-q", str(tmp_path / "other"))
    write(evil, **{".git": f"gitdir: {main}/.git/worktrees/other\n"})
    assert LEADS_OUT in refused(evil)
    write(evil, **{".git": "no such thing"})
    assert refused(evil) == f".git is a file that leads to nothing, {LEADS_OUT}"


def test_a_repository_that_was_put_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    git(tmp_path, "init", "-q", "--separate-git-dir", str(tmp_path / "apart"), "project")
    assert refused(tmp_path / "project") == f".git is a file that leads to {tmp_path}/apart, {LEADS_OUT}"


@pytest.mark.parametrize("name", ["objects/pack", "refs/heads/x", "packed-refs", "objects/aa"])
def test_a_repository_with_a_link_to_other_objects_or_branches_is_not_read(
    main: Path, tree: Path, tmp_path: Path, name: str
) -> None:
    path = main / ".git" / name
    if path.is_dir():
        path.rmdir()
    path.symlink_to(tmp_path)
    assert refused(tree) == f"the repository does not go in: {path} is a link"


def test_a_subfolder_is_part_of_the_repository_that_tracks_it_and_of_no_other(main: Path, tree: Path) -> None:
    for root in (main, tree):
        found = look(root / "sub" / "deep").repository
        assert found and (found.kind, found.prefix) == (f"subfolder of {root}", "sub/deep")
        assert found.common == f"{main}/.git"
        write(root, **{"new/x": ""})
        assert look(root / "new").repository is None and look(root / "new").refused == ""
    (main / "sub" / ".git").mkdir()
    assert look(main / "sub").repository is None


def test_a_subfolder_whose_repository_cannot_be_read_is_said(main: Path) -> None:
    git(main, "update-index", "--split-index")
    assert refused(main / "sub") == "the repository does not go in: its index is not read (a split index)"


def test_objects_that_are_elsewhere_are_named_however_far(main: Path, tmp_path: Path) -> None:
    for before, after in (("main", "near"), ("near", "far")):
        git(tmp_path, "clone", "-q", "--shared", before, after)
    found = look(tmp_path / "far")
    places = (f"{tmp_path}/near/.git/objects", f"{tmp_path}/main/.git/objects")
    assert found.repository and found.repository.alternates == places
    assert f"with the history in {places[0]}, {places[1]}" in found.repository.described
    assert look(main).repository is None and look(main).git == ".git"
    (tmp_path / "main" / ".git").rename(tmp_path / "gone")
    assert f".git has objects in {places[1]}, which is not there: what needs them will fail" in found.warnings(
        "/nowhere"
    )


def test_without_a_git_of_the_host_it_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(tree) == "the repository does not go in (linked worktree): git not found on PATH"


def test_an_image_for_the_project_has_no_repository_of_a_worktree(tree: Path) -> None:
    for folder, kind in ((tree, "linked worktree"), (tree / "sub", f"subfolder of {tree}")):
        found = project.look(str(folder), may_build=False)
        assert (found.repository, found.refused) == (None, f"the repository does not go into an image ({kind})")


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, b""),
        ({".config/git/ignore": "a"}, b"a"),
        ({"xdg/git/ignore": "a"}, b"a"),
        ({".config/git/ignore": "a", ".gitconfig": "[core]\n\texcludesFile = ~/mine\n", "mine": "b"}, b"b"),
        ({".config/git/config": '[core]\nexcludesfile = "~/mine"\n', "mine": "b"}, b"b"),
        ({".gitconfig": "[core]\n\texcludesFile = relative\n", "relative": "b"}, b""),
        ({".gitconfig": "[core]\n\texcludesFile = ~/none\n", ".config/git/ignore": "a"}, b""),
    ],
)
def test_what_the_user_has_git_ignore_everywhere_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], wanted: bytes
) -> None:
    write(tmp_path, **files)
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"HOME": str(tmp_path)} | (
        {"XDG_CONFIG_HOME": str(tmp_path / "xdg")} if "xdg/git/ignore" in files else {}
    )
    assert project.users_ignores(environ) == wanted


def source(folder: Path) -> own_git.Source:
    found = look(folder).repository
    assert found
    return perform(own_git.read_source(found))


def test_a_configuration_goes_in_without_what_is_the_hosts_or_its_users(main: Path, tree: Path, tmp_path: Path) -> None:
    write(tmp_path, **{"more": "[user]\n\tname = included\n", "trap": "#!/bin/sh\ntouch sprung\n"})
    secret = "ghp_0123456789abcdef0123"
    for key, value in {
        "include.path": str(tmp_path / "more"),
        "core.hooksPath": str(tmp_path),
        "core.autocrlf": "input",
        "core.worktree": str(tmp_path),
        "credential.helper": "store",
        f"credential.https://{secret}@example.org.helper": "",
        "http.https://example.org/.extraHeader": f"Authorization: basic {secret}",
        f"url.https://{secret}@example.org/.insteadOf": "x:",
        "remote.origin.url": f"https://me:{secret}@example.org/a b\\c",
        "remote.origin.pushurl": "ssh://git@example.org/x",
        'branch.a "b".description': 'two\nlines\t\\ "quoted" # ;',
        "filter.lfs.process": "git-lfs filter-process",
        "user.email": "me@example.org",
        "extensions.worktreeConfig": "true",
    }.items():
        git(main, "config", key, value)
    git(tree, "config", "--worktree", "core.sparseCheckout", "true")
    made = tmp_path / "made"
    made.write_bytes(source(tree).config)
    assert secret not in made.read_text()
    listed = git(tmp_path, "config", "--file", str(made), "--list", "-z").split("\0")
    wanted = {
        "core.autocrlf\ninput",
        "remote.origin.url\nhttps://example.org/a b\\c",
        "remote.origin.pushurl\nssh://git@example.org/x",
        'branch.a "b".description\ntwo\nlines\t\\ "quoted" # ;',
        "filter.lfs.process\ngit-lfs filter-process",
        "user.email\nme@example.org",
        "core.sparsecheckout\ntrue",
        "core.bare\nfalse",
    }
    assert wanted <= set(listed)
    foreign = ("include", "credential", "http", "url", "core.hookspath", "core.worktree", "extensions")
    assert [line for line in listed if line.startswith(foreign)] == []


def test_nothing_that_a_repository_says_runs_on_the_host(main: Path, tree: Path, tmp_path: Path) -> None:
    write(tmp_path, trap=f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    (tmp_path / "trap").chmod(0o755)
    (main / ".git" / "hooks" / "post-index-change").symlink_to(tmp_path / "trap")
    large = projects.large_file(tree, "x.bin", b"large", main / ".git")
    for name in ("core.fsmonitor", "core.sshCommand", "core.pager", "core.alternateRefsCommand", "diff.external"):
        git(main, "config", name, str(tmp_path / "trap"))
    git(main, "config", "filter.lfs.process", str(tmp_path / "trap"))
    git(main, "config", "extensions.partialClone", "origin")
    git(main, "config", "remote.origin.promisor", "true")
    git(main, "config", "remote.origin.url", f"ext::{tmp_path}/trap")
    git(main, "config", "protocol.ext.allow", "always")
    lacking = git(main, "rev-parse", "HEAD~2:sub/deep/b.txt").strip()
    (main / ".git" / "objects" / lacking[:2] / lacking[2:]).unlink()
    with (main / ".git" / "config").open("a") as config:
        config.write("[alias]\n\tfor-each-ref = !false\n")
    (tmp_path / "sprung").unlink(missing_ok=True)  # by the above
    found = look(tree).repository
    assert found and source(tree).large == {large}
    call = git_call(found.folder, own_git.pack_words(found), stdin=[f"{tip}\n".encode() for tip in source(tree).tips])
    assert perform(one(call)).status == 128  # what it lacks is not fetched
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def run(tmp_path: Path, main: Path) -> Run:
    """A start of a linked worktree."""
    made = Run(tmp_path / "run")
    (made.cwd / ".dockerignore").rename(made.cwd.parent / "ignore")
    made.cwd.rmdir()
    git(main, "worktree", "add", "-q", "-b", "topic", str(made.cwd))
    unsettle(made.cwd)
    return made


def test_a_worktree_goes_in_with_a_repository_of_its_own(run: Run, main: Path, tmp_path: Path) -> None:
    write(main, **{"a.txt": "stashed"})
    git(main, "stash", "-q")
    write(main, **{".git/hooks/pre-commit": "x", ".git/hooks/x.sample": "", ".git/info/exclude": "*.tmp2\n"})
    before = {path: path.stat().st_mtime_ns for path in main.rglob("*")}
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err
    assert f"  git            : linked worktree, of {main}/.git; the bottle's repository is one of its own\n" in err
    members = [each for call in run.fake.calls() for each in call.get("tar") or []]
    prefix = "home/node/workspace/"
    names = {each["name"].removeprefix(prefix) for each in members if each["name"].startswith(prefix)}
    wanted = {"a.txt", ".git", ".git/HEAD", ".git/config", ".git/packed-refs", ".git/index", ".git/hooks/pre-commit"}
    assert wanted | {".git/info/exclude"} <= names
    assert [name for name in names if name.endswith(".sample") or "worktrees" in name or "gitdir" in name] == []
    (taken,) = [call for call in run.fake.argvs() if "index-pack" in call]
    assert taken[taken.index("-u") + 1] == "node" and "--git-dir=.git" in taken
    assert {path: path.stat().st_mtime_ns for path in main.rglob("*")} == before


def test_a_history_that_cannot_be_read_ends_the_start_and_leaves_nothing(run: Run, main: Path) -> None:
    blob = git(main, "rev-parse", "HEAD:a.txt").strip()
    (main / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (1, []), err
    assert "error: copying .git failed: " in err and blob in err


def unpacked(folder: Path, found: repository.Repository) -> None:
    """Make the bottle's repository of a project in a folder, as the bottle's git would."""
    made = perform(own_git.read_source(found))
    stream = b"".join([*own_git.members(found, made, ".git"), b"\0" * 1024])
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", folder], input=stream, check=True)
    words = ["git", f"--git-dir={found.folder}", *own_git.pack_words(found)]
    pack = subprocess.run(words, input="".join(f"{tip}\n" for tip in made.tips).encode(), capture_output=True)
    assert pack.returncode == 0, pack.stderr
    taken = ["git", "--git-dir=.git", *own_git.take_words(found)]
    subprocess.run(taken, cwd=folder, input=pack.stdout, capture_output=True, check=True)


@pytest.mark.parametrize("operation", ["merge other", "rebase --onto HEAD~1 HEAD~1 other", "cherry-pick other"])
@pytest.mark.parametrize("kind", ["", "sha256", "version 4"])
def test_an_operation_under_way_goes_on_in_the_bottle(tmp_path: Path, operation: str, kind: str) -> None:
    main, tree = tmp_path / "main", tmp_path / "tree"
    main.mkdir()
    git(main, "init", "-q", *(["--object-format=sha256"] if kind == "sha256" else []))
    for number in range(3):
        write(main, a=f"{number}\n", **{f"b{number}": ""})
        git(main, "add", ".")
        git(main, "commit", "-qm", str(number))
    git(main, "checkout", "-q", "-b", "other", "HEAD~2")
    write(main, a="else\n")
    git(main, "commit", "-qam", "other")
    git(main, "checkout", "-q", "main")
    git(main, "worktree", "add", "-q", "-b", "topic", str(tree))
    if kind == "version 4":
        git(tree, "update-index", "--index-version", "4")
    with pytest.raises(AssertionError, match=operation.split()[0]):  # it ends in a conflict
        git(tree, *operation.split())
    found = look(tree).repository
    assert found
    whole, short = git(tree, "status"), status(tree)
    (tree / ".git").unlink()
    unpacked(tree, found)
    assert (git(tree, "status"), status(tree)) == (whole, short)
    assert "UU a" in short
    git(tree, "fsck", "--no-dangling")
    write(tree, a="solved\n")
    git(tree, "add", "a")
    git(tree, "-c", "core.editor=true", operation.split()[0], "--continue")
    assert status(tree) == ""
