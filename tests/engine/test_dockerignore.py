"""Our reading of .dockerignore against docker's own: the same generated trees, built into an image and walked by us."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from claude_bottle.lib.files import project, tarstream

from . import inventory
from .conftest import docker

SEEDS = range(12)
NAMES = ("a", "b", "ab", "a.md", "b.md", ".env", "größe", "x y", "[1]")
PARTS = ("a", "b", "ab", "*", "a*", "?", "*.md", "[ab]", "[^b]*", r"\[1\]", "x y", "größe")
BEFORE = ("", "", "", "/", "./", "**/")
AFTER = ("", "", "/", "/**", "/*")


@pytest.fixture(autouse=True, scope="module")
def what_builds_keep() -> Iterator[None]:
    """These tests build images with files in them; the builder keeps those, and no bottle has been there."""
    yield
    inventory.expected.update(inventory.copied_files())


@cache
def has_buildkit() -> bool:
    return subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0


def pattern(chance: random.Random, exception: bool) -> str:
    """Return a line; the old builder finds exceptions only where they begin with the names of the folders above."""
    if exception and not has_buildkit():
        return "!" + "/".join(chance.choice(("a", "b", "ab")) for _ in range(chance.randint(1, 3)))
    middle = "/".join(chance.choice(PARTS) for _ in range(chance.randint(1, 2)))
    return "!" * exception + chance.choice(BEFORE) + middle + chance.choice(AFTER)


def plant(folder: Path, chance: random.Random) -> None:
    """Make a tree of files, and a .dockerignore for it."""
    for _ in range(30):
        path = folder.joinpath(*(chance.choice(NAMES) for _ in range(chance.randint(1, 4))))
        if not any(each.is_file() for each in path.parents if each.exists()) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    lines = [pattern(chance, chance.random() < 0.4) for _ in range(chance.randint(1, 5))]
    odd = ["# a", "", "Dockerfile", project.IGNORE]
    (folder / "Dockerfile").touch()
    (folder / project.IGNORE).write_text("\n".join([*lines, chance.choice(odd)]))


def built(folder: Path) -> set[str]:
    """Return the files that docker's builder takes."""
    words = ["docker", "build", "-q", "-f", "-", str(folder)]
    text = "FROM scratch\nCOPY . /w\nCMD x\n"
    image = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout.strip()
    try:
        box = docker("create", image)
        data = subprocess.run(["docker", "export", box], capture_output=True, check=True).stdout
        docker("rm", box)
    finally:
        docker("rmi", "-f", image)
    return files(data)


def files(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {info.name for info in archive if info.isfile() and info.name.startswith("w/")}


def taken(folder: Path) -> set[str]:
    """Return the files that we take."""
    stream: Iterator[bytes] = tarstream.tree(str(folder), "w", choose=project.look(str(folder)).choose)
    return files(b"".join([*stream, tarstream.END]))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_goes_in_is_what_dockers_builder_takes(tmp_path: Path, seed: int) -> None:
    plant(tmp_path, random.Random(seed))
    rules = (tmp_path / project.IGNORE).read_text()
    assert taken(tmp_path) == built(tmp_path), rules


@pytest.mark.parametrize("line", ["[", "a[]", "a[^]", "[a-]", "!"])
def test_what_we_refuse_dockers_builder_refuses(tmp_path: Path, line: str) -> None:
    (tmp_path / project.IGNORE).write_text(line)
    with pytest.raises(Exception, match="line 1 is no pattern"):
        project.look(str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        built(tmp_path)
