"""What a bottle says that it has to bring, and the names that it gets: made here, since a bottle may say anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.log import visible

PREFIX = "refs/heads/claude-bottle/"
MOST_BRANCHES = 1000
MOST_BYTES = 1 << 20  # of what a bottle says
LONGEST_NAME = 200  # bytes
FORM = "claude-bottle-work 1"
_ID = "(?:[0-9a-f]{40}|[0-9a-f]{64})"
_LINE = re.compile(rf"(head|tree|work|branch) ({_ID})(?: (\S.*))?")
_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


@dataclass(frozen=True)
class Heads:
    """What a bottle says of its repository; none of it is believed.

    Attributes:
        head: commit of its HEAD, empty where there is none yet.
        tree: of its working tree.
        work: the commit to bring home, empty where there is none.
        branches: name and commit of the other branches that have something new.
    """

    head: str
    tree: str
    work: str
    branches: tuple[tuple[str, str], ...]

    @property
    def tips(self) -> tuple[str, ...]:
        """All commits that there are to bring, each once."""
        every = [self.work] if self.work else []
        return tuple(dict.fromkeys([*every, *(tip for _, tip in self.branches)]))


def parse(said: bytes) -> Heads:
    """Return what a bottle says.

    Args:
        said: all of it.

    Raises:
        BottleError: it is something else.
    """
    try:
        first, *lines = said.decode("ascii", "surrogateescape").split("\n")
        if first != FORM or lines[-2:] != ["end", ""]:
            raise ValueError
        found: dict[str, str] = {}
        branches: list[tuple[str, str]] = []
        for line in lines[:-2]:
            word, tip, name = _parts(line)
            if word == "branch":
                branches.append((name, tip))
            elif found.setdefault(word, tip) is not tip or name:
                raise ValueError
        if len(branches) > MOST_BRANCHES:
            raise BottleError(f"the bottle has more than {MOST_BRANCHES} branches with something new")
        return Heads(found.get("head", ""), found["tree"], found.get("work", ""), tuple(branches))
    except (ValueError, KeyError, IndexError):
        raise BottleError("the bottle's repository says of itself what cannot be understood") from None


def _parts(line: str) -> tuple[str, str, str]:
    matched = _LINE.fullmatch(line)
    if not matched or (matched[1] == "branch") != bool(matched[3]):
        raise ValueError
    return matched[1], matched[2], (matched[3] or "").encode("ascii", "surrogateescape").decode("utf-8", "replace")


def is_good(name: str) -> bool:
    """Say whether a branch may keep its name below ours: what git takes, and nothing that a reader would not see.

    Args:
        name: of the branch, without ``refs/heads/``.
    """
    parts = name.split("/")
    return (
        len(name.encode("utf-8", "replace")) <= LONGEST_NAME
        and not _REFUSED.search(name)
        and "\ufffd" not in name
        and visible(name) == name
        and all(part and part[0] not in ".-" and not part.endswith((".lock", ".")) for part in parts)
        and parts[-1] not in ("HEAD", "@")
    )


def free_place(slug: str, there: Iterable[str]) -> str:
    """Return the first place that has nothing in it: ``claude-bottle/<slug>-<n>``, below ``refs/heads``.

    Args:
        slug: of the agent.
        there: names of the refs that there are, whole.
    """
    taken = {name.removeprefix(PREFIX).partition("/")[0].casefold() for name in there if name.startswith(PREFIX)}
    number = next(number for number in range(1, len(taken) + 2) if f"{slug}-{number}" not in taken)
    return f"{PREFIX}{slug}-{number}"


def names(place: str, heads: Heads) -> Iterator[tuple[str, str]]:
    """Yield each ref that is to be made, and its commit.

    A branch whose name cannot be kept, or stands in the way of another one's on some file system, gets a number.

    Args:
        place: as ``free_place`` returned it.
        heads: what the bottle says.
    """
    if heads.work:
        yield f"{place}/work", heads.work
    folders, files = {""}, set[str]()
    number = 0
    for name, tip in heads.branches:
        folded = unicodedata.normalize("NFC", name.casefold())  # macOS takes two spellings for one
        parts = folded.split("/")
        above = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if not is_good(name) or folded in files | folders or above & files:
            number += 1
            yield f"{place}/unnamed/{number}", tip
            continue
        files.add(folded)
        folders |= above
        yield f"{place}/heads/{name}", tip
