"""The commands, and the one place where a command's end becomes an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from claude_bottle.cli.words import HelpAsked, ShellCommand
from claude_bottle.lib import log, wait
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.report import report

START_USAGE = "start [--dry-run] [--cwd] [--remote-control] [--yes] <agent> [-- <claude args>]"


@click.group(invoke_without_command=True, add_help_option=False)
def commands() -> None:
    """Boots Claude Code agents in isolated containers."""


def later(name: str, usage: str, text: str) -> None:
    """Declare a command of the contract that this version does not have."""

    @commands.command(name, cls=ShellCommand, usage=usage, help=text)
    @click.argument("rest", nargs=-1)
    def command(rest: tuple[str, ...]) -> None:
        raise BottleError(f"{name}: not yet supported")


later("build", "build", "build (or rebuild) the claude-bottle Docker image")
later("cleanup", "cleanup", "stop and remove all active claude-bottle containers")
later("edit", "edit <agent>", "open an agent in vim for editing")
later("info", "info <agent>", "print env, skills, and prompt details for a named agent")
later("init", "init", "interactively create a new agent and add it to claude-bottle.json")
later("list", "list [agents|active]", "list available agents or active containers")


@commands.command(
    "start",
    cls=ShellCommand,
    usage=START_USAGE,
    help="boot a container for a named agent and attach an interactive session",
)
@click.option("--dry-run", "dry_run", is_flag=True)
@click.option("--cwd", "with_cwd", is_flag=True)
@click.option("--remote-control", "remote_control", is_flag=True)
@click.option("--yes", "-y", "yes", is_flag=True)
@click.argument("agent")
@click.argument("rest", nargs=-1)
@click.pass_context
def start(
    ctx: click.Context,
    agent: str,
    dry_run: bool,
    with_cwd: bool,
    remote_control: bool,
    yes: bool,
    rest: tuple[str, ...],
) -> int:
    """Boot a bottle and hand over the terminal."""
    from claude_bottle.lib.plan import Request
    from claude_bottle.lib.start import start as run_start

    request = Request(agent, dry_run, with_cwd, remote_control, yes, rest)
    return run_start(request, logical_cwd(), lambda problem: report(problem, str(ctx.obj)))


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


def usage(program: str) -> None:
    """Print all commands on stderr (shell: usage)."""
    log.line(f"usage: {program} <command> [args...]\n\nCommands:")
    for name, command in sorted(commands.commands.items()):
        log.line(f"  {name:<9} {command.help}")


def main(invoked: str, words: Sequence[str]) -> int:
    """Run one command.

    Args:
        invoked: the path the program was invoked by.
        words: the user's words.

    Returns:
        The exit status.
    """
    program = os.path.basename(invoked)
    if not words:
        usage(program)
        return 2
    name, *rest = words
    if name in ("help", "-h", "--help"):
        usage(program)
        return 0
    if name not in commands.commands:
        log.log_error(f"unknown command: {name}")
        log.line()
        usage(program)
        return 2
    wait.signals_install()
    try:
        result = commands.commands[name].main(rest, program, standalone_mode=False, obj=program)
    except HelpAsked as asked:
        log.line(f"usage: {program} {asked.usage}")
        return 0
    except Exception as problem:
        return report(problem, program)
    return int(result or 0)


def console() -> None:
    """Entry point of the installed program."""
    sys.exit(main(sys.argv[0], sys.argv[1:]))
