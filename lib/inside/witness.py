"""The seals once more, seen from the bottle's network by our own image: the bottle's may lie about them.

Where a manifest's Dockerfile has made the bottle's image, whatever runs in there, the self-test too, is its author's.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from claude_bottle.lib import docker, pipelock
from claude_bottle.lib.agent import program, trust
from claude_bottle.lib.egress.watch import Watch
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.inside import probe, seals
from claude_bottle.lib.teardown.journal import Journal


def witness(
    engine: Engine,
    journal: Journal,
    slug: str,
    base: docker.Image,
    agent: str,
    certificate: bytes,
    words: Iterable[str],
    watch: Watch,
) -> Work[str]:
    """Have the self-test run in a container of our own beside the agent's; it comes to what that says.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        base: the usual image.
        agent: the id of the agent's container, whose network it shares.
        certificate: of the bottle's authority.
        words: see ``session.prepare``.
        watch: notices the sidecar's end.

    Raises:
        BottleError: docker refused, or the sidecar does not answer.
        Interrupted: a signal arrived meanwhile.
    """
    name = yield from docker.docker_known(engine, base)
    options = ["--network", f"container:{agent}", "--no-healthcheck", "--pull", "never"]
    command = docker.cleared([seals.PROGRAM, "-", *words])
    call = [*options, *docker.NO_LOADER, "--entrypoint", command[0], name, *command[1:]]
    files = chain(program(seals.PROGRAM, "seals.pl"), trust(certificate))
    most = pipelock.HEALTHY_SECONDS + run.QUERY_SECONDS
    done = yield from probe.probe(engine, journal, slug, call, files, most, lambda: watch.is_alone)
    return pipelock.pipelock_answered(done, watch, "docker start")
