"""Copies of this checkout, as somebody has them who has just cloned it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT

NOT_CLONED = (".git", ".venv*", ".cache", "__pycache__", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis")


def clone(folder: Path) -> Path:
    """Copy what a clone holds, but for the tests and their fixtures.

    Args:
        folder: where to; it must not exist.

    Returns:
        The folder.
    """
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOT_CLONED, "tests", "fixtures"))
    # Once more by another process: what another thread starts may hold our descriptor, and a file that somebody may
    # still write to cannot be run.
    program, copy = folder / "cli.sh", folder / "cli.sh.copy"
    subprocess.run(["cp", "-p", program, copy], check=True)
    copy.replace(program)
    return folder
