"""What a bottle may use of the engine's machine, and the engine's runtime that it runs by."""

from __future__ import annotations

from collections.abc import Iterator

from claude_bottle.lib.engine import Facts
from claude_bottle.lib.env import RUNTIME_VARIABLE
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest
from claude_bottle.lib.problems import UnseenByShell, fail_with
from claude_bottle.lib.schema.manifest_parse import Bottle

PIDS = 4096
LEAST_MEMORY = 2 * 1024**3  # what a client and a build need; less only where the engine has less
_UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def limits_check(manifest: Manifest, bottle: str) -> None:
    """Fail unless a bottle's limits, its runtime and its placement are such as the schema has them.

    Raises:
        BottleError: with all that is wrong with them.
    """
    problems = manifest.checks.problems
    parts = ("limits", "runtime", "place", "placement")
    fail_with([problem for part in parts for problem in problems("bottles", bottle, part)])


def limits_check_engine(bottle: Bottle, runtime: str, facts: Facts) -> None:
    """Fail unless the engine can do what is asked of it.

    Args:
        bottle: with limits that are well formed.
        runtime: the user's own word of it, which is before the bottle's.
        facts: of the engine.

    Raises:
        BottleError: with all that it cannot do.
    """
    fail_with([*_too_many_cpus(bottle, facts), *_unknown_runtime(bottle, runtime, facts)])


def _too_many_cpus(bottle: Bottle, facts: Facts) -> Iterator[BottleError]:
    for limit in bottle.limits:
        if limit.name == "cpus" and float(limit.text) > facts.cpus > 0:
            line = f"bottle '{bottle.name}': limits.cpus is {limit.text}, but the engine has {facts.cpus}"
            yield UnseenByShell(line, [limit.at])


def _unknown_runtime(bottle: Bottle, runtime: str, facts: Facts) -> Iterator[BottleError]:
    name = runtime or bottle.runtime
    if name and name not in facts.runtimes:
        who, place = (RUNTIME_VARIABLE, []) if runtime else (f"bottle '{bottle.name}'", [bottle.runtime_at])
        hints = [*place, f"it has {', '.join(facts.runtimes) or 'none'}"]
        yield UnseenByShell(f"{who}: the engine has no runtime '{name}'", hints)


def limits_warnings(bottle: Bottle, facts: Facts) -> Iterator[str]:
    """Yield a line about each limit that the engine will not keep.

    Args:
        bottle: with limits that the engine was checked for.
        facts: of the engine.
    """
    asked = {limit.name for limit in bottle.limits}
    if broken := [name for name in facts.unlimited if name != "cpus" or name in asked]:
        yield f"the engine cannot limit {', '.join(broken)} (rootless, or old cgroups): the bottle may use all there is"
    for limit in bottle.limits:
        if limit.name == "memory" and _bytes(limit.text) > facts.memory > 0:
            has = f"the engine has {facts.memory / 1024**3:.1f}g"
            yield f"bottle '{bottle.name}': limits.memory is {limit.text}, but {has} ({limit.at})"


def limits_booked(bottle: Bottle) -> tuple[int, float]:
    """Return what a bottle takes at most of a machine that is not known yet: bytes, and processors, 0 for no limit.

    Args:
        bottle: checked.
    """
    asked = {limit.name: limit.text for limit in bottle.limits}
    memory = _bytes(asked["memory"]) if "memory" in asked else LEAST_MEMORY
    return memory, float(asked.get("cpus", "0"))


def limits_options(bottle: Bottle, runtime: str, facts: Facts, booked: bool = False) -> Iterator[str]:
    """Yield the options that limit a container.

    Args:
        bottle: checked.
        runtime: the user's own word of it, which is before the bottle's.
        facts: of the engine.
        booked: it may take what was booked for it, and no more, however large the machine is.
    """
    asked = {limit.name: limit.text for limit in bottle.limits}
    yield from ("--pids-limit", asked.get("pids", str(PIDS)))
    fixed = booked or "memory" in asked
    if memory := limits_booked(bottle)[0] if fixed else _usual_memory(facts.memory):
        yield from ("--memory", str(memory), "--memory-swap", str(memory))
    if "cpus" in asked and "cpus" not in facts.unlimited:  # docker refuses this one, the others it ignores
        yield from ("--cpus", f"{float(asked['cpus']):.3f}")
    if name := runtime or bottle.runtime:
        yield from ("--runtime", name)


def _usual_memory(there: int) -> int:
    """Return the bytes of a bottle that sets no limit; 0, which is none, where the engine's are not known."""
    usual = there * 3 // 4
    return usual if there < LEAST_MEMORY else max(usual, LEAST_MEMORY)


def _bytes(size: str) -> int:
    """Return a size of the schema's form in bytes."""
    number, unit = (size, "b") if size[-1].isdigit() else (size[:-1], size[-1].lower())
    return int(float(number) * _UNITS[unit])
