"""Removes what a launch made: by its owner label and by id, never by a name that may be somebody else's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial

from claude_bottle.lib import log, run, terminal, wait
from claude_bottle.lib.journal import (
    AGENT,
    EGRESS,
    INTERNAL,
    OWNER_LABEL,
    ROLE_LABEL,
    SIDECAR,
    STAGE,
    WORKSPACE,
    Journal,
)

TRIES = 3
PAUSE_SECONDS = 0.5

_LISTS: dict[str, tuple[str, ...]] = {
    "container": ("ps", "-aq", "--no-trunc"),
    "network": ("network", "ls", "-q", "--no-trunc"),
    "image": ("image", "ls", "-q", "--no-trunc"),
}
_REMOVES: dict[str, tuple[str, ...]] = {
    "container": ("rm", "-f", "-v"),
    "network": ("network", "rm"),
    "image": ("image", "rm", "-f"),
}
_ORDER = (
    ("container", AGENT),
    ("container", SIDECAR),
    ("network", INTERNAL),
    ("network", EGRESS),
    ("image", WORKSPACE),
)


def cleanup_all(journal: Journal) -> bool:
    """Remove everything that the journal says may exist (shell: cleanup_all; contract section 12).

    Idempotent; a failure is tried again, then named on stderr, and the walk goes on.

    Args:
        journal: of the launch.

    Returns:
        Whether nothing is left.
    """
    terminal.tty_restore()
    clean = True
    for kind, role in _ORDER:
        if journal.names(role):
            remove = partial(_remove, journal.owner, kind, role)
            clean = _retried(remove, kind, journal.names(role)[-1]) and clean
    for path in journal.names(STAGE):
        clean = _retried(partial(_remove_stage, path), "folder", path) and clean
    return clean


def _retried(remove: Callable[[], str], kind: str, name: str) -> bool:
    failure = ""
    for attempt in range(TRIES):
        failure = remove()
        if not failure:
            return True
        if attempt < TRIES - 1:
            wait.pause(PAUSE_SECONDS)
    log.log_warn(f"could not remove {kind} '{name}': {failure}", lines=True)
    return False


def _remove(owner: str, kind: str, role: str) -> str:
    """Return why something of this kind and role is still there, or an empty text."""
    filters = ("--filter", f"label={OWNER_LABEL}={owner}", "--filter", f"label={ROLE_LABEL}={role}")
    found = _call([*_LISTS[kind], *filters])
    if not found.ok:
        return found.failure
    for identity in dict.fromkeys(found.text.split()):
        removed = _call([*_REMOVES[kind], identity])
        if not removed.ok and not _is_gone(removed.failure):
            return removed.failure
    return ""


def _call(words: Sequence[str]) -> run.Result:
    try:
        return run.capture(words)
    except Exception as problem:  # docker gone from PATH, no process to be had: the walk goes on
        return run.Result(1, err=str(problem).encode("utf-8", "replace"))


def _is_gone(failure: str) -> bool:
    return "No such" in failure or "not found" in failure


def _remove_stage(path: str) -> str:
    try:
        shutil.rmtree(path)
    except OSError as problem:
        if os.path.lexists(path):
            return problem.strerror or str(problem)
    return ""
