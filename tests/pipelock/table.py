"""The table of cases, and how they get into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from tests.pipelock.lab import Lab

CORE, DETAIL = "core", "detail"


class Differs(Exception):
    """What was seen is not what the real image does."""

    def __init__(self, what: str, expected: object, got: object) -> None:
        super().__init__(what)
        self.what, self.expected, self.got = what, expected, got


@dataclass(frozen=True)
class Case:
    ident: str
    group: str
    klass: str
    title: str
    run: Callable[[SimpleNamespace], None]


@dataclass(frozen=True)
class Group:
    name: str
    setup: Callable[[Lab], SimpleNamespace]
    seconds: int  # rough time, the long ones start first


CASES: list[Case] = []
GROUPS: dict[str, Group] = {}


def group(name: str, seconds: int = 5) -> Callable:
    def register(setup: Callable) -> Callable:
        GROUPS[name] = Group(name, setup, seconds)
        return setup

    return register


def add(grp: str, slug: str, klass: str, title: str, run: Callable) -> None:
    ident = f"{grp}/{slug}"
    assert ident not in {c.ident for c in CASES}, ident
    CASES.append(Case(ident, grp, klass, title, run))


def case(grp: str, slug: str, klass: str, title: str) -> Callable:
    def register(run: Callable) -> Callable:
        add(grp, slug, klass, title, run)
        return run

    return register
