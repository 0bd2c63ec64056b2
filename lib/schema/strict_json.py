"""JSON as the standard has it, with the place of what is wrong (contract 14.14)."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from claude_bottle.lib.host import wait

MAX_DEPTH = 256  # jq's; more is no manifest, and would exhaust the interpreter's stack
_HUGE = 10**4000
_SURROGATE = re.compile("[\ud800-\udfff\x7f]")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|NaN|-?Infinity', re.DOTALL)
_REASONS = {  # how the interpreter's own words begin
    "Expecting property name": "a key in double quotes is expected",
    "Expecting ':'": "a colon is expected",
    "Expecting ','": "a comma or the end is expected",
    "Expecting value": "a value is expected",
    "Extra data": "the end of the file is expected",
    "Illegal trailing comma": "a comma before the end",
    "Invalid \\": "no such escape in a string",
    "Invalid control character": "a control character in a string, write it as an escape",
    "Unterminated string": "a string without an end",
}


class NotJson(ValueError):
    """Not one JSON value; the text says where and why."""


class Raw:
    """JSON text that stands for a value, its numbers as they were written."""

    def __init__(self, text: bytes) -> None:
        self.text = text


def parse(data: bytes, number: Callable[[str], Any] | None = None, repeated: list[str] | None = None) -> Any:
    """Return the value that a file's bytes hold. A byte order mark is accepted; of a key's values the last counts.

    Args:
        data: the whole file.
        number: what a number's text becomes, if not an int or a float.
        repeated: gets each key that an object has twice.

    Raises:
        NotJson: with the line, the column and the reason.
        Interrupted: a signal arrived; a large file takes a while.
    """
    text = _decode(data)
    members, refuse = partial(_members, repeated), partial(_refuse, text)
    try:
        value = json.loads(
            text, parse_constant=refuse, parse_float=number, parse_int=number or _int, object_pairs_hook=members
        )
    except json.JSONDecodeError as problem:
        raise NotJson(f"{_place(text, problem.pos)}: {_reason(problem)}") from None
    except RecursionError:
        value = None  # said with its place by the next line
    _check_depth(text)
    return value


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        before = problem.object[: problem.start].decode()
        raise NotJson(f"{_place(before, len(before))}: a byte that is not UTF-8") from None


def _place(text: str, index: int) -> str:
    line = text.count("\n", 0, index) + 1
    return f"line {line}, column {index - text.rfind(chr(10), 0, index)}"


def _members(repeated: list[str] | None, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    wait.check_signals()
    value = dict(pairs)
    if repeated is not None and len(value) < len(pairs):
        times = Counter(key for key, _ in pairs)
        repeated.extend(key for key in value if times[key] > 1)
    return value


def _refuse(text: str, word: str) -> NoReturn:
    place = next(found for found in _TOKEN.finditer(text) if found[0] == word)
    raise NotJson(f"{_place(text, place.start())}: {word} is not a JSON number")


def _reason(problem: json.JSONDecodeError) -> str:
    return next((ours for theirs, ours in _REASONS.items() if problem.msg.startswith(theirs)), "not JSON")


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        wait.check_signals()
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            raise NotJson(f"{_place(text, token.start())}: nested deeper than {MAX_DEPTH} levels")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # thousands of digits, which the interpreter refuses to convert: far too large for any key
        return -_HUGE if text.startswith("-") else _HUGE


class _Numbers:
    """Lets numbers pass through as they were written, behind a mark that no text can contain by chance."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(16)

    def __call__(self, text: str) -> str:
        return f"{self.mark}{text}{self.mark}"

    def dump(self, value: Any) -> bytes:
        def raw(part: Any) -> Any:
            return parse(part.text, self)

        text = json.dumps(value, indent=2, ensure_ascii=False, default=raw)
        text = re.sub(f'"{self.mark}([^"]*?){self.mark}"', r"\1", text)
        text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return text.encode() + b"\n"


def rewrite(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return an object's text after a change, two blanks of indent, numbers as they were.

    Args:
        data: the text before.
        change: changes the object; it may put ``Raw`` texts in.

    Raises:
        NotJson: the text is not an object.
    """
    numbers = _Numbers()
    whole = parse(data, numbers)
    if not isinstance(whole, dict):
        raise NotJson("not an object")
    change(whole)
    return numbers.dump(whole)


def part_text(data: bytes, path: Sequence[str]) -> bytes:
    """Return the text of the value at a path, laid out as ``rewrite`` does it.

    Raises:
        NotJson: the text is not valid.
    """
    numbers = _Numbers()
    value = parse(data, numbers)
    for key in path:
        value = value[key]
    return numbers.dump(value)
