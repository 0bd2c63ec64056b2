"""What a check comes to."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at.
        state: OK, WARNING where a start works all the same, or PROBLEM.
        text: what was found, in a line.
        mend: the command, or what else there is to do, that mends it; empty where nothing is to be mended.
    """

    check: str
    state: str
    text: str
    mend: str = ""
