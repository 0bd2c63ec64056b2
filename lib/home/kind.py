"""How the work of a bottle is to come home: as branches of the project's repository, as a folder, or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass

from claude_bottle.lib import log
from claude_bottle.lib.home.record import FOLDER, GIT, NONE
from claude_bottle.lib.host.git import git_find


@dataclass(frozen=True)
class Homing:
    """How work comes home, and why not otherwise.

    Attributes:
        kind: GIT, FOLDER or NONE.
        repository: folder of the repository that it comes home to, that of all its worktrees.
        reason: why it does not come home as branches, empty where it does.
    """

    kind: str = NONE
    repository: str = ""
    reason: str = ""

    def say(self, slug: str) -> None:
        """Print the plan's line about it.

        Args:
            slug: of the agent.
        """
        text = {
            GIT: f"comes home as branches claude-bottle/{slug}-N/... of {self.repository}",
            FOLDER: f"comes home as a folder ({self.reason})",
            NONE: f"does not come home ({self.reason})",
        }
        log.labelled("work", text[self.kind])


def look(repository: str, *, wanted: bool, seen: bool) -> Homing:
    """Say how work is to come home; nothing is run for it.

    Args:
        repository: folder of the repository of which the bottle gets one, that of all its worktrees; empty without one.
        wanted: whether the user wants it to.
        seen: whether what goes in goes by here, so that what has changed is known afterwards.
    """
    if not wanted:
        return Homing(NONE, reason="--no-bring")
    if not repository:
        if not seen:
            return Homing(NONE, reason="no git repository, and an engine's image of the project")
        return Homing(FOLDER, reason="no git repository")
    if not git_find(os.environ):
        return Homing(NONE, reason="git not found on PATH")
    found = os.path.realpath(repository)
    if not all(os.access(os.path.join(found, name), os.W_OK | os.X_OK) for name in ("objects", "refs")):
        return Homing(NONE, reason=f"cannot write to {found}")
    return Homing(GIT, found)
