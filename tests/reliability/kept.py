"""Outcomes that are kept in docs/reliability, one file for each engine, and docs/reliability.md, made from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.engine.conftest import docker

FOLDER = ROOT / "docs" / "reliability"
PAGE = FOLDER.with_suffix(".md")
WHAT = {
    "fail": "the call fails",
    "hang": "the call never answers",
    "INT": "INT",
    "TERM": "TERM",
    "HUP": "HUP",
    "KILL": "KILL of the launcher",
    "reaper": "KILL of the reaper",
    "both": "KILL of both",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one start with one fault.

    Attributes:
        point: the docker call.
        when: before it or after it.
        act: what happened there.
        status: of the launcher.
        unswept: how many things there were before the next start, where launcher and reaper were killed.
        left: what was there in the end.
        seconds: from the launcher's end until nothing was there.
        wrong: what else is not as it should be.
    """

    point: str
    when: str
    act: str
    status: int | None
    unswept: int
    left: list[str]
    seconds: float
    wrong: str

    def row(self) -> list[Any]:
        """Return it as it is kept: how much was left instead of what."""
        return [len(value) if isinstance(value, list) else value for value in astuple(self)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def faults_table(outcomes: Sequence[Outcome]) -> str:
    """Return the fault matrix, one line for each thing that happens."""
    return _faults([each.row() for each in outcomes])


def _faults(rows: Sequence[Sequence[Any]]) -> str:
    lines: list[list[object]] = []
    for act, what in WHAT.items():
        for when in ("before", "after"):
            some = [row for row in rows if (row[1], row[2]) == (when, act)]
            if not some:
                continue
            statuses = ", ".join(str(each) for each in sorted({row[3] for row in some if row[3] is not None}))
            left, wrong = sum(row[5] for row in some), sum(bool(row[7]) for row in some)
            swept = sum(row[4] for row in some) if act == "both" else ""
            lines.append([what, when, len(some), statuses, swept, left, wrong, f"{max(row[6] for row in some):.1f} s"])
    head = ("what", "the call", "runs", "status", "for the next start", "left", "wrong", "clean after at most")
    return table(head, lines)


def restarts_table(rows: Sequence[Sequence[Any]]) -> str:
    """Return what became of the launches under which the engine ended, a line for each way."""
    lines: list[list[object]] = []
    for how, keeps in dict.fromkeys((row[0], row[1]) for row in rows):
        some = [row for row in rows if (row[0], row[1]) == (how, keeps)]
        statuses = ", ".join(str(each) for each in sorted({row[3] for row in some if row[3] is not None}))
        left, seconds = sum(row[4] for row in some), max(row[5] for row in some)
        lines.append([how, "on" if keeps else "off", len(some), statuses, left, f"{seconds:.1f} s"])
    return table(("the engine", "live-restore", "launches", "status", "left", "clean after at most"), lines)


def soak_table(soak: dict[str, Any]) -> str:
    """Return how the starts ended, and what there was before and after."""
    ends = table(("killed", "status", "starts"), soak["ends"])
    rows = [[name, *values] for name, values in soak["figures"].items()]
    return ends + "\n" + table(("", "before", "after", "after the next start"), rows)


def keep_faults(outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes in the place of earlier ones of the same kinds of faults."""
    done = {each.act for each in outcomes}
    others = [row for row in known().get("faults", []) if row[2] not in done]
    keep("faults", sorted(others + [each.row() for each in outcomes], key=lambda row: list(WHAT).index(row[2])))


def engine() -> tuple[str, str]:
    """Return the versions of the engine and of its client."""
    server, client = docker("version", "--format", "{{.Server.Version}} {{.Client.Version}}").split()
    return server, client


def path_of(server: str) -> Path:
    return FOLDER / f"{server.partition('.')[0]}.json"


def known() -> dict[str, Any]:
    """Return what is kept of this engine."""
    path = path_of(engine()[0])
    return json.loads(path.read_text()) if path.exists() else {}


def keep(part: str, what: object) -> None:
    """Keep a part of this engine's outcomes, and write the page."""
    server, client = engine()
    whole = {**known(), "server": server, "client": client, part: what}
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {_shown(value)}" for name, value in sorted(whole.items())]
    path_of(server).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    PAGE.write_text(page())


def _shown(value: object) -> str:
    """Return JSON with a line for each row."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def page() -> str:
    return ""
