"""Takes the values of secrets out of a text about a defect of our own, which may hold anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from claude_bottle.lib.env import TOKEN_VARIABLE

SHORTEST_LINE = 4  # of a value of several lines; a brace alone says nothing
_values: set[str] = set()


def remember(value: str) -> None:
    """Note a value that no such text may show."""
    _values.add(value)


def redact(text: str) -> str:
    """Return a text without any value that is remembered, or the token, as it is or as a program would spell it.

    Args:
        text: any.
    """
    values = _values | {os.environ.get(TOKEN_VARIABLE, "")}
    forms = {form for value in values for part in _parts(value) for form in _forms(part)}
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, "[secret]")
    return text


def _parts(value: str) -> Iterator[str]:
    yield value
    yield from (line for line in value.splitlines() if len(line) >= SHORTEST_LINE)


def _forms(value: str) -> Iterator[str]:
    yield value
    yield repr(value)[1:-1]
    yield repr(value.encode("utf-8", "surrogateescape"))[2:-1]
    yield json.dumps(value)[1:-1]
