"""The commands: their options and arguments, and the one function that each calls."""

from __future__ import annotations

import os

import click
from claude_bottle.cli.words import ShellCommand
from claude_bottle.lib import env
from claude_bottle.lib.errors import BottleError, UsageError
from claude_bottle.lib.host.report import report

CLEANUP_USAGE = "cleanup [--stale [--yes]]"
LIST_USAGE = "list [agents|active]"
START_OPTIONS = "[--dry-run] [--cwd] [--remote-control] [--yes] [--quiet] [--receipt <file>] [--no-bring]"
START_USAGE = f"start {START_OPTIONS} <agent> [-- <claude args>]"


@click.group(invoke_without_command=True, add_help_option=False)
def commands() -> None:
    """Boots Claude Code agents in isolated containers."""


@commands.command("approve", cls=ShellCommand, usage="approve [--yes]")
@click.option("--yes", "-y", "yes", is_flag=True)
def approve(yes: bool) -> int:
    """Approve what the folder's manifest adds."""
    from claude_bottle.lib.approve_command import approve as run_approve

    return run_approve(os.environ, logical_cwd(), yes)


@commands.command("bring", cls=ShellCommand, usage="bring <agent>")
@click.argument("agent")
def bring(agent: str) -> int:
    """Bring the work of an agent's bottles home."""
    from claude_bottle.lib.bring_command import bring_home

    return bring_home(agent)


@commands.command("build", cls=ShellCommand, usage="build")
def build() -> int:
    """Build the images."""
    from claude_bottle.lib.docker import docker_build_plain
    from claude_bottle.lib.engine import docker_require

    settings = env.read_settings(os.environ)
    return docker_build_plain(docker_require(os.environ), settings.image, settings.broker_image)


@commands.command("cleanup", cls=ShellCommand, usage=CLEANUP_USAGE)
@click.option("--stale", "stale", is_flag=True)
@click.option("--yes", "-y", "yes", is_flag=True)
def cleanup(stale: bool, yes: bool) -> int:
    """Remove every bottle, or what killed launches have left."""
    from claude_bottle.lib import cleanup_command

    if stale:
        return cleanup_command.cleanup_stale(yes)
    if yes:
        raise UsageError("--yes goes with --stale only", CLEANUP_USAGE)
    return cleanup_command.cleanup()


@commands.command("edit", cls=ShellCommand, usage="edit <agent>")
@click.argument("agent")
def edit(agent: str) -> int:
    """Open an agent in the user's editor."""
    from claude_bottle.lib.manifest_edit import edit as run_edit

    return run_edit(agent, os.environ, logical_cwd())


@commands.command("info", cls=ShellCommand, usage="info <agent>")
@click.argument("agent")
def info(agent: str) -> int:
    """Print what an agent is granted."""
    from claude_bottle.lib.info import info as run_info

    return run_info(agent, os.environ, logical_cwd())


@commands.command("init", cls=ShellCommand, usage="init")
def init() -> int:
    """Ask for a new agent."""
    from claude_bottle.lib.manifest_edit import init as run_init

    return run_init(os.environ, logical_cwd())


@commands.command("list", cls=ShellCommand, usage=LIST_USAGE)
@click.argument("what", required=False)
def list_command(what: str | None) -> int:
    """List agents or running bottles."""
    from claude_bottle.lib import listing

    if what == "active":
        return listing.list_active()
    if what not in (None, "agents"):
        raise UsageError(f"unexpected argument: {what}", LIST_USAGE)
    settings = env.read_settings(os.environ)
    env.env_require_home(settings)
    return listing.list_agents(logical_cwd(), settings.host_home)


@commands.command("start", cls=ShellCommand, usage=START_USAGE)
@click.option("--dry-run", "dry_run", is_flag=True)
@click.option("--cwd", "with_cwd", is_flag=True)
@click.option("--no-bring", "no_bring", is_flag=True)
@click.option("--remote-control", "remote_control", is_flag=True)
@click.option("--yes", "-y", "yes", is_flag=True)
@click.option("--quiet", "quiet", is_flag=True)
@click.option("--receipt", "receipt")
@click.argument("agent")
@click.argument("rest", nargs=-1)
@click.pass_context
def start(
    ctx: click.Context,
    agent: str,
    dry_run: bool,
    with_cwd: bool,
    no_bring: bool,
    remote_control: bool,
    yes: bool,
    quiet: bool,
    receipt: str,
    rest: tuple[str, ...],
) -> int:
    """Boot a bottle and hand over the terminal."""
    from claude_bottle.lib.engine import Asking

    cwd = logical_cwd()
    asking = Asking(os.environ)  # the engine answers while the rest is imported
    from claude_bottle.lib.plan import Request
    from claude_bottle.lib.start import start as run_start

    request = Request(agent, dry_run, with_cwd, remote_control, yes, quiet, no_bring, receipt, rest)
    return run_start(asking, request, cwd, lambda problem: report(problem, str(ctx.obj)))


@commands.command("verify", cls=ShellCommand, usage="verify <agent>")
@click.argument("agent")
@click.pass_context
def verify(ctx: click.Context, agent: str) -> int:
    """Boot a bottle without a session, and look at its seals."""
    from claude_bottle.lib.engine import Asking

    cwd = logical_cwd()
    asking = Asking(os.environ)
    from claude_bottle.lib.verify import verify as run_verify

    return run_verify(asking, agent, cwd, lambda problem: report(problem, str(ctx.obj)))


def logical_cwd() -> str:
    """Return the caller's working directory with symlinks kept, as ``$PWD`` in the shell.

    Raises:
        BottleError: it has been deleted.
    """
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
        return os.getcwd()
    except OSError:
        raise BottleError("the current directory does not exist") from None
