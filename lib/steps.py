"""A start as named steps, each saying what it needs and what it makes, and the runner that walks them.

Nothing is undone here when a step fails: that is ``cleanup_all``'s alone. A step gets what it needs by name and hands
back what it makes, so that the order can change without touching a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.lib import agent as agent_container
from claude_bottle.lib import docker, env, log, network, pipelock, ssh_setup
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.files import workspace
from claude_bottle.lib.host import run, wait
from claude_bottle.lib.network import Network
from claude_bottle.lib.plan import Plan
from claude_bottle.lib.subnets import agent_address
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.journal import Journal


@dataclass(frozen=True)
class Launch:
    """What every step may read."""

    engine: Engine
    plan: Plan
    journal: Journal
    stage: Path


@dataclass(frozen=True)
class Made:
    """A thing on the engine: its id, which calls go by, and its name, which messages go by."""

    identity: str
    name: str = ""


@dataclass(frozen=True)
class Step:
    """One step: the facts it needs, the fact it makes, and how."""

    needs: tuple[str, ...]
    makes: str
    run: Callable[..., Made | Network]


def build(launch: Launch) -> Made:
    """Build the image."""
    tag = launch.plan.settings.image
    named = tag != env.DEFAULT_IMAGE
    return Made(docker.docker_build_image(launch.engine, tag, launch.stage / "image-id", named), tag)


def build_workspace(launch: Launch, image: Made) -> Made:
    """Build the image with the working directory in it, if one was asked for by name; the user keeps it."""
    plan = launch.plan
    if not (plan.request.with_cwd and plan.settings.derived_image):
        return image
    tag, home, id_file = plan.settings.derived_image, plan.settings.bottle_home, launch.stage / "image-id"
    return Made(docker.docker_build_derived(launch.engine, tag, image.name, home, plan.cwd, id_file), tag)


def create_internal(launch: Launch) -> Network:
    """Make the bottle's own network."""
    plan = launch.plan
    return network.network_create_internal(launch.engine, launch.journal, plan.slug, plan.subnet_pool)


def create_egress(launch: Launch) -> Network:
    """Make the sidecar's way out."""
    plan = launch.plan
    return network.network_create_egress(launch.engine, launch.journal, plan.slug, plan.subnet_pool)


def pull_sidecar(launch: Launch) -> Made:
    """Have the sidecar's image."""
    pipelock.pipelock_pull(launch.engine, launch.plan.settings.pipelock_image)
    return Made(launch.plan.settings.pipelock_image)


def start_sidecar(launch: Launch, internal: Network, egress: Network, sidecar_image: Made) -> Made:
    """Have a healthy sidecar on both networks."""
    plan = launch.plan
    port = plan.settings.pipelock_port
    name, identity = pipelock.pipelock_create(
        launch.engine, launch.journal, plan.slug, internal, sidecar_image.identity, port
    )
    pipelock.pipelock_start(launch.engine, identity, egress, plan.yaml, port)
    return Made(identity, name)


def start_agent(launch: Launch, workspace: Made, internal: Network, sidecar: Made) -> Made:
    """Have a running bottle with everything in it, but no values yet."""
    made, started = _try_agent(launch, workspace, internal, sidecar, agent_container.NO_IPV6, log.log_info)
    if agent_container.lacks_ipv6(started):
        removal = inventory.remove(launch.engine, inventory.CONTAINER, [made.identity])
        if removal.left:
            raise DockerError(f"docker rm failed: {removal.failure}")
        made, started = _try_agent(launch, workspace, internal, sidecar, (), lambda said_before: None)
    if not started.ok:
        raise DockerError(f"docker run failed: {started.failure}")
    return made


def _try_agent(
    launch: Launch,
    workspace: Made,
    internal: Network,
    sidecar: Made,
    extra: Sequence[str],
    say: agent_container.Say,
) -> tuple[Made, run.Result]:
    plan = launch.plan
    proxy = pipelock.pipelock_proxy_url(sidecar.name, plan.settings.pipelock_port)
    address = ("--ip", agent_address(internal.subnet))
    options = [*agent_container.agent_options(plan, internal.identity, workspace.name), *address, *extra]
    name, identity = agent_container.agent_create(
        launch.engine, launch.journal, plan, options, workspace.identity, proxy, say
    )
    agent_container.copy_seed(launch.engine, plan, identity, name, say)
    late = agent_container.skills_in_image(launch.engine, plan, identity)  # nothing can be removed before the start
    if not late:
        agent_container.copy_skills(launch.engine, plan, identity, name, say)
    agent_container.copy_session_program(launch.engine, identity)
    started = agent_container.agent_start(launch.engine, identity)
    if late and started.ok:
        agent_container.remove_skills(launch.engine, plan, identity)
        agent_container.copy_skills(launch.engine, plan, identity, name, say)
    return Made(identity, name), started


def set_up_ssh(launch: Launch, agent: Made, sidecar: Made) -> Made:
    """Have ssh work in the bottle, if it has entries."""
    host = pipelock.pipelock_host(sidecar.name)
    ssh_setup.ssh_setup(launch.engine, launch.plan, agent.identity, agent.name, host)
    return agent


def copy_workspace(launch: Launch, agent: Made) -> Made:
    """Have the working directory in the bottle, if it was asked for."""
    workspace.copy_workspace(launch.engine, launch.plan, agent.identity, agent.name)
    return agent


STEPS = (
    Step((), "image", build),
    Step(("image",), "workspace", build_workspace),
    Step((), "internal", create_internal),
    Step((), "egress", create_egress),
    Step((), "sidecar_image", pull_sidecar),
    Step(("internal", "egress", "sidecar_image"), "sidecar", start_sidecar),
    Step(("workspace", "internal", "sidecar"), "agent", start_agent),
    Step(("agent", "sidecar"), "ssh", set_up_ssh),
    Step(("agent",), "files", copy_workspace),
)


def run_steps(launch: Launch, steps: Sequence[Step] = STEPS) -> dict[str, Made | Network]:
    """Walk the steps in order; a pending signal stops the walk between two of them.

    Args:
        launch: what every step may read.
        steps: in an order in which each one's needs have been made.

    Returns:
        All that was made, by name.

    Raises:
        BottleError: a step failed.
        Interrupted: a signal arrived.
    """
    facts: dict[str, Made | Network] = {}
    for step in steps:
        wait.check_signals()
        facts[step.makes] = step.run(launch, **{need: facts[need] for need in step.needs})
    wait.check_signals()
    return facts
