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
HEAD = """\
# What is left when things go wrong

A launch that has ended has nothing on the engine, no process, no temporary file and no route, and the terminal is as
before it, whatever has happened:

- A docker call fails, or never answers: the launcher ends with 1 after its teardown's deadline at the latest, or with 0
  if only the teardown was concerned and has done without; what it could not remove its reaper goes on with.
- INT, TERM and HUP: the launcher removes everything, then ends with 130, 143 or 129.
- The launcher is killed: its reaper does the same in seconds. The reaper is killed: the launcher needs none.
- Both are killed: the next `start` sweeps up, and so does `cleanup --stale`.
- The engine restarts, or dies and comes back: whoever is still there removes what is left when it answers again.
- The line to an engine that is elsewhere breaks: the launcher notices, a session after half a minute at most, a start
  when the call that it waits for has its minute behind it; then it says so and ends within half a minute. The bottle
  ends by itself when nobody has reached it for `CLAUDE_BOTTLE_PATIENCE` seconds. What there is of it the reaper removes
  when the line is there again, for an hour, or the next command.
- A docker call that lost its answer may still have its effect. The reaper looks for that for an hour and so may live
  on for so long, with nothing on the engine.

Each is shown on a real engine by a script, with a stub agent, and a stub sidecar (those of `scripts/bench`) if no other
is named:

    scripts/reliability faults --call "create agent"     # some of the matrix: prints a table, and changes nothing
    scripts/reliability faults --engine 28 --write       # all of it; keeps the outcomes, and makes this page anew
    scripts/reliability restarts --write
    scripts/reliability links --write                    # --way, --break, --mended, --moment, --act: some of it
    scripts/reliability soak --write                     # 200 starts, 20 at once; --starts, --at-once, --seed
    scripts/reliability git --write                      # 20 runs of each; --runs

- *Faults*: a docker of the script's own stands before the client. At one call of a start and its teardown, before the
  call or after it, one thing happens. What never answers runs with short limits instead of the launcher's own, and a
  session may last as long as it likes, so it has no such case. Looked for afterwards: containers, networks and images
  by label and by name, processes by a mark in their environment, temporary files, routes, the terminal's settings, the
  status. Where both are killed, what there is before the next start and after it is counted apart. *Wrong* is another
  status, an internal error, a terminal that is not as before, or a call that did not come.
- *Restarts*: launches wait at some calls while the engine ends in order and starts again, or is killed and comes back
  when the last launcher has given up. The engine is one of the script's own, of the installed dockerd.
- *Links*: launches, each by a line of its own, over TCP, with dockerd's own TLS or without, or over ssh, have come to a
  moment: the agent's container has just been made, the session is up and has made a commit, that is about to be brought
  home, or the removal is about to begin. Then their lines are cut, which resets all that is open and refuses what is
  new, or swallow all. Nothing else happens, or TERM or KILL to the launcher, or launcher and reaper are killed. Four
  launches begin at a time. The patience is 30 seconds; the lines are mended after 75 seconds, or after 15. Counted from
  the break are the launcher's end, and when neither agent nor broker runs any more. Where both were killed the user's
  next command, `cleanup --stale`, removes what there is. The work is home when the commit is in one branch of the
  user's repository, and kept where `bring` has it still to bring, as after a minute that was too short on a busy
  machine. *Wrong* is another status, a bottle that lives for more than the patience, a launcher that ends later than 30
  seconds after it was told to or has noticed, which takes a session 30 seconds and a start a minute (20 more for a busy
  machine), an internal error, a terminal that is not as before, or work that is neither. The engine is one of the
  script's own, of the version that the part is about.
- *Soak*: somebody is killed in five of eight starts, at a random moment of the first six seconds. The engine is one of
  the script's own, in a network of its own, so all that there is counts. Memory is printed, not judged; an engine keeps
  some connections, so up to 16 descriptors more are no leak.
- *Git*: a bottle's git clones, fetches and pushes over https: at a host whose credential the broker puts in, and at one
  that is passed through without. Behind both are nginx and git's own http-backend. What is pushed are random octets,
  each time to a repository that has none of them; of 3,000 commits that the server does not know, each fetch names
  all. Hung is what has not ended after five minutes.

What an engine's part below does not have has not been run on it.
"""
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
LINE = {"cut": "is cut", "hole": "swallows all"}
AFTER, WITHIN = "after", "within"  # the patience
HOME, KEPT, LOST = "home", "kept", "lost"


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


@dataclass(frozen=True)
class Broken:
    """What became of one launch whose line to the engine broke.

    Attributes:
        way: by which it reached the engine.
        breaks: how the line broke.
        mended: when it was mended: AFTER the patience, or WITHIN it.
        moment: when it broke.
        act: what happened to the launcher then.
        status: of the launcher.
        ended: seconds from the break until the launcher had ended.
        dead: seconds from the break until neither agent nor broker ran any more; None if one did when it was mended.
        unswept: how many things there were before the next command, where launcher and reaper were killed.
        left: what was there in the end.
        seconds: from the mending until nothing was there, where it took no command.
        work: HOME, KEPT or LOST: what was committed in the session; an empty text where there was none.
        wrong: what else is not as it should be.
    """

    way: str
    breaks: str
    mended: str
    moment: str
    act: str
    status: int | None
    ended: float
    dead: float | None
    unswept: int
    left: list[str]
    seconds: float | None
    work: str
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


def links_table(outcomes: Sequence[Broken]) -> str:
    """Return what became of the launches whose lines broke, a line for each way, break and act."""
    return _links([each.row() for each in outcomes])


def _links(rows: Sequence[Sequence[Any]]) -> str:
    lines: list[list[object]] = []
    for *kind, act in dict.fromkeys((*row[:3], row[4]) for row in rows):
        way, breaks, mended = kind
        some = [Broken(*row) for row in rows if row[:3] == kind and row[4] == act]
        statuses = ", ".join(str(each) for each in sorted({each.status for each in some if each.status is not None}))
        ended = f"{max(each.ended for each in some):.0f} s"
        dead = "not" if mended == AFTER else ""
        if died := [each.dead for each in some if each.dead is not None]:
            dead = f"{max(died):.0f} s" if mended == WITHIN or len(died) == len(some) else dead
        swept = sum(each.unswept for each in some) if act == "both" else ""
        left, wrong = sum(int(each.left) for each in some), sum(bool(each.wrong) for each in some)
        clean = "" if act == "both" else f"{max(each.seconds for each in some):.0f} s"
        works = [each.work for each in some if each.work]
        home = f"{works.count(HOME)} of {len(works)}" + f", {works.count(KEPT)} kept" * (KEPT in works)
        what = WHAT.get(act, act)
        line = [way, LINE[breaks], mended, what, len(some), statuses, ended, dead, swept, left]
        lines.append([*line, home, wrong, clean])
    head = ("by", "the line", "mended", "then", "runs", "status", "ended after", "dead after", "for the next command")
    return table((*head, "left", "work home", "wrong", "clean after it was mended"), lines)


def keep_links(sidecar: str, outcomes: Sequence[Broken]) -> None:
    """Keep outcomes in the place of earlier ones of the same ways and breaks, of the same sidecar.

    Args:
        sidecar: image that it was run with.
        outcomes: to keep.
    """
    done = {(each.way, each.breaks, each.mended) for each in outcomes}
    before = known().get("links", {})
    rows = before["rows"] if before.get("sidecar") == sidecar else []
    others = [row for row in rows if tuple(row[:3]) not in done]
    keep("links", {"sidecar": sidecar, "rows": others + [each.row() for each in outcomes]})


def git_table(rows: Sequence[Sequence[Any]]) -> str:
    """Return how git's transfers went, a line for each kind."""
    lines = [[*row[:5], f"{row[5]:.1f} s", f"{row[6]:.1f} s"] for row in rows]
    return table(("host", "git", "runs", "hung", "failed", "median", "at most"), lines)


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
    """Return the page, made from what is kept of every engine."""
    every = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    return "\n".join([HEAD.rstrip("\n"), *map(_of_engine, every)])


def _of_engine(known: dict[str, Any]) -> str:
    text = f"\n## Engine {known['server']}\n\nClient {known['client']}.\n"
    if faults := known.get("faults"):
        calls = ", ".join(f"`{name}`" for name in dict.fromkeys(row[0] for row in faults))
        runs, left = len(faults), sum(row[5] for row in faults)
        text += f"\n### Faults\n\n{runs} runs, {left} things left, at these calls: {calls}.\n\n{_faults(faults)}"
    if restarts := known.get("restarts"):
        runs, left = len(restarts), sum(row[4] for row in restarts)
        calls = ", ".join(f"`{name}`" for name in dict.fromkeys(row[2] for row in restarts))
        text += f"\n### Restarts\n\n{runs} launches, {left} things left, at these calls: {calls}.\n\n"
        text += restarts_table(restarts)
    if links := known.get("links"):
        rows = links["rows"]
        runs, left, moments = len(rows), sum(row[9] for row in rows), dict.fromkeys(row[3] for row in rows)
        text += f"\n### Links\n\n{runs} launches, {left} things left, at these moments: {', '.join(moments)}. "
        text += f"The sidecar was `{links['sidecar']}`.\n\n{_links(rows)}"
    if soak := known.get("soak"):
        text += f"\n### Soak\n\n{soak['starts']} starts, {soak['at once']} at once, in {soak['seconds']} s, "
        text += f"`--seed {soak['seed']}`.\n\n{soak_table(soak)}"
    if git := known.get("git"):
        text += f"\n### Git\n\nThe sidecar was `{git['sidecar']}`.\n\n{git_table(git['rows'])}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
