"""claude-bottle.json: finding, merging, asking (shell: lib/manifest.sh; contract section 4)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import cached_property, reduce
from typing import Any

from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.problems import Gathered, fail_with, nearest
from claude_bottle.lib.schema import strict_json
from claude_bottle.lib.schema.manifest_check import Checks
from claude_bottle.lib.schema.manifest_parse import Bottle, Sources, parse_agents, parse_bottles
from claude_bottle.lib.schema.manifest_words import FILE_NAME as FILE_NAME

MAX_BYTES = 16 * 1024 * 1024
NO_SOURCES = Sources()


class Manifest:
    """The merged manifest as typed values; it is checked when what is wrong in it, or a bottle, is first asked for.

    Args:
        merged: the whole of it.
        sources: where it comes from.
        repeated: a warning for each key that a file has twice.
        home: what the home's file holds, where the current folder has another; else None.
        home_folder: the user's home.
    """

    def __init__(
        self,
        merged: dict[str, Any],
        sources: Sources = NO_SOURCES,
        repeated: Iterable[str] = (),
        home: dict[str, Any] | None = None,
        home_folder: str = "",
    ) -> None:
        self.merged = merged
        self.home = home
        self.home_folder = home_folder
        self._sources = sources
        self._repeated = tuple(repeated)
        self.files = sources.files  # the cwd's first
        self.agents = parse_agents(merged, sources)

    @cached_property
    def checks(self) -> Checks:
        """What is wrong in it."""
        return Checks(self.merged, self._sources)

    @cached_property
    def bottles(self) -> dict[str, Bottle]:
        """The bottles by name, in manifest order."""
        return parse_bottles(self.merged, self._sources, self.checks.broken())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd in the whole manifest, in a line each.

        Where a command has checked what it uses, this is what is wrong elsewhere, and keys that mean nothing.
        """
        return (*self._repeated, *self.checks.warnings())


def merge(home: Any, cwd: Any) -> Any:
    """Return jq's ``home * cwd``: objects merge key by key at every depth, anything else is replaced."""
    if not (isinstance(home, dict) and isinstance(cwd, dict)):
        return cwd
    merged = dict(home)
    for key, value in cwd.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def manifest_read(path: str, repeated: list[str] | None = None) -> dict[str, Any]:
    """Return what a file holds.

    Args:
        path: of the file.
        repeated: gets the keys that an object in it has twice.

    Raises:
        BottleError: it cannot be read, or is no manifest.
    """
    try:
        with open(path, "rb") as file:
            value = strict_json.parse(file.read(MAX_BYTES + 1), repeated=repeated)
    except OSError as problem:
        raise BottleError(f"cannot read {path}", [reason(problem)]) from None
    except strict_json.NotJson as problem:
        raise BottleError(f"{FILE_NAME} at {path} is not valid JSON", [str(problem)]) from None
    if not isinstance(value, dict):
        raise BottleError(f"{FILE_NAME} at {path} must be a JSON object")
    return value


def _read_files(paths: Iterable[str], warnings: list[str]) -> dict[str, dict[str, Any]]:
    """Return what each file holds, with a warning for each key that an object in one has twice."""
    files: dict[str, dict[str, Any]] = {}
    gathered = Gathered()
    for path in paths:
        repeated: list[str] = []
        with gathered:
            files[path] = manifest_read(path, repeated)
        twice = "an object has the key '{}' twice; the last one counts"
        warnings += [f"{FILE_NAME} at {path}: {twice.format(key)}" for key in repeated]
    gathered.fail()
    return files


def manifest_exists(path: str) -> bool:
    """Say whether there is a file to read.

    Args:
        path: of the file.

    Raises:
        BottleError: what is there is no file, or too large for a manifest.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise BottleError(f"{path} is a link to a file that does not exist") from None
        return False
    except OSError as problem:
        raise BottleError(f"cannot read {path}", [reason(problem)]) from None
    _check_file(path, found)
    return True


def _check_file(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise BottleError(f"{path} is a folder, not a manifest")
    if not stat.S_ISREG(found.st_mode):  # reading a FIFO would wait for a writer
        raise BottleError(f"{path} is no regular file")
    if found.st_size > MAX_BYTES:
        raise BottleError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB")


def _paths(cwd: str, home: str) -> tuple[list[str], bool]:
    """Return the files that exist, cwd's first, and whether that is another than the home's.

    One file under two names counts once, as the home's.
    """
    first, second = (f"{folder.rstrip('/')}/{FILE_NAME}" for folder in (cwd, home))
    paths = [path for path in (first, second) if manifest_exists(path)]
    if len(paths) == 2 and os.path.samefile(first, second):
        return [first], False
    return paths, first in paths


def manifest_find(cwd: str, home: str) -> Manifest:
    """Return what there is, which may be nothing (shell: manifest_find).

    Args:
        cwd: the caller's working directory.
        home: the caller's home.

    Raises:
        BottleError: a file cannot be read or is no manifest.
    """
    repeated: list[str] = []
    paths, adds = _paths(cwd, home)
    files = _read_files(paths, repeated)
    parts = tuple(files.values())
    merged: dict[str, Any] = reduce(merge, reversed(parts), {})
    before = next(iter(parts[1:]), {}) if adds else None
    found = Manifest(merged, Sources(tuple(files), parts), repeated, before, home)
    broken = [name for name in ("bottles", "agents") if not isinstance(merged.get(name), dict | None)]
    fail_with(problem for name in broken for problem in found.checks.problems(name))
    return found


def manifest_load(cwd: str, home: str) -> Manifest:
    """Return the merged manifest (shell: manifest_load).

    Raises:
        BottleError: there is none, or one of the files is at fault.
    """
    found = manifest_find(cwd, home)
    if not found.files:
        raise BottleError(f"no {FILE_NAME} found in {cwd} or {home}")
    return found


def manifest_require_agent(manifest: Manifest, agent: str) -> None:
    """Fail unless the agent exists and is well formed (shell: manifest_require_agent).

    Raises:
        BottleError: with all that is wrong with it.
    """
    if agent not in manifest.agents:
        names = ", ".join(manifest.agents) or "(none)"
        raise BottleError(f"agent '{agent}' not found. Available agents: {names}", nearest(agent, manifest.agents))
    fail_with(manifest.checks.agent(agent))


def manifest_agent_bottle(manifest: Manifest, agent: str) -> str:
    """Return the name of the agent's bottle, or an empty text (shell: manifest_agent_bottle)."""
    return manifest.agents[agent].bottle if agent in manifest.agents else ""


def manifest_agent_skills(manifest: Manifest, agent: str) -> tuple[str, ...]:
    """Return the agent's skills (shell: manifest_agent_skills)."""
    return manifest.agents[agent].skills if agent in manifest.agents else ()


def manifest_agent_prompt(manifest: Manifest, agent: str) -> str:
    """Return the agent's prompt (shell: manifest_agent_prompt)."""
    return manifest.agents[agent].prompt if agent in manifest.agents else ""


def manifest_prompt_summary(prompt: str) -> str:
    """Return the prompt's length and first line (shell: manifest_prompt_summary)."""
    if not prompt:
        return "0 chars; first line: (empty)"
    return f"{len(prompt)} chars; first line: {prompt.split(chr(10))[0]}"


def manifest_require_bottle(manifest: Manifest, agent: str, bottle: str) -> None:
    """Fail unless the agent's bottle exists (shell: manifest_require_bottle).

    Raises:
        BottleError: no bottle named, or none of that name.
    """
    if not bottle:
        raise BottleError(
            f"agent '{agent}' has no 'bottle' field. Add a bottle association to this agent in {FILE_NAME}."
        )
    if bottle not in manifest.bottles:
        hints = [manifest.agents[agent].bottle_at, *nearest(bottle, manifest.bottles)]
        raise BottleError(f"agent '{agent}' references unknown bottle '{bottle}'", hints)
    fail_with(manifest.checks.problems("bottles", bottle))


def manifest_bottle(manifest: Manifest, bottle: str) -> Bottle:
    """Return a bottle, an empty one where there is none of the name."""
    return manifest.bottles.get(bottle) or Bottle(bottle)


def manifest_env_names(manifest: Manifest, bottle: str) -> tuple[str, ...]:
    """Return the names in a bottle's env, in manifest order (shell: manifest_env_names)."""
    return manifest_bottle(manifest, bottle).env_names


def manifest_unknown_keys(manifest: Manifest, agent: str, bottle: str) -> list[str]:
    """Return a line for each key that means nothing in an agent and its bottle."""
    return [*manifest.checks.unknown("agents", agent), *manifest.checks.unknown("bottles", bottle)]
