"""The guard: first process of a bottle and of a broker, which ends it where nobody has renewed its lease for a while.

What it does is in ``guard.pl``; who renews is ``teardown/lease``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from claude_bottle.lib import docker

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
    return ["/usr/bin/perl", "-te", Path(__file__).with_name(FILE).read_text("ascii"), "--"]
