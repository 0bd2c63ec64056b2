"""What the published schema says of a manifest: the one source of key names and types (contract 14.5)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from claude_bottle.lib.host import wait

Place = tuple[str | int, ...]

_TYPES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
}
# The keys of each kind of object, in the order in which the shell looks at them.
KEYS = {
    "manifest": ("$schema", "bottles", "agents"),
    "agent": ("skills", "prompt", "bottle"),
    "bottle": ("env", "ssh", "egress", "limits", "runtime", "dockerfile", "place", "placement", "credentials"),
    "egress": ("allowlist", "inspect", "dlp"),
    "limits": ("memory", "cpus", "pids"),
    "ssh_entry": ("Host", "IdentityFile", "Hostname", "User", "Port", "KnownHostKey"),
    "credential": ("value", "hosts", "paths", "scheme", "header", "user"),
    "credential_value": ("command",),
}
_KINDS = ("name", "type", "required", "form", "text")  # of faults, in the order in which one place has them
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Fault:
    """One place where a manifest is not what the schema says. It never holds a value.

    Attributes:
        place: the keys and indexes that lead there.
        kind: ``type``, ``form`` (of a value), ``name`` (of a key), ``required`` or ``text``.
        found: what is there.
        allowed: what may be there.
    """

    place: Place
    kind: str
    found: str
    allowed: str


@dataclass(frozen=True)
class UnknownKey:
    """A key that means nothing where keys are fixed, and the keys that would."""

    place: Place
    known: tuple[str, ...]


@cache
def _schema() -> Any:
    return json.loads(Path(__file__).with_name("claude-bottle.schema.json").read_bytes())


def json_path(place: Place) -> str:
    """Return a place as JSONPath has it."""
    return "$" + "".join(map(_path_step, place))


def _path_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]"


def faults(document: Any) -> tuple[Fault, ...]:
    """Return all faults: agents, bottles and env in the document's order, fixed keys in the shell's.

    Args:
        document: the whole manifest.

    Raises:
        Interrupted: a signal arrived; a large manifest takes a while.
    """
    errors = _validator().iter_errors(document)
    found = dict.fromkeys(fault for error in errors for fault in _faults(error))
    found.update(dict.fromkeys(_half_characters((), document)))
    order = _Order(document)
    return tuple(sorted(found, key=lambda fault: (order.of(fault.place), _KINDS.index(fault.kind))))


@cache
def _validator() -> Any:
    """Return what checks a manifest; it looks at signals wherever the schema names a type, which is everywhere."""
    from jsonschema import Draft202012Validator, validators

    extend: Any = validators.extend  # its types are not said

    def check_type(*words: Any) -> Any:
        wait.check_signals()
        return Draft202012Validator.VALIDATORS["type"](*words)

    return extend(Draft202012Validator, {"type": check_type})(_schema())


def _faults(error: Any) -> Iterator[Fault]:
    """Yield what one error of jsonschema stands for."""
    place = tuple(error.absolute_path)
    rule, schema, value = error.validator, error.schema, error.instance
    if rule == "required":
        for name in (name for name in schema["required"] if name not in value):
            yield Fault((*place, name), "required", "missing", _types(schema["properties"][name]["type"]))
    elif rule == "minLength":
        yield Fault(place, "required", "an empty string", _types(schema["type"]))
    elif rule == "type":
        yield Fault(place, "type", _described(value), _types(schema["type"]))
    elif "propertyNames" in error.absolute_schema_path:
        yield Fault((*place, value), "name", "a key of another form", schema["title"])
    else:
        yield Fault(place, "form", f"{_described(value)} of another form", schema["title"])


def _half_characters(place: Place, value: Any) -> Iterator[Fault]:
    """Yield the texts that no file and no program could be given; a schema cannot say it."""
    wait.check_signals()
    if isinstance(value, str) and _SURROGATE.search(value):
        yield Fault(place, "text", "half of a character (a lone surrogate)", "text of whole characters")
    for step, part in _parts(value):
        yield from _half_characters((*place, step), part)


def _types(types: str | list[str]) -> str:
    # Null stands for a key that is left out, which needs no mention.
    return " or ".join(_TYPES[name] for name in ([types] if isinstance(types, str) else types) if name != "null")


def _described(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {dict: "object", list: "array", str: "string"}
    return _TYPES[names.get(type(value), "number")]


class _Order:
    """Where the steps of a place stand among their neighbours; each object's keys are numbered once."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._numbers: dict[Place, dict[str, int]] = {}

    def of(self, place: Place) -> tuple[int, ...]:
        """Return a place as the numbers of its steps."""
        return tuple(
            step if isinstance(step, int) else self._number(place[:depth], step) for depth, step in enumerate(place)
        )

    def _number(self, above: Place, step: str) -> int:
        if above not in self._numbers:
            keys = dict.fromkeys([*KEYS.get(_kind(above), ()), *_keys_at(self._document, above)])
            self._numbers[above] = {key: number for number, key in enumerate(keys)}
        return self._numbers[above][step]


def _keys_at(document: Any, place: Place) -> Iterable[str]:
    for step in place:
        document = document[step]
    return document if isinstance(document, dict) else ()


def _kind(place: Place) -> str:
    """Return the name of the definition that says which keys a place may have; empty where any key may be."""
    match place:
        case ():
            return "manifest"
        case ("agents", _):
            return "agent"
        case ("bottles", _):
            return "bottle"
        case ("bottles", _, "egress" | "limits" as part):
            return str(part)
        case ("bottles", _, "ssh", _):
            return "ssh_entry"
        case ("bottles", _, "credentials", _):
            return "credential"
        case ("bottles", _, "credentials", _, "value"):
            return "credential_value"
    return ""


def unknown_keys(document: Any) -> tuple[UnknownKey, ...]:
    """Return the unknown keys in the document's order; comments are none."""
    return tuple(_unknown((), document))


def _unknown(place: Place, value: Any) -> Iterator[UnknownKey]:
    wait.check_signals()
    known = KEYS.get(_kind(place)) if isinstance(value, dict) else None  # an array's numbers are no keys
    for step, part in _parts(value):
        if known is None or step in known:
            yield from _unknown((*place, step), part)
        elif not _comments().match(str(step)):
            yield UnknownKey((*place, step), known)


@cache
def _comments() -> re.Pattern[str]:
    (pattern,) = _schema()["patternProperties"]
    return re.compile(pattern)


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def is_host(text: str) -> bool:
    """Say whether an allowlist can hold a text."""
    pattern = _schema()["$defs"]["egress"]["properties"]["allowlist"]["items"]["pattern"]
    return bool(re.search(pattern, text))
