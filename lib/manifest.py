"""claude-bottle.json: finding, merging, asking (shell: lib/manifest.sh; contract section 4)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from claude_bottle.lib import schema_check, strict_json
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.problems import Gathered, UnseenByShell, fail_with, nearest
from claude_bottle.lib.schema_check import Fault, Place

FILE_NAME = "claude-bottle.json"
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """The merged manifest.

    Attributes:
        merged: all of it.
        files: where it came from, the cwd's first.
        parts: what each of the files holds.
        repeated: a warning for each key that a file has twice.
    """

    merged: dict[str, Any]
    files: tuple[str, ...]
    parts: tuple[dict[str, Any], ...]
    repeated: tuple[str, ...]

    @property
    def bottles(self) -> dict[str, Any]:
        """The bottles by name."""
        return self.merged.get("bottles") or {}

    @property
    def agents(self) -> dict[str, Any]:
        """The agents by name."""
        return self.merged.get("agents") or {}

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """All places that are not what the schema says, in the order in which the shell looks at them."""
        return schema_check.faults(self.merged)

    def faults_at(self, *place: str) -> Iterator[Fault]:
        """Yield the faults of a part of the manifest.

        Args:
            place: the keys that lead to the part.
        """
        return (fault for fault in self.faults if fault.place[: len(place)] == place)

    def problem(self, fault: Fault) -> BottleError:
        """Return a fault as an error: the shell's line, then the place, what is there and what may be; no value."""
        kind = BottleError if _shell_sees(fault) else UnseenByShell
        return kind(_line(fault), [self._hint(fault)])

    def _hint(self, fault: Fault) -> str:
        return f"{self.where(fault.place)}: {fault.found}; allowed: {fault.allowed}"

    def where(self, place: Place) -> str:
        """Return the file and the JSON path of a place."""
        return f"{self._file_of(place)}: {schema_check.json_path(place)}"

    def _file_of(self, place: Place) -> str:
        """Return the file that says what is at a place, or at the nearest place above it that is there."""
        for length in range(len(place), 0, -1):
            for file, part in zip(self.files, self.parts, strict=True):
                if _has(part, place[:length]):
                    return file
        return self.files[0] if self.files else FILE_NAME

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd in the whole manifest, in a line each.

        Where a command has checked what it uses, this is what is wrong elsewhere, and keys that mean nothing.
        """
        faults = (f"{_line(fault)} ({self._hint(fault)})" for fault in self.faults)
        return (*self.repeated, *self.unknown_keys(), *faults)

    def unknown_keys(self, *place: str) -> list[str]:
        """Return a line for each key that means nothing in a part of the manifest, with the nearest one that does."""
        return [
            self._unknown_key(unknown.place, unknown.known)
            for unknown in schema_check.unknown_keys(self.merged)
            if unknown.place[: len(place)] == place
        ]

    def _unknown_key(self, place: Place, known: tuple[str, ...]) -> str:
        key = str(place[-1])
        more = "; ".join([self.where(place), *nearest(key, known)])
        return f"{_owner(place[:-1])}unknown key '{key}' is ignored ({more})"


def _has(value: Any, place: Place) -> bool:
    for step in place:
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if step not in inside:
            return False
        value = value[step]
    return True


def _shell_sees(fault: Fault) -> bool:
    inside_ssh_entry = len(fault.place) > 3 and fault.place[2] == "ssh"
    return fault.kind in ("type", "name") and not inside_ssh_entry


def _owner(place: Place) -> str:
    """Return how a message begins that is about a place."""
    match place:
        case ("agents" | "bottles" as kind, name, *rest):
            inside = f"{_dotted(rest)}: " if rest else ""
            return f"{str(kind)[:-1]} '{name}': {inside}"
    return f"{FILE_NAME}: "


def _dotted(steps: list[str | int]) -> str:
    return schema_check.json_path(tuple(steps))[2:]


def _line(fault: Fault) -> str:
    """Return the shell's words for a fault, and words like them for a fault that the shell does not see."""
    match fault.place:
        case (key,):
            return f"'{key}' in {FILE_NAME} must be {fault.allowed}"
        case ("agents", name, "skills", *_):
            return f"agent '{name}': skills must be an array of strings"
        case (kind, name):
            return f"{str(kind)[:-1]} '{name}' must be {fault.allowed}"
        case ("bottles", name, "env", variable) if fault.kind == "name":
            return f"bottle '{name}': invalid env name '{variable}'"
        case ("bottles", name, "env", variable) if fault.kind == "type":
            return f"bottle '{name}': env value for '{variable}' must be a string"
        case ("bottles", name, "egress", "allowlist", _) if fault.kind == "type":
            return f"bottle '{name}': egress.allowlist entries must be strings"
    missing = fault.kind == "required"
    rest = _dotted(list(fault.place[2:]))
    return _owner(fault.place[:2]) + (f"{rest} is missing" if missing else f"{rest} must be {fault.allowed}")


def merge(home: Any, cwd: Any) -> Any:
    """Return jq's ``home * cwd``: objects merge key by key at every depth, anything else is replaced."""
    if not (isinstance(home, dict) and isinstance(cwd, dict)):
        return cwd
    merged = dict(home)
    for key, value in cwd.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return what a file holds, and the keys that an object in it has twice."""
    repeated: list[str] = []
    try:
        with open(path, "rb") as file:
            value = strict_json.parse(file.read(MAX_BYTES + 1), repeated=repeated)
    except OSError as problem:
        raise BottleError(f"cannot read {path}", [problem.strerror or str(problem)]) from None
    except strict_json.NotJson as problem:
        raise BottleError(f"{FILE_NAME} at {path} is not valid JSON", [str(problem)]) from None
    if not isinstance(value, dict):
        raise BottleError(f"{FILE_NAME} at {path} must be a JSON object")
    return value, repeated


def _is_there(path: str) -> bool:
    """Say whether there is a file to read.

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
        raise BottleError(f"cannot read {path}", [problem.strerror or str(problem)]) from None
    if stat.S_ISDIR(found.st_mode):
        raise BottleError(f"{path} is a folder, not a manifest")
    if not stat.S_ISREG(found.st_mode):  # reading a FIFO would wait for a writer
        raise BottleError(f"{path} is no regular file")
    if found.st_size > MAX_BYTES:
        raise BottleError(f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB")
    return True


def _paths(cwd: str, home: str) -> Iterator[str]:
    """Yield the files that exist, cwd's first; one file under two names counts once."""
    first, second = (f"{folder.rstrip('/')}/{FILE_NAME}" for folder in (cwd, home))
    if there := _is_there(first):
        yield first
    if _is_there(second) and not (there and os.path.samefile(first, second)):
        yield second


def manifest_find(cwd: str, home: str) -> Manifest:
    """Return what there is, which may be nothing (shell: manifest_find).

    Args:
        cwd: the caller's working directory.
        home: the caller's home.

    Raises:
        BottleError: a file cannot be read or is no manifest.
    """
    paths = list(_paths(cwd, home))
    read = []
    gathered = Gathered()
    for path in paths:
        with gathered:
            read.append(_read(path))
    gathered.fail()
    merged: Any = {}
    for value, _ in reversed(read):
        merged = merge(merged, value)
    repeated = [
        f"{FILE_NAME} at {path}: an object has the key '{key}' twice; the last one counts"
        for path, (_, keys) in zip(paths, read, strict=True)
        for key in keys
    ]
    found = Manifest(merged, tuple(paths), tuple(value for value, _ in read), tuple(repeated))
    broken = [name for name in ("bottles", "agents") if not isinstance(merged.get(name), dict | None)]
    fail_with(found.problem(fault) for name in broken for fault in found.faults_at(name))
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
    fail_with(map(manifest.problem, manifest.faults_at("agents", agent)))


def _agent(manifest: Manifest, agent: str, key: str, kind: type) -> Any:
    """Return a key of an agent, an empty value where it is missing or of a wrong type."""
    whole = manifest.agents.get(agent)
    value = whole.get(key) if isinstance(whole, dict) else None
    return value if isinstance(value, kind) else kind()


def manifest_agent_bottle(manifest: Manifest, agent: str) -> str:
    """Return the name of the agent's bottle, or an empty text (shell: manifest_agent_bottle)."""
    return str(_agent(manifest, agent, "bottle", str))


def manifest_agent_skills(manifest: Manifest, agent: str) -> tuple[str, ...]:
    """Return the agent's skills (shell: manifest_agent_skills)."""
    return tuple(name for name in _agent(manifest, agent, "skills", list) if isinstance(name, str))


def manifest_agent_prompt(manifest: Manifest, agent: str) -> str:
    """Return the agent's prompt (shell: manifest_agent_prompt)."""
    return str(_agent(manifest, agent, "prompt", str))


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
        hints = [manifest.where(("agents", agent, "bottle")), *nearest(bottle, manifest.bottles)]
        raise BottleError(f"agent '{agent}' references unknown bottle '{bottle}'", hints)
    if not isinstance(manifest.bottles[bottle], dict):
        fail_with(map(manifest.problem, manifest.faults_at("bottles", bottle)))


def bottle_part(manifest: Manifest, bottle: str, key: str) -> Any:
    """Return a bottle's key, None when it is missing."""
    whole = manifest.bottles.get(bottle)
    return whole.get(key) if isinstance(whole, dict) else None


def manifest_env_names(manifest: Manifest, bottle: str) -> tuple[str, ...]:
    """Return the names in a bottle's env, in manifest order (shell: manifest_env_names)."""
    return tuple(bottle_part(manifest, bottle, "env") or ())
