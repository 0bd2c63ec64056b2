"""ssh inside a bottle: root's agent holds the keys, node reaches it through a socket (shell: ssh_setup)."""

from __future__ import annotations

from collections.abc import Iterator

from claude_bottle.lib import docker, log, ssh, ssh_key
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.plan import Plan
from claude_bottle.lib.schema.manifest_parse import SshEntry

AGENT_SOCKET = "/run/claude-bottle-agent.sock"
PUBLIC_SOCKET = "/run/claude-bottle-agent-public.sock"
_AWAIT_SOCKET = 'for try in $(seq 50); do [ -S "$1" ] && exit 0; sleep 0.1; done; echo "$1 missing" >&2; exit 1'
_WRITE_FILE = 'umask 077; mkdir -p "$1" && cat >"$1/$2" && chmod 600 "$1/$2"'


def ssh_setup(engine: Engine, plan: Plan, container: str, name: str, sidecar: str) -> Work[None]:
    """Load the bottle's keys and write node's ssh files; nothing without entries (shell: ssh_setup).

    Args:
        engine: to ask.
        plan: of the start.
        container: the agent's id; it runs.
        name: its name, for the message.
        sidecar: the sidecar's host name.

    Raises:
        BottleError: docker refused, or a key cannot be read or added.
        Interrupted: a signal arrived while something was copied.
    """
    if not plan.ssh:
        return
    log.log_info(f"setting up ssh in {name}")
    yield from docker.docker_step(
        engine, "ssh setup", docker.helper(container, ["/usr/bin/ssh-agent", "-a", AGENT_SOCKET], user="root")
    )
    for entry in plan.ssh:
        path = ssh.ssh_key_path(plan.cwd, plan.settings.host_home, entry.identity_file)
        yield from _add_key(engine, container, entry, path)
    yield from _bridge_agent(engine, container)
    folder = f"{plan.settings.bottle_home}/.ssh"
    config = ssh_config(plan.ssh, sidecar, plan.settings.pipelock_port)
    yield from _write_node_file(engine, container, folder, "config", config)
    yield from _write_node_file(engine, container, folder, "known_hosts", ssh_known_hosts(plan.ssh))


def _add_key(engine: Engine, container: str, entry: SshEntry, path: str) -> Work[None]:
    """Hand a key to the agent on stdin, so that no file in the bottle ever holds it (shell: ssh_add_key)."""
    key = ssh_key.ssh_read_key(entry.host, path)
    socket = [f"SSH_AUTH_SOCK={AGENT_SOCKET}"]
    words = docker.helper(container, ["/usr/bin/ssh-add", "-q", "-"], user="root", flags=["-i"], variables=socket)
    added = yield engine.call(words, stdin=[key])
    if not added.ok:
        raise BottleError(
            f"ssh key for host '{entry.host}' could not be added (passphrase-protected keys are not supported)"
        )


def _bridge_agent(engine: Engine, container: str) -> Work[None]:
    """Let node reach the agent, which answers its own uid only (shell: ssh_bridge_agent)."""
    listen, connect = f"UNIX-LISTEN:{PUBLIC_SOCKET},fork,mode=666", f"UNIX-CONNECT:{AGENT_SOCKET}"
    bridge = docker.helper(container, ["/usr/bin/socat", listen, connect], user="root", flags=["-d"])
    yield from docker.docker_step(engine, "ssh setup", bridge)
    words = docker.helper(container, ["/bin/sh", "-c", _AWAIT_SOCKET, "sh", PUBLIC_SOCKET], user="root")
    yield from docker.docker_step(engine, "ssh setup: the agent's public socket", words)


def ssh_config(entries: tuple[SshEntry, ...], sidecar: str, port: str) -> str:
    """Return node's ~/.ssh/config (shell: ssh_config).

    Args:
        entries: of the bottle.
        sidecar: the sidecar's host name.
        port: the sidecar's.
    """
    return "".join(line + "\n" for entry in entries for line in _config_lines(entry, sidecar, port))


def _config_lines(entry: SshEntry, sidecar: str, port: str) -> Iterator[str]:
    yield f"Host {entry.host}"
    yield f"  HostName {entry.hostname}"
    yield f"  User {entry.user}"
    yield f"  Port {entry.port}"
    yield f"  IdentityAgent {PUBLIC_SOCKET}"
    yield f"  ProxyCommand socat - PROXY:{sidecar}:%h:%p,proxyport={port}"
    yield f"  StrictHostKeyChecking {'yes' if entry.known_host_key else 'accept-new'}"


def ssh_known_hosts(entries: tuple[SshEntry, ...]) -> str:
    """Return node's ~/.ssh/known_hosts, the pinned keys (shell: ssh_known_hosts)."""
    pinned = (entry for entry in entries if entry.known_host_key)
    return "".join(f"{_known_name(entry)} {entry.known_host_key}\n" for entry in pinned)


def _known_name(entry: SshEntry) -> str:
    return entry.hostname if entry.port.lstrip("0") == "22" else f"[{entry.hostname}]:{entry.port}"


def _write_node_file(engine: Engine, container: str, folder: str, name: str, text: str) -> Work[None]:
    """Write one of node's ssh files, mode 600; an empty text writes nothing (shell: ssh_write_node_file)."""
    if text:
        script = ["/bin/sh", "-c", _WRITE_FILE, "sh", folder, name]
        words = docker.helper(container, script, user="node", flags=["-i"])
        yield from docker.docker_step(engine, "ssh setup", words, [log.encode(text)])
