"""The session: the values go in, then the terminal is handed over (shell: attach; contract section 9)."""

from __future__ import annotations

import os

from claude_bottle.lib import docker, env_resolve, log, run, terminal
from claude_bottle.lib.agent import SESSION_PROGRAM, VALUES_FILE
from claude_bottle.lib.plan import Plan

TERMINAL = "-it"
TERMINAL_VARIABLES = ("TERM", "COLORTERM")


def feed_values(container: str, secrets: env_resolve.Secrets) -> None:
    """Put the secret values where only the session's first process finds them: a file in memory, read once.

    An ``exec -e`` would pass them through a file on the engine's disk.

    Raises:
        DockerError: docker refused.
    """
    payload = secrets.payload()
    if payload:
        words = ["exec", "-i", container, "sh", "-c", f"umask 077; cat >{VALUES_FILE}"]
        docker.docker_step("docker exec", words, [payload])


def claude_words(plan: Plan) -> list[str]:
    """Return the client's command line."""
    words = ["claude", "--dangerously-skip-permissions"]
    if plan.request.remote_control:
        words.append("--remote-control")
    if plan.prompt:
        words += ["--append-system-prompt-file", plan.prompt_path]
    return [*words, *plan.request.claude_args]


def session_words(plan: Plan, container: str, streams: str) -> list[str]:
    """Return docker's arguments for the session.

    Args:
        plan: of the start.
        container: the agent's id.
        streams: docker's option for what the session gets: a terminal, stdin alone, or nothing.
    """
    words = ["exec", *streams.split()]
    if streams == TERMINAL:
        own = {entry.name for entry in plan.entries}  # what the manifest sets is the manifest's
        for name in TERMINAL_VARIABLES:
            if os.environ.get(name) and name not in own:
                words += ["-e", f"{name}={os.environ[name]}"]
    if plan.request.with_cwd:
        words += ["-w", plan.workspace]
    return [*words, container, SESSION_PROGRAM, VALUES_FILE, *claude_words(plan)]


def attach(plan: Plan, container: str, name: str) -> int:
    """Run the session in the foreground (shell: attach).

    Args:
        plan: of the start.
        container: the agent's id.
        name: its name, for the message.

    Returns:
        The session's own exit status.

    Raises:
        Interrupted: TERM, HUP or an INT that did not come from the keyboard; the client has been ended.
    """
    log.log_info(f"attaching to {name}")
    if terminal.tty_in_foreground():
        words = session_words(plan, container, TERMINAL)
        return terminal.tty_hand_over(lambda: run.finish(run.foreground(words)))
    typed = os.isatty(0)  # by nobody, since what the session says goes elsewhere, or it is in the background
    words = session_words(plan, container, "" if typed else "-i")
    return run.finish(run.foreground(words, no_stdin=typed))
