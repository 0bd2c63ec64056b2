"""The engine: its presence, the images, and what every container of ours has in common (shell: lib/docker.sh)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_bottle.lib import log, run
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.journal import OWNER_LABEL, ROLE_LABEL, SLUG_LABEL, Journal

MAX_CONTAINER_NUMBER = 99
HARDENING = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker_require() -> None:
    """Fail unless there is a docker client and an engine that answers it (shell: docker_require).

    Raises:
        BottleError: no docker on PATH, or no engine behind it.
    """
    answer = run.query(["info"])
    if not answer.ok:
        # Clients of 20.10 say why on stdout, later ones before a last line that says nothing, today's in one line.
        lines = [*answer.text.splitlines(), *answer.failure.splitlines()]
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise BottleError("cannot reach the Docker daemon (docker info failed)", said)


def docker_step(what: str, words: Iterable[str], stdin: Iterable[bytes] = ()) -> str:
    """Run a docker call that changes something, quietly, and return its stdout (shell: docker_step).

    Args:
        what: begins the error line.
        words: docker's arguments.
        stdin: pieces of what it reads; feeding may take long, and a signal ends it: what is fed is a container that is
            removed then.

    Raises:
        DockerError: it failed; docker's own words are in the message.
        Interrupted: a signal arrived while it was fed.
    """
    result = run.capture(list(words), stdin=stdin, interruptible=stdin != ())
    if not result.ok:
        raise DockerError(f"{what} failed: {result.failure}")
    return result.text


def docker_container_exists(name: str) -> bool:
    """Say whether a container has the name; the create call stays the arbiter (shell: docker_container_exists).

    Raises:
        DockerError: the engine gave no answer.
    """
    answer = run.query(["container", "inspect", name])
    if answer.timed_out:
        raise DockerError(answer.failure)
    return answer.ok


def docker_list_own(words: list[str]) -> list[str]:
    """Return docker's lines that begin with a name of ours, sorted (shell: docker_list_own).

    Args:
        words: of a call that lists names first.

    Raises:
        DockerError: it failed; docker's own words have been printed, as in the shell.
    """
    answer = run.query(words)
    if not answer.ok:
        for said in answer.failure.split("\n"):
            log.line(said)
        raise DockerError(f"docker {words[0]} failed")
    return sorted((line for line in answer.text.split("\n") if line.startswith("claude-bottle-")), key=log.encode)


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


def docker_pick_container_name(base: str, pinned: str) -> str:
    """Return the first free name (shell: docker_pick_container_name).

    Args:
        base: the name without a suffix.
        pinned: the name that CLAUDE_BOTTLE_CONTAINER asks for, or an empty text.

    Raises:
        BottleError: the pinned name is taken, or every suffix is.
        DockerError: the engine gave no answer.
    """
    if pinned:
        if docker_container_exists(pinned):
            raise pinned_taken(pinned)
        return pinned
    return next(name for name in container_names(base) if not docker_container_exists(name))


def is_name_conflict(result: run.Result) -> bool:
    """Say whether a create failed because another container has the name."""
    return "container name" in result.failure and "already in use" in result.failure


def labels(owner: str, slug: str, role: str) -> list[str]:
    """Return the options that say whose a thing is; it has them from its create call on."""
    pairs = ((OWNER_LABEL, owner), (SLUG_LABEL, slug), (ROLE_LABEL, role))
    return [word for name, value in pairs for word in ("--label", f"{name}={value}")]


def create_container(journal: Journal, slug: str, role: str, name: str, words: Iterable[str]) -> run.Result:
    """Create a container under a name that may turn out to be taken; noted before docker is asked.

    Args:
        journal: of the launch.
        slug: of the agent.
        role: AGENT or SIDECAR.
        name: the container's.
        words: the other options, the image and its arguments.
    """
    journal.intend(role, name)
    return run.capture(["create", "--name", name, *labels(journal.owner, slug, role), *HARDENING, *words])


def image_context() -> Path:
    """Return the folder that the image is built from: the checkout, or the folder that the wheel carries."""
    lib = Path(__file__).resolve().parent
    for folder in (lib.parent, lib / "image"):
        if (folder / "Dockerfile").is_file():
            return folder
    raise BottleError(f"no Dockerfile beside {lib}: the installation is incomplete")


def docker_build_image(tag: str) -> None:
    """Build the agent's image (shell: docker_build_image).

    Raises:
        DockerError: the build failed; its own output has said why.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building image {tag}")
    _build(tag, ["build", "-t", tag, str(image_context())])


def docker_build_plain(tag: str) -> int:
    """Build the agent's image, docker's output untouched (shell: cmd_build).

    Returns:
        Docker's own status.

    Raises:
        Interrupted: a signal stopped it.
    """
    docker_require()
    return run.finish(run.foreground(["build", "-t", tag, str(image_context())]))


def docker_build_derived(tag: str, base: str, home: str, cwd: str, id_file: Path, marks: Iterable[str]) -> str:
    """Build the base image plus the working directory (shell: docker_build_derived).

    Args:
        tag: the derived image's.
        base: the image it starts from.
        home: the home folder inside.
        cwd: the host's folder.
        id_file: where docker writes the image's id.
        marks: label options.

    Returns:
        The id: two starts of one agent share the tag, so the bottle runs this.

    Raises:
        DockerError: the build failed.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building derived image {tag} from {cwd}")
    text = f'FROM {base}\nCOPY --chown=node:node [".", "{home}/workspace"]\nWORKDIR {home}/workspace\n'
    _build(tag, ["build", "-t", tag, "--iidfile", str(id_file), *marks, "-f", "-", cwd], text)
    return id_file.read_text().strip()


def _build(tag: str, words: list[str], dockerfile: str = "") -> None:
    result = run.stream(words, stdin=log.encode(dockerfile))
    if not result.ok:
        hints = [result.failure] if result.timed_out else []
        raise DockerError(f"docker build failed ({tag})", hints)
