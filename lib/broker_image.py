"""The broker's image, which is built only where a build could make another one than the engine has."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from claude_bottle.lib import env, log
from claude_bottle.lib.docker import BROKER_FILE, Image, build, image_context
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.host.state import state_replace

RECORD = "broker-image"
_BASE = re.compile(r"^FROM ([^\s$]+)$", re.MULTILINE)


def docker_build_broker(engine: Engine, tag: str, id_file: Path, state: Path | None) -> Work[Image]:
    """Have the broker's image; an own one is taken as it is.

    Ids of images stand for what is in them: the one that was last built from the same file on the same base is what a
    build would find in its cache, with most of the cost of a start's second build.

    Args:
        engine: to ask.
        tag: the image's.
        id_file: where docker may write the image's id.
        state: the user's state folder, if there is one.

    Raises:
        DockerError: the build failed, and its own output has said why.
        Interrupted: a signal stopped it.
    """
    if tag != env.DEFAULT_BROKER_IMAGE:
        return Image(tag, (tag,))
    context = image_context()
    recipe = (context / BROKER_FILE).read_text("utf-8")
    found = yield from _built(engine, tag, recipe)
    if found and state and _read(state) == found:
        return Image(tag, (found[-1], tag))
    log.log_info(f"building image {tag}")
    answers = yield from build(engine, tag, ["-f", str(context / BROKER_FILE), str(context)], id_file)
    found = yield from _built(engine, tag, recipe)
    if found and state:
        with suppress(OSError):  # then the next start builds again
            state_replace(state / RECORD, " ".join(found) + "\n")
    return Image(tag, (*answers, tag))


def _built(engine: Engine, tag: str, recipe: str) -> Work[list[str]]:
    """Look what the image is made of: digest of the file, id of its base, its own id; nothing where one is missing."""
    base = _BASE.search(recipe)
    if not base:
        return []
    look = yield engine.question(["image", "inspect", "--format", "{{.Id}}", base[1], tag])
    ids = look.text.split()
    return [hashlib.sha256(recipe.encode()).hexdigest(), *ids] if look.ok and len(ids) == 2 else []


def _read(state: Path) -> list[str]:
    try:
        return (state / RECORD).read_text("ascii").split()
    except (OSError, ValueError):
        return []
