"""How much memory launchers take: what is theirs alone, and their share of what they have in common (PSS)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CLIENTS = ("docker", "docker-buildx", "git")
EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Memory:
    """Bytes of the launchers with their reapers, and of the docker clients and gits that they run."""

    launchers: int
    clients: int


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the name of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            head, _, rest = path.read_text("utf-8", "replace").rpartition(")")
            found[int(path.parent.name)] = (int(rest.split()[1]), head.partition("(")[2])
    return found


def family(roots: Iterable[int], every: dict[int, tuple[int, str]]) -> set[int]:
    """Return the processes that were started by some, themselves included."""
    known = set(roots)
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in every.items() if parent in known} - known
        known |= more
        grown = bool(more)
    return known


def pss(pid: int) -> int:
    """Return the bytes of a process; none if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def measure(roots: Iterable[int]) -> Memory:
    """Return what some launchers and all that they have started take."""
    every = processes()
    taken = {True: 0, False: 0}
    for pid in family(roots, every):
        taken[every.get(pid, (0, ""))[1] in CLIENTS] += pss(pid)
    return Memory(taken[False], taken[True])


class Peak:
    """The most that was seen; to be called again and again.

    Args:
        roots: returns the launchers.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self.roots = roots
        self.most = Memory(0, 0)
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            now = measure(self.roots())
            self.most = Memory(max(now.launchers, self.most.launchers), max(now.clients, self.most.clients))
            self._next = time.monotonic() + EVERY_SECONDS
