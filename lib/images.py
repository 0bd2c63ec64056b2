"""The images that a start needs: each is built only where a build could make another one than the engine has."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from claude_bottle.lib import env, log
from claude_bottle.lib.docker import BROKER_FILE, Image, build, image_context
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.host.state import state_replace

RECORD = "images"
# For the base that only the builder has, which may find a newer one in its registry.
SECONDS = 86400
_MOST = 32  # lines, the newest first: one for each file, engine and base
_ABSENT = "-"
_BASE = re.compile(r"^FROM ([^\s$]+)$", re.MULTILINE)
_OTHER = re.compile(r"^\s*(FROM [^\n]* AS |COPY|ADD|ARG)\b|--mount", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """An image that is to be there.

    Attributes:
        tag: the image's.
        base: what it is built on; empty where more than that decides what a build makes.
        digest: of all else that decides.
    """

    tag: str
    base: str
    digest: str


class Line(NamedTuple):
    """A build that was made: from what, on which base, which image, and when."""

    digest: str
    base: str
    image: str
    seconds: int

    def holds(self, wanted: Wanted, ids: Mapping[str, str]) -> bool:
        """Return whether a build of what is wanted would make this image again."""
        same = (wanted.digest, ids.get(wanted.base, _ABSENT), ids.get(wanted.tag))
        return same == (self.digest, self.base, self.image) and 0 <= time.time() - self.seconds < SECONDS


class Known(NamedTuple):
    """What a start needs, and what of it a build would only make once more, by its tag."""

    wanted: Sequence[Wanted]
    images: Mapping[str, Image]


def image_wanted(tag: str, name: str = "Dockerfile") -> Wanted:
    """Return the image that a file of ours makes.

    Args:
        tag: that it is to have.
        name: of the file.
    """
    recipe = (image_context() / name).read_text("utf-8")
    bases = _BASE.findall(recipe)
    told = f"{recipe}\0{os.environ.get('DOCKER_DEFAULT_PLATFORM', '')}"
    alone = len(bases) == 1 and not _OTHER.search(recipe)
    return Wanted(tag, bases[0] if alone else "", hashlib.sha256(told.encode()).hexdigest())


def broker_wanted(tag: str) -> Wanted | None:
    """Return the broker's image, if it is ours to build; an own one is taken as it is."""
    return image_wanted(tag, BROKER_FILE) if tag == env.DEFAULT_BROKER_IMAGE else None


def docker_build_broker(engine: Engine, tag: str, id_file: Path) -> Work[Image]:
    """Build the broker's image.

    Args:
        engine: to ask.
        tag: the image's.
        id_file: where docker may write the image's id.

    Raises:
        DockerError: the build failed, and its own output has said why.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building image {tag}")
    context = image_context()
    answers = yield from build(engine, tag, ["-f", str(context / BROKER_FILE), str(context)], id_file)
    return Image(tag, (*answers, tag))


def images_known(engine: Engine, wanted: Sequence[Wanted], state: Path | None) -> Work[Known]:
    """Look which of the images a build would only make once more.

    Ids of images stand for what is in them: the one that was last built from the same file on the same base is what a
    build would find in its cache, at the cost of a good part of a start.

    Args:
        engine: to ask.
        wanted: what a start needs.
        state: the user's state folder, if there is one.
    """
    lines = _read(state)
    noted = {line.digest for line in lines}
    asked = [each for each in wanted if each.digest in noted]
    ids = yield from _ids(engine, asked)
    held = [each for each in asked if any(line.holds(each, ids) for line in lines)]
    return Known(wanted, {each.tag: Image(each.tag, (ids[each.tag],)) for each in held})


def images_note(engine: Engine, built: Mapping[Wanted, Image], state: Path | None) -> Work[None]:
    """Note what was built, for the next start.

    What the engine has by an image's tag may be another one: a builder of the user's own keeps what it builds.

    Args:
        engine: to ask.
        built: what a start has just built.
        state: the user's state folder, if there is one.
    """
    wanted = [each for each in built if each.base]
    if not (wanted and state):
        return
    ids, now = (yield from _ids(engine, wanted)), int(time.time())
    made = [each for each in wanted if ids.get(each.tag) in built[each].answers]
    new = [Line(each.digest, ids.get(each.base, _ABSENT), ids[each.tag], now) for each in made]
    old = [line for line in _read(state) if line[:2] not in [one[:2] for one in new]]
    text = "".join(" ".join(map(str, line)) + "\n" for line in [*new, *old][:_MOST])
    with suppress(OSError):  # then the next start builds again
        state_replace(state / RECORD, text)


def _ids(engine: Engine, wanted: Iterable[Wanted]) -> Work[dict[str, str]]:
    """Ask for the ids of images and their bases in one call; nothing where the answer is not clear."""
    names = list(dict.fromkeys(name for each in wanted for name in (each.base, each.tag)))
    if not names:
        return {}
    look = yield engine.question(["image", "inspect", "--format", "{{.Id}}", *names])
    there = [name for name in names if name not in look.failure]
    ids = look.text.split()
    return dict(zip(there, ids, strict=True)) if len(ids) == len(there) else {}


def _read(state: Path | None) -> list[Line]:
    if not state:
        return []
    try:
        words = [line.split(" ") for line in (state / RECORD).read_text("ascii").splitlines()]
        return [Line(digest, base, image, int(seconds)) for digest, base, image, seconds in words]
    except (OSError, ValueError):
        return []
