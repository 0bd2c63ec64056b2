"""Looks for values wherever a start could leave them, from outside: nothing that is looked into is given one."""

from __future__ import annotations

import base64
import glob
import json
import os
import re
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from .conftest import Desk, docker, engine_places

KINDS = {
    "container": ("ps", "-aq"),
    "image": ("image", "ls", "-aq"),
    "network": ("network", "ls", "-q"),
    "volume": ("volume", "ls", "-q"),
}
ROLE = 'role:{{index .Config.Labels "claude-bottle.role"}}'
APART = ("*/merged", "/proc/*/root/proc", "/proc/*/root/sys")  # seen elsewhere, or as processes
_WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw")
_MOST = 1 << 28  # of one area of memory; what is larger is only reserved


def forms(value: str) -> set[bytes]:
    """Return the ways in which a value may be written: as it is, in JSON, in an address, in hex, in base64.

    Args:
        value: it.
    """
    raw = value.encode()
    found = {raw, json.dumps(value)[1:-1].encode(), quote(value, safe="").encode(), raw.hex().encode()}
    for before in range(3):  # octets that stand before it and share a character: "user:" for one
        text = base64.b64encode(bytes(before) + raw)
        text = text[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
        found |= {text, text.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """What there is of some values outside of where they belong, since the search began.

    Args:
        desk: whose start it is.
        values: by name.
        events: what the engine has told of since then.
    """

    def __init__(self, desk: Desk, values: Mapping[str, str], events: Path) -> None:
        self.desk, self.events = desk, events
        self.forms = {name: forms(value) for name, value in values.items()}
        self.since = time.time() - 1

    def names(self, data: bytes) -> list[str]:
        """Return the values that are in some octets."""
        return [name for name, written in self.forms.items() if any(form in data for form in written)]

    def places(self, launcher: int = 0) -> list[str]:
        """Return every place, the launcher's environment left out.

        Args:
            launcher: its process, while it runs.
        """
        return [*self.in_engine(), *self.in_files(), *self.in_processes({launcher})]

    def in_engine(self) -> Iterator[str]:
        """Yield what of the engine's own words has one: of all things there are, of events, of the bottle's logs."""
        for kind, words in KINDS.items():
            every = docker(*words).split()
            yield from self._said(f"inspect of a {kind}", "inspect", "--type", kind, *every) if every else ()
        yield from (f"events: {name}" for name in self.names(self.events.read_bytes()))
        for each in self.containers():
            yield from self._said("logs", "logs", each)

    def _said(self, what: str, *words: str) -> Iterator[str]:
        done = subprocess.run(["docker", *words], capture_output=True, timeout=300)
        yield from (f"{what}: {name}" for name in self.names(done.stdout + done.stderr))

    def containers(self) -> list[str]:
        """Return the ids of all that there is of the desk's agent."""
        return docker("ps", "-aq", "--no-trunc", "--filter", f"label=claude-bottle.slug={self.desk.agent}").split()

    def in_files(self) -> Iterator[str]:
        """Yield the files that have one: the engine's, the desk's, and all that the bottle sees."""
        roots = [path for place in engine_places() for path in glob.glob(place)]
        roots += [str(self.desk.cwd.parent), *self._bottles()]
        for path in self._changed(roots):
            with suppress(OSError):  # it may be going
                yield from (f"{path}: {name}" for name in self.names(Path(path).read_bytes()))

    def _bottles(self) -> list[str]:
        """Return the root folders of the desk's running containers, all that is mounted there included."""
        form = ROLE + " {{if .State.Running}}/proc/{{.State.Pid}}/root/{{end}}"
        looks = [docker("inspect", "-f", form, each, check=False).split() for each in self.containers()]  # may be going
        return [look[1] for look in looks if len(look) == 2 and look[0] != "role:broker"]

    def _changed(self, roots: Iterable[str]) -> list[str]:
        """Return the files that have changed since; by the time that no program can set."""
        apart = ["(", *" -o ".join(f"-path {each}" for each in APART).split(), ")", "-prune"]
        words = ["find", *roots, *apart, "-o", "-type", "f", "-newerct", f"@{self.since}", "-print0"]
        done = subprocess.run(words, capture_output=True, timeout=300)
        return [os.fsdecode(path) for path in done.stdout.split(b"\0") if path]

    def in_processes(self, allowed: Collection[int]) -> Iterator[str]:
        """Yield the processes of this machine, and so of every container, whose words or environment have one."""
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            for what in ("cmdline", "environ"):
                if what == "environ" and pid in allowed:
                    continue
                with suppress(OSError):
                    found = self.names(Path(f"/proc/{pid}/{what}").read_bytes())
                    called = Path(f"/proc/{pid}/comm").read_text().strip()
                    yield from (f"{what} of {called}: {name}" for name in found)

    def in_memory(self, container: str) -> set[str]:
        """Return the values that are in the memory of a container's processes.

        Args:
            container: its id.
        """
        first = docker("inspect", "-f", "{{.State.Pid}}", container)
        space = os.readlink(f"/proc/{first}/ns/pid")
        found = set()
        for pid in (name for name in os.listdir("/proc") if name.isdigit()):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == space:
                    found |= {name for area in _memory(pid) for name in self.names(area)}
        return found


def _memory(pid: str) -> Iterator[bytes]:
    """Yield what a process can write to of its memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if found := _WRITABLE.match(line):
                start, stop = (int(word, 16) for word in found.groups())
                with suppress(OSError, OverflowError):
                    memory.seek(start)
                    yield memory.read(min(stop - start, _MOST))


@contextmanager
def searching(desk: Desk, values: Mapping[str, str], folder: Path) -> Iterator[Search]:
    """A search from now on.

    Args:
        desk: whose start comes next.
        values: that are to be nowhere, by name.
        folder: where the engine's events may be kept; not below the desk's.
    """
    events = folder / "events"
    with (
        events.open("wb") as out,
        subprocess.Popen(["docker", "events", "--format", "{{json .}}"], stdout=out) as follower,
    ):
        try:
            yield Search(desk, values, events)
        finally:
            follower.terminate()
