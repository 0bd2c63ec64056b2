"""``exec``: a command of the user's in a running bottle, beside its session; the shell has no such command.

It runs as the session does, in its folder and with its literals, proxies, authority and placeholders. The values of
``?`` and ``${}`` are the session's alone.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from claude_bottle.lib import docker
from claude_bottle.lib.agent import LASTING_FILE, SESSION_PROGRAM
from claude_bottle.lib.commands import bottles
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import Interrupted
from claude_bottle.lib.host import calls, run, terminal, wait
from claude_bottle.lib.inside import session

TELL_SECONDS = 10.0


def exec_command(word: str, command: Sequence[str]) -> int:
    """Run a command in a bottle.

    Args:
        word: an agent's name or a container's.
        command: the program and its arguments.

    Returns:
        The command's own status.

    Raises:
        BottleError: the engine gave no answer, there is not one such bottle, or the connection to it has broken.
        Interrupted: a signal arrived that could not be passed on.
    """
    found = bottles.the_one(docker_require(os.environ), word)
    beside = Beside(found.engine, found.item.identity, secrets.token_hex(8))
    status = beside.follow(command)
    found.engine.require_link()
    return status


@dataclass(frozen=True)
class Beside:
    """A command beside a session.

    docker's client passes no signal on, and its end is not the command's: both are told to the bottle by a mark.

    Attributes:
        engine: to ask.
        container: the agent's id.
        mark: by which the command is found in the bottle.
    """

    engine: Engine
    container: str
    mark: str

    def follow(self, command: Sequence[str]) -> int:
        """Run it with our own streams; see ``exec_command``."""
        on_terminal, typed = terminal.tty_in_foreground(), os.isatty(0)
        streams = session.TERMINAL if on_terminal else "" if typed else "-i"
        words = [*session.exec_words(streams), self.container, SESSION_PROGRAM, "--beside", self.mark, LASTING_FILE]

        def finish() -> int:
            no_stdin = typed and not on_terminal  # as for a session: nobody types what nobody is shown
            client = self.engine.foreground([*words, *command], no_stdin=no_stdin, alone=not on_terminal)
            return self._await(client)

        return terminal.tty_hand_over(finish) if on_terminal else finish()

    def _await(self, client: run.Process) -> int:
        """Wait for its end, and pass on each signal that comes meanwhile; its own status counts."""
        passed: list[int] = []

        def waiting() -> list[int]:
            return list(wait.signals_seen()[len(passed) :])

        while not run.await_end(client, early=lambda: bool(waiting())):
            for number in waiting():
                passed.append(number)
                if not self._tell(number) and client.poll() is None:
                    run.stop(client)
                    raise Interrupted(number)
        status = run.reap(client)
        killed = [-client.returncode] if client.returncode < 0 else []  # by a closed pipe or terminal, for example
        for number in [*waiting(), *killed][:1]:
            self._tell(number)
        if signal.SIGHUP in wait.signals_seen():  # docker's client has got it too, and knows no status
            raise Interrupted(signal.SIGHUP)
        return status

    def _tell(self, number: int) -> bool:
        """Give a signal to the command and what it has started; say whether it was there to get it."""
        told = [SESSION_PROGRAM, "--tell", str(number), self.mark, LASTING_FILE]
        words = docker.helper(self.container, told, user=session.USER)
        return calls.perform(calls.one(self.engine.call(words, seconds=TELL_SECONDS))).ok
