"""A container that looks at something, says what it saw, and is gone again before the launch goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from claude_bottle.lib import docker
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.files.copying import copy_in
from claude_bottle.lib.host import calls, run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import CONTAINER, PROBE
from claude_bottle.lib.teardown.journal import Journal

LIMITS = ("--memory", "512m", "--memory-swap", "512m", "--pids-limit", "128", "--log-driver", "none")


def probe(
    engine: Engine,
    journal: Journal,
    slug: str,
    words: Sequence[str],
    files: Iterable[bytes] = (),
    seconds: float = run.QUERY_SECONDS,
    needless: Callable[[], bool] = lambda: False,
) -> Work[run.Result]:
    """Run a container to its end and remove it; it comes to what it said, and to its status.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        words: its options, the image and its arguments.
        files: a tar stream without its end, of what it gets first.
        seconds: the longest it may be silent.
        needless: see ``Call``.

    Raises:
        BottleError: docker refused to make it.
        Interrupted: a signal arrived; the teardown removes it.
    """
    name = f"claude-bottle-probe-{slug}-{journal.owner.launch[:8]}"
    made = yield from docker.create_container(engine, journal, slug, PROBE, name, [*LIMITS, *words])
    if not made.ok:
        raise DockerError(f"docker create failed: {made.failure}")
    identity = made.text.strip()
    if files:
        yield from copy_in(engine, "copying a probe", identity, files)
    words = ["start", "-a", identity]
    call = engine.call(words, seconds=seconds, interruptible=True, needless=needless, heard=calls.keep_the_end)
    _, ran = yield from docker.start(lambda: call)
    removal = yield from inventory.remove(engine, CONTAINER, [identity])
    if not removal.left:
        journal.removed(identity)
    return ran
