"""Runs cases: the groups side by side, the cases of one group one after the other."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from tests.pipelock.cases import GROUPS, Case, Differs
from tests.pipelock.lab import Lab

JOBS = 4


def run_cases(lab: Lab, cases: Collection[Case]) -> dict[str, str]:
    """Return what differs, by case; an empty text where nothing does."""
    groups = sorted({case.group for case in cases}, key=lambda name: -GROUPS[name].seconds)
    with ThreadPoolExecutor(JOBS) as pool:
        try:
            runs = [pool.submit(_run_group, lab, name, [c for c in cases if c.group == name]) for name in groups]
            return {ident: text for run in runs for ident, text in run.result().items()}
        finally:
            lab.engine.closing = True  # what still runs gives up at its next step


def _run_group(lab: Lab, name: str, cases: Collection[Case]) -> dict[str, str]:
    try:
        context = GROUPS[name].setup(lab)
    except Exception as problem:  # whatever it is, it is the answer to every case of the group
        return {case.ident: f"its sidecar did not come up: {problem}" for case in cases}
    return {case.ident: _judge(case, context) for case in cases}


def _judge(case: Case, context: object) -> str:
    try:
        case.run(context)
    except Differs as found:
        return f"{found.what}: expected {found.expected!r}, got {found.got!r}"
    except Exception as problem:  # a reply so unlike the real one that the case fell over it
        return f"{type(problem).__name__}: {problem}"
    return ""
