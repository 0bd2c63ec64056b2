"""The wheel and the sdist: what is in them, and the program that a clean venv has from them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.checkout import clone
from tests.conftest import ROOT
from tests.sweep import Run, until

CONTEXT = {".dockerignore", "Dockerfile", "Dockerfile.broker"}
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
LOCKS = {"requirements-dev.lock", "requirements-top.lock"}
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
WHEEL = (*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir")


def python(*words: str | Path, cwd: Path = ROOT) -> str:
    """Run this Python with the words; return its stdout."""
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    python("-c", BUILD_SDIST, folder, cwd=clone(folder / "checkout"))
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python(*WHEEL, folder, clone(folder / "checkout"))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A clean venv's bin folder, with the wheel and the packages of the lock file."""
    venv = tmp_path_factory.mktemp("venv")
    python("-m", "venv", "--without-pip", venv)
    install = (*PIP, "--python", venv / "bin" / "python", "install")
    python(*install, "--require-hashes", "-r", ROOT / "requirements.lock")
    python(*install, "--no-deps", "--no-index", wheel)
    return venv / "bin"


def contents(wheel: Path) -> dict[str, int]:
    """Return a wheel's files and their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def files(*folders: str) -> set[str]:
    """Return the program's files in folders of the checkout."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_holds_the_program_and_the_images_context_and_no_top_level_folder_of_ours(wheel: Path) -> None:
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    image = {f"lib/image/{name}" for name in CONTEXT}
    assert names == {f"claude_bottle/{name}" for name in files("cli", "lib") | image}


def test_a_wheel_made_from_the_sdist_is_the_same(tmp_path: Path, sdist: Path, wheel: Path) -> None:
    python(*WHEEL, tmp_path, sdist)
    (again,) = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)


def test_the_sdist_has_the_files_where_the_checkout_has_them(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= CONTEXT | files("cli", "lib") | {"LICENSE", "README.md", "pyproject.toml", "setup.cfg"}
    assert not any(name.startswith(("tests", "fixtures", "build")) for name in names)


def run(program: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_the_installed_command_shows_its_usage_and_an_agent(tmp_path: Path, installed: Path) -> None:
    bottle = Run(tmp_path)
    usage = run([installed / "claude-bottle", "--help"], bottle.cwd, bottle.env)
    assert usage.returncode == 0 and usage.stderr.startswith("usage: claude-bottle <command> [args...]\n")
    info = run([installed / "claude-bottle", "info", "a"], bottle.cwd, bottle.env)
    assert info.returncode == 0 and re.search("agent *: a\n", info.stderr), info.stderr


def test_top_says_what_it_lacks_where_only_the_others_packages_are(tmp_path: Path, installed: Path) -> None:
    bottle = Run(tmp_path)
    done = run([installed / "claude-bottle", "top"], bottle.cwd, bottle.env)
    assert done.returncode == 1 and "error: top needs the Python package textual\n" in done.stderr, done.stderr
    assert "in a checkout" in done.stderr and "pip install '.[top]'" in done.stderr


@pytest.mark.parametrize("name", ["cli", "lib"])
def test_nothing_of_ours_is_importable_under_a_common_name(tmp_path: Path, installed: Path, name: str) -> None:
    done = run([installed / "python", "-I", "-c", f"import {name}"], tmp_path, dict(os.environ))
    assert f"No module named '{name}'" in done.stderr


def test_an_installed_start_builds_from_a_folder_with_the_dockerfile_and_nothing_of_the_user(
    tmp_path: Path, installed: Path
) -> None:
    bottle = Run(tmp_path)
    bottle.words = [installed / "claude-bottle", "start", "-y", "a"]
    child = bottle.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, bottle.leftovers(), bottle.fake.unknown()) == (0, [], []), err
    builds = [argv for argv in bottle.fake.argvs() if argv[0] == "build"]
    (context,) = {Path(argv[-1]) for argv in builds}
    assert len(builds) == 2
    assert {path.name for path in context.iterdir()} == CONTEXT
    assert all((context / name).read_bytes() == (ROOT / name).read_bytes() for name in CONTEXT)


def test_an_installed_launcher_that_is_killed_is_cleaned_up_after(tmp_path: Path, installed: Path) -> None:
    bottle = Run(tmp_path)
    bottle.words = [installed / "claude-bottle", "start", "-y", "a"]
    bottle.kill_during("agent create")
    assert until(lambda: bottle.leftovers() == []), bottle.leftovers()


def test_every_lock_has_what_the_program_needs_in_the_same_versions() -> None:
    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^[a-z][\w.-]*==\S+", (ROOT / name).read_text(), re.MULTILINE))

    needed = pinned("requirements.lock")
    assert needed and all(pinned(name) >= needed for name in LOCKS)
    assert any(pin.startswith("textual==") for pin in pinned("requirements-top.lock") - needed)
