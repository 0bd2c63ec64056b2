"""The engine: its presence, the images, and what every container of ours has in common (shell: lib/docker.sh)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from claude_bottle.lib import log, run
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.inventory import CONTAINER, labels
from claude_bottle.lib.journal import Journal

MAX_CONTAINER_NUMBER = 99
# Docker's words when the way to the engine breaks in the middle of a call: what it asked for may still come.
_CUT_OFF = ("error during connect", "EOF", "connection reset", "broken pipe")
_ID = re.compile("[0-9a-f]{12,64}")
HARDENING = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker_step(engine: Engine, what: str, words: Iterable[str], stdin: Iterable[bytes] = ()) -> str:
    """Run a docker call that changes something, quietly, and return its stdout (shell: docker_step).

    Args:
        engine: to ask.
        what: begins the error line.
        words: docker's arguments.
        stdin: pieces of what it reads; feeding may take long, and a signal ends it: what is fed is a container that is
            removed then.

    Raises:
        DockerError: it failed; docker's own words are in the message.
        Interrupted: a signal arrived while it was fed.
    """
    result = engine.capture(list(words), stdin=stdin, interruptible=stdin != ())
    if not result.ok:
        raise DockerError(f"{what} failed: {result.failure}")
    return result.text


def docker_exists(engine: Engine, kind: str, name: str) -> bool:
    """Say whether a name is taken; the create call stays the arbiter (shell: docker_container_exists, network_exists).

    Args:
        engine: to ask.
        kind: CONTAINER or NETWORK.
        name: to look for.

    Raises:
        DockerError: the engine gave no answer.
    """
    answer = engine.query([kind, "inspect", name])
    if answer.timed_out:
        raise DockerError(answer.failure)
    return answer.ok


def container_names(base: str) -> Iterator[str]:
    """Yield base, base-2 ... base-99 (shell: docker_next_container_name).

    Raises:
        BottleError: all are used up.
    """
    yield base
    for number in range(2, MAX_CONTAINER_NUMBER + 1):
        yield f"{base}-{number}"
    raise BottleError(f"no free container name for '{base}'")


def pinned_taken(name: str) -> BottleError:
    """Return the error for a pinned container name that is in use (shell: docker_die_pinned_taken)."""
    return BottleError(f"container '{name}' already exists (CLAUDE_BOTTLE_CONTAINER)")


def docker_pick_container_name(engine: Engine, base: str, pinned: str) -> str:
    """Return the first free name (shell: docker_pick_container_name).

    Args:
        engine: to ask.
        base: the name without a suffix.
        pinned: the name that CLAUDE_BOTTLE_CONTAINER asks for, or an empty text.

    Raises:
        BottleError: the pinned name is taken, or every suffix is.
        DockerError: the engine gave no answer.
    """
    if pinned:
        if docker_exists(engine, CONTAINER, pinned):
            raise pinned_taken(pinned)
        return pinned
    return next(name for name in container_names(base) if not docker_exists(engine, CONTAINER, name))


def is_name_conflict(result: run.Result) -> bool:
    """Say whether a create failed because another container has the name."""
    return "container name" in result.failure and "already in use" in result.failure


def create(engine: Engine, journal: Journal, role: str, name: str, words: Sequence[str]) -> run.Result:
    """Make a thing on the engine, noted before docker is asked and again when it has answered.

    Args:
        engine: to ask.
        journal: of the launch.
        role: of the thing.
        name: that it is to get; it may turn out to be taken.
        words: of the call, which prints the thing's id.

    Raises:
        DockerError: docker says that it is made, but not under which id.
    """
    entry = journal.intend(role, name)
    made = engine.capture(words)
    if made.ok:
        identity = made.text.strip()
        if not _ID.fullmatch(identity):
            raise DockerError(
                f"docker {run.call_name(words)} gave no id but '{identity}'", [f"the client is {engine.client}"]
            )
        journal.answered(entry, identity)
    elif made.timed_out or any(word in made.failure for word in _CUT_OFF):
        journal.lost(entry)
    else:
        journal.answered(entry, "")
    return made


def create_container(
    engine: Engine, journal: Journal, slug: str, role: str, name: str, words: Iterable[str]
) -> run.Result:
    """Create a container under a name that may turn out to be taken.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        role: AGENT or SIDECAR.
        name: the container's.
        words: the other options, the image and its arguments.
    """
    marks = labels(journal.owner, slug, role)
    return create(engine, journal, role, name, ["create", "--name", name, *marks, *HARDENING, *words])


def image_context() -> Path:
    """Return the folder that the image is built from: the checkout, or the folder that the wheel carries."""
    lib = Path(__file__).resolve().parent
    for folder in (lib.parent, lib / "image"):
        if (folder / "Dockerfile").is_file():
            return folder
    raise BottleError(f"no Dockerfile beside {lib}: the installation is incomplete")


def docker_build_image(engine: Engine, tag: str) -> None:
    """Build the agent's image (shell: docker_build_image).

    Raises:
        DockerError: the build failed; its own output has said why.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building image {tag}")
    _build(engine, tag, ["build", "-t", tag, str(image_context())])


def docker_build_plain(engine: Engine, tag: str) -> int:
    """Build the agent's image, docker's output untouched (shell: cmd_build).

    Returns:
        Docker's own status.

    Raises:
        Interrupted: a signal stopped it.
    """
    return run.finish(engine.foreground(["build", "-t", tag, str(image_context())]))


def docker_build_derived(engine: Engine, tag: str, base: str, home: str, cwd: str, id_file: Path) -> str:
    """Build the base image plus the working directory (shell: docker_build_derived).

    Args:
        engine: to ask.
        tag: the derived image's.
        base: the image it starts from.
        home: the home folder inside.
        cwd: the host's folder.
        id_file: where docker writes the image's id.

    Returns:
        The id: two starts of one agent share the tag, so the bottle runs this.

    Raises:
        DockerError: the build failed.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building derived image {tag} from {cwd}")
    text = f'FROM {base}\nCOPY --chown=node:node [".", "{home}/workspace"]\nWORKDIR {home}/workspace\n'
    _build(engine, tag, ["build", "-t", tag, "--iidfile", str(id_file), "-f", "-", cwd], text)
    return id_file.read_text().strip()


def _build(engine: Engine, tag: str, words: list[str], dockerfile: str = "") -> None:
    result = engine.stream(words, stdin=log.encode(dockerfile))
    if not result.ok:
        hints = [result.failure] if result.timed_out else []
        raise DockerError(f"docker build failed ({tag})", hints)
