"""What a start will do, as one frozen record: made before docker makes anything, read by all that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from claude_bottle.lib import docker, env, env_resolve, log, manifest, pipelock, pipelock_hosts, skills, slug, ssh
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.files import project
from claude_bottle.lib.host import terminal
from claude_bottle.lib.problems import Gathered
from claude_bottle.lib.schema.manifest_parse import EnvEntry, SshEntry
from claude_bottle.lib.subnets import host_routes, subnet_pool
from claude_bottle.lib.summary import Grants

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
    claude_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan(Grants):
    """Arguments, manifest and environment of one start: what is granted, and how. No secret's value is in it."""

    request: Request
    settings: env.Settings
    cwd: str
    subnet_pool: IPv4Network
    host_routes: tuple[IPv4Network, ...]
    slug: str
    container: str
    entries: tuple[EnvEntry, ...]
    warnings: tuple[str, ...]
    project: project.Project | None
    followed: Mapping[str, Mapping[str, str]]

    @property
    def dry_run(self) -> bool:
        return self.request.dry_run or self.settings.dry_run

    @property
    def base_name(self) -> str:
        return f"claude-bottle-{self.slug}"

    @property
    def workspace(self) -> str:
        return f"{self.settings.bottle_home}/workspace"

    @property
    def workdir(self) -> str:
        return self.workspace if self.request.with_cwd else self.settings.bottle_home

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
    def yaml(self) -> str:
        ssh_hosts = [entry.hostname for entry in self.ssh]
        return pipelock.pipelock_yaml(self.hosts, ssh_hosts, self.settings.pipelock_port, self.listed)


def make_plan(engine: Engine, request: Request, environ: Mapping[str, str], cwd: str) -> Plan:
    """Look at everything a start depends on, in the shell's order (contract section 6, 2 to 6).

    Args:
        engine: that answered.
        request: the command line.
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.

    Raises:
        BottleError: whatever is wrong with it; nothing has been made.
    """
    settings = env.read_settings(environ)
    env.env_require_home(settings)
    pipelock.pipelock_check_port(settings.pipelock_port)
    routes = host_routes(engine)
    pool = subnet_pool(settings.subnet_pool, routes)
    found = manifest.manifest_load(cwd, settings.host_home)
    agent = request.agent
    gathered = Gathered()
    slugged, container = _check_agent(gathered, engine, found, agent, settings.pinned_container)
    names = manifest.manifest_agent_skills(found, agent)
    with gathered:
        skills.skills_check(settings.host_home, names)
    workspace = None
    with gathered:
        workspace = project.look(cwd) if request.with_cwd else None
    bottle = manifest.manifest_agent_bottle(found, agent)
    dry_run = request.dry_run or settings.dry_run
    keys = _check_bottle(gathered, found, agent, settings.host_home, cwd, None if dry_run else environ)
    gathered.fail(manifest.manifest_unknown_keys(found, agent, bottle))
    entries = env_resolve.env_entries(found, bottle)
    return Plan.of(
        found,
        agent,
        keys,
        settings.has_token,
        request=request,
        settings=settings,
        cwd=cwd,
        subnet_pool=pool,
        host_routes=routes,
        slug=slugged,
        container=container,
        entries=entries,
        warnings=(
            *found.warnings,
            *env_resolve.env_warnings(found, bottle),
            *_warnings(request, settings, bottle, entries, environ),
            *_workspace_warnings(settings, workspace),
        ),
        project=workspace,
        followed={name: skills.skills_followed(settings.host_home, name) for name in names},
    )


def _check_agent(
    gathered: Gathered, engine: Engine, found: manifest.Manifest, agent: str, pinned: str
) -> tuple[str, str]:
    """Return the agent's slug and its container's name, an empty text for one that it cannot have."""
    container = slugged = ""
    with gathered:
        manifest.manifest_require_agent(found, agent)
    if agent not in found.agents or not found.agents[agent].is_object:
        gathered.fail()
    with gathered:
        slugged = slug.agent_slug(agent)
    if not gathered:  # the engine is asked about names only where the agent could have one
        with gathered:
            container = docker.docker_pick_container_name(engine, f"claude-bottle-{slugged}", pinned)
    return slugged, container


def _check_bottle(
    gathered: Gathered,
    found: manifest.Manifest,
    agent: str,
    home: str,
    cwd: str,
    environ: Mapping[str, str] | None,
) -> tuple[SshEntry, ...]:
    """Look at all that the agent's bottle says; what is wrong with one part hides nothing of another."""
    keys: tuple[SshEntry, ...] = ()
    if found.checks.problems("agents", agent, "bottle"):
        return keys
    bottle = manifest.manifest_agent_bottle(found, agent)
    with gathered:
        manifest.manifest_require_bottle(found, agent, bottle)
    with gathered:
        keys = ssh.ssh_load(found, bottle)
    with gathered:
        ssh.ssh_check_keys(cwd, home, ssh.ssh_entries(found, bottle))
    with gathered:
        pipelock_hosts.pipelock_check_allowlist(found, bottle)
    with gathered:
        env_resolve.env_check(found, bottle)
    with gathered:
        env_resolve.env_check_values(found, bottle, RESERVED, environ, terminal.tty_exists())
    return keys


def _warnings(
    request: Request,
    settings: env.Settings,
    bottle: str,
    entries: tuple[EnvEntry, ...],
    environ: Mapping[str, str],
) -> list[str]:
    said = [
        f"bottle '{bottle}': env '{entry.name}' is set by claude-bottle; the manifest's value is ignored"
        for entry in entries
        if entry.name in RESERVED
    ]
    if not settings.has_token and not env_resolve.env_has_login(entries, environ):
        said.append(f"{env.TOKEN_VARIABLE} is not set: Claude Code will ask for a login in the bottle")
    if request.remote_control and settings.has_token:
        said.append("remote control needs a full login; with only a long-lived token Claude Code starts without it")
    return said


def _workspace_warnings(settings: env.Settings, workspace: project.Project | None) -> list[str]:
    if workspace is None:
        return []
    said = workspace.warnings(settings.host_home)
    if settings.derived_image:
        said.append(f"CLAUDE_BOTTLE_DERIVED_IMAGE is set: the engine keeps the project in '{settings.derived_image}'")
    return said


def resolve_secrets(plan: Plan, environ: Mapping[str, str], ask: Callable[[str, str], str]) -> env_resolve.Secrets:
    """Return the session's values, the token among them (shell: env_resolve).

    Args:
        plan: of the start.
        environ: the caller's environment.
        ask: asks for the value of a name, with a question.

    Raises:
        BottleError: a host variable is not set, or no value was entered.
    """
    secrets = env_resolve.env_resolve(plan.entries, environ, ask, RESERVED)
    if plan.settings.has_token:
        secrets.add(env.TOKEN_NAME, environ[env.TOKEN_VARIABLE])
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
    links = [f"{skill}/{link} -> {file}" for skill, files in plan.followed.items() for link, file in files.items()]
    if links:
        log.labelled("  followed", ", ".join(links))
    plan.say_bottle()
    plan.say_prompt()
    log.labelled("remote-control", "enabled" if plan.request.remote_control else "disabled")
    log.line()


def _print_project(plan: Plan, workspace: project.Project) -> None:
    if plan.settings.derived_image:
        log.labelled("derived image", f"{plan.settings.derived_image} (from {plan.cwd})")
    else:
        log.labelled("workspace", f"{plan.workspace} (from {plan.cwd})")
    if workspace.left_out:
        log.labelled("  left out", f"{len(workspace.left_out)} tracked files, by {project.IGNORE}; not deleted to git")
