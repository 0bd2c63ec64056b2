"""Projects of the kinds that people have: each in a folder of its own, with something staged, changed, new and gone."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
HOME = "/nowhere"  # of who runs git
LOOSE = ("-c", "protocol.file.allow=always")
CLEAN = """#!/bin/sh
# What LFS puts in the place of a file.
data=$(mktemp) && cat >"$data"
printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize %s\\n' \\
    "$(sha256sum <"$data" | cut -c-64)" "$(wc -c <"$data" | tr -d ' ')"
rm "$data"
"""


def git(folder: Path, *words: str) -> str:
    """Run git as the user's own would run, without any settings of the user's, whoever owns the folder."""
    env = {"PATH": os.environ["PATH"], "HOME": HOME, "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    done = subprocess.run(["git", *WHO, *LOOSE, *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"git {words}: {done.stderr}"
    return done.stdout


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def repository(folder: Path, commits: int = 3) -> Path:
    """Make a repository with some history, a tag and a second branch."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for number in range(commits):
        write(folder, **{"a.txt": f"{number}\n", "sub/deep/b.txt": f"{number}\n", "sub/c.txt": "c", "gone.txt": "g"})
        write(folder, **{"sub/gone.txt": "g", ".gitignore": "*.tmp\n"})
        git(folder, "add", ".")
        git(folder, "commit", "-qm", f"commit {number}")
    git(folder, "tag", "-am", "a tag", "v1")
    git(folder, "branch", "other", "HEAD~1")
    return folder


def unsettle(folder: Path, prefix: str = "") -> None:
    """Stage, change, add and remove something.

    Args:
        folder: a repository as ``repository`` makes it.
        prefix: of what is touched: ``sub/`` or nothing.
    """
    names = ("sub/deep/b.txt", "sub/c.txt", "sub/gone.txt") if prefix else ("a.txt", "sub/c.txt", "gone.txt")
    write(folder, **{names[0]: "staged\n", f"{prefix}fresh.txt": "fresh"})
    git(folder, "add", names[0], f"{prefix}fresh.txt")
    write(folder, **{names[0]: "staged and changed\n", names[1]: "changed"})
    write(folder, **{f"{prefix}new.txt": "new", f"{prefix}x.tmp": "ignored"})
    (folder / names[2]).unlink()


def status(folder: Path, *words: str) -> str:
    return git(folder, "status", "--porcelain=v1", *words).rstrip("\n")


def large_file(folder: Path, name: str, content: bytes, store: Path) -> str:
    """Put a file of LFS's into a repository, staged, as LFS itself leaves it; return its id.

    Args:
        folder: where it is checked out.
        name: of the file.
        content: of it.
        store: the repository's folder.
    """
    filter_ = folder.parent / "clean"
    filter_.write_text(CLEAN)
    filter_.chmod(0o755)
    (folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (folder / name).write_bytes(content)
    git(folder, "-c", f"filter.lfs.clean={filter_}", "add", ".gitattributes", name)
    digest = hashlib.sha256(content).hexdigest()
    kept = store / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    return digest


def tips(listed: str) -> Sequence[str]:
    """Return what ``git show-ref`` lists, but for what is stashed."""
    return sorted(line for line in listed.splitlines() if not line.endswith("refs/stash"))
