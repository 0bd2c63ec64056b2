"""What ``start`` and ``info`` both print of an agent: names only, never a value (contract sections 7 and 11)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from claude_bottle.lib import env, log
from claude_bottle.lib.docker import PROXY_NAMES
from claude_bottle.lib.dockerfile import dockerfile_look
from claude_bottle.lib.egress.broker_config import model_hosts
from claude_bottle.lib.egress.credential_values import TokenGoes, injections, token_goes
from claude_bottle.lib.egress.credentials import Injection
from claude_bottle.lib.egress.inspection import Watched, plain, watched
from claude_bottle.lib.egress.pipelock_hosts import (
    allowed_hosts,
    listed_hosts,
    pipelock_allowlist_summary,
    private_hosts,
)
from claude_bottle.lib.env_resolve import env_names
from claude_bottle.lib.files.recipe import Recipe
from claude_bottle.lib.manifest import (
    Manifest,
    manifest_agent_bottle,
    manifest_agent_prompt,
    manifest_agent_skills,
    manifest_bottle,
    manifest_env_names,
    manifest_prompt_summary,
)
from claude_bottle.lib.problems import nearest
from claude_bottle.lib.schema.manifest_parse import Bottle, Credential, Dlp, Limit, SshEntry

SHOWN_PATHS = 3
WIDEST = 40  # column
Row = tuple[str, str, str]


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
        tools: what the bottle's own image is built from, if it has one.
        place: whether the bottle itself asks that a Swarm chooses its machine.
        placement: what that has to be.
        credentials: those that the broker puts in, the token's first.
        sources: where the values of the manifest's own come from.
        token_goes: who gets the caller's token.
        exposed: variables of the session that hold a secret, and why.
        wishes: the manifest's own word about it.
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
    tools: Recipe | None
    place: bool
    placement: tuple[str, ...]
    credentials: tuple[Injection, ...]
    sources: tuple[Credential, ...]
    token_goes: TokenGoes
    exposed: tuple[tuple[str, str], ...]
    wishes: Mapping[str, bool]
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
            tools=dockerfile_look(manifest, bottle),
            place=granted.place,
            placement=granted.placement,
            credentials=credentials,
            sources=granted.credentials,
            token_goes=token_goes(granted, settings),
            exposed=tuple(_exposed(granted, settings)),
            wishes=dict(granted.inspect),
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
        if private := private_hosts((*self.listed, *self.brokered)):
            log.labelled("", f"private address: {', '.join(private)}")
        if self.limits:
            log.labelled("  limits", ", ".join(f"{limit.name} {limit.text}" for limit in self.limits))
        if self.runtime:
            log.labelled("  runtime", self.runtime)
        if self.tools:
            self._say_tools(self.tools)

    def say_place(self, asked: str = "") -> None:
        """Print that a Swarm chooses the machine.

        Args:
            asked: what it is asked for, if that is known.
        """
        if asked or self.place:
            log.labelled("place", ", ".join(["a node that the Swarm chooses", *([asked] if asked else self.placement)]))

    def _say_tools(self, tools: Recipe) -> None:
        beside = f"with {tools.count} files of its folder" if tools.copies else "alone"
        log.labelled("  dockerfile", f"{tools.path} ({tools.shown}, {beside})")
        log.labelled("", "its build has the engine's network, and none of the secrets")

    def say_traffic(self) -> None:
        """Print what becomes of each credential, and of each host's traffic (not the shell's)."""
        if self.bottle:
            _say_rows("credentials", [*map(self._put_in, self.credentials), *map(_read_inside, self.exposed)])
            _say_rows("inspection", list(map(self._looked_into, self.watched)))

    def _put_in(self, injection: Injection) -> Row:
        paths = ", ".join(injection.paths) or "any path"
        if len(injection.paths) > SHOWN_PATHS:
            paths = f"{len(injection.paths)} paths"
        commands = {source.injection.variable: shlex.join(source.command) for source in self.sources if source.command}
        said = commands.get(injection.variable, "")
        by = f"; said by the command: {said}" if said else ""
        return injection.variable, f"never enters the bottle; {', '.join(injection.hosts)}, {paths}{by}", ""

    def _looked_into(self, one: Watched) -> Row:
        found = f"inspected, findings {'refused' if self.dlp == 'block' else 'logged'}"
        text = found if one.inspected else f"NOT inspected ({one.reason})"
        return one.host, text, "broker" if plain(one.host) in self.brokered else ""

    def inspect_warnings(self) -> Iterator[str]:
        """Yield a line for each of the manifest's own words about a host's traffic that is not kept, or costs much."""
        known = {plain(one.host): one for one in self.watched}
        cost = f"bottle '{self.bottle}': egress.dlp is block: a picture in a conversation is refused at each turn"
        for host in sorted(model_hosts(self.credentials)) if self.dlp == "block" else ():
            if known[host].inspected:
                yield f"{cost}, unless egress.inspect passes {host}"
        for host, wish in self.wishes.items():
            one = known.get(plain(host))
            if one is None:
                hint = "; ".join(["it is not among the allowed hosts", *nearest(host, self.hosts)])
                yield f"bottle '{self.bottle}': egress.inspect names '{host}': {hint}"
            elif wish and not one.inspected:
                yield f"bottle '{self.bottle}': '{host}' cannot be inspected ({one.reason})"


def _say_rows(label: str, rows: Sequence[Row]) -> None:
    """Print rows of three columns under one label."""
    name_width, text_width = (min(WIDEST, max((len(row[at]) for row in rows), default=0)) for at in (0, 1))
    for number, (name, text, note) in enumerate(rows or [("(none)", "", "")]):
        log.labelled("" if number else label, f"{name:<{name_width}}  {text:<{text_width}}  {note}".rstrip(" "))


def _read_inside(exposed: tuple[str, str]) -> Row:
    return exposed[0], f"IN THE BOTTLE ({exposed[1]})", ""


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
