"""claude-bottle.json: finding, merging, asking (shell: lib/manifest.sh; contract section 4)."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from claude_bottle.lib import strict_json
from claude_bottle.lib.errors import BottleError

FILE_NAME = "claude-bottle.json"
COMMENTS = ("_", "$", "//")


@dataclass(frozen=True)
class Manifest:
    """The merged manifest, the files it came from (cwd's first), and what is odd in it."""

    bottles: dict[str, Any]
    agents: dict[str, Any]
    files: tuple[str, ...]
    warnings: tuple[str, ...]


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return a hint with the known name most like this one, if any is."""
    found = difflib.get_close_matches(name, list(known), 1)
    return [f"did you mean '{found[0]}'?"] if found else []


def fail_with(problems: Iterable[str]) -> None:
    """Fail with the first problem, the shell's; the others follow as hints.

    Raises:
        BottleError: there is any.
    """
    found = list(dict.fromkeys(problems))
    if found:
        raise BottleError(found[0], [f"also: {other}" for other in found[1:]])


def merge(home: Any, cwd: Any) -> Any:
    """Return jq's ``home * cwd``: objects merge key by key at every depth, anything else is replaced."""
    if not (isinstance(home, dict) and isinstance(cwd, dict)):
        return cwd
    merged = dict(home)
    for key, value in cwd.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def _read(path: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(Path(path).read_bytes())
    except OSError as problem:
        raise BottleError(f"cannot read {path}", [problem.strerror or str(problem)]) from None
    except strict_json.NotJson as problem:
        raise BottleError(f"{FILE_NAME} at {path} is not valid JSON", [str(problem)]) from None
    if not isinstance(value, dict):
        raise BottleError(f"{FILE_NAME} at {path} must be a JSON object")
    return value


def _paths(cwd: str, home: str) -> list[str]:
    """Return the files that exist, cwd's first; one file under two names counts once."""
    paths: list[str] = []
    for folder in (cwd, home):
        path = f"{folder.rstrip('/')}/{FILE_NAME}"
        if os.path.isdir(path):
            raise BottleError(f"{path} is a folder, not a manifest")
        if os.path.isfile(path):
            if not any(os.path.samefile(path, other) for other in paths):
                paths.append(path)
        elif os.path.islink(path):
            raise BottleError(f"{path} is a link to a file that does not exist")
    return paths


def manifest_find(cwd: str, home: str) -> Manifest:
    """Return what there is, which may be nothing (shell: manifest_find).

    Args:
        cwd: the caller's working directory.
        home: the caller's home.

    Raises:
        BottleError: a file cannot be read or is no manifest.
    """
    paths = _paths(cwd, home)
    values = [_read(path) for path in paths]
    merged: Any = {}
    for value in reversed(values):
        merged = merge(merged, value)
    parts = {name: {} if merged.get(name) is None else merged[name] for name in ("bottles", "agents")}
    fail_with(f"'{n}' in {FILE_NAME} must be an object" for n, v in parts.items() if not isinstance(v, dict))
    return Manifest(parts["bottles"], parts["agents"], tuple(paths), tuple(_unknown_keys(merged)))


def manifest_load(cwd: str, home: str) -> Manifest:
    """Return the merged manifest (shell: manifest_load).

    Raises:
        BottleError: there is none, or one of the files is at fault.
    """
    found = manifest_find(cwd, home)
    if not found.files:
        raise BottleError(f"no {FILE_NAME} found in {cwd} or {home}")
    return found


@cache
def _schema() -> Any:
    return json.loads(Path(__file__).with_name("schema").joinpath("claude-bottle.schema.json").read_bytes())


def _known(kind: str) -> list[str]:
    schema = _schema()
    return list((schema if kind == "manifest" else schema["$defs"][kind])["properties"])


def _unknown_keys(merged: dict[str, Any]) -> Iterator[str]:
    """Yield a warning for each key that means nothing where keys are fixed."""
    yield from _unknown("manifest", FILE_NAME, merged)
    for name, bottle in _items(merged.get("bottles")):
        where = f"bottle '{name}'"
        yield from _unknown("bottle", where, bottle)
        if isinstance(bottle, dict):
            yield from _unknown("egress", f"{where}: egress", bottle.get("egress"))
            entries = bottle.get("ssh")
            for entry in entries if isinstance(entries, list) else []:
                yield from _unknown("ssh_entry", f"{where}: ssh entry", entry)
    for name, agent in _items(merged.get("agents")):
        yield from _unknown("agent", f"agent '{name}'", agent)


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _unknown(kind: str, where: str, value: Any) -> Iterator[str]:
    known = _known(kind)
    for key, _ in _items(value):
        if key not in known and not key.startswith(COMMENTS):
            yield " ".join([f"{where}: unknown key '{key}' is ignored", *(f"({h})" for h in nearest(key, known))])


def check_types(kind: str, value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield path and schema keyword of each place where a value is not what the schema says, in document order.

    A null that stands for an optional key counts as missing.

    Args:
        kind: a definition of the schema.
        value: the part of the manifest.
    """
    from jsonschema import Draft202012Validator

    schema = {"$ref": f"#/$defs/{kind}", "$defs": _schema()["$defs"]}
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if part is not None}
    for error in Draft202012Validator(schema).iter_errors(value):
        yield tuple(error.absolute_path), str(error.validator)


def manifest_require_agent(manifest: Manifest, agent: str) -> None:
    """Fail unless the agent exists and is well formed (shell: manifest_require_agent).

    Raises:
        BottleError: with all that is wrong with it.
    """
    if agent not in manifest.agents:
        names = ", ".join(manifest.agents) or "(none)"
        raise BottleError(f"agent '{agent}' not found. Available agents: {names}", nearest(agent, manifest.agents))
    wrong = {path[:1] for path, keyword in check_types("agent", manifest.agents[agent]) if keyword == "type"}
    texts = {
        (): f"agent '{agent}' must be an object",
        ("skills",): f"agent '{agent}': skills must be an array of strings",
        ("prompt",): f"agent '{agent}': prompt must be a string",
        ("bottle",): f"agent '{agent}': bottle must be a string",
    }
    fail_with(text for path, text in texts.items() if path in wrong)


def _agent(manifest: Manifest, agent: str, key: str, default: Any) -> Any:
    value = manifest.agents[agent].get(key)
    return default if value is None else value


def manifest_agent_bottle(manifest: Manifest, agent: str) -> str:
    """Return the name of the agent's bottle, or an empty text (shell: manifest_agent_bottle)."""
    return str(_agent(manifest, agent, "bottle", ""))


def manifest_agent_skills(manifest: Manifest, agent: str) -> tuple[str, ...]:
    """Return the agent's skills (shell: manifest_agent_skills)."""
    return tuple(_agent(manifest, agent, "skills", ()))


def manifest_agent_prompt(manifest: Manifest, agent: str) -> str:
    """Return the agent's prompt, without NULs, as the shell has it (shell: manifest_agent_prompt)."""
    return str(_agent(manifest, agent, "prompt", ""))


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
        raise BottleError(f"agent '{agent}' references unknown bottle '{bottle}'", nearest(bottle, manifest.bottles))
    if manifest.bottles[bottle] is not None and not isinstance(manifest.bottles[bottle], dict):
        raise BottleError(f"bottle '{bottle}' must be an object")


def bottle_part(manifest: Manifest, bottle: str, key: str) -> Any:
    """Return a bottle's key, None when it is missing."""
    return (manifest.bottles.get(bottle) or {}).get(key)


def manifest_env_names(manifest: Manifest, bottle: str) -> tuple[str, ...]:
    """Return the names in a bottle's env, in manifest order (shell: manifest_env_names)."""
    return tuple(bottle_part(manifest, bottle, "env") or ())
