"""``info``: what an agent is granted, names only (shell: cmd_info)."""

from __future__ import annotations

from collections.abc import Mapping

from claude_bottle.lib import dockerfile, env, env_resolve, limits, log, manifest, ssh
from claude_bottle.lib.consent.summary import Grants
from claude_bottle.lib.egress import credential_values, pipelock_hosts
from claude_bottle.lib.problems import Gathered
from claude_bottle.lib.schema.manifest_parse import SshEntry


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
    shown = _checked(found, agent, settings, environ)
    for warning in (*found.warnings, *env_resolve.env_warnings(found, shown.bottle), *shown.inspect_warnings()):
        log.log_warn(warning)
    shown.say_agent()
    shown.say_env_and_skills()
    shown.say_prompt()
    shown.say_bottle(with_entries=True)
    shown.say_traffic()
    shown.say_place()
    log.data(())
    return 0


def _checked(found: manifest.Manifest, agent: str, settings: env.Settings, environ: Mapping[str, str]) -> Grants:
    gathered = Gathered()
    with gathered:
        manifest.manifest_require_agent(found, agent)
    bottle = manifest.manifest_agent_bottle(found, agent)
    keys = _check_bottle(gathered, found, agent, bottle) if bottle else ()
    with gathered:
        credential_values.credentials_check(found, bottle, settings, environ)
    gathered.fail(manifest.manifest_unknown_keys(found, agent, bottle))
    return Grants.of(found, agent, keys, settings, environ)


def _check_bottle(gathered: Gathered, found: manifest.Manifest, agent: str, bottle: str) -> tuple[SshEntry, ...]:
    keys: tuple[SshEntry, ...] = ()
    with gathered:
        manifest.manifest_require_bottle(found, agent, bottle)
    with gathered:
        env_resolve.env_check_object(found, bottle)
    with gathered:
        keys = ssh.ssh_load(found, bottle)
    with gathered:
        pipelock_hosts.pipelock_check_allowlist(found, bottle)
    with gathered:
        limits.limits_check(found, bottle)
    with gathered:
        dockerfile.dockerfile_look(found, bottle)
    return keys
