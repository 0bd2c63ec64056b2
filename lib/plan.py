"""What a start will do, as one frozen record: made before docker makes anything, read by all that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Self

from claude_bottle.lib import docker, dockerfile, env, env_resolve, limits, log, manifest, pipelock, skills, slug, ssh
from claude_bottle.lib.consent import approved
from claude_bottle.lib.consent.approval import Approval, added, folder_digest, unapproved
from claude_bottle.lib.consent.summary import Grants
from claude_bottle.lib.egress import broker_config, credential_values, pipelock_hosts
from claude_bottle.lib.egress.broker import MEMORY as BROKER_MEMORY
from claude_bottle.lib.egress.broker_config import model_hosts
from claude_bottle.lib.egress.inspection import plain
from claude_bottle.lib.egress.pipelock_traffic import MIB
from claude_bottle.lib.engine import Engine, Facts
from claude_bottle.lib.far import seat
from claude_bottle.lib.far.nodes import require_manager
from claude_bottle.lib.files import project
from claude_bottle.lib.home.kind import Homing, look
from claude_bottle.lib.home.record import FOLDER, GIT, NONE
from claude_bottle.lib.host import terminal
from claude_bottle.lib.host.calls import Begun, Work
from claude_bottle.lib.problems import Gathered
from claude_bottle.lib.schema.manifest_parse import Bottle, EnvEntry, SshEntry
from claude_bottle.lib.subnets import host_routes, subnet_pool

RESERVED = frozenset(docker.PROXY_NAMES)
REMOTE_CONTROL_KILLER = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
# Quiet and quick starts; the last keeps a workspace's settings from sending the token elsewhere.
CLAUDE_SWITCHES = (
    REMOTE_CONTROL_KILLER,
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
    "DISABLE_AUTOUPDATER",
    "DISABLE_INSTALLATION_CHECKS",
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST",
)


@dataclass(frozen=True)
class Request:
    """The words of the command line."""

    agent: str
    dry_run: bool = False
    with_cwd: bool = False
    remote_control: bool = False
    yes: bool = False
    quiet: bool = False
    receipt: str = ""
    claude_args: tuple[str, ...] = ()
    as_json: bool = False
    no_bring: bool = False
    place: bool = False


def is_dry_run(request: Request, settings: env.Settings) -> bool:
    """Say whether the start ends with its plan: the command line or the environment may ask for that."""
    return request.dry_run or settings.dry_run


@dataclass(frozen=True)
class Plan(Grants):
    """Arguments, manifest and environment of one start: what is granted, and how. No secret's value is in it."""

    request: Request
    engine: str  # described, empty for the local default
    cwd: str
    subnet_pool: IPv4Network
    host_routes: tuple[IPv4Network, ...]
    slug: str
    container: str
    entries: tuple[EnvEntry, ...]
    warnings: tuple[str, ...]
    project: project.Project | None
    followed: Mapping[str, Mapping[str, str]]
    confinement: tuple[str, ...]
    approval: Approval
    homing: Homing
    granted: Bottle

    @property
    def placed(self) -> bool:
        """Whether a Swarm chooses the machine."""
        return self.request.place or self.place

    @property
    def booking(self) -> seat.Booking:
        """What is asked of the machine that is chosen: the limits of all its containers together."""
        memory, cpus = limits.limits_booked(self.granted)
        memory += pipelock.pipelock_memory(self.opens) + BROKER_MEMORY * MIB * bool(self.brokered)
        return seat.Booking(memory, cpus, self.placement)

    def moved_to(self, engine: Engine) -> Self:
        """Return the same plan for the machine that a Swarm has chosen.

        Args:
            engine: its own, which has answered.

        Raises:
            BottleError: it cannot do what is asked of it.
        """
        runtime, routes = self.settings.runtime, host_routes(engine)
        limits.limits_check_engine(self.granted, runtime, engine.facts)
        for warning in limits.limits_warnings(self.granted, engine.facts):
            log.log_warn(warning)
        return replace(
            self,
            engine=engine.described(),
            subnet_pool=subnet_pool(self.settings.subnet_pool, routes),
            host_routes=routes,
            confinement=tuple(limits.limits_options(self.granted, runtime, engine.facts, booked=True)),
        )

    @property
    def dry_run(self) -> bool:
        return is_dry_run(self.request, self.settings)

    @property
    def base_name(self) -> str:
        return f"claude-bottle-{self.slug}"

    @property
    def workspace(self) -> str:
        return f"{self.settings.bottle_home}/workspace"

    @property
    def workdir(self) -> str:
        return self.project_folder if self.request.with_cwd else self.settings.bottle_home

    @property
    def project_folder(self) -> str:
        """Where the working directory goes: the workspace, or where it is in the repository that this is then."""
        prefix = self.project.prefix if self.project else ""
        return f"{self.workspace}/{prefix}" if prefix else self.workspace

    @property
    def prompt_path(self) -> str:
        return f"{self.settings.bottle_home}/.claude-bottle-prompt.txt"

    @property
    def switches(self) -> list[str]:
        """Claude's switches that the manifest does not set itself."""
        own = {entry.name for entry in self.entries}
        if self.request.remote_control:
            own.add(REMOTE_CONTROL_KILLER)
        return [name for name in CLAUDE_SWITCHES if name not in own]

    @property
    def work(self) -> str:
        """How the work comes home: as branches, as a folder, or none of it."""
        return {GIT: "branches", FOLDER: "folder", NONE: "none"}[self.homing.kind]

    @property
    def once(self) -> list[str]:
        """The variables whose values are secrets that the session alone gets."""
        names = [entry.name for entry in self.entries if entry.mode != "literal" and entry.name not in RESERVED]
        return [*names, *([env.TOKEN_NAME] if self.token_goes == "bottle" else [])]

    @property
    def yaml(self) -> str:
        ssh_hosts = [entry.hostname for entry in self.ssh]
        port, models = self.settings.pipelock_port, model_hosts(self.credentials)
        return pipelock.pipelock_yaml(
            self.hosts, ssh_hosts, port, self.listed, self.watched, self.brokered, self.dlp, models
        )

    @property
    def opens(self) -> bool:
        """Whether the sidecar looks into any traffic."""
        return any(each.inspected for each in self.watched)

    @property
    def broker_addresses(self) -> dict[str, str]:
        return broker_config.addresses(self.brokered)

    @property
    def broker_config(self) -> str:
        """What the broker is told; ssh to a host of its own goes through it too, since the name leads there."""
        tunnels: dict[str, set[int]] = {}
        for entry in self.ssh:
            port = entry.port  # ssh itself refuses what is none
            if port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536:
                tunnels.setdefault(plain(entry.hostname), set()).add(int(port))
        return broker_config.config(self.credentials, self.brokered, tunnels)

    def broker_values(self, injected: Mapping[str, str]) -> str:
        """What the broker puts in: see ``broker_config.values``."""
        return broker_config.values(self.credentials, injected)


def look_for_name(engine: Engine, request: Request, environ: Mapping[str, str]) -> Begun[str]:
    """Begin to look for a free name for the agent's container, which takes as long as reading a manifest.

    Args:
        engine: to ask.
        request: the command line.
        environ: the caller's environment.
    """
    return Begun(_name(engine, request.agent, env.read_settings(environ).pinned_container))


def _name(engine: Engine, agent: str, pinned: str) -> Work[str]:
    base = f"claude-bottle-{slug.agent_slug(agent)}"
    return (yield from docker.docker_pick_container_name(engine, base, pinned))


def make_plan(engine: Engine, name: Begun[str], request: Request, environ: Mapping[str, str], cwd: str) -> Plan:
    """Look at everything a start depends on, in the shell's order (contract section 6, 2 to 6).

    Args:
        engine: that answered.
        name: the free name that has been looked for.
        request: the command line.
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.

    Raises:
        BottleError: whatever is wrong with it; nothing has been made.
    """
    settings = env.read_settings(environ)
    env.env_require_home(settings)
    pipelock.pipelock_check_port(settings.pipelock_port)
    env.patience_of(settings.patience_text)
    routes = host_routes(engine)
    pool = subnet_pool(settings.subnet_pool, routes)
    found = manifest.manifest_load(cwd, settings.host_home)
    draft = _Draft(request, settings, environ, cwd, found, engine.facts)
    draft.check(name)
    if draft.placed:
        require_manager(engine)
    return draft.plan(pool, routes, engine.described())


@dataclass(frozen=True)
class Examined:
    """What there is to say of an agent that can be started.

    Attributes:
        warnings: as a start would give them.
        pending: whether the current folder's manifest adds what is not approved.
    """

    warnings: tuple[str, ...]
    pending: bool


def examine(
    found: manifest.Manifest,
    agent: str,
    settings: env.Settings,
    environ: Mapping[str, str],
    cwd: str,
    facts: Facts,
) -> Examined:
    """Look at an agent as a start would, without one.

    Args:
        found: the merged manifest.
        agent: one of its agents.
        settings: from the environment.
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.
        facts: of the engine.

    Raises:
        BottleError: whatever is wrong with it.
    """
    draft = _Draft(Request(agent), settings, environ, cwd, found, facts)
    draft.check(Begun(_nameless()))
    return Examined(tuple(draft.warnings()), bool(draft.approval.pending))


def _nameless() -> Work[str]:
    return ""
    yield  # no call: nothing gets a name


@dataclass(repr=False)
class _Draft:
    """A plan in the making; what is wrong with one part of it hides nothing of another."""

    request: Request
    settings: env.Settings
    environ: Mapping[str, str]
    cwd: str
    found: manifest.Manifest
    facts: Facts
    gathered: Gathered = field(default_factory=Gathered)
    slug: str = ""
    container: str = ""
    ssh: tuple[SshEntry, ...] = ()
    workspace: project.Project | None = None
    approval: Approval = field(default_factory=Approval)

    @property
    def agent(self) -> str:
        return self.request.agent

    @property
    def bottle(self) -> str:
        return manifest.manifest_agent_bottle(self.found, self.agent)

    @property
    def granted(self) -> Bottle:
        return manifest.manifest_bottle(self.found, self.bottle)

    @property
    def placed(self) -> bool:
        return self.request.place or self.granted.place

    @property
    def skills(self) -> tuple[str, ...]:
        return manifest.manifest_agent_skills(self.found, self.agent)

    def check(self, name: Begun[str]) -> None:
        """Look at all of it, in the shell's order, and fail once."""
        self._check_agent(name)
        with self.gathered:
            skills.skills_check(self.settings.host_home, self.skills)
        with self.gathered:
            if self.request.with_cwd:
                self.workspace = project.look(self.cwd, may_build=not self.settings.derived_image)
        if not self.found.checks.problems("agents", self.agent, "bottle"):
            self._check_bottle()
        self.gathered.fail(manifest.manifest_unknown_keys(self.found, self.agent, self.bottle))
        self._check_approval()

    def _check_agent(self, name: Begun[str]) -> None:
        with self.gathered:
            manifest.manifest_require_agent(self.found, self.agent)
        if self.agent not in self.found.agents or not self.found.agents[self.agent].is_object:
            self.gathered.fail()
        with self.gathered:
            self.slug = slug.agent_slug(self.agent)
        if not self.gathered:  # what the engine says counts only where the agent can have a name
            with self.gathered:
                self.container = name.get()

    def _check_bottle(self) -> None:
        found, bottle = self.found, self.bottle
        with self.gathered:
            manifest.manifest_require_bottle(found, self.agent, bottle)
        with self.gathered:
            self.ssh = ssh.ssh_load(found, bottle)
        with self.gathered:
            ssh.ssh_check_keys(self.cwd, self.settings.host_home, ssh.ssh_entries(found, bottle))
        with self.gathered:
            pipelock_hosts.pipelock_check_allowlist(found, bottle)
        with self.gathered:
            limits.limits_check(found, bottle)
            if not self.placed:  # else the engine is not known yet
                limits.limits_check_engine(self.granted, self.settings.runtime, self.facts)
        with self.gathered:
            dockerfile.dockerfile_look(found, bottle)
        with self.gathered:
            env_resolve.env_check(found, bottle)
        with self.gathered:
            credential_values.credentials_check(found, bottle, self.settings, self.environ)
        self._check_values()

    def _check_values(self) -> None:
        dry, has_terminal = is_dry_run(self.request, self.settings), terminal.tty_exists()
        with self.gathered:
            environ = None if dry else self.environ
            env_resolve.env_check_values(self.found, self.bottle, RESERVED, environ, has_terminal)
        if not dry:
            with self.gathered:
                credential_values.credentials_check_values(self.granted, self.settings, self.environ, has_terminal)

    def _check_approval(self) -> None:
        entries = added(self.found, [self.agent])
        asked = Approval(entries, approved.recall(self.environ, self.cwd)) if entries else self.approval
        given = self.settings.approved
        if asked.pending and (self.request.yes or given):
            digest = folder_digest(added(self.found, self.found.agents))
            if given == digest:
                return
            if not is_dry_run(self.request, self.settings):
                raise unapproved(asked, given, digest)
        self.approval = asked

    def plan(self, pool: IPv4Network, routes: tuple[IPv4Network, ...], engine: str) -> Plan:
        return Plan.of(
            self.found,
            self.agent,
            self.ssh,
            self.settings,
            self.environ,
            request=self.request,
            engine=engine,
            cwd=self.cwd,
            subnet_pool=pool,
            host_routes=routes,
            slug=self.slug,
            container=self.container,
            entries=env_resolve.env_entries(self.found, self.bottle),
            warnings=tuple(self.warnings()),
            project=self.workspace,
            followed={name: skills.skills_followed(self.settings.host_home, name) for name in self.skills},
            confinement=tuple(limits.limits_options(self.granted, self.settings.runtime, self.facts)),
            approval=self.approval,
            homing=self._homing(),
            granted=self.granted,
        )

    def _homing(self) -> Homing:
        repository = self.workspace.host_git if self.workspace else ""
        return look(repository, wanted=not self.request.no_bring, seen=not self.settings.derived_image)

    def warnings(self) -> Iterator[str]:
        yield from self.found.warnings
        yield from env_resolve.env_warnings(self.found, self.bottle)
        entries = env_resolve.env_entries(self.found, self.bottle)
        yield from self._reserved_warnings(entries)
        yield from self._login_warnings(entries)
        if not self.placed:
            yield from limits.limits_warnings(self.granted, self.facts)
        yield from Grants.of(self.found, self.agent, self.ssh, self.settings, self.environ).inspect_warnings()
        if self.workspace:
            yield from self._workspace_warnings(self.workspace)

    def _reserved_warnings(self, entries: tuple[EnvEntry, ...]) -> Iterator[str]:
        for name in (entry.name for entry in entries if entry.name in RESERVED):
            yield f"bottle '{self.bottle}': env '{name}' is set by claude-bottle; the manifest's value is ignored"

    def _login_warnings(self, entries: tuple[EnvEntry, ...]) -> Iterator[str]:
        has_login = env_resolve.env_has_login(entries, self.environ) or credential_values.has_login(self.granted)
        if not self.settings.has_token and not has_login:
            yield f"{env.TOKEN_VARIABLE} is not set: Claude Code will ask for a login in the bottle"
        if self.request.remote_control and self.settings.has_token:
            yield "remote control needs a full login; with only a long-lived token Claude Code starts without it"

    def _workspace_warnings(self, workspace: project.Project) -> Iterator[str]:
        yield from workspace.warnings(self.settings.host_home)
        if image := self.settings.derived_image:
            yield f"CLAUDE_BOTTLE_DERIVED_IMAGE is set: the engine keeps the project in '{image}'"


def resolve_secrets(plan: Plan, environ: Mapping[str, str], ask: Callable[[str, str], str]) -> env_resolve.Secrets:
    """Return the session's values, the token among them (shell: env_resolve); what a command says comes later.

    Args:
        plan: of the start.
        environ: the caller's environment.
        ask: asks for the value of a name, with a question.

    Raises:
        BottleError: a host variable is not set, or no value was entered.
    """
    secrets = env_resolve.env_resolve(plan.entries, environ, ask, RESERVED)
    credential_values.credentials_resolve(secrets, plan.sources, environ, ask)
    if plan.token_goes == "bottle":
        secrets.add(env.TOKEN_NAME, environ[env.TOKEN_VARIABLE])
    elif plan.token_goes == "broker":
        secrets.inject(plan.credentials[0], environ[env.TOKEN_VARIABLE])
    return secrets


def print_preflight(plan: Plan, stage_dir: str) -> None:
    """Show what is about to happen (shell: print_preflight; contract section 7)."""
    log.line()
    plan.say_agent()
    log.labelled("image", plan.settings.image)
    if plan.project:
        _print_project(plan, plan.project)
    log.labelled("container", plan.container)
    log.labelled("stage dir", stage_dir)
    plan.say_env_and_skills()
    _print_followed(plan)
    plan.say_bottle()
    plan.say_prompt()
    log.labelled("remote-control", "enabled" if plan.request.remote_control else "disabled")
    plan.say_traffic()
    if plan.project:
        plan.homing.say(plan.slug)
    if plan.placed:
        plan.say_place(plan.booking.described)
    plan.approval.say()
    if plan.engine:
        log.labelled("engine", plan.engine)
    log.line()


def _print_followed(plan: Plan) -> None:
    links = [f"{skill}/{link} -> {file}" for skill, files in plan.followed.items() for link, file in files.items()]
    if links:
        log.labelled("  followed", ", ".join(links))


def _print_project(plan: Plan, workspace: project.Project) -> None:
    if plan.settings.derived_image:
        log.labelled("derived image", f"{plan.settings.derived_image} (from {plan.cwd})")
    else:
        log.labelled("workspace", f"{plan.project_folder} (from {plan.cwd})")
    if workspace.repository:
        log.labelled("  git", f"{workspace.repository.described}; the bottle's repository is one of its own")
    if workspace.left_out:
        log.labelled("  left out", f"{len(workspace.left_out)} tracked files, by {project.IGNORE}; not deleted to git")
