"""The stage dir: what is about to go into the bottle, for the user to look at before the answer (contract section 6).

Only literals are written; a secret never is. Nothing of it is read again, but by a sweep whose it was.
"""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path

from claude_bottle.lib import env_resolve, log
from claude_bottle.lib.errors import EngineUnfit, reason
from claude_bottle.lib.plan import RESERVED, Plan
from claude_bottle.lib.teardown.journal import STAGE, Journal
from claude_bottle.lib.teardown.sweep import OWNER_FILE, STAGE_PREFIX, owner_text

_TAIL = string.ascii_letters + string.digits


def stage_create(journal: Journal, slug: str, folder: str) -> str:
    """Make the stage dir, mode 700, and say in it whose it is.

    Args:
        journal: of the launch.
        slug: of the agent.
        folder: where, an empty text for /tmp.

    Returns:
        Its path, spelt as the folder was: the preflight shows it, and macOS ends TMPDIR with a slash.

    Raises:
        EngineUnfit: it cannot be made, or not written to.
    """
    parent = folder or "/tmp"
    name = STAGE_PREFIX + "".join(secrets.choice(_TAIL) for _ in range(6))
    path = f"{parent}/{name}"
    journal.intend(STAGE, os.path.join(os.path.realpath(parent), name))  # the reaper works elsewhere
    try:
        os.mkdir(path, mode=0o700)
    except OSError as problem:
        raise EngineUnfit(f"cannot create the stage dir in {parent}", [reason(problem)]) from None
    _write(Path(path, OWNER_FILE), owner_text(journal.owner, slug))
    return path


def stage_write(stage: Path, plan: Plan) -> None:
    """Write the sidecar's configuration, the literals, and the prompt.

    Raises:
        EngineUnfit: a file cannot be written, for example on a full disk.
    """
    _write(stage / "pipelock.yaml", plan.yaml)
    _write(stage / "agent.env", env_resolve.env_file(plan.entries, RESERVED))
    _write(stage / "prompt.txt", plan.prompt)


def _write(path: Path, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(log.encode(text))
    except OSError as problem:
        raise EngineUnfit(f"cannot write {path}", [reason(problem)]) from None
