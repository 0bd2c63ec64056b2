"""What the user has approved, by folder: one file of the state folder, of JSON paths and digests."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.host import run
from claude_bottle.lib.host.locks import locked
from claude_bottle.lib.host.state import state_folder, state_make, state_replace
from claude_bottle.lib.schema.manifest_words import FILE_NAME

STORE = "approved.json"
LOCK_SECONDS = 5.0  # another start holds the lock for milliseconds

Approved = dict[str, dict[str, str]]


def recall(environ: Mapping[str, str], cwd: str) -> dict[str, str]:
    """Return digests by JSON path, of what has been approved in a folder; a damaged file counts as empty.

    Args:
        environ: the caller's environment.
        cwd: the folder.
    """
    folder = state_folder(environ)
    if folder is None:
        return {}
    try:
        return _read(folder / STORE).get(_key(cwd), {})
    except (OSError, ValueError, RecursionError) as problem:
        log.log_warn(f"{folder / STORE} cannot be read, so nothing counts as approved: {_why(problem)}")
        return {}


def remember(environ: Mapping[str, str], cwd: str, digests: Mapping[str, str]) -> None:
    """Add to what has been approved in a folder.

    Args:
        environ: the caller's environment.
        cwd: the folder.
        digests: by JSON path.

    Raises:
        BottleError: it cannot be written.
        Interrupted: a signal arrived.
    """
    folder = state_folder(environ)
    if folder is None:
        raise BottleError("the approval cannot be remembered", ["HOME is no whole path"])
    try:
        state_make(folder)
        with locked([folder], time.monotonic() + LOCK_SECONDS, run.on_signal) as mine:
            if not mine:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            _write(folder / STORE, _key(cwd), digests)
    except OSError as problem:
        raise BottleError(f"the approval cannot be remembered in {folder}: {reason(problem)}") from None


def _key(cwd: str) -> str:
    """Return a folder's manifest by the folder's own name: a manifest that is a link is approved where it lies."""
    return os.path.join(os.path.realpath(cwd), FILE_NAME)


def _read(path: Path) -> Approved:
    """Return what the file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict) or not all(map(_is_digests, found.values())):
        raise ValueError("it is not what was written")
    return found


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values())


def _why(problem: Exception) -> str:
    return reason(problem) if isinstance(problem, OSError) else "it is damaged"


def _write(path: Path, key: str, digests: Mapping[str, str]) -> None:
    try:
        approved = _read(path)
    except (ValueError, RecursionError):
        kept = path.with_suffix(".damaged")
        path.replace(kept)
        log.log_warn(f"{path} was damaged: it is now {kept}")
        approved = {}
    approved[key] = {**approved.get(key, {}), **digests}
    state_replace(path, json.dumps(approved, indent=2, sort_keys=True) + "\n")
