"""The Dockerfile that a bottle names, as a plan needs it: there, inside, and what is built from it."""

from __future__ import annotations

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files.recipe import Recipe, look
from claude_bottle.lib.manifest import Manifest, manifest_bottle
from claude_bottle.lib.problems import UnseenByShell, fail_with


def dockerfile_look(manifest: Manifest, bottle: str) -> Recipe | None:
    """Return what a bottle's own image is built from, or None where it has none.

    Args:
        manifest: the merged one.
        bottle: name of the bottle.

    Raises:
        BottleError: the manifest's word for it is at fault, or what it names is.
    """
    fail_with(manifest.checks.problems("bottles", bottle, "dockerfile"))
    dockerfile = manifest_bottle(manifest, bottle).dockerfile
    if not dockerfile:
        return None
    try:
        return look(dockerfile.path, dockerfile.folder, manifest.home_folder)
    except BottleError as problem:
        line = f"bottle '{bottle}': dockerfile: {problem.message}"
        raise UnseenByShell(line, [dockerfile.at, *problem.hints]) from None
