"""``list``: the agents there are, and the bottles that run (shell: list_agents, list_active)."""

from __future__ import annotations

from claude_bottle.lib import docker, log
from claude_bottle.lib.journal import ROLE_LABEL, SIDECAR
from claude_bottle.lib.manifest import manifest_load
from claude_bottle.lib.pipelock import pipelock_container_name

ACTIVE_FORMAT = f'{{{{.Names}}}}\t{{{{.Image}}}}\t{{{{.Status}}}}\t{{{{.Label "{ROLE_LABEL}"}}}}'


def list_agents(cwd: str, home: str) -> int:
    """Print each agent and its bottle, in manifest order (shell: list_agents).

    Raises:
        BottleError: a manifest is at fault.
    """
    agents = manifest_load(cwd, home).agents
    if not agents:
        log.log_info("no agents defined")
    for name, agent in agents.items():
        bottle = agent.get("bottle") if isinstance(agent, dict) else None
        log.data_line(name, bottle if isinstance(bottle, str) and bottle else "(none)")
    return 0


def list_active() -> int:
    """Print each running bottle with its image and status, sorted by name (shell: list_active).

    Raises:
        BottleError: docker gave no answer.
    """
    docker.docker_require()
    rows = (line.split("\t") for line in docker.docker_list_own(["ps", "--format", ACTIVE_FORMAT]))
    active = [row[:3] for row in rows if not _is_sidecar(row[0], row[-1])]
    if not active:
        log.log_info("no active containers")
    for row in active:
        log.data_line(*row)
    return 0


def _is_sidecar(name: str, role: str) -> bool:
    """The label decides, since an agent may be called pipelock-x; a bottle of the shell's has none."""
    return role == SIDECAR if role else name.startswith(pipelock_container_name(""))
