"""The session: seals are proved, values go in, the terminal is handed over (shell: attach; contract section 9)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence

from claude_bottle.lib import docker, log, pipelock
from claude_bottle.lib.agent import SESSION_PROGRAM, VALUES_FILE
from claude_bottle.lib.egress.watch import Losses, Watch
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.host import calls, run, terminal
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.inside import seals
from claude_bottle.lib.plan import Plan

USER = "node"
TERMINAL = "-it"
TERMINAL_VARIABLES = ("TERM", "COLORTERM")
# Nobody types this: an empty value means docker's own keys, and "none" is refused.
DETACH_KEYS = ("--detach-keys", ",".join(["ctrl-@"] * 6))


def prepare(engine: Engine, container: str, values: bytes, words: Sequence[str], watch: Watch) -> Work[str]:
    """Have the bottle look at its seals, and put the values where only the session's first process finds them.

    That is a file in memory, read once: an ``exec -e`` would pass the values through a file on the engine's disk, and
    every helper would obey a container's own. Where a seal is broken there will be none.

    Args:
        engine: to ask.
        container: the agent's id.
        values: the session's.
        words: what the program is told: the sidecar's host name and its port, and of the seals.
        watch: notices the sidecar's end.

    Returns:
        What the program says.

    Raises:
        BottleError: docker refused, or the sidecar does not answer.
        Interrupted: a signal arrived meanwhile.
    """
    program = [seals.PROGRAM, VALUES_FILE, *words]
    call = docker.helper(container, program, user=USER, flags=["-i"], seen=seals.placeholder_names(words))
    most = pipelock.HEALTHY_SECONDS + run.QUERY_SECONDS
    done = yield engine.call(
        call,
        seconds=most,
        stdin=[values],
        interruptible=True,
        needless=lambda: watch.is_alone,
        heard=calls.keep_the_end,
    )
    return pipelock.pipelock_answered(done, watch, "docker exec")


def value_words(plan: Plan) -> Iterator[str]:
    """Yield what the program that proves the seals is told of the values that commands beside the session get.

    Args:
        plan: of the start.
    """
    yield from (f"once={name}" for name in plan.once)
    if plan.request.with_cwd:
        yield f"folder={plan.workdir}"


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
    words = exec_words(streams, {entry.name for entry in plan.entries})  # what the manifest sets is the manifest's
    if plan.request.with_cwd:
        words += ["-w", plan.workdir]
    return [*words, container, SESSION_PROGRAM, VALUES_FILE, *claude_words(plan)]


def exec_words(streams: str, own: Collection[str] = ()) -> list[str]:
    """Return the beginning of docker's arguments for what somebody runs in a bottle.

    Args:
        streams: see ``session_words``.
        own: variables that are not to come from the terminal here.
    """
    words = ["exec", "-u", USER, *streams.split()]
    if streams == TERMINAL:
        words += DETACH_KEYS
        for name in TERMINAL_VARIABLES:
            if os.environ.get(name) and name not in own:
                words += ["-e", f"{name}={os.environ[name]}"]
    return words


def attach(
    engine: Engine,
    plan: Plan,
    container: str,
    name: str,
    watches: Sequence[Watch],
    look: Callable[[], float],
    silent: Callable[[], bool],
) -> int:
    """Run the session in the foreground, and look after sidecar and broker meanwhile (shell: attach).

    Args:
        engine: to ask.
        plan: of the start.
        container: the agent's id.
        name: its name, for the message.
        watches: notice the end of the sidecar, and of the broker if there is one.
        look: see ``calls.finish``.
        silent: says whether nothing is heard of the bottle any more.

    Returns:
        The session's own exit status.

    Raises:
        SidecarLost: one of them has ended before the bottle, and no terminal's session is told of it afterwards.
        LinkLost: the connection to an engine that is elsewhere has broken: the status is not the session's.
        Interrupted: TERM, HUP or an INT that did not come from the keyboard; the client has been ended.
    """
    log.log_info(f"attaching to {name}")
    on_terminal = terminal.tty_in_foreground()
    losses = Losses(engine, container, watches)

    def gone() -> bool:
        return engine.is_cut_off or (not engine.is_local and silent())  # what is slow here is no lost connection

    try:
        if on_terminal:
            words = session_words(plan, container, TERMINAL)
            status = terminal.tty_hand_over(lambda: calls.finish(engine.foreground(words), gone, look))
        else:
            status = _without_terminal(engine, plan, container, lambda: gone() or losses.seen(), look)
    finally:
        pipelock.say_refused(watches[0], plan.bottle)
    engine.require_link()  # first: over a broken one every other question takes long
    if gone():
        raise engine.lost("nothing has been heard from there for a while")
    for lost in [watch.lost() for watch in losses.found()][:1]:
        if not on_terminal:
            raise lost
        log.log_warn(lost.message)
    if not engine.is_local and any(watch.is_cut_off() for watch in watches):
        raise engine.lost("what was attached there was cut off")
    return status


def _without_terminal(
    engine: Engine, plan: Plan, container: str, needless: Callable[[], bool], look: Callable[[], float]
) -> int:
    typed = os.isatty(0)  # by nobody, since what the session says goes elsewhere, or it is in the background
    words = session_words(plan, container, "" if typed else "-i")
    session = engine.foreground(words, no_stdin=typed)
    return calls.finish(session, needless, look)
