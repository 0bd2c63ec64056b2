"""The agent's name as it is used in names on the engine (shell: agent_slug; contract section 1)."""

from __future__ import annotations

import re

from claude_bottle.lib.errors import BottleError


def agent_slug(agent: str) -> str:
    """Return the slug of an agent's name.

    Args:
        agent: any name.

    Raises:
        BottleError: nothing usable is in it.
    """
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in agent)  # ASCII only, as in the shell
    slug = re.sub("[^a-z0-9]+", "-", lowered).strip("-")
    if not slug:
        raise BottleError(f"agent name '{agent}' has no usable characters")
    return slug
