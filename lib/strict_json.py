"""JSON as the standard has it, with the place of what is wrong (contract 14.14)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff\x7f]")


class NotJson(ValueError):
    """Not one JSON value; the text says where and why."""


class Raw:
    """JSON text that stands for a value, its numbers as they were written."""

    def __init__(self, text: bytes) -> None:
        self.text = text


def _refuse(word: str) -> Any:
    raise NotJson(f"{word} is not a JSON number")


def parse(data: bytes, number: Callable[[str], Any] | None = None) -> Any:
    """Return the value that a file's bytes hold. A byte order mark is accepted.

    Args:
        data: the whole file.
        number: what a number's text becomes, if not an int or a float.

    Raises:
        NotJson: with the line, the column and the reason.
    """
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse, parse_float=number, parse_int=number or _int)
    except json.JSONDecodeError as problem:
        raise NotJson(f"line {problem.lineno}, column {problem.colno}: {problem.msg}") from None
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise NotJson(f"line {line}: a byte that is not UTF-8") from None
    except RecursionError:
        raise NotJson("nested too deep") from None


def _int(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # thousands of digits, which the interpreter refuses to convert
        return float(text)


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
