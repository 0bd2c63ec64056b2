"""``info``: what an agent is granted, names only (shell: cmd_info)."""

from __future__ import annotations

from collections.abc import Mapping

from claude_bottle.lib import env, env_resolve, log, manifest, pipelock_hosts, ssh
from claude_bottle.lib.problems import Gathered


def info(agent: str, environ: Mapping[str, str], cwd: str) -> int:
    """Print an agent's env names, skills, prompt and bottle (shell: cmd_info; contract section 11).

    Args:
        agent: its name.
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.

    Returns:
        0.

    Raises:
        BottleError: the manifest is at fault.
    """
    settings = env.read_settings(environ)
    env.env_require_home(settings)
    found = manifest.manifest_load(cwd, settings.host_home)
    gathered = Gathered()
    with gathered:
        manifest.manifest_require_agent(found, agent)
    skills = manifest.manifest_agent_skills(found, agent)
    bottle = manifest.manifest_agent_bottle(found, agent)
    keys = _check_bottle(gathered, found, agent, bottle) if bottle else ()
    gathered.fail([*found.unknown_keys("agents", agent), *found.unknown_keys("bottles", bottle)])
    names = manifest.manifest_env_names(found, bottle) if bottle else ()
    for warning in found.warnings:
        log.log_warn(warning)
    log.labelled("agent", agent)
    log.labelled("env (names only)", log.join_words(" ", env_resolve.env_names(names, settings.has_token)))
    log.labelled("skills", log.join_words(" ", skills))
    log.labelled("prompt", manifest.manifest_prompt_summary(manifest.manifest_agent_prompt(found, agent)))
    log.labelled("bottle", bottle or "(none)")
    if bottle:
        _print_bottle(found, bottle, keys)
    log.data_line()
    return 0


def _check_bottle(gathered: Gathered, found: manifest.Manifest, agent: str, bottle: str) -> tuple[ssh.SshEntry, ...]:
    keys: tuple[ssh.SshEntry, ...] = ()
    with gathered:
        manifest.manifest_require_bottle(found, agent, bottle)
    with gathered:
        env_resolve.env_check_object(found, bottle)
    with gathered:
        keys = ssh.ssh_load(found, bottle)
    with gathered:
        pipelock_hosts.pipelock_check_allowlist(found, bottle)
    return keys


def _print_bottle(found: manifest.Manifest, bottle: str, keys: tuple[ssh.SshEntry, ...]) -> None:
    log.labelled("  ssh hosts", log.join_words(", ", [entry.host for entry in keys]))
    for entry in keys:
        known = "yes" if entry.known_host_key else "no"
        target = f"{entry.user}@{entry.hostname}:{entry.port}"
        log.log_info(f"    {entry.host} -> {target} key {entry.identity_file} known-host-key {known}")
    hosts = pipelock_hosts.allowed_hosts(found, bottle, keys)
    log.labelled("  egress", pipelock_hosts.pipelock_allowlist_summary(hosts))
