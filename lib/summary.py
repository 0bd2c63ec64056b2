"""What ``start`` and ``info`` both print of an agent: names only, never a value (contract sections 7 and 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from claude_bottle.lib import log
from claude_bottle.lib.env_resolve import env_names
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
from claude_bottle.lib.schema.manifest_parse import Limit, SshEntry


@dataclass(frozen=True)
class Grants:
    """What an agent is granted.

    Attributes:
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
    """

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

    @classmethod
    def of(
        cls, manifest: Manifest, agent: str, ssh: tuple[SshEntry, ...], has_token: bool, runtime: str, **more: Any
    ) -> Self:
        """Return what an agent is granted.

        Args:
            manifest: the merged one, checked.
            agent: its name.
            ssh: its bottle's entries.
            has_token: whether a token is forwarded.
            runtime: the user's own word of it, which is before the bottle's.
            more: what a subclass has besides.
        """
        bottle = manifest_agent_bottle(manifest, agent)
        return cls(
            agent=agent,
            bottle=bottle,
            env_names=tuple(env_names(manifest_env_names(manifest, bottle), has_token)),
            skills=manifest_agent_skills(manifest, agent),
            prompt=manifest_agent_prompt(manifest, agent),
            ssh=ssh,
            hosts=allowed_hosts(manifest, bottle, ssh),
            listed=listed_hosts(manifest, bottle),
            limits=manifest_bottle(manifest, bottle).limits,
            runtime=runtime or manifest_bottle(manifest, bottle).runtime,
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


def _described(entry: SshEntry) -> str:
    known = "yes" if entry.known_host_key else "no"
    target = f"{entry.user}@{entry.hostname}:{entry.port}"
    return f"{entry.host} -> {target} key {entry.identity_file} known-host-key {known}"
