"""A bottle's own image: built on the usual one by its manifest's Dockerfile, and looked at before anything runs it.

It has one tag for the same recipe on the same base, and that only once it was found fit: where the tag is, all is done.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from claude_bottle.lib import docker, log
from claude_bottle.lib.docker import Image
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.files.recipe import Recipe
from claude_bottle.lib.host.calls import ERR, OUT, Work
from claude_bottle.lib.host.run import QUERY_SECONDS
from claude_bottle.lib.inside.probe import probe
from claude_bottle.lib.problems import fail_with
from claude_bottle.lib.teardown.inventory import PREFIX, TOOLS_LABEL, TOOLS_REPOSITORY
from claude_bottle.lib.teardown.journal import Journal

BASE = "CLAUDE_BOTTLE_BASE"  # the build argument
USER = "node"
LONGEST = 300  # characters of what an image says
_PERL = "/usr/bin/perl"
# Who the programs of a session are, whether there is a client for them to find, and what must not be there.
_LOOK = r"""
my ($claude) = grep { -f && -x _ } map { m{^/} ? "$_/claude" : () } split /:/, $ENV{PATH} // q{};
print join "\t", $<, $claude // q{}, -e "/run/claude-bottle" ? "taken" : "free";
"""
_HINT = "the Dockerfile begins with ARG CLAUDE_BOTTLE_BASE and FROM ${CLAUDE_BOTTLE_BASE}, and ends with USER node"


@dataclass(frozen=True)
class Found:
    """What the engine says of an image."""

    identity: str
    layers: tuple[str, ...]
    config: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """Those that are the launcher's."""
        named = self.config.get("Labels") or {}
        return {name: value for name, value in named.items() if name.startswith(PREFIX)}

    def listed(self, key: str) -> list[str]:
        """Return a list of its configuration, or the keys of an object."""
        return list(self.config.get(key) or ())


def tools_build(engine: Engine, journal: Journal, slug: str, made_from: Recipe, base: Image) -> Work[Image]:
    """Return a bottle's own image, built and looked at where that has not been done yet.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        made_from: what it is built from.
        base: the usual image.

    Raises:
        BottleError: the build failed, and its own output has said why; or what it made is no image for a bottle.
        Interrupted: a signal stopped it.
    """
    name = yield from docker.docker_known(engine, base)
    below = yield from _found(engine, name)
    if below is None:
        raise base.unknown("")
    key = _key(made_from, below)
    tag = f"{TOOLS_REPOSITORY}:{key}"
    there = yield from _found(engine, tag)
    if there:
        return Image(tag, (there.identity, tag))
    made = yield from _build(engine, made_from, name, key)
    fail_with(_unfit(made_from, made, below, key))
    fail_with((yield from _unfit_inside(engine, journal, slug, made_from, made)))
    yield from docker.docker_step(engine, "docker image tag", ["image", "tag", made.identity, tag])
    return Image(tag, (made.identity, tag))


def _key(made_from: Recipe, below: Found) -> str:
    """Return what the tag says: of what is built, and of what is in the base, whatever ids the engine gives that."""
    text = json.dumps([made_from.digest, below.layers, below.config], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _found(engine: Engine, name: str) -> Work[Found | None]:
    answer = yield engine.question(["image", "inspect", "--format", "{{json .}}", name])
    if answer.timed_out:
        raise DockerError(answer.failure)
    if not answer.ok:
        return None
    said = json.loads(answer.text)
    return Found(said["Id"], tuple(said["RootFS"].get("Layers") or ()), said.get("Config") or {})


def _build(engine: Engine, made_from: Recipe, base: str, key: str) -> Work[Found]:
    log.log_info(f"building image {TOOLS_REPOSITORY}:{key} by {made_from.path}")
    tag = f"{TOOLS_REPOSITORY}:{key}-unchecked"
    options = ["-t", tag, "--force-rm", "--label", f"{TOOLS_LABEL}={key}", "--build-arg", f"{BASE}={base}"]
    words = ["build", *options, "--file", made_from.name, "-"]
    result = yield engine.call(words, stdin=_Stream(made_from), shown=(OUT, ERR))
    if not result.ok:
        hints = result.failure.splitlines()[-1:] if result.timed_out else []
        raise DockerError(f"docker build failed ({made_from.path})", hints)
    made = yield from _found(engine, tag)
    if made is None:
        raise Image(tag, ()).unknown("")
    return made


@dataclass(frozen=True)
class _Stream:
    """A recipe's stream, from its beginning for each reader."""

    made_from: Recipe

    def __iter__(self) -> Iterator[bytes]:
        return self.made_from.stream()


def _unfit(made_from: Recipe, made: Found, below: Found, key: str) -> Iterator[BottleError]:
    """Yield what of an image would change more than what is in its files."""
    user, path = made.config.get("User") or "root", made_from.path
    if made.layers[: len(below.layers)] != below.layers:
        yield BottleError(f"{path}: its image is not built on the bottle's", [_HINT])
    if user != USER:
        yield BottleError(f"{path}: its image ends as user '{user}', not as '{USER}'", [_HINT])
    if volumes := sorted({*made.listed("Volumes")} - {*below.listed("Volumes")}):
        yield BottleError(f"{path}: a VOLUME would keep files of the bottle on the engine: {', '.join(volumes)}")
    if made.listed("OnBuild") != below.listed("OnBuild"):
        yield BottleError(f"{path}: an ONBUILD would act on what is built on its image")
    if made.labels != {**below.labels, TOOLS_LABEL: key}:
        yield BottleError(f"{path}: labels that begin with '{PREFIX}' are the launcher's")


def _unfit_inside(
    engine: Engine, journal: Journal, slug: str, made_from: Recipe, made: Found
) -> Work[list[BottleError]]:
    """Return what of an image is found in a container of it, which reaches nothing and gets nothing."""
    options = ["--network", "none", "--no-healthcheck", *docker.NO_LOADER, "--entrypoint", _PERL]
    words = [*options, "--pull", "never", made.identity, "-te", _LOOK]
    until = time.monotonic() + QUERY_SECONDS  # it may talk for ever
    ran = yield from probe(engine, journal, slug, words, needless=lambda: time.monotonic() > until)
    if not ran.ok:
        why = "".join(ran.failure.splitlines()[-1:]) or f"status {ran.status}"
        return [BottleError(f"{made_from.path}: its image cannot run {_PERL}: {why[:LONGEST]}", [_HINT])]
    user, *rest = ran.text[:LONGEST].split("\t")
    if not user.isdecimal() or len(rest) != 2:
        return [BottleError(f"{made_from.path}: {_PERL} of its image does not run what it is given", [_HINT])]
    claude, values = rest
    problems = []
    if user != str(tarstream.NODE_ID):
        problems.append(f"the user '{USER}' of its image has the number {user}, not {tarstream.NODE_ID}")
    if not claude:
        problems.append("its image has no claude on its PATH")
    if values != "free":
        problems.append("its image has /run/claude-bottle, where a session's values go")
    return [BottleError(f"{made_from.path}: {problem}") for problem in problems]
