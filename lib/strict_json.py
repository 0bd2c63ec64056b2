"""JSON as the standard has it, with the place of what is wrong (contract 14.14)."""

from __future__ import annotations

import json
from typing import Any


class NotJson(ValueError):
    """Not one JSON value; the text says where and why."""


def _refuse(word: str) -> Any:
    raise NotJson(f"{word} is not a JSON number")


def parse(data: bytes) -> Any:
    """Return the value that a file's bytes hold. A byte order mark is accepted.

    Args:
        data: the whole file.

    Raises:
        NotJson: with the line, the column and the reason.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except json.JSONDecodeError as problem:
        raise NotJson(f"line {problem.lineno}, column {problem.colno}: {problem.msg}") from None
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise NotJson(f"line {line}: a byte that is not UTF-8") from None
    except RecursionError:
        raise NotJson("nested too deep") from None
