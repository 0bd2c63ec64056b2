"""The search of ``verify``: looks on the engine, from outside, for values that nobody but the broker may have."""

from __future__ import annotations

import json
import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_from_bytes

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.teardown.inventory import CONTAINER

EVERY_SECONDS = 3.0
_CHANGE = re.compile("([AC]) (/.*)")
_HTML = str.maketrans({"&": r"\u0026", "<": r"\u003c", ">": r"\u003e"})  # how docker's own JSON spells them
_GONE = ("no such", "could not find")  # in docker's words for a file that is there no more
Hear = Callable[[str, bytes], None]


def forms(value: str) -> set[bytes]:
    """Return what a value looks like: as it is, in JSON, in an address, and inside something encoded as base64.

    Args:
        value: of a secret.
    """
    raw, texts = log.encode(value), [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    texts += [text.translate(_HTML) for text in texts]
    quoted = [quote_from_bytes(raw, safe="").encode(), quote_from_bytes(raw).encode()]
    lower = [re.sub(rb"%..", lambda found: found[0].lower(), text) for text in quoted]
    spaces = [text.replace(b"%20", b"+") for text in (*quoted, *lower)]
    return {raw, *map(log.encode, texts), *quoted, *lower, *spaces, *_base64(raw)}


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what base64 makes of it in the middle of something else: the characters that stand for it alone."""
    for before, first in ((0, 0), (1, 2), (2, 3)):
        data = b"\0" * before + raw
        inner = b64encode(data)[first : len(data) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


@dataclass
class Search:
    """What is looked for, and what has come of it so far.

    Attributes:
        values: by variable.
        places: how many have been looked at.
        leaks: a variable and a place where its value was found, in the order of finding.
    """

    values: Mapping[str, str] = field(repr=False)
    places: int = 0
    leaks: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._forms = {form: name for name, value in self.values.items() for form in forms(value)}
        self._longest = max(map(len, self._forms))
        self._size, self._due = 0, time.monotonic() + EVERY_SECONDS

    def place(self, name: str) -> Hear:
        """Return what looks through one more place, as it comes; a value may lie across two pieces.

        Args:
            name: of the place.
        """
        self.places += 1
        before: dict[str, bytes] = {}

        def hear(stream: str, piece: bytes) -> None:
            seen = before.get(stream, b"") + piece
            before[stream] = seen[max(0, len(seen) - self._longest + 1) :]
            for variable in {variable for form, variable in self._forms.items() if form in seen}:
                if (variable, name) not in self.leaks:
                    self.leaks.append((variable, name))
            self._tell(len(piece))

        return hear

    def _tell(self, size: int) -> None:
        """Say now and then how far it has come, to a user at a terminal."""
        self._size += size
        if time.monotonic() >= self._due and os.isatty(log.STDERR):
            log.log_info(f"looked through {self._size >> 20} MiB so far")
            self._due = time.monotonic() + EVERY_SECONDS

    @property
    def detail(self) -> str:
        """What came of it, in words without a value."""
        if not self.leaks:
            return f"in none of {self.places} places"
        (variable, place), *others = self.leaks
        return f"the value of {variable} is in {place}" + (f", and in {len(others)} more" if others else "")


def look_at(engine: Engine, search: Search, role: str, identity: str) -> Work[None]:
    """Look through what the engine has of a container: what it says of it, and every file that it would keep.

    Args:
        engine: to ask.
        search: gets to know what is found.
        role: of the container.
        identity: its id; it runs.

    Raises:
        DockerError: the engine gave no answer.
        Interrupted: a signal arrived.
    """
    described = yield from _asked(engine, [CONTAINER, "inspect", identity])
    search.place(f"docker inspect of the {role}")("", described.out)
    listed = yield engine.question(["top", identity, "axeww"])  # with their environment
    listed = listed if listed.ok else (yield from _asked(engine, ["top", identity]))
    search.place(f"a process of the {role}")("", listed.out)
    yield from _streamed(engine, ["logs", identity], search.place(f"docker logs of the {role}"))
    changed = yield from _asked(engine, ["diff", identity])
    for path in _paths(changed.text, json.loads(described.out)[0]):
        yield from _streamed(engine, ["cp", f"{identity}:{path}", "-"], search.place(f"{path} of the {role}"))


def _asked(engine: Engine, words: list[str]) -> Work[run.Result]:
    answer = yield engine.call(words, interruptible=True)  # not a question: a difference takes a busy engine a while
    if not answer.ok:
        raise DockerError(f"docker {run.call_name(words)} failed: {answer.failure}")
    return answer


def _streamed(engine: Engine, words: list[str], hear: Hear) -> Work[None]:
    done = yield engine.call(words, interruptible=True, heard=hear)
    if not done.ok and not any(word in done.failure.lower() for word in _GONE):
        raise DockerError(f"docker {run.call_name(words)} failed: {done.failure}")


def _paths(changed: str, described: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be looked through, each once: what is new with all below it, files that were changed, volumes.

    Not what is a memory's alone: the broker has the values in its own.

    Args:
        changed: what ``docker diff`` says.
        described: what ``docker inspect`` does.
    """
    kinds = {found[2]: found[1] for found in map(_CHANGE.fullmatch, changed.splitlines()) if found}
    folders = {os.path.dirname(path) for path in kinds}
    memory = set(described["HostConfig"].get("Tmpfs") or ())
    for path, kind in kinds.items():
        whole = kinds.get(os.path.dirname(path)) != "A" if kind == "A" else path not in folders
        if whole and not (path in memory and path not in folders):
            yield path
    yield from (mount["Destination"] for mount in described["Mounts"] if mount["Type"] == "volume")
