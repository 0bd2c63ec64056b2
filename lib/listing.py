"""``list``: the agents there are, and the bottles that run (shell: list_agents, list_active).

Each imports what it alone needs: the agents are there before docker's modules would be.
"""

from __future__ import annotations

import os

from claude_bottle.lib import log


def list_agents(cwd: str, home: str) -> int:
    """Print each agent and its bottle, in manifest order (shell: list_agents).

    Raises:
        BottleError: a manifest is at fault.
    """
    from claude_bottle.lib.manifest import manifest_load

    agents = manifest_load(cwd, home).agents
    if not agents:
        log.log_info("no agents defined")
    log.data(*((agent.name, agent.bottle or "(none)") for agent in agents.values()))
    return 0


def list_active() -> int:
    """Print each running bottle with its image and status, sorted by name (shell: list_active).

    What a launch that is provably dead has left is marked as stale.

    Raises:
        BottleError: docker gave no answer.
    """
    from claude_bottle.lib.engine import docker_require
    from claude_bottle.lib.pipelock import pipelock_container_name
    from claude_bottle.lib.teardown import inventory
    from claude_bottle.lib.teardown.owner import dead_launches

    def is_agent(item: inventory.Item) -> bool:
        """The label decides, since an agent may be called pipelock-x; a bottle of the shell's has none."""
        return item.role == inventory.AGENT if item.role else not item.name.startswith(pipelock_container_name(""))

    running = inventory.ours(docker_require(os.environ), inventory.CONTAINER)
    active = [item for item in running if is_agent(item)]
    if not active:
        log.log_info("no active containers")
    dead = dead_launches(item.owner for item in active)
    status = {item.identity: f"{item.status}{' (stale)' * (item.owner.launch in dead)}" for item in active}
    log.data(*((item.name, item.image or item.shown_image, status[item.identity]) for item in active))
    return 0
