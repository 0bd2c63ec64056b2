"""All that an engine has, whoever made it, and what of it is new; the product's own labels and lists play no part.

Several runs of these tests may share an engine. One that has it to itself answers for everything that is new; one that
shares it answers for what bears its mark, its process id in a name or a label.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

MARK = re.compile(rf"(?<![0-9a-f]){os.getpid()}(?![0-9a-f])")
OBJECTS = {
    "container": ("ps", "-a", "--no-trunc"),
    "network": ("network", "ls", "--no-trunc"),
    "volume": ("volume", "ls"),
}
IMAGES = {"image": ("image", "ls", "-a", "--no-trunc")}
CALLED = ("Names", "Name", "Labels", "Repository", "Tag")
NO_FILES = ("0B", "2B")  # of a build context whose .dockerignore leaves everything out: at most that file itself
expected: set[str] = set()  # what the shell's launcher leaves in a build cache, by contract

Things = dict[str, str]  # a kind and an id, to the names that a thing has


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=True).stdout


def things(kinds: dict[str, tuple[str, ...]] = OBJECTS) -> Things:
    """Return all that there is of some kinds."""
    found = {}
    for kind, words in kinds.items():
        for line in docker(*words, "--format", "{{json .}}").splitlines():
            said = json.loads(line)
            found[f"{kind} {said.get('ID') or said['Name']}"] = " ".join(said.get(name, "") for name in CALLED).strip()
    return found


def copied_files() -> Things:
    """Return what the builder keeps of the files of a build context: what was sent, and the layers with them."""
    said: dict[str, Any] = json.loads(docker("system", "df", "-v", "--format", "{{json .}}"))
    records = {f"build cache {each['ID']}": each for each in said.get("BuildCache") or []}
    return {name: f"{each['Description']}, {each['Size']}" for name, each in records.items() if _holds_files(each)}


def _holds_files(record: dict[str, str]) -> bool:
    sent = record["Description"] == "local source for context" and record["Size"] not in NO_FILES
    return sent or re.search(r"\b(COPY|ADD)\b", record["Description"]) is not None


def everything() -> Things:
    """Return every container, network, volume and image, unnamed ones too, and what the builder keeps of files."""
    return {**things({**OBJECTS, **IMAGES}), **copied_files()}


def new(before: Things, after: Things, alone: bool) -> list[str]:
    """Return what has come since, as far as this run answers for it."""
    came = {name: called for name, called in after.items() if name not in before and name not in expected}
    return [f"{name} {called}" for name, called in came.items() if alone or MARK.search(called)]


class Sharing:
    """Whether a run has an engine to itself: each holds a lock and writes a line while it is there.

    Args:
        engine: its id.
    """

    def __init__(self, engine: str) -> None:
        self.path = Path(tempfile.gettempdir(), "claude-bottle-tests-" + re.sub(r"\W", "", engine))
        self._file = self.path.open("a")
        self._first = self._is_only_one()
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()
        self._length = self._file.tell()

    def alone(self) -> bool:
        """Say whether nobody else has been there so far."""
        return self._first and os.fstat(self._file.fileno()).st_size == self._length

    def close(self) -> None:
        self._file.close()

    def _is_only_one(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
