"""What is wrong in a manifest, in the shell's order: found once, told by the command that needs the place."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.schema import schema_check
from claude_bottle.lib.schema.manifest_parse import SSH_FIELDS, Sources, as_list, as_object, as_word
from claude_bottle.lib.schema.manifest_words import fault_error, fault_warning, host_error, unknown_warning
from claude_bottle.lib.schema.schema_check import Fault, Place


class Checks:
    """All that is wrong in one merged manifest.

    Args:
        merged: the whole of it.
        sources: where it comes from.

    Raises:
        Interrupted: a signal arrived; a large manifest takes a while.
    """

    def __init__(self, merged: Any, sources: Sources) -> None:
        self._merged = merged
        self._sources = sources
        self._faults = schema_check.faults(merged)
        self._by_part: defaultdict[Place, list[Fault]] = defaultdict(list)
        for fault in self._faults:
            self._by_part[fault.place[:3]].append(fault)
        self._unknown: defaultdict[Place, list[str]] = defaultdict(list)
        for unknown in schema_check.unknown_keys(merged):
            line = unknown_warning(unknown, sources.where(unknown.place))
            self._unknown[unknown.place[:2]].append(line)

    def warnings(self) -> Iterator[str]:
        """Yield a line for each key that means nothing, then for each fault, in the whole manifest."""
        for lines in self._unknown.values():
            yield from lines
        for fault in self._faults:
            yield fault_warning(fault, self._sources.where(fault.place))

    def unknown(self, kind: str, name: str) -> list[str]:
        """Return a line for each key that means nothing in one of the ``agents`` or ``bottles``."""
        return self._unknown.get((kind, name), [])

    def problems(self, *place: str) -> list[BottleError]:
        """Return what is wrong with a place itself, not with what is in it.

        Args:
            place: the keys that lead there, three at most; with three also what is wrong below.
        """
        return list(map(self._error, self._by_part.get(place, ())))

    def _error(self, fault: Fault) -> BottleError:
        where = self._sources.where(fault.place)
        match fault.place[2:]:
            case ("egress", "allowlist", _) if fault.kind == "form":
                return host_error(fault, self._at(fault.place), where)
            case ("credentials", _, "hosts", _) if fault.kind == "form":
                return host_error(fault, self._at(fault.place), where, whole=True)
        return fault_error(fault, where)

    def agent(self, name: str) -> list[BottleError]:
        """Return what is wrong with an agent."""
        return [self._error(fault) for fault in self._faults if fault.place[:2] == ("agents", name)]

    def ssh(self, bottle: str) -> Iterator[BottleError]:
        """Yield what is wrong with a bottle's ssh entries: what is missing first, as the shell does."""
        place = ("bottles", bottle, "ssh")
        yield from self._missing_in(place)
        yield from (self._error(fault) for fault in self._by_part.get(place, ()) if fault.kind != "required")

    def _missing_in(self, entries: Place) -> Iterator[BottleError]:
        for index, entry in enumerate(as_list(self._at(entries))):
            for line in _missing_fields(entry):
                yield BottleError(line, [self._sources.where((*entries, index))])

    def broken(self) -> set[Place]:
        """Return the places of the ssh entries that lack a field, or have one of a wrong type, and of all credentials
        that have a fault."""
        kinds = {"ssh": ("type", "required", "text"), "credentials": ("type", "required", "text", "form", "name")}
        return {
            fault.place[:4]
            for fault in self._faults
            if len(fault.place) > 3 and fault.kind in kinds.get(str(fault.place[2]), ())
        }

    def _at(self, place: Place) -> Any:
        value = self._merged
        for step in place:
            value = value[step] if isinstance(step, int) else as_object(value).get(step)
        return value


def _missing_fields(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict) or _missing(entry.get("Host")):
        text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
        yield f"ssh entry missing required field 'Host': {text}"
        return
    for field in SSH_FIELDS:
        if _missing(entry.get(field)):
            yield f"ssh entry for host '{as_word(entry['Host'])}' missing required field '{field}'"


def _missing(value: Any) -> bool:
    return value is None or value == ""
