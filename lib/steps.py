"""A start as named steps, each saying what it needs and what it makes.

A step gets what it needs by name and hands back what it makes; it is begun as soon as its needs are there, beside the
others (``runner``). Nothing is undone here when one fails: that is ``cleanup_all``'s alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from claude_bottle.lib import agent as agent_container
from claude_bottle.lib import docker, env, images, log, network, pipelock, tools
from claude_bottle.lib.docker import Image
from claude_bottle.lib.egress import broker
from claude_bottle.lib.egress.ca import Authority, make_authority
from claude_bottle.lib.egress.credential_values import BASE_URL
from claude_bottle.lib.egress.watch import Watch
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.far.seat import Seat
from claude_bottle.lib.files import workspace
from claude_bottle.lib.home import branches
from claude_bottle.lib.home.record import GIT, Record
from claude_bottle.lib.home.source import Source
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.host.run import Result
from claude_bottle.lib.host.state import state_folder
from claude_bottle.lib.inside import guard, session, ssh_setup, witness
from claude_bottle.lib.inside.seals import (
    AT_START,
    OF_VALUES,
    Proof,
    SelfTest,
    at_launch,
    at_witness,
    credential_words,
    proof,
)
from claude_bottle.lib.network import Network
from claude_bottle.lib.plan import Plan
from claude_bottle.lib.subnets import agent_address
from claude_bottle.lib.teardown import elsewhere, inventory, sweep
from claude_bottle.lib.teardown.inventory import EGRESS, INTERNAL
from claude_bottle.lib.teardown.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """What every step may read."""

    engine: Engine
    plan: Plan
    journal: Journal
    stage: Path
    values: bytes  # the session's, secrets among them
    injected: Mapping[str, str]  # what the broker puts in, by variable
    test: SelfTest = AT_START
    work: Record | None = None  # with a project
    seat: Seat | None = None  # where a Swarm has chosen the engine


@dataclass(frozen=True)
class Container:
    """A container that was made: its id, which calls go by, and its name, which messages go by."""

    identity: str
    name: str


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        needs: the facts that its work is given.
        makes: the fact that it makes.
        work: how.
        title: what it is called when the user is told of its time.
        after: facts that it waits for without being given them.
    """

    needs: tuple[str, ...]
    makes: str
    work: Callable[..., Work[Any]]
    title: str
    after: tuple[str, ...] = ()


def look_for_images(launch: Launch) -> Work[images.Known]:
    """Find what a build would only make once more."""
    return images.images_known(launch.engine, _wanted(launch.plan), state_folder(os.environ))


def _wanted(plan: Plan) -> list[images.Wanted]:
    broker_image = images.broker_wanted(plan.settings.broker_image) if plan.brokered else None
    return [images.image_wanted(plan.settings.image), *filter(None, [broker_image])]


def build(launch: Launch, known: images.Known) -> Work[Image]:
    """Have the image."""
    tag = launch.plan.settings.image
    if tag in known.images:
        return known.images[tag]
    named = tag != env.DEFAULT_IMAGE
    return (yield from docker.docker_build_image(launch.engine, tag, launch.stage / "image-id", named))


def build_tools(launch: Launch, base: Image) -> Work[Image]:
    """Build the bottle's own image, if its manifest has a Dockerfile."""
    plan = launch.plan
    if not plan.tools:
        return base
    return (yield from tools.tools_build(launch.engine, launch.journal, plan.slug, plan.tools, base))


def build_workspace(launch: Launch, tools_image: Image) -> Work[Image]:
    """Build the image with the working directory in it, if one was asked for by name; the user keeps it."""
    plan = launch.plan
    if not (plan.request.with_cwd and plan.settings.derived_image):
        return tools_image
    tag, home, id_file = plan.settings.derived_image, plan.settings.bottle_home, launch.stage / "image-id"
    return (yield from docker.docker_build_derived(launch.engine, tag, tools_image, home, plan.cwd, id_file))


def build_broker(launch: Launch, known: images.Known) -> Work[Image | None]:
    """Have the broker's image, if there is anything to put in; an own one is taken as it is."""
    if not launch.plan.brokered:
        return None
    tag = launch.plan.settings.broker_image
    if tag in known.images:
        return known.images[tag]
    if tag != env.DEFAULT_BROKER_IMAGE:
        return Image(tag, (tag,))
    return (yield from images.docker_build_broker(launch.engine, tag, launch.stage / "broker-id"))


def note_images(launch: Launch, known: images.Known, base: Image, broker_image: Image | None) -> Work[None]:
    """Note what was built, for the next start; not of a file that somebody has changed meanwhile."""
    made = {each.tag: each for each in (base, broker_image) if each and each.tag not in known.images}
    if not made:
        return
    same = [each for each in _wanted(launch.plan) if each in known.wanted]
    built = {each: made[each.tag] for each in same if each.tag in made}
    yield from images.images_note(launch.engine, built, state_folder(os.environ))


def make_ca(launch: Launch) -> Work[Authority]:
    """Make the bottle's authority; in memory, while docker is at work."""
    return make_authority(launch.plan.slug, launch.plan.brokered)
    yield  # no call: a step is a generator all the same


def create_internal(launch: Launch, *_: Image) -> Work[Network]:
    """Make the bottle's own network."""
    plan = launch.plan
    return network.network_create_internal(launch.engine, launch.journal, plan.slug, plan.subnet_pool, plan.host_routes)


def create_egress(launch: Launch, *_: Image) -> Work[Network]:
    """Make the sidecar's way out."""
    plan = launch.plan
    return network.network_create_egress(launch.engine, launch.journal, plan.slug, plan.subnet_pool, plan.host_routes)


def create_sidecar(launch: Launch, internal: Network) -> Work[Container]:
    """Make the sidecar."""
    plan, settings = launch.plan, launch.plan.settings
    name, identity = yield from pipelock.pipelock_create(
        launch.engine,
        launch.journal,
        plan.slug,
        internal,
        settings.pipelock_image,
        settings.pipelock_port,
        plan.broker_addresses,
        plan.opens,
    )
    return Container(identity, name)


def create_broker(launch: Launch, sidecar: Container, broker_image: Image | None) -> Work[Container | None]:
    """Make the broker, if there is anything to put in."""
    if not broker_image:
        return None
    name, identity = yield from broker.broker_create(
        launch.engine,
        launch.journal,
        launch.plan.slug,
        sidecar.identity,
        broker_image,
        launch.plan.settings.patience,
    )
    return Container(identity, name)


def start_broker(launch: Launch, made: Container | None, watch: Watch, authority: Authority) -> Work[Watch | None]:
    """Have the broker run beside the sidecar."""
    if not made:
        return None
    feed = broker.broker_feed(launch.plan.broker_config, authority, launch.plan.broker_values(launch.injected))
    engine, patience = launch.engine.keeping_out({}), launch.plan.settings.patience
    return (yield from broker.broker_start(engine, launch.journal, made.identity, feed, patience, watch.refused))


def start_sidecar(launch: Launch, sidecar: Container, egress: Network, authority: Authority) -> Work[Watch]:
    """Have the sidecar run on both networks."""
    yield from pipelock.pipelock_give_authority(launch.engine, sidecar.identity, authority)
    return (yield from pipelock.pipelock_start(launch.engine, sidecar.identity, egress, launch.plan.yaml))


def start_agent(
    launch: Launch, image: Image, internal: Network, sidecar: Container, authority: Authority
) -> Work[Container]:
    """Have a running bottle, with the prompt and the skills in it."""
    needs = (launch, image, internal, sidecar, authority)
    made, started = yield from _try_agent(*needs, agent_container.NO_IPV6, log.log_info)
    if agent_container.lacks_ipv6(started):
        removal = yield from inventory.remove(launch.engine, inventory.CONTAINER, [made.identity])
        if removal.left:
            raise DockerError(f"docker rm failed: {removal.failure}")
        made, started = yield from _try_agent(*needs, (), lambda said_before: None)
    if not started.ok:
        raise DockerError(f"docker run failed: {started.failure}")
    return made


def _try_agent(
    launch: Launch,
    image: Image,
    internal: Network,
    sidecar: Container,
    authority: Authority,
    extra: Sequence[str],
    say: agent_container.Say,
) -> Work[tuple[Container, Result]]:
    engine, plan = launch.engine, launch.plan
    proxy = pipelock.pipelock_proxy_url(sidecar.name, plan.settings.pipelock_port)
    address = ("--ip", agent_address(internal.subnet))
    options = [*agent_container.agent_options(plan, internal.identity, image.tag), *address, *extra]
    name, identity = yield from agent_container.agent_create(engine, launch.journal, plan, options, image, proxy, say)
    late = yield from agent_container.skills_in_image(engine, plan, identity)
    yield from agent_container.copy_files(engine, plan, identity, name, say, not late, authority.certificate)
    started = yield from agent_container.agent_start(engine, launch.journal, plan, identity)
    if late and started.ok:
        yield from agent_container.remove_skills(engine, plan, identity)
        yield from agent_container.copy_skills(engine, plan, identity, name, say)
    return Container(identity, name), started


def _within(launch: Launch, agent: Container, work: Work[T]) -> Work[T]:
    """Do what needs a bottle that runs; where it has ended, that is said, not what docker says of it."""
    try:
        return (yield from work)
    except DockerError:
        yield from _require_guard(launch, agent)
        raise


def _require_guard(launch: Launch, agent: Container) -> Work[None]:
    plan = launch.plan
    where = f"the image of {plan.tools.path}" if plan.tools else f"image {plan.settings.image}"
    ended = yield from guard.guard_ended(launch.engine, agent.identity, where)
    if ended:
        raise ended


def set_up_ssh(launch: Launch, agent: Container, sidecar: Container) -> Work[None]:
    """Have ssh work in the bottle, if it has entries."""
    host = pipelock.pipelock_host(sidecar.name)
    return _within(launch, agent, ssh_setup.ssh_setup(launch.engine, launch.plan, agent.identity, agent.name, host))


def copy_workspace(launch: Launch, agent: Container) -> Work[None]:
    """Have the working directory in the bottle, if it was asked for."""
    work = workspace.copy_workspace(launch.engine, launch.plan, agent.identity, agent.name, launch.work)
    return _within(launch, agent, work)


def mark_work(launch: Launch, agent: Container, _files: None) -> Work[Record | None]:
    """Note how the bottle's repository is before the session, so that what is new is known afterwards."""
    work = launch.work
    if not work or work.kind != GIT:
        return work
    try:
        return (yield from branches.mark(Source(launch.engine, agent.identity, True), work))
    except BottleError as problem:
        yield from _require_guard(launch, agent)
        log.log_warn(f"{problem.message}; its work comes home whole, or is kept")
        return work


def prepare(launch: Launch, agent: Container, *needs: Any) -> Work[Proof]:
    """Have the seals proved, and the session's values in the bottle where they hold."""
    return _within(launch, agent, _prove(launch, agent, *needs))


def _prove(
    launch: Launch,
    agent: Container,
    base: Image,
    authority: Authority,
    sidecar: Container,
    watch: Watch,
    internal: Network,
    egress: Network,
) -> Work[Proof]:
    """Have the seals proved with the sidecar's answer to the bottle, and the session's values in it where they hold.

    The broker may still be on its way: what is asked of it is asked until it answers.
    """
    engine, plan, host = launch.engine, launch.plan, pipelock.pipelock_host(sidecar.name)
    has_moved = any(entry.name == BASE_URL for entry in plan.entries)
    told = [*credential_words(plan.credentials, plan.watched, has_moved), *session.value_words(plan)]
    words = [host, plan.settings.pipelock_port, f"{pipelock.HEALTHY_SECONDS:.0f}"]
    words += launch.test.words(engine, internal.subnet, egress.subnet, told)
    if not plan.tools:
        said = yield from session.prepare(engine, agent.identity, launch.values, words, watch)
        return proof(said, at_launch(told))
    seen = yield from _witness(launch, base, agent, authority, words, watch)
    if not seen.holds:  # no value goes in
        return seen
    said = yield from session.prepare(engine, agent.identity, launch.values, words, watch)
    return proof(said, at_launch(told)).with_probe(seen.witness())


def _witness(
    launch: Launch, base: Image, agent: Container, authority: Authority, words: Sequence[str], watch: Watch
) -> Work[Proof]:
    """Have the seals proved by our own image, of which a Dockerfile of others' is no part."""
    told = [word for word in words if not word.startswith(OF_VALUES)]
    needs = (launch.engine, launch.journal, launch.plan.slug, base, agent.identity, authority.certificate)
    said = yield from witness.witness(*needs, told, watch)
    return proof(said, at_witness(words))


def sweep_up(launch: Launch, sidecar: Container) -> Work[None]:
    """Remove what killed launches have left; after the sidecar is made, since the beginning wants the processor."""
    manager = launch.seat.manager if launch.seat else launch.engine
    yield from sweep.sweep(launch.engine, str(launch.stage.parent))
    yield from elsewhere.sweep_up(manager)


# In the order in which they are told. As long as files go into a container the engine answers nothing else about it:
# what waited for that would be given up.
STEPS = (
    Step((), "known", look_for_images, "look for the images"),
    Step(("known",), "base", build, "image"),
    Step(("base",), "tools", build_tools, "bottle's own image"),
    Step(("tools",), "image", build_workspace, "derived image"),
    Step((), "internal", create_internal, "internal network"),
    Step((), "egress", create_egress, "egress network"),
    Step(("known",), "broker_image", build_broker, "broker's image"),
    Step(("internal",), "sidecar", create_sidecar, "sidecar"),
    Step((), "authority", make_ca, "certificates"),  # the last to begin at once: it takes a while of this process
    Step(("sidecar", "egress", "authority"), "watch", start_sidecar, "sidecar's start"),
    Step(("sidecar", "broker_image"), "broker", create_broker, "broker"),
    Step(("broker", "watch", "authority"), "broker_watch", start_broker, "broker's start"),
    Step(("image", "internal", "sidecar", "authority"), "agent", start_agent, "bottle"),
    Step(("agent", "sidecar"), "ssh", set_up_ssh, "ssh"),
    Step(("agent",), "files", copy_workspace, "working directory", after=("ssh",)),
    Step(("agent", "files"), "work", mark_work, "look at the repository"),
    Step(
        ("agent", "base", "authority", "sidecar", "watch", "internal", "egress"),
        "proof",
        prepare,
        "seals, and sidecar's answer",
        after=("files",),
    ),
    Step(("known", "base", "broker_image"), "noted", note_images, "note of the images", after=("sidecar",)),
    Step(("sidecar",), "swept", sweep_up, "removal of what killed launches have left", after=("agent",)),
)


def steps_of(plan: Plan) -> Sequence[Step]:
    """Return the steps of a start; with a Dockerfile of a manifest's no network is made before its image is looked at.

    Args:
        plan: of the start.
    """
    if not plan.tools:
        return STEPS
    return [replace(step, needs=("tools",)) if step.makes in (INTERNAL, EGRESS) else step for step in STEPS]
