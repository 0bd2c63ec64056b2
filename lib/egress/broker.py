"""The broker: puts credentials in, in the sidecar's network namespace, where no other container reaches it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from claude_bottle.lib import docker, log
from claude_bottle.lib.egress import broker_config
from claude_bottle.lib.egress.ca import Authority
from claude_bottle.lib.egress.refused import Lines, Refused
from claude_bottle.lib.egress.watch import Watch
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.host.calls import Work, attach
from claude_bottle.lib.inside import guard
from claude_bottle.lib.teardown.inventory import BROKER
from claude_bottle.lib.teardown.journal import Journal

USER = 65534
READY = b"Loading success"  # haproxy's own word, with every address bound
READY_SECONDS = 30.0
# What it holds is in memory and goes with it; what it logs has bounds, and neither headers nor queries in it.
TMPFS = f"{broker_config.FOLDER}:rw,noexec,nosuid,nodev,size=4m,uid={USER},gid={USER},mode=0700"
CONFINEMENT = ("-i", "--read-only", "--user", f"{USER}:{USER}", "--tmpfs", TMPFS)
MEMORY = 64  # MiB
LIMITS = ("--memory", f"{MEMORY}m", "--memory-swap", f"{MEMORY}m", "--pids-limit", "64")
LOG = ("--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=1")
# It unpacks what it is fed, then runs with nothing to read: stdin would stay open with the client.
_UNPACK = f'umask 077 && tar -xC {broker_config.FOLDER} && exec "$@" </dev/null 2>&1'
COMMAND = ("/bin/sh", "-c", _UNPACK, "sh", "haproxy", "-W", "-db", "-f", broker_config.CONFIG)


def broker_create(
    engine: Engine, journal: Journal, slug: str, sidecar: str, image: docker.Image, patience: int
) -> Work[tuple[str, str]]:
    """Create the broker under the first free name; it comes to its name and its id.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        sidecar: the sidecar's id, whose network it shares.
        image: that it runs.
        patience: how long it lives without a word, in seconds.

    Raises:
        BottleError: docker refused, or every name is taken.
    """
    answers = iter(image.answers)
    options = ["--network", f"container:{sidecar}", *CONFINEMENT, *LIMITS, *LOG, "--pull", "never"]
    answer = next(answers)
    names = docker.container_names(f"claude-bottle-broker-{slug}")
    name = next(names)
    while True:
        words = [*options, answer, *guard.guarded(COMMAND, patience)]
        made = yield from docker.create_container(engine, journal, slug, BROKER, name, words)
        if made.ok:
            log.log_info(f"starting broker {name}")
            return name, made.text.strip()
        if docker.has_no_image(made):
            answer = next(answers, "")
            if not answer:
                raise image.unknown(made.failure)
        elif docker.is_name_conflict(made):
            name = next(names)
        else:
            raise DockerError(f"broker: docker create failed: {made.failure}")


def broker_start(
    engine: Engine, journal: Journal, broker: str, feed: Iterable[bytes], patience: int, refused: Refused
) -> Work[Watch]:
    """Start the broker with all it is to know on stdin; it comes to who notices its end.

    Args:
        engine: to ask.
        journal: of the launch.
        broker: its id.
        feed: see ``broker_feed``.
        patience: see ``broker_create``.
        refused: counts in its log.

    Raises:
        DockerError: docker refused, or it did not say that it is ready.
    """
    journal.leased(guard.guarded_renewal_words(broker, patience))
    call = engine.call(
        ["start", "-ai", broker], seconds=READY_SECONDS, stdin=feed, interruptible=True, heard=Lines(refused.count).hear
    )
    talk, started = yield from docker.start(lambda: attach(call, READY))
    loss = "the hosts that credentials are for answer no more"
    watch = Watch(engine, broker, talk, "broker: the broker", loss, refused)
    if not started.ok or talk.ended:
        raise watch.not_healthy(READY_SECONDS) if started.timed_out else _stopped(watch)
    return watch


def _stopped(watch: Watch) -> DockerError:
    said = watch.stopped()
    if not any(guard.PERL in line for line in said.hints):
        return said
    needs = f"what CLAUDE_BOTTLE_BROKER_IMAGE names needs {guard.PERL}, haproxy 2.6 or newer, sh and tar"
    return DockerError(f"broker: its image has no {guard.PERL}, which runs its first process", [*said.hints, needs])


def broker_feed(text: str, authority: Authority, values: str) -> list[bytes]:
    """Return what the broker is fed, the real values among it: nothing else gets these.

    Args:
        text: its configuration.
        authority: the bottle's.
        values: see ``broker_config.values``.
    """
    files = {
        broker_config.CONFIG: log.encode(text),
        broker_config.CHAIN: authority.chain,
        broker_config.VALUES: log.encode(values),
    }
    root = f"{broker_config.FOLDER}/"
    members = (tarstream.member(name.removeprefix(root), data, owner=USER) for name, data in files.items())
    return [*chain(*members), tarstream.END]
