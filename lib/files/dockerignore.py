"""What a project's .dockerignore leaves out, by docker's own rules.

The last pattern that matches wins, ``!`` takes back in, and what matches a folder matches all below it. A name is
followed character by character through all that a pattern may mean at once: no pattern of somebody else's can make this
take long, as it could with regular expressions.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

_PART = r"(?:\\.|[^\\\]-])"
_CLASS = rf"\[\^?+(?:{_PART}(?:-{_PART})?)+\]"
_TOKEN = re.compile(rf"\*\*/?|\*|\?|\\.|{_CLASS}|[^\\\[]", re.DOTALL)
_PLAIN = re.compile(r"[^*?\[\]\\]*")
_BOM = "\ufeff"

Accepts = Callable[[str], bool]  # takes a character


class Place(NamedTuple):
    """Where a name may be in a pattern.

    Attributes:
        step: what leads to the next place.
        loop: what stays here.
        free: the places that are reached for nothing, as bits, the first for this one.
    """

    step: Accepts | None = None
    loop: Accepts | None = None
    free: int = 0


def _any(_character: str) -> bool:
    return True


def _no_slash(character: str) -> bool:
    return character != "/"


def _among(text: str) -> Accepts:
    """Return what a class such as ``[^a-z]`` accepts."""
    negated = text[1] == "^"
    parts = re.findall(rf"({_PART})(?:-({_PART}))?", text[2 if negated else 1 : -1], re.DOTALL)
    ranges = [(low[-1], (high or low)[-1]) for low, high in parts]
    return lambda character: any(low <= character <= high for low, high in ranges) != negated


def _places(token: str) -> list[Place]:
    if token in ("**", "**/"):  # any number of folders, none too
        return [Place(free=0b110), Place("/".__eq__, loop=_any)]
    if token in ("*", "** at an end"):
        return [Place(loop=_no_slash if token == "*" else _any, free=0b10)]
    if token == "?":
        return [Place(_no_slash)]
    return [Place(_among(token) if len(token) > 2 else token[-1].__eq__)]


def _tokens(text: str) -> list[str]:
    """Return the parts of a pattern.

    Raises:
        ValueError: docker would not take it.
    """
    found = _TOKEN.findall(text)
    if not text or "".join(found) != text:
        raise ValueError(text)
    if found[-1] == "**":
        found[-1] = "** at an end"
    if found[0] == "**" and _PLAIN.fullmatch(text, 2):
        found[0] = "** at an end"  # docker only compares the name's end then
    return found


def _accepting(all_of_a_kind: Iterable[Accepts | None], character: str) -> int:
    """Return those that accept a character, as bits."""
    return sum(1 << number for number, accepts in enumerate(all_of_a_kind) if accepts and accepts(character))


class Pattern:
    """One line of the file.

    Args:
        text: the line, cleaned, without its ``!``.
        takes_in: whether it had one.

    Raises:
        ValueError: docker would not take it.
    """

    def __init__(self, text: str, takes_in: bool) -> None:
        self.takes_in = takes_in
        self._all = [place for token in _tokens(text) for place in _places(token)]
        self._free = [(1 << number, place.free << number) for number, place in enumerate(self._all) if place.free]
        self._skipping = sum(place for place, _ in self._free)
        self._known: dict[str, tuple[int, int]] = {}
        self.begin = self._settled(1)
        self.end = 1 << len(self._all)

    def walk(self, places: int, text: str) -> int:
        """Return the places, as bits, in which a name may be after more of it; none when it cannot match any more."""
        for character in text:
            steps, loops = self._known.get(character) or self._learn(character)
            places = (places & steps) << 1 | places & loops
            if not places:
                break
            if places & self._skipping:
                places = self._settled(places)
        return places

    def _learn(self, character: str) -> tuple[int, int]:
        steps, loops = (place.step for place in self._all), (place.loop for place in self._all)
        self._known[character] = _accepting(steps, character), _accepting(loops, character)
        return self._known[character]

    def _settled(self, places: int) -> int:
        for place, free in self._free:
            if places & place:
                places |= free
        return places


class Verdict(NamedTuple):
    """What is known about a name; a folder's is the beginning of all below it.

    Attributes:
        path: the name.
        matched: for each pattern, whether it matches the name or a folder above it.
        places: for each pattern that does not match a folder above, where the name is in it.
        excluded: whether the name stays out.
    """

    path: str
    matched: tuple[bool, ...]
    places: tuple[int, ...]
    excluded: bool


class Rules:
    """All lines of the file.

    Args:
        patterns: in their order.
    """

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self.patterns = tuple(patterns)
        begin = tuple(pattern.begin for pattern in self.patterns)
        self._above = [Verdict("", (False,) * len(begin), begin, False)]  # the folders of the last name

    def excludes(self, path: str) -> bool:
        """Say whether a file or folder stays out.

        Args:
            path: from the project's folder on, with slashes; names in an order that keeps folders together are quick.
        """
        folder, _, name = path.rpartition("/")
        return self._below(self._folder(folder), name).excluded

    def may_take_in_below(self, folder: str) -> bool:
        """Say whether some name below a folder may match a line with ``!``."""
        places = self._folder(folder).places
        return any(pattern.takes_in and place for pattern, place in zip(self.patterns, places, strict=True))

    def _folder(self, path: str) -> Verdict:
        while not f"{path}/".startswith(f"{self._above[-1].path}/") and len(self._above) > 1:
            self._above.pop()
        last = self._above[-1].path
        for name in path[len(last) :].split("/") if path != last else ():
            if name:
                found = self._below(self._above[-1], name)
                ahead = zip(self.patterns, found.places, strict=True)
                self._above.append(found._replace(places=tuple(each.walk(places, "/") for each, places in ahead)))
        return self._above[-1]

    def _below(self, folder: Verdict, name: str) -> Verdict:
        matched, places, excluded = [], [], False
        for pattern, above, before in zip(self.patterns, folder.matched, folder.places, strict=True):
            place = pattern.walk(before, name) if before and not above else 0
            # Docker does not look at a line that would change nothing, and does not remember it for what is below.
            matches = above or (pattern.takes_in == excluded and bool(place & pattern.end))
            if matches:
                excluded = not pattern.takes_in
            matched.append(matches)
            places.append(place)
        return Verdict(f"{folder.path}/{name}" if folder.path else name, tuple(matched), tuple(places), excluded)


def parse(text: str) -> Rules:
    """Read the lines of a .dockerignore.

    Raises:
        ValueError: the number of a line that docker would not take.
    """
    patterns = []
    for number, line in enumerate(text.removeprefix(_BOM).split("\n"), 1):
        cleaned = line.strip()
        if line.startswith("#") or not cleaned:
            continue
        takes_in = cleaned.startswith("!")
        cleaned = cleaned[takes_in:].strip()
        if cleaned:
            cleaned = posixpath.normpath(cleaned).lstrip("/") or "/"
        try:
            patterns.append(Pattern(cleaned, takes_in))
        except ValueError:
            raise ValueError(number) from None
    return Rules(patterns)
