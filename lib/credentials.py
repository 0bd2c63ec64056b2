"""Credentials that never enter a bottle: what stands for each in there, and where the broker puts the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scheme = Literal["", "bearer", "token", "basic"]
AUTHORIZATION = "authorization"


@dataclass(frozen=True)
class Injection:
    """One credential as the broker knows it; its value is elsewhere (``Secrets.injected``, by variable).

    Attributes:
        variable: of the bottle's environment, whose value there is the placeholder.
        placeholder: what a client in the bottle sends.
        hosts: exact names, in lower case, of those that get the real value.
        paths: the only ones that do; one that ends with ``*`` stands for all that begin so; none for every path.
        header: that carries it, in lower case.
        scheme: the only one that is taken, where the header is ``authorization``; empty for whichever the client uses.
        user: of ``basic``; empty for the client's own.
    """

    variable: str
    placeholder: str
    hosts: tuple[str, ...]
    paths: tuple[str, ...] = ()
    header: str = AUTHORIZATION
    scheme: Scheme = ""
    user: str = ""
