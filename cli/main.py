"""Finds the command that is asked for; the one place where a command's end becomes an exit status.

What only one command needs is imported there: whoever asks for help does not wait for the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from claude_bottle.lib import log
from claude_bottle.lib.host import process

HELP = ("help", "-h", "--help")
VERSION = "--version"
COMPLETE_VARIABLE = "_CLAUDE_BOTTLE_COMPLETE"  # has a value where a shell asks what can stand at the cursor
COMMANDS = {
    "approve": "approve what this folder's claude-bottle.json adds to your own",
    "bring": "bring the work of an agent's bottles home, as the end of a session does",
    "build": "build (or rebuild) the claude-bottle Docker image",
    "cleanup": "stop and remove all active claude-bottle containers",
    "completion": "print what has bash, zsh or fish complete command lines",
    "doctor": "look at all that a start depends on, and say what mends it",
    "edit": "open an agent in vim for editing",
    "exec": "run a command in a running bottle, beside its session",
    "info": "print env, skills, and prompt details for a named agent",
    "init": "interactively create a new agent and add it to claude-bottle.json",
    "list": "list available agents or active containers",
    "logs": "print what a running bottle's sidecar has let out and refused",
    "start": "boot a container for a named agent and attach an interactive session",
    "stop": "end a running bottle, or all of yours, as its session's end would",
    "top": "show the bottles that there are, live, with keys to stop one",
    "verify": "boot an agent's container without a session and look at its seals",
}


def usage(program: str) -> None:
    """Print all commands on stderr (shell: usage)."""
    for line in (f"usage: {program} <command> [args...]", "", "Commands:"):
        log.line(line)
    for name, purpose in COMMANDS.items():
        log.line(f"  {name:<9} {purpose}")


def main(invoked: str, words: Sequence[str]) -> int:
    """Run one command.

    Args:
        invoked: the path the program was invoked by.
        words: the user's words.

    Returns:
        The exit status.
    """
    if instruction := os.environ.get(COMPLETE_VARIABLE, ""):
        return _complete(os.path.basename(invoked), instruction)
    program, first, second = os.path.basename(invoked), *[*words, "", ""][:2]
    asked = first in HELP
    if first == HELP[0] and second:
        first, words, asked = second, [second, "--help"], False
    if first in COMMANDS:
        return _command(program, *words)
    if first == VERSION:
        return _version(program)
    if words and not asked:
        _unknown(first)
    usage(program)
    return 0 if asked else 2


def _complete(program: str, instruction: str) -> int:
    from claude_bottle.cli.commands import commands
    from claude_bottle.cli.completion import complete

    with suppress(Exception):  # in the midst of a line that is typed nobody wants to hear of it
        for name, purpose in COMMANDS.items():
            commands.commands[name].short_help = purpose
        complete(commands, program, instruction)
    return 0


def _unknown(word: str) -> None:
    from difflib import get_close_matches

    log.log_error(f"unknown command: {word}")
    for name in get_close_matches(word.strip().lower(), COMMANDS, 1):
        log.log_hint(f"did you mean '{name}'?")
    log.line()


def _version(program: str) -> int:
    from claude_bottle.lib.host.report import report
    from claude_bottle.lib.version import launcher_version

    try:
        log.data((f"claude-bottle {launcher_version()}",))
    except Exception as problem:
        return report(problem, program)
    return 0


def _command(program: str, name: str, *rest: str) -> int:
    from claude_bottle.lib.host import wait
    from claude_bottle.lib.withhold import withhold

    process.forbid_cores()
    wait.signals_install()
    withhold(os.environ)
    from claude_bottle.cli.commands import commands
    from claude_bottle.cli.words import HelpAsked
    from claude_bottle.lib.host.report import report
    from claude_bottle.lib.teardown import notes

    notes.show()
    try:
        result = commands.commands[name].main(list(rest), program, standalone_mode=False, obj=program)
    except HelpAsked as asked:
        for line in asked.command.help_lines(program):
            log.line(line)
        return 0
    except Exception as problem:
        return report(problem, program)
    finally:
        process.end()
    return int(result or 0)


def run(invoked: str, words: Sequence[str]) -> NoReturn:
    """Run one command and end the program with its status.

    At once, for all is written and removed by now: Python's own end takes a sixth of the time of a ``list``, and gives
    the signals their first meaning back, so that a Ctrl-C in it would make a failure of what has been done.

    Args:
        invoked: the path the program was invoked by.
        words: the user's words.
    """
    os._exit(main(invoked, words))


def console() -> None:
    """Entry point of the installed program."""
    process.standard_descriptors()
    run(sys.argv[0], sys.argv[1:])
