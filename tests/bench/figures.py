"""What was measured on one engine: the raw runs, what they come to, and what was asked for."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "bench"
SHELL, PORT, FLOOR = "shell", "port", "floor"

Timed = tuple[str, float, float]  # a call, its begin and its end, in seconds since the answer to the question
Runs = dict[str, list[float]]  # what came out of each run, by side, in the order of the runs


@dataclass
class Figures:
    """One engine's.

    Attributes:
        server: its version.
        client: the docker client's.
        sidecar: its image.
        cores: of the machine.
        rows: what was measured, by the row's name; a pair has the same place in each side's list.
        calls: docker calls of a plain start and teardown, by side.
        profile: when those of one start of the port's began and ended.
    """

    server: str
    client: str
    sidecar: str
    cores: int
    rows: dict[str, Runs] = field(default_factory=dict)
    calls: dict[str, list[str]] = field(default_factory=dict)
    profile: list[Timed] = field(default_factory=list)

    def add(self, side: str, values: dict[str, float]) -> None:
        """Take in one run."""
        for name, value in values.items():
            self.rows.setdefault(name, {}).setdefault(side, []).append(round(value, 4))

    def counted(self) -> dict[str, Runs]:
        """Return the rows, the number of docker calls as one of them."""
        calls: Runs = {side: [len(words)] for side, words in self.calls.items()}
        return {**self.rows, "calls": calls} if calls else self.rows


def path(server: str) -> Path:
    """Return where the figures of an engine are kept."""
    return FOLDER / f"{server.partition('.')[0]}.json"


def load(source: Path) -> Figures:
    """Read what was kept."""
    found = Figures(**json.loads(source.read_text()))
    return replace(found, profile=[(what, began, ended) for what, began, ended in found.profile])


def load_all() -> list[Figures]:
    """Read all that was kept, the oldest engine first."""
    return [load(each) for each in sorted(FOLDER.glob("*.json"))]


def keep(new: Figures) -> None:
    """Write figures to their place; rows that were not measured this time stay, if all else is as it was."""
    target = path(new.server)
    if target.exists():
        old = load(target)
        if replace(old, rows={}, calls={}, profile=[]) == replace(new, rows={}, calls={}, profile=[]):
            rows, calls = {**old.rows, **new.rows}, {**old.calls, **new.calls}
            new = replace(new, rows=rows, calls=calls, profile=new.profile or old.profile)
    target.parent.mkdir(exist_ok=True)
    # Each list in one line, so that a change of one row is a change of a few.
    text = re.sub(r"\[[^][]*\]", lambda found: " ".join(found[0].split()), json.dumps(asdict(new), indent=1))
    target.write_text(text + "\n")


@dataclass(frozen=True)
class Spread:
    """The least, the quartiles and the most of some runs."""

    least: float
    lower: float
    median: float
    upper: float
    most: float


def spread(values: list[float]) -> Spread:
    """Return how some runs lie."""
    if len(values) == 1:
        return Spread(*values * 5)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(min(values), lower, median, upper, max(values))


def ratio(runs: Runs, side: str, to: str) -> float | None:
    """Return the median of a side's ratios to another one's run of the same pair; None where one did not run."""
    pairs = zip(runs.get(side, ()), runs.get(to, ()), strict=False)
    each = [ours / theirs for ours, theirs in pairs]
    return statistics.median(each) if each else None


@dataclass(frozen=True)
class Target:
    """The most that a row of the port's may come to; None where nothing was asked for.

    Attributes:
        shell: times the shell's.
        floor: times the floor's.
        value: in the row's unit.
    """

    shell: float | None = None
    floor: float | None = None
    value: float | None = None

    def held(self, runs: Runs) -> bool | None:
        """Say whether it was met; None where that was not measured."""
        got = (
            ratio(runs, PORT, SHELL),
            ratio(runs, PORT, FLOOR),
            spread(runs[PORT]).median if runs.get(PORT) else None,
        )
        asked = zip(got, (self.shell, self.floor, self.value), strict=True)
        limits = [(value, limit) for value, limit in asked if limit is not None]
        if not limits or any(value is None for value, _ in limits):
            return None
        return all(value is not None and value <= limit for value, limit in limits)


GIB = 1 << 30
TARGETS = {
    "question": Target(shell=0.5),
    "session": Target(shell=0.55, floor=1.25),
    "end": Target(shell=0.8),
    "help": Target(value=0.06),
    "list": Target(value=0.14),
    "up 15": Target(shell=0.6),
    "gone 15": Target(shell=0.7),
    "up 50": Target(floor=2.5),
    "gone 50": Target(floor=2.5),
    "memory 50": Target(value=1.8 * GIB),
    "self-test": Target(value=0.3),
    "broker": Target(value=0.15),
    "ssh": Target(value=1.3),
    "far": Target(value=6.5),
    "trips": Target(value=60),
    "cleanup": Target(shell=0.3),
    "calls": Target(value=16),
}
TITLES = {
    "question": "start to the question",
    "session": "`y` to the session's first byte",
    "end": "end of the session to the prompt back",
    "help": "`--help`",
    "list": "`list`",
    "info": "`info`",
    "dry-run": "`start --dry-run`",
    "up": "{} at once: start to the last session's first byte",
    "gone": "{} at once: end of the sessions to the last launcher's end",
    "memory": "{} waiting: memory of launchers and reapers",
    "clients": "{} waiting: memory of docker clients",
    "peak": "{} at once: most memory of launchers and reapers",
    "broker": "what a broker adds to `y` to the first byte",
    "ssh": "a whole start over ssh to a local one before it",
    "far": "what 50 ms each way add to one over ssh",
    "trips": "round trips of one over ssh",
    "self-test": "the self-test in the bottle, by its own clock",
    "cleanup": "`cleanup` of 50 containers and 50 networks",
    "calls": "docker calls of a plain start and teardown",
}
MEMORY = ("memory", "clients", "peak")


def title(name: str) -> str:
    """Return a row's name in words."""
    kind, _, count = name.partition(" ")
    return TITLES[kind].format(count)


def order(name: str) -> tuple[int, int]:
    """Return what rows are sorted by: as they are listed above, but those of a number of bottles together."""
    kinds = list(TITLES)
    kind, _, count = name.partition(" ")
    return (kinds.index("up"), int(count) * len(kinds) + kinds.index(kind)) if count else (kinds.index(kind), 0)


def shown(name: str, value: float) -> str:
    """Return a value with its unit."""
    if name.startswith(MEMORY):
        return f"{value / (1 << 20):.0f} MiB"
    if name in ("calls", "trips"):
        return f"{value:.0f}"
    if name == "ssh":
        return f"{value:.2f}"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
