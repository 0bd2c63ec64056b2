"""Known holes of engines, by the versions that they say they have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from claude_bottle.lib.doctor.finding import PROBLEM, WARNING, Finding

Version = tuple[int, ...]
CHECK = "known holes"
NEW_ENGINE, NEW_DESKTOP, NEW_RUNC = "update the engine", "update Docker Desktop", "update runc (or containerd.io)"

MENDED_UNSEEN = "a distribution may have mended it under the old number"


@dataclass(frozen=True)
class Hole:
    """A hole, and whom it is in.

    Attributes:
        part: ``Engine``, ``runc`` or ``Desktop``.
        is_in: says whether a version has it.
        text: its name, what it is, and what that means for a bottle.
        mend: what mends it.
        state: WARNING where a bottle is closed to it, or needs luck to use it.
    """

    part: str
    is_in: Callable[[Version], bool]
    text: str
    mend: str
    state: str = WARNING


HOLES = (
    Hole(
        "Engine",
        lambda v: v < (23, 0, 11) or (24,) <= v < (25, 0, 5),
        "CVE-2024-29018: sealed networks look names up outside; a bottle is given a dead resolver",
        NEW_ENGINE,
    ),
    Hole(
        "Engine",
        lambda v: (26, 0, 0) <= v < (26, 0, 2),
        "CVE-2024-32473: IPv6 stays on in networks without it; a bottle has it off by itself",
        NEW_ENGINE,
    ),
    Hole(
        "Engine",
        lambda v: v < (28, 0, 0),
        "CVE-2025-54410: a reload of firewalld opens networks to each other; a bottle's own is not one of them,"
        " its sidecar's way out is",
        NEW_ENGINE,
    ),
    Hole(
        "Engine",
        lambda v: v < (24, 0, 9) or (25,) <= v < (25, 0, 2),
        "CVE-2024-23651, -23652, -23653: a build with BuildKit may reach the host; a manifest's dockerfile is one",
        NEW_ENGINE,
    ),
    Hole(
        "Desktop",
        lambda v: v < (4, 44, 3),
        "CVE-2025-9074: containers reach the engine itself, and with it the host",
        NEW_DESKTOP,
        PROBLEM,
    ),
    Hole(
        "runc",
        lambda v: v < (1, 1, 12),
        "CVE-2024-21626: a container may get out when something else is run in it, as exec and the way home of its work"
        f" do; {MENDED_UNSEEN}",
        NEW_RUNC,
    ),
    Hole(
        "runc",
        lambda v: v < (1, 2, 8) or (1, 3) <= v < (1, 3, 3),
        "CVE-2025-31133, -52565, -52881: a container with mounts made for it may get out; a bottle mounts nothing of"
        f" the host, and {MENDED_UNSEEN}",
        NEW_RUNC,
    ),
)


def version(text: str) -> Version:
    """Return the numbers that a version begins with; none where it has none."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups("0")) if found else ()


def parts(said: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of an engine's parts, by name.

    Args:
        said: what docker version says of the server.
    """
    there = {str(each.get("Name")): str(each.get("Version")) for each in said.get("Components") or ()}
    platform = (said.get("Platform") or {}).get("Name") or ""
    if desktop := re.match(r"Docker Desktop (\S+)", platform):
        there["Desktop"] = desktop[1]
    return there


def holes(there: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each known hole.

    Args:
        there: versions by part.
    """
    for hole in HOLES:
        found = there.get(hole.part, "")
        if version(found) and hole.is_in(version(found)):
            yield Finding(CHECK, hole.state, f"{hole.part} {found}: {hole.text}", hole.mend)
