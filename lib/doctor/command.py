"""``doctor``: looks at all that a start depends on, side by side, and says what of it is not well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from claude_bottle.lib import env, log
from claude_bottle.lib.doctor import engine as engine_checks
from claude_bottle.lib.doctor import host, manifests, room
from claude_bottle.lib.doctor.finding import OK, PROBLEM, Finding
from claude_bottle.lib.engine import Asking, Engine, Facts
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Crew, Work, perform

MOST_SECONDS = 60.0  # of all that docker is asked
WIDTH = max(map(len, ("sidecar's image", PROBLEM)))
Checks = Sequence[Callable[[], Work[list[Finding]]]]


def doctor(environ: Mapping[str, str], cwd: str, program: str, as_json: bool) -> int:
    """Print a line for each thing that a start depends on.

    Args:
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.
        program: the name that the launcher was invoked by.
        as_json: print all of it as one JSON object.

    Returns:
        1 where something is a problem.

    Raises:
        BottleError: it cannot be written.
        Interrupted: a signal arrived.
    """
    found = [host.python(), host.screen(environ), host.token(environ), *host.folders(environ)]
    engine, said = _reach(environ, found)
    found += manifests.manifests(environ, cwd, Facts.of(said), program)
    found += room.kept_work(program)
    if engine:
        found += [*engine_checks.confinement(said), engine_checks.clock(said), engine_checks.disk(engine, said)]
        found += _ask(engine, env.read_settings(environ), program)
    log.data(*_json(found) if as_json else map(_line, found), rated=not as_json)
    return int(any(each.state == PROBLEM for each in found))


def _reach(environ: Mapping[str, str], found: list[Finding]) -> tuple[Engine | None, dict[str, Any]]:
    """Return the engine, where one answers, and what it says of itself; note whether it does."""
    try:
        engine = Asking(environ).get().bounded(time.monotonic() + MOST_SECONDS, run.on_signal)
        said = perform(engine.said())
    except BottleError as problem:
        text = ": ".join([problem.message, *problem.hints])
        mend = f"docker info; {engine_checks.INSTALL}" if "not found" in text else "docker info; docker context ls"
        found.append(Finding("engine", PROBLEM, text, mend))
        return None, {}
    found.append(Finding("engine", OK, f"{said.get('Name') or 'it'} answers at {engine.where}"))
    return engine, said


def _ask(engine: Engine, settings: env.Settings, program: str) -> list[Finding]:
    checks: Checks = (
        lambda: engine_checks.versions(engine),
        lambda: room.addresses(engine, settings),
        lambda: room.images(engine, settings, program),
        lambda: room.leftovers(engine, program),
    )
    crew: Crew[int] = Crew()
    for number, check in enumerate(checks):
        crew.begin(number, check())
    found: dict[int, list[Finding]] = {}
    while len(crew):
        for number, outcome in crew.turn():
            if isinstance(outcome.problem, BottleError):
                found[number] = [Finding("engine", PROBLEM, outcome.problem.message, "docker info")]
            else:
                found[number] = outcome.get()
    return [each for number in sorted(found) for each in found[number]]


def _line(found: Finding) -> tuple[str]:
    mend = f" -> {found.mend}" if found.mend else ""
    return (f"{found.state:<7}  {found.check:<{WIDTH}}  {found.text}{mend}",)


def _json(found: Sequence[Finding]) -> list[tuple[str]]:
    checks = [asdict(each) for each in found]
    whole = {"version": 1, "well": all(each.state != PROBLEM for each in found), "checks": checks}
    return [(line,) for line in json.dumps(whole, indent=2).splitlines()]
