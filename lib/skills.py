"""The agent's skills: folders of the host's ~/.claude/skills (shell: lib/skills.sh)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from claude_bottle.lib.problems import fail_with


def skills_host_path(home: str, name: str) -> str:
    """Return where a skill is on the host (shell: skills_host_path)."""
    return f"{home}/.claude/skills/{name}"


def skills_check(home: str, names: Iterable[str]) -> None:
    """Fail unless every skill is there (shell: skills_check).

    Raises:
        BottleError: with all that are not, or that have no usable name.
    """
    problems = []
    for name in names:
        path = skills_host_path(home, name)
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            problems.append(f"invalid skill name '{name}'")
        elif not os.path.isdir(path):
            problems.append(f"skill '{name}' not found at {path}")
    fail_with(problems)
