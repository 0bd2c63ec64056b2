"""What ``start`` and ``info`` both print of an agent: names only, never a value (contract sections 7 and 11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from claude_bottle.lib import env, log
from claude_bottle.lib.credential_values import TokenGoes, injections, token_goes
from claude_bottle.lib.credentials import Injection
from claude_bottle.lib.docker import PROXY_NAMES
from claude_bottle.lib.env_resolve import env_names
from claude_bottle.lib.inspection import Watched, watched
from claude_bottle.lib.manifest import (
    Manifest,
    manifest_agent_bottle,
    manifest_agent_prompt,
    manifest_agent_skills,
    manifest_bottle,
    manifest_env_names,
    manifest_prompt_summary,
)
from claude_bottle.lib.pipelock_hosts import (
    allowed_hosts,
    listed_hosts,
    pipelock_allowlist_summary,
    private_hosts,
)
from claude_bottle.lib.schema.manifest_parse import Bottle, Credential, Dlp, Limit, SshEntry


@dataclass(frozen=True)
class Grants:
    """What an agent is granted.

    Attributes:
        settings: from the environment.
        agent: its name.
        bottle: its bottle's name, or an empty text.
        env_names: the variables of its session.
        skills: their names.
        prompt: its text.
        ssh: the hosts it may reach by ssh.
        hosts: all that the sidecar lets through.
        listed: those of them that the bottle's own allowlist has.
        limits: those that the bottle itself sets.
        runtime: the engine's that is asked for, or an empty text.
        credentials: those that the broker puts in, the token's first.
        sources: where the values of the manifest's own come from.
        token_goes: who gets the caller's token.
        exposed: variables of the session that hold a secret, and why.
        watched: what becomes of the traffic of each of the hosts.
        dlp: what becomes of a secret that is found in it.
        brokered: the hosts that the broker stands before, sorted.
    """

    settings: env.Settings
    agent: str
    bottle: str
    env_names: tuple[str, ...]
    skills: tuple[str, ...]
    prompt: str
    ssh: tuple[SshEntry, ...]
    hosts: tuple[str, ...]
    listed: tuple[str, ...]
    limits: tuple[Limit, ...]
    runtime: str
    credentials: tuple[Injection, ...]
    sources: tuple[Credential, ...]
    token_goes: TokenGoes
    exposed: tuple[tuple[str, str], ...]
    watched: tuple[Watched, ...]
    dlp: Dlp
    brokered: tuple[str, ...]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        agent: str,
        ssh: tuple[SshEntry, ...],
        settings: env.Settings,
        environ: Mapping[str, str],
        **more: Any,
    ) -> Self:
        """Return what an agent is granted.

        Args:
            manifest: the merged one, checked.
            agent: its name.
            ssh: its bottle's entries.
            settings: from the environment; the user's own word of the runtime is before the bottle's.
            environ: the caller's environment.
            more: what a subclass has besides.
        """
        bottle = manifest_agent_bottle(manifest, agent)
        granted = manifest_bottle(manifest, bottle)
        credentials = injections(granted, settings, environ)
        brokered = tuple(sorted({host for injection in credentials for host in injection.hosts}))
        hosts = allowed_hosts(manifest, bottle, ssh, brokered)
        names = [*manifest_env_names(manifest, bottle), *(each.injection.variable for each in granted.credentials)]
        return cls(
            settings=settings,
            agent=agent,
            bottle=bottle,
            env_names=tuple(env_names(names, settings.has_token)),
            skills=manifest_agent_skills(manifest, agent),
            prompt=manifest_agent_prompt(manifest, agent),
            ssh=ssh,
            hosts=hosts,
            listed=listed_hosts(manifest, bottle),
            limits=granted.limits,
            runtime=settings.runtime or granted.runtime,
            credentials=credentials,
            sources=granted.credentials,
            token_goes=token_goes(granted, settings),
            exposed=tuple(_exposed(granted, settings)),
            watched=watched(hosts, [entry.hostname for entry in ssh], dict(granted.inspect)),
            dlp=granted.dlp,
            brokered=brokered,
            **more,
        )

    def say_agent(self) -> None:
        log.labelled("agent", self.agent)

    def say_env_and_skills(self) -> None:
        log.labelled("env (names only)", log.join_words(" ", self.env_names))
        log.labelled("skills", log.join_words(" ", self.skills))

    def say_prompt(self) -> None:
        log.labelled("prompt", manifest_prompt_summary(self.prompt))

    def say_bottle(self, with_entries: bool = False) -> None:
        """Print the bottle's part.

        Args:
            with_entries: also a line for each ssh entry.
        """
        log.labelled("bottle", self.bottle or "(none)")
        if not self.bottle:
            return
        log.labelled("  ssh hosts", log.join_words(", ", [entry.host for entry in self.ssh]))
        for entry in self.ssh if with_entries else ():
            log.log_info(f"    {_described(entry)}")
        log.labelled("  egress", pipelock_allowlist_summary(self.hosts))
        if private := private_hosts(self.listed):
            log.labelled("", f"private address: {', '.join(private)}")
        if self.limits:
            log.labelled("  limits", ", ".join(f"{limit.name} {limit.text}" for limit in self.limits))
        if self.runtime:
            log.labelled("  runtime", self.runtime)


def _exposed(bottle: Bottle, settings: env.Settings) -> Iterator[tuple[str, str]]:
    """Yield the variables whose values are secrets that whoever works in the bottle can read."""
    if token_goes(bottle, settings) == "bottle":
        yield env.TOKEN_NAME, f"{env.IN_BOTTLE_VARIABLE}=1"
    for entry in bottle.env:
        launchers = entry.name in PROXY_NAMES or (entry.name == env.TOKEN_NAME and settings.has_token)
        if entry.mode != "literal" and not launchers:
            yield entry.name, "env"


def _described(entry: SshEntry) -> str:
    known = "yes" if entry.known_host_key else "no"
    target = f"{entry.user}@{entry.hostname}:{entry.port}"
    return f"{entry.host} -> {target} key {entry.identity_file} known-host-key {known}"
