"""The guard: first process of a bottle and of a broker, which ends it where nobody has renewed its lease for a while.

What it does is in ``guard.pl``; who renews is ``teardown/lease``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from claude_bottle.lib import docker
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Call, Work, keep_the_end

PERL = "/usr/bin/perl"
LOG_LINES = 4
LONGEST = 300  # characters of what it says
LOOK_SECONDS = 5.0
_STATE = "{{.State.Status}} {{.State.ExitCode}}"
PROGRAM = "/usr/local/bin/claude-bottle-guard"
FILE = "guard.pl"
ROOT = "0:0"  # no name of the image's


def guard_words(patience: int) -> list[str]:
    """Return the words that a bottle runs.

    Args:
        patience: how long it lives without a word, in seconds.
    """
    return docker.cleared([PROGRAM, str(patience)])


def renewal_words(container: str, patience: int) -> list[str]:
    """Return docker's arguments for what renews a bottle's lease.

    Args:
        container: its id.
        patience: see ``guard_words``.
    """
    return docker.helper(container, [PROGRAM, "--renew", str(patience)], user=ROOT, flags=["-i"])


def guard_ended(engine: Engine, container: str, where: str) -> Work[DockerError | None]:
    """Look whether a bottle's guard has ended, and the bottle with it; it comes to the error for that, or to None.

    Args:
        engine: to ask; one that gives no answer is no proof.
        container: the bottle's id.
        where: says whose perl runs it.
    """
    look = yield _short(engine, ["container", "inspect", "--format", _STATE, container])
    state, _, status = look.text.partition(" ")
    if not look.ok or state not in ("exited", "dead"):
        return None
    log = yield _short(engine, ["logs", "--tail", str(LOG_LINES), container])
    words = [line[:LONGEST] for line in run.decode(log.out + log.err).splitlines() if line.strip()]
    hint = f"where nobody has ended it: {PERL} of {where} must be a perl that runs what it is given"
    return DockerError(f"the bottle's first process, its guard, has ended with status {status}", [*words, hint])


def _short(engine: Engine, words: Sequence[str]) -> Call:
    return engine.call(words, seconds=LOOK_SECONDS, interruptible=True, heard=keep_the_end)


def guarded(words: Sequence[str], patience: int) -> list[str]:
    """Return the words of a container in which no file can be: they guard others, which run as the same user.

    Args:
        words: a program's path and its arguments.
        patience: see ``guard_words``.
    """
    return [*_inline(), str(patience), *words]


def guarded_renewal_words(container: str, patience: int) -> list[str]:
    """Return docker's arguments for what renews the lease of such a container; see ``renewal_words``."""
    return ["exec", "-i", container, *_inline(), "--renew", str(patience)]


def _inline() -> list[str]:
    return [PERL, "-te", Path(__file__).with_name(FILE).read_text("ascii"), "--"]
