"""The engine: its presence, the images, and what every container of ours has in common (shell: lib/docker.sh)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from claude_bottle.lib import env, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError, Interrupted
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import ERR, OUT, Call, Wish, Work, finish
from claude_bottle.lib.teardown.inventory import CONTAINER, PREFIX, labels
from claude_bottle.lib.teardown.journal import Journal

BROKER_FILE = "Dockerfile.broker"
MAX_CONTAINER_NUMBER = 99
MOST_STARTS = 60  # some ten seconds of a busy engine
AMBIGUOUS = "is ambiguous"  # of a name that two networks have
# Docker's words when the way to the engine breaks in the middle of a call: what it asked for may still come.
_CUT_OFF = ("error during connect", "EOF", "connection reset", "broken pipe")
_ID = re.compile("[0-9a-f]{12,64}|[0-9a-z]{25}")  # the latter of a service
_BUILT = re.compile(
    r"^Successfully built ([0-9a-f]{12})$"
    r"|^#\d+ (?:writing image|exporting manifest|exporting manifest list) (sha256:[0-9a-f]{64})",
    re.MULTILINE,
)
HARDENING = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# The client gives these of its own configuration to every container that is not told them, passwords and all.
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "FTP_PROXY", "ALL_PROXY")
PROXY_NAMES = (*_PROXIES, *(name.lower() for name in _PROXIES))
NO_PROXY = "localhost,127.0.0.1"
# An image's variables steer its loader before any program of it can drop them.
_LOADER = ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT")
NO_LOADER = tuple(word for name in _LOADER for word in ("-e", f"{name}="))
_HELPERS_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
Asked = TypeVar("Asked", bound=Wish)


def docker_step(engine: Engine, what: str, words: Iterable[str], stdin: Iterable[bytes] = ()) -> Work[str]:
    """Run a docker call that changes something, quietly; it comes to its stdout (shell: docker_step).

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
    result = yield engine.call(list(words), stdin=stdin, interruptible=stdin != ())
    if not result.ok:
        raise DockerError(f"{what} failed: {result.failure}")
    return result.text


def docker_exists(engine: Engine, kind: str, name: str) -> Work[bool]:
    """Say whether a name is taken; the create call stays the arbiter (shell: docker_container_exists, network_exists).

    Args:
        engine: to ask.
        kind: CONTAINER or NETWORK.
        name: to look for.

    Raises:
        DockerError: the engine gave no answer.
    """
    answer = yield engine.question([kind, "inspect", name])
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


def docker_pick_container_name(engine: Engine, base: str, pinned: str) -> Work[str]:
    """Find the first free name (shell: docker_pick_container_name).

    Args:
        engine: to ask.
        base: the name without a suffix.
        pinned: the name that CLAUDE_BOTTLE_CONTAINER asks for, or an empty text.

    Raises:
        BottleError: the pinned name is taken, or every suffix is.
        DockerError: the engine gave no answer.
    """
    if pinned:
        if (yield from docker_exists(engine, CONTAINER, pinned)):
            raise pinned_taken(pinned)
        return pinned
    for name in container_names(base):
        if not (yield from docker_exists(engine, CONTAINER, name)):
            return name
    raise AssertionError("container_names ends with an error")


def has_no_image(result: run.Result) -> bool:
    """Say whether a create failed because the engine does not have the image."""
    return "no such image" in result.failure.lower()


def is_name_conflict(result: run.Result) -> bool:
    """Say whether a create failed because another container has the name."""
    return "container name" in result.failure and "already in use" in result.failure


def create(engine: Engine, journal: Journal, role: str, name: str, words: Sequence[str]) -> Work[run.Result]:
    """Make a thing on the engine, noted before docker is asked and again when it has answered.

    Args:
        engine: to ask.
        journal: of the launch.
        role: of the thing.
        name: that it is to get; it may turn out to be taken.
        words: of the call, which prints the thing's id.

    Raises:
        DockerError: docker says that it is made, but not under which id.
        Interrupted: a signal arrived, and docker gave no answer soon after.
    """
    entry = journal.intend(role, name)
    try:
        made = yield engine.call(words)
    except Interrupted:
        journal.lost(entry)
        raise
    if made.ok:
        identity = made.text.strip()
        if not _ID.fullmatch(identity):
            raise DockerError(
                f"docker {run.call_name(words)} gave no id but '{identity}'", [f"the client is {engine.client}"]
            )
        journal.answered(entry, identity)
    elif made.timed_out or made.status > 128 or any(word in made.failure for word in _CUT_OFF):  # above 128: a signal
        journal.lost(entry)
    else:
        journal.answered(entry, "")
    return made


def proxies(proxy: str) -> list[str]:
    """Return the options that set all variables of a proxy, empty where there is none to name."""
    values = dict.fromkeys(PROXY_NAMES, "")
    if proxy:
        values |= dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), proxy)
        values |= dict.fromkeys(("NO_PROXY", "no_proxy"), NO_PROXY)
    return [word for name, value in values.items() for word in ("-e", f"{name}={value}")]


def helper(
    container: str,
    words: Sequence[str],
    *,
    user: str,
    flags: Sequence[str] = (),
    variables: Sequence[str] = (),
    seen: Sequence[str] = (),
) -> list[str]:
    """Return docker's arguments for a program of ours in a bottle, which nothing in there steers.

    Args:
        container: its id.
        words: the program's path and its arguments.
        user: whom it runs as; the container's own is root.
        flags: of ``docker exec``.
        variables: NAME=VALUE, all of its environment but PATH.
        seen: names of the container's own variables that it is to know of: IMAGE_NAME is "=" and the value, or empty.
    """
    options = [*flags, "-u", user, *NO_LOADER]
    env, emptied, *program = cleared(words, variables)
    if not seen:
        return ["exec", *options, container, env, emptied, *program]
    # The first process is root's, so that nobody else can read them there.
    told = " ".join(f'"IMAGE_{name}=${{{name}+=${name}}}"' for name in seen)
    return ["exec", *options, container, "/bin/sh", "-c", f'exec {env} {emptied} {told} "$@"', "sh", *program]


def cleared(words: Sequence[str], variables: Sequence[str] = ()) -> list[str]:
    """Return the words of a program that has no variables but some and its PATH.

    Args:
        words: the program's path and its arguments.
        variables: NAME=VALUE.
    """
    return ["/usr/bin/env", "-i", _HELPERS_PATH, *variables, *words]


def create_container(
    engine: Engine, journal: Journal, slug: str, role: str, name: str, words: Iterable[str], proxy: str = ""
) -> Work[run.Result]:
    """Create a container under a name that may turn out to be taken.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        role: AGENT or SIDECAR.
        name: the container's.
        words: the other options, the image and its arguments.
        proxy: the address that its programs go out by, or an empty text.
    """
    marks = [*labels(journal.owner, slug, role), *HARDENING, *proxies(proxy)]
    return (yield from create(engine, journal, role, name, ["create", "--name", name, *marks, *words]))


def start(begin: Callable[[], Asked]) -> Work[tuple[Asked, run.Result]]:
    """Start a container; anew while its network's name is another launch's too, which makes way as soon as it notices.

    An engine finds a container's networks by name at its start, whatever the container was created with.

    Args:
        begin: makes the call.

    Returns:
        The call that was answered, and the answer.
    """
    for _ in range(MOST_STARTS):
        call = begin()
        started = yield call
        if AMBIGUOUS not in started.failure:
            break
    return call, started


def image_context() -> Path:
    """Return the folder that the image is built from: the checkout, or the folder that the wheel carries."""
    lib = Path(__file__).resolve().parent
    for folder in (lib.parent, lib / "image"):
        if (folder / "Dockerfile").is_file():
            return folder
    raise BottleError(f"no Dockerfile beside {lib}: the installation is incomplete")


@dataclass(frozen=True)
class Image:
    """An image of ours.

    Attributes:
        tag: what the user calls it.
        answers: what it may go by, the likeliest first: ids, since two checkouts share the tag, and the tag only where
            it is the user's own. With an image store of containerd's an id file may hold a digest that is none.
    """

    tag: str
    answers: tuple[str, ...]

    def unknown(self, failure: str) -> DockerError:
        """Return the error for an image that the engine knows by none of the answers."""
        hint = "docker's builder must load what it builds into the engine (docker buildx ls)"
        return DockerError(f"docker build made an image that the engine does not have ({self.tag})", [failure, hint])


def docker_build_image(engine: Engine, tag: str, id_file: Path, named: bool) -> Work[Image]:
    """Build the agent's image (shell: docker_build_image).

    Args:
        engine: to ask.
        tag: the image's.
        id_file: where docker may write the image's id.
        named: whether the tag is the user's own.

    Raises:
        DockerError: the build failed, and its own output has said why; or it gave no id.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building image {tag}")
    context = image_context()
    answers = yield from build(engine, tag, [str(context)], id_file)
    if named:
        answers = (*answers, tag)
    elif not answers:
        answers = yield from _found_by_label(engine, tag, context, id_file)
    if not answers:
        hint = f"neither its output nor {id_file} has one: can the docker client write to that folder (TMPDIR)?"
        raise DockerError(f"docker build gave no id of the image it made ({tag})", [hint])
    return Image(tag, answers)


def _found_by_label(engine: Engine, tag: str, context: Path, id_file: Path) -> Work[tuple[str, ...]]:
    """Build once more, from the cache, with a label to find the image by; the same one at every start.

    Not at once: an image with a label is another one, and what had the tag before would be left without a name.
    """
    mark = f"{PREFIX}build={hashlib.sha256((context / 'Dockerfile').read_bytes()).hexdigest()[:16]}"
    yield from build(engine, tag, ["--label", mark, str(context)], id_file)
    listed = yield engine.question(["image", "ls", "-q", "--no-trunc", "--filter", f"label={mark}"])
    return tuple(listed.text.split()[:1])


def docker_build_plain(engine: Engine, tag: str, broker_tag: str, names: Sequence[str] = ()) -> int:
    """Build the agent's image and then the broker's, docker's output untouched (shell: cmd_build).

    Args:
        engine: to ask.
        tag: of the agent's image.
        broker_tag: of the broker's; an own one is not built.
        names: further ones of the agent's image.

    Returns:
        Docker's own status, of the first that failed.

    Raises:
        Interrupted: a signal stopped it.
    """
    context = str(image_context())
    tags = [word for name in (tag, *names) for word in ("-t", name)]
    status = finish(engine.foreground(["build", *tags, context]))
    if status or broker_tag != env.DEFAULT_BROKER_IMAGE:
        return status
    return finish(engine.foreground(["build", "-t", broker_tag, "-f", f"{context}/{BROKER_FILE}", context]))


def docker_build_derived(engine: Engine, tag: str, base: Image, home: str, cwd: str, id_file: Path) -> Work[Image]:
    """Build the base image plus the working directory (shell: docker_build_derived).

    Args:
        engine: to ask.
        tag: the derived image's.
        base: the image it starts from.
        home: the home folder inside.
        cwd: the host's folder.
        id_file: where docker may write the image's id.

    Raises:
        DockerError: the build failed, or gave no id.
        Interrupted: a signal stopped it.
    """
    log.log_info(f"building derived image {tag} from {cwd}")
    known = yield from docker_known(engine, base)
    text = f'FROM {known}\nCOPY --chown=node:node [".", "{home}/workspace"]\nWORKDIR {home}/workspace\n'
    answers = yield from build(engine, tag, ["-f", "-", cwd], id_file, [log.encode(text)])
    return Image(tag, (*answers, tag))


def docker_known(engine: Engine, image: Image) -> Work[str]:
    """Find what a build on an image may call it: the tag while that is its own, for BuildKit takes an id for a name.

    Another checkout may have moved the tag by now; then the first of its answers that the engine knows.
    """

    def identity(name: str) -> Call:
        return engine.question(["image", "inspect", "--format", "{{.Id}}", name])

    tagged, failure = (yield identity(image.tag)), ""
    for answer in image.answers:
        look = yield identity(answer)
        if look.ok:
            return image.tag if tagged.ok and tagged.text == look.text else answer
        failure = look.failure
    raise image.unknown(failure)


def build(
    engine: Engine, tag: str, words: list[str], id_file: Path, dockerfile: Sequence[bytes] = ()
) -> Work[tuple[str, ...]]:
    """Build an image while the user watches; it comes to what the build says that it goes by, if that says anything.

    Args:
        engine: to ask.
        tag: the image's.
        words: docker's other arguments.
        id_file: where docker may write the image's id.
        dockerfile: pieces of what it reads on stdin.

    Raises:
        DockerError: the build failed, and its own output has said why.
        Interrupted: a signal stopped it.
    """
    command = ["build", "-t", tag]
    result = yield engine.call([*command, "--iidfile", str(id_file), *words], stdin=dockerfile, shown=(OUT, ERR))
    if not result.ok and str(id_file) in result.failure:
        # Built, but a confined client cannot write there: once more without, from the cache, for the last words.
        result = yield engine.call([*command, *words], stdin=dockerfile, shown=(OUT, ERR))
    if not result.ok:
        hints = result.failure.splitlines()[-1:] if result.timed_out else []
        raise DockerError(f"docker build failed ({tag})", hints)
    return tuple(filter(None, [_take(id_file), _last_id(result)]))


def _take(id_file: Path) -> str:
    """Return what docker wrote, and remove the file; no answer is an empty text."""
    try:
        found = id_file.read_text("ascii", "replace").strip()
        id_file.unlink()
    except OSError:
        return ""
    return found


def _last_id(result: run.Result) -> str:
    """Return the id that a build's own words end with, by the legacy builder or by BuildKit, or an empty text."""
    found = _BUILT.findall(f"{result.text}\n{result.failure}")
    return "".join(found[-1]) if found else ""
