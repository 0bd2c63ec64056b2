"""What is looked at in the manifests: all agents, as a start of each would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from claude_bottle.lib import env, plan
from claude_bottle.lib.doctor.finding import OK, PROBLEM, WARNING, Finding
from claude_bottle.lib.engine import Facts
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest, manifest_load
from claude_bottle.lib.problems import Problems

MOST = 20  # lines


def manifests(environ: Mapping[str, str], cwd: str, facts: Facts, program: str) -> list[Finding]:
    """Look for what is wrong in the manifests.

    Args:
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.
        facts: of the engine, as far as they are known.
        program: the name that the launcher was invoked by.
    """
    try:
        found = manifest_load(cwd, environ.get("HOME", ""))
    except BottleError as problem:
        return [Finding("manifest", PROBLEM, line, f"{program} init") for line in _lines(problem)]
    agents = ", ".join(found.files) + f": {len(found.agents)} agent{'s' * (len(found.agents) != 1)}"
    by_text: dict[str, Finding] = {}
    for each in _wrong(found, environ, cwd, facts, program):
        by_text.setdefault(each.text, each)  # agents share bottles
    wrong = list(by_text.values())
    more = [Finding("manifest", PROBLEM, f"and {len(wrong) - MOST} more", f"{program} info AGENT")]
    return [*(wrong[:MOST] or [Finding("manifest", OK, agents)]), *(more if len(wrong) > MOST else [])]


def _wrong(found: Manifest, environ: Mapping[str, str], cwd: str, facts: Facts, program: str) -> Iterator[Finding]:
    settings = env.read_settings(environ)
    for agent in found.agents:
        try:
            look = plan.examine(found, agent, settings, environ, cwd, facts)
        except BottleError as problem:
            for line in _lines(problem):
                yield Finding("manifest", PROBLEM, line, f"{program} edit {agent}")
            continue
        for line in look.warnings:
            if env.TOKEN_VARIABLE not in line:  # that is a check of its own
                yield Finding("manifest", WARNING, line)
        if look.pending:
            text = "this folder's claude-bottle.json adds what is not approved yet"
            yield Finding("approval", WARNING, text, f"{program} approve")


def _lines(problem: BottleError) -> list[str]:
    parts = problem.parts if isinstance(problem, Problems) else (problem,)
    return ["; ".join([part.message, *part.hints]) for part in parts]
