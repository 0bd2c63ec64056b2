"""The agent's skills: folders of the host's ~/.claude/skills (shell: lib/skills.sh)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files import walk
from claude_bottle.lib.problems import fail_with


def skills_host_path(home: str, name: str) -> str:
    """Return where a skill is on the host (shell: skills_host_path)."""
    return f"{home}/.claude/skills/{name}"


def skills_check(home: str, names: Iterable[str]) -> None:
    """Fail unless every skill is there and can be taken along (shell: skills_check).

    Raises:
        BottleError: with all that are not, or that have no usable name.
    """
    problems: list[BottleError | str] = []
    for name in names:
        path = skills_host_path(home, name)
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            problems.append(f"invalid skill name '{name}'")
        elif not os.path.isdir(path):
            problems.append(f"skill '{name}' not found at {path}")
        else:
            problems += _refused(name, path)
    fail_with(problems)


def skills_followed(home: str, name: str) -> dict[str, str]:
    """Return the links that leave a skill, each with the file whose content goes into the bottle in its place.

    Raises:
        BottleError: the skill cannot be read.
    """
    path = skills_host_path(home, name)
    try:
        return {link: target for link, target in _leaving(path) if _is_file(target)}
    except OSError as problem:
        raise _unread(name, problem) from None


def _refused(name: str, path: str) -> Iterator[BottleError | str]:
    try:
        for link, target in _leaving(path):
            if not _is_file(target):
                yield f"skill '{name}': the link {link} leads to {target}, which is no file that can be read"
    except OSError as problem:
        yield _unread(name, problem)


def _unread(name: str, problem: OSError) -> BottleError:
    return BottleError(f"skill '{name}' cannot be read: {problem.strerror}: {problem.filename}")


def _leaving(path: str) -> Iterator[tuple[str, str]]:
    """Yield the links that would lead nowhere in the bottle, each with its target."""
    root = os.path.realpath(path)
    for entry in walk.walk(root):
        if stat.S_ISLNK(entry.what.st_mode):
            link = os.path.join(root, entry.path)
            target = os.path.realpath(link)
            if os.path.isabs(os.readlink(link)) or os.path.commonpath([root, target]) != root:
                yield entry.path, target


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)
