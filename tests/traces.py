"""What a launch leaves on this machine: processes, by a mark in the environment that all of them inherit."""

from __future__ import annotations

from pathlib import Path

MARK = "CB_TEST_RUN"  # in the environment of every process that a launcher starts, the reaper's too


def processes(mark: str) -> list[str]:
    """Return the command lines of the processes with a mark in their environment."""
    return [command for _, command in marked(mark)]


def marked(mark: str) -> list[tuple[int, str]]:
    """Return the same with their numbers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(folder.name), command))
        except OSError:  # gone meanwhile
            continue
    return found
