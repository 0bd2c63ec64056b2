"""A bottle's own image: what its Dockerfile may be, what is built of it, and that nothing is made before it is fit."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.consent.approval import added
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import recipe
from claude_bottle.lib.files.recipe import Recipe
from claude_bottle.lib.manifest import manifest_find

from tests.conftest import ROOT
from tests.sweep import Run, until

PLAIN = "ARG CLAUDE_BOTTLE_BASE\nFROM ${CLAUDE_BOTTLE_BASE}\nUSER node\n"
COPYING = PLAIN + "COPY tool /opt/tool\n"
NAME = "tools.Dockerfile"
PROGRAM = "/usr/local/bin/claude-bottle-seals"
IMAGES = ("claude-bottle-tools:", "<none>")  # which stay


def look(folder: Path, text: str = COPYING, home: str = "/nowhere") -> Recipe:
    """Return what a folder's Dockerfile is built from, as a new command sees it."""
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(text)
    recipe.look.cache_clear()
    return recipe.look(str(folder / NAME), str(folder), home)


def members(found: Recipe) -> dict[str, tuple[int, bytes]]:
    """Return what the builder gets: mode and content by name; of a link its target."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(found.stream()))) as archive:
        each = [(it, archive.extractfile(it) if it.isreg() else None) for it in archive]
        return {it.name: (it.mode, file.read() if file else it.linkname.encode()) for it, file in each}


@pytest.mark.parametrize(
    ("line", "copies"),
    [
        ("COPY tool /opt/", True), ("  add tool /opt/", True), ("ONBUILD COPY tool /opt/", True),
        ("RUN --mount=type=bind,target=/src make", True), ("COPY --from=other /go /go", False),
        ("RUN --mount=type=cache,target=/root/.cache pip install x", False), ("RUN git remote add x y", False),
        ("# COPY tool /opt/", False),
    ],
)  # fmt: skip
def test_the_folder_goes_along_only_where_something_is_copied_from_it(tmp_path: Path, line: str, copies: bool) -> None:
    (tmp_path / "tool").write_text("x")
    found = look(tmp_path, f"{PLAIN}{line}\n")
    assert (found.copies, found.count) == (copies, int(copies))
    assert set(members(found)) == {NAME, *(["tool"] if copies else [])}


def test_what_goes_to_the_builder_has_one_owner_one_time_and_one_of_two_modes(tmp_path: Path) -> None:
    for name, mode in (("tool", 0o700), ("text", 0o600)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    found = look(tmp_path)
    got = members(found)
    assert (got["tool"], got["text"]) == ((0o755, b"tool"), (0o644, b"text"))
    assert got["link"] == (0o777, b"/etc/passwd") and "pipe" not in got
    os.utime(tmp_path / "tool", (1, 1))
    (tmp_path / "text").chmod(0o644)
    assert look(tmp_path).digest == found.digest
    (tmp_path / "text").chmod(0o755)
    assert look(tmp_path).digest != found.digest


def test_what_dockerignore_leaves_out_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!tool\n")
    (tmp_path / "tool").write_text("x")
    found = look(tmp_path)
    (tmp_path / "other").write_text("x")
    assert set(members(found)) == {NAME, "tool"} and look(tmp_path).digest == found.digest
    (tmp_path / f"{NAME}.dockerignore").write_text("tool\n")
    assert set(members(look(tmp_path))) == {NAME, "other"}


def test_what_changes_after_the_plan_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    found = look(tmp_path)
    (tmp_path / "tool").write_text("y")
    got = b""
    with pytest.raises(BottleError, match="has changed since the plan was made"):
        for piece in found.stream():
            got += piece
    assert not got.endswith(b"\0" * 1024)


def test_a_folder_that_is_too_large_and_the_users_home_do_not_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool").write_text("x")
    for home in (str(tmp_path), f"{tmp_path}/below"):
        with pytest.raises(BottleError, match="which is your home"):
            look(tmp_path, home=home)
        assert not look(tmp_path, PLAIN, home).copies
    for name, most in (("MAX_FILES", 1), ("MAX_BYTES", 512)):
        with monkeypatch.context() as patched:
            patched.setattr(recipe, name, most)
            with pytest.raises(BottleError, match="copies from a folder with more than"):
                look(tmp_path)


class Started(Run):
    """A start whose bottle has a Dockerfile, which the home's manifest names, or the project's."""

    def __init__(self, folder: Path, text: str | None = PLAIN, where: str = "home", name: str = NAME, **engine: Any):
        super().__init__(folder, **engine)
        self.folder = self.home if where == "home" else self.cwd
        agents = {"a": {"bottle": "b"}}
        (self.home / "claude-bottle.json").write_text(json.dumps({"bottles": {"b": {}}, "agents": agents}))
        manifest = {"bottles": {"b": {"dockerfile": name}}, "agents": agents}
        (self.folder / "claude-bottle.json").write_text(json.dumps(manifest))
        if text is not None:
            (self.folder / NAME).write_text(text)
        self.words = [*self.program, "start", "-y", "a"]

    def end(self) -> subprocess.CompletedProcess[str]:
        with self.begin() as child:
            out, err = child.communicate(timeout=60)
        assert self.fake.unknown() == []
        return subprocess.CompletedProcess(self.words, child.returncode, out, err)

    def made(self) -> list[str]:
        """Return what was made on the engine, in its order: its roles, and of images what they are of."""
        found = []
        for argv in self.fake.argvs():
            if argv[0] == "build":
                found.append("tools" if argv[-1] == "-" else "image")
            elif "create" in argv[:2]:
                found += [word.partition("=")[2] for word in argv if word.startswith("claude-bottle.role=")]
        return found

    def words_of(self, role: str, number: int = 0) -> list[str]:
        """Return the words of a create call."""
        created = [argv for argv in self.fake.argvs() if "create" in argv[:2]]
        return [argv for argv in created if f"claude-bottle.role={role}" in argv][number]

    def leftovers(self) -> list[str]:
        """Return what is left beside the images, which stay."""
        return [name for name in super().leftovers() if not name.startswith(IMAGES)]


def test_an_image_is_built_once_looked_at_and_then_taken_without_its_own_will(tmp_path: Path) -> None:
    run = Started(tmp_path, PLAIN + "ENTRYPOINT x\n")
    done = run.end()
    assert done.returncode == 0 and run.leftovers() == [], done.stderr
    made = run.made()
    assert made.index("tools") < made.index("probe") < min(made.index("internal"), made.index("egress"))
    words = run.words_of("agent")
    at = words.index("--entrypoint")
    assert words[at : at + 5] == ["--entrypoint", "/usr/bin/env", "--no-healthcheck", "--workdir", "/home/node"]
    assert words[words.index("--user") + 1] == "0:0" and words[-2:] == ["/usr/local/bin/claude-bottle-guard", "600"]
    looked = run.words_of("probe")
    assert looked[looked.index("--network") + 1] == "none" and {"--cap-drop", "LD_PRELOAD="} <= set(looked)
    again = run.end()
    assert again.returncode == 0 and run.made().count("tools") == 1, again.stderr
    assert "sealed: 13 of 13 probes" in again.stderr
    # One look at the base's two names each, and one at the tag.
    assert [argv[-1] for argv in run.fake.argvs() if argv[:2] == ["image", "inspect"]].count(tag(run)) == 2


def tag(run: Started) -> str:
    (name,) = {it["name"] for it in run.fake.images() if it["name"].startswith("claude-bottle-tools:")
               and not it["name"].endswith("-unchecked")}  # fmt: skip
    return str(name)


def test_the_seals_are_seen_by_the_usual_image_too_and_no_value_goes_in_where_one_is_broken(tmp_path: Path) -> None:
    run = Started(tmp_path, broken=["gateway"])
    done = run.end()
    assert done.returncode == 1 and run.leftovers() == []
    assert "error: the bottle is not sealed: gateway:" in done.stderr
    words = run.words_of("probe", 1)
    assert words[words.index("--network") + 1].startswith("container:")
    at = words.index("--entrypoint")
    assert words[at + 1 : at + 4] == ["/usr/bin/env", "claude-bottle:latest", "-i"]
    assert words[at + 5] == PROGRAM and not any(word.startswith("placeholder=") for word in words)
    assert not [argv for argv in run.fake.argvs() if argv[0] == "exec" and PROGRAM in argv]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM other\nUSER node\n", "its image is not built on the bottle's"),
        (PLAIN + "USER root\n", "its image ends as user 'root', not as 'node'"),
        (PLAIN + "VOLUME /data\n", "a VOLUME would keep files of the bottle on the engine: /data"),
        (PLAIN + "ONBUILD USER root\n", "an ONBUILD would act on what is built on its image"),
        (PLAIN + "LABEL claude-bottle.owner=me\n", "labels that begin with 'claude-bottle.' are the launcher's"),
        (PLAIN + "# uid=0\n", "the user 'node' of its image has the number 0, not 1000"),
        (PLAIN + "# claude=\n", "its image has no claude on its PATH"),
        (PLAIN + "# uid=\n", "/usr/bin/perl of its image does not run what it is given"),
        (PLAIN + "# values=taken\n", "its image has /run/claude-bottle, where a session's values go"),
        (PLAIN + "# status=127\n", "its image cannot run /usr/bin/perl"),
    ],
)
def test_what_is_no_image_for_a_bottle_is_said_before_a_network_is_made(tmp_path: Path, text: str, says: str) -> None:
    run = Started(tmp_path, text)
    for _ in range(2 if "VOLUME" in text else 1):  # the second time it is in the cache, and no fitter
        done = run.end()
        assert done.returncode == 1 and f"error: {run.folder}/{NAME}: {says}" in done.stderr, done.stderr
        assert not {"internal", "egress", "agent", "sidecar"} & set(run.made()) and run.leftovers() == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("image build tools#1", "docker build failed ("),
        ("probe create#1", "docker create failed: it refuses"),
        ("probe start#1", "its image cannot run /usr/bin/perl: it refuses"),
        ("image tag#1", "docker image tag failed: it refuses"),
        ("probe create#2", "docker create failed: it refuses"),
        ("probe cp#1", "copying a probe failed: it refuses"),
        ("probe start#2", "docker start failed: it refuses"),
    ],
)
def test_a_failure_on_the_way_ends_the_start_and_leaves_nothing(tmp_path: Path, call: str, says: str) -> None:
    run = Started(tmp_path)
    run.fake.fault(f"{call}: it refuses")
    done = run.end()
    assert done.returncode == 1 and says in done.stderr and run.leftovers() == [], done.stderr


@pytest.mark.parametrize("call", ["probe create", "probe start", "probe start#2"])
def test_a_launcher_that_is_killed_while_a_probe_looks_leaves_nothing(tmp_path: Path, call: str) -> None:
    run = Started(tmp_path)
    run.kill_during(call)
    assert until(lambda: run.leftovers() == []), run.leftovers()


def test_the_plan_and_info_name_it_and_a_dry_run_builds_nothing(tmp_path: Path) -> None:
    run = Started(tmp_path, COPYING)
    (run.folder / "sub").mkdir()
    (run.folder / "sub" / NAME).write_text(COPYING)
    (run.folder / "sub" / "tool").write_text("x")
    manifest = {"bottles": {"b": {"dockerfile": f"./sub/{NAME}"}}, "agents": {"a": {"bottle": "b"}}}
    (run.folder / "claude-bottle.json").write_text(json.dumps(manifest))
    for words in (["start", "--dry-run", "a"], ["info", "a"]):
        done = run.command(*words)
        lines = [line.removeprefix("claude-bottle: ") for line in done.stderr.splitlines()]
        (at,) = (number for number, line in enumerate(lines) if line.startswith("  dockerfile"))
        assert lines[at].startswith(f"  dockerfile     : {run.folder}/sub/{NAME} (sha256:"), done.stderr
        assert lines[at].endswith(", with 1 files of its folder)")
        assert lines[at + 1] == "                 : its build has the engine's network, and none of the secrets"
    assert run.made() == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("none", None, "dockerfile: there is no {}/none"),
        ("folder", None, "dockerfile: cannot read {}/folder: not a plain file"),
        ("pipe", None, "dockerfile: cannot read {}/pipe: not a plain file"),
        ("out", None, "dockerfile: {}/out leads to /etc/passwd, out of the manifest's folder"),
        ("dangling", None, "dockerfile: there is no {}/dangling"),
        (NAME, COPYING, "dockerfile: {}/tools.Dockerfile copies from its folder, which is your home"),
        ("/etc/passwd", None, "dockerfile must be a path from the manifest's own folder down, without .."),
        ("sub/../../x", None, "dockerfile must be a path from the manifest's own folder down, without .."),
        ("-", None, "dockerfile must be a path from the manifest's own folder down, without .."),
    ],
)
def test_what_is_no_dockerfile_is_one_error_and_nothing_is_made(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    run = Started(tmp_path, text, name=name)
    (run.folder / "folder").mkdir()
    os.mkfifo(run.folder / "pipe")
    (run.folder / "out").symlink_to("/etc/passwd")
    (run.folder / "dangling").symlink_to("nothing")
    for words in (["start", "-y", "a"], ["start", "--dry-run", "a"], ["info", "a"]):
        done = run.command(*words)
        assert done.returncode == 1 and run.made() == []
        line = f"claude-bottle: error: bottle 'b': {says.format(run.folder)}"
        assert done.stderr.splitlines()[0].startswith(line), done.stderr
        assert f"{run.folder}/claude-bottle.json: $.bottles.b.dockerfile" in done.stderr


def test_a_folders_dockerfile_needs_a_yes_to_what_is_in_it_and_beside_it(tmp_path: Path) -> None:
    run = Started(tmp_path, COPYING, where="project")
    (run.cwd / "tool").write_text("x")
    refused = run.end()
    looked = run.command("verify", "a")
    assert looked.returncode == 1 and "nothing is built of what ./claude-bottle.json adds" in looked.stderr
    assert refused.returncode == 1 and run.made() == []
    assert "$.bottles.b.dockerfile : the image, built by tools.Dockerfile (sha256:" in refused.stderr
    assert run.command("approve", "-y").returncode == 0
    assert run.end().returncode == 0
    (run.cwd / "tool").write_text("y")
    changed = run.end()
    assert changed.returncode == 1 and "$.bottles.b.dockerfile (changed) : the image" in changed.stderr
    assert run.made().count("tools") == 1


def entries(folder: Path, cwd: object, home: object) -> list[str]:
    """Return what a folder's manifest adds to the home's for agent ``a``."""
    for name, manifest in (("cwd", cwd), ("home", home)):
        (folder / name / "claude-bottle.json").write_text(json.dumps(manifest))
    recipe.look.cache_clear()
    found = manifest_find(str(folder / "cwd"), str(folder / "home"))
    return [entry.path for entry in added(found, ["a"])]


def test_only_a_dockerfile_that_the_home_has_not_is_listed(tmp_path: Path) -> None:
    for name in ("cwd", "home"):
        look(tmp_path / name, PLAIN)
    whole = {"bottles": {"b": {"dockerfile": NAME}}, "agents": {"a": {"bottle": "b"}}}
    agent: dict[str, Any] = {"agents": {"a": {"bottle": "b"}}}
    at = "$.bottles.b.dockerfile"
    assert entries(tmp_path, agent, whole) == []
    assert entries(tmp_path, whole, whole) == []
    assert entries(tmp_path, {"bottles": {"b": {"dockerfile": None}}}, whole) == []
    assert entries(tmp_path, agent, {"bottles": whole["bottles"], "agents": {"a": {}}}) == ["$.agents.a.bottle", at]
    look(tmp_path / "cwd", PLAIN + "RUN true\n")
    assert entries(tmp_path, whole, whole) == [at]
    (tmp_path / "cwd" / NAME).unlink()
    assert entries(tmp_path, whole, whole) == [at]


def images(*names: str) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names):
        yield {"id": f"sha256:{number + 1:064x}", "name": name, "labels": {"claude-bottle.tools": "x"}}


def test_cleanup_removes_the_images_of_dockerfiles_that_no_container_has(tmp_path: Path) -> None:
    mine = "claude-bottle-tools:a", "claude-bottle-tools:b", "<none>:<none>", "mine:latest"
    run = Run(
        tmp_path,
        images=[*images(*mine), {"name": "other:latest"}],
        containers=[{"name": "x", "image": "claude-bottle-tools:b"}],
        networks=[],
    )
    done = run.command("cleanup", "--images", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "claude-bottle: removed 2 images"
    assert [line for line in done.stderr.splitlines() if line.startswith("  image ")] == [
        "  image claude-bottle-tools:a (1.5GB)", f"  image sha256:{3:064x} (1.5GB)",
    ]  # fmt: skip
    assert [it["name"] for it in run.fake.images()] == ["claude-bottle-tools:b", "mine:latest", "other:latest"]
    assert run.command("cleanup", "--images").stderr == "claude-bottle: nothing to clean up\n"
    both = run.command("cleanup", "--images", "--stale")
    assert both.returncode == 2 and "--stale and --images do not go together" in both.stderr


@pytest.mark.parametrize("language", ["python", "go", "rust", "java"])
def test_the_page_has_the_examples_that_are_tested(language: str) -> None:
    page = (ROOT / "docs" / "images.md").read_text()
    assert f"```dockerfile\n{(ROOT / 'fixtures' / 'tools' / language / NAME).read_text()}```\n" in page


def test_the_page_names_what_the_image_has() -> None:
    packages = re.findall(r"^        ([\w. +-]+) \\$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "images.md").read_text().partition("## Examples")[0]
    called = {"ca-certificates": "authorities", "openssh-client": "an ssh client", "python3-venv": "venv"}
    names = [called.get(name, name) for name in " ".join(packages).split()]
    assert len(names) > 15 and [name for name in names if name not in page] == []
