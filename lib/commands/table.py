"""The bottles that there are, as a table for people: of the list, and of what shows it live."""

from __future__ import annotations

import os
from collections.abc import Sequence

from claude_bottle.lib import log
from claude_bottle.lib.commands.active import Active

HEAD = ("AGENT", "CONTAINER", "AGE", "STATE", "PROCESSOR", "MEMORY", "DENIED", "FOLDER")
NODE = "NODE"
UNKNOWN = "-"
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"))


def row(one: Active) -> tuple[str, ...]:
    """Return a bottle's cells, with what a terminal would obey spelt out."""
    usage, said = one.usage, one.present
    cells = (
        one.agent,
        one.container or UNKNOWN,
        age(one.age),
        one.state,
        f"{usage.processor:.0f} %" if usage else UNKNOWN,
        size(usage.memory) if usage else UNKNOWN,
        UNKNOWN if one.denied is None else str(one.denied),
        short(said.folder) if said else UNKNOWN,
    )
    return tuple(map(log.visible, cells))


def table(found: Sequence[Active]) -> list[str]:
    """Return the lines of the table, as wide as it has to be: on a narrow terminal the folder goes on below."""
    rows = [HEAD, *map(row, found)]
    if any(one.node for one in found):
        nodes = [NODE, *(log.visible(one.node) for one in found)]
        rows = [(node, *cells) for node, cells in zip(nodes, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]


def age(seconds: int | None) -> str:
    """Return how old something is, in the largest unit that fits."""
    if seconds is None:
        return UNKNOWN
    return next((f"{seconds // step} {unit}" for step, unit in _STEPS if seconds >= step), f"{seconds} s")


def size(count: int) -> str:
    """Return an amount of memory."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"


def short(folder: str) -> str:
    """Return a folder as a shell would show it."""
    home = os.environ.get("HOME", "").rstrip("/")
    return f"~{folder[len(home) :]}" if home and f"{folder}/".startswith(f"{home}/") else folder
