"""Finds the command that is asked for; the one place where a command's end becomes an exit status.

What only one command needs is imported there: whoever asks for help does not wait for the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from claude_bottle.lib import log
from claude_bottle.lib.host import process

COMMANDS = {
    "approve": "approve what this folder's claude-bottle.json adds to your own",
    "bring": "bring the work of an agent's bottles home, as the end of a session does",
    "build": "build (or rebuild) the claude-bottle Docker image",
    "cleanup": "stop and remove all active claude-bottle containers",
    "edit": "open an agent in vim for editing",
    "info": "print env, skills, and prompt details for a named agent",
    "init": "interactively create a new agent and add it to claude-bottle.json",
    "list": "list available agents or active containers",
    "start": "boot a container for a named agent and attach an interactive session",
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
    program = os.path.basename(invoked)
    if words and words[0] in COMMANDS:
        return _command(program, *words)
    asked = bool(words) and words[0] in ("help", "-h", "--help")
    if words and not asked:
        log.log_error(f"unknown command: {words[0]}")
        log.line()
    usage(program)
    return 0 if asked else 2


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
        log.line(f"usage: {program} {asked.usage}")
        return 0
    except Exception as problem:
        return report(problem, program)
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
