"""Files on their way into a container, with a word to the user where it takes long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from claude_bottle.lib import log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.host.calls import Work

QUIET_SECONDS = 2.0
EVERY_SECONDS = 3.0


def copy_in(
    engine: Engine,
    what: str,
    container: str,
    pieces: Iterable[bytes],
    seconds: float | None = None,
    folder: str = "/",
) -> Work[None]:
    """Unpack a tar stream in a folder of a container.

    Args:
        engine: that has the container.
        what: begins the error line.
        container: its id.
        pieces: of the stream, without its end; their paths begin without a slash.
        seconds: the longest that the engine may take nothing and say nothing, if not as for any change.
        folder: to unpack in; the root, if none is named.

    Raises:
        BottleError: a file cannot be read, or docker refused.
        Interrupted: a signal arrived meanwhile.
    """

    def stream() -> Iterator[bytes]:
        yield from pieces
        yield tarstream.END

    words, data = ["cp", "-", f"{container}:{folder}"], _told(tarstream.packed(stream()))
    try:
        result = yield engine.call(words, stdin=data, seconds=seconds, interruptible=True)
    except OSError as problem:
        raise BottleError(f"{what} failed: {problem.strerror}: {problem.filename}") from None
    if not result.ok:
        raise DockerError(f"{what} failed: {result.failure}")


def _told(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Say now and then how much has gone, to a user at a terminal."""
    sent, on_terminal = 0, os.isatty(log.STDERR)
    due = time.monotonic() + QUIET_SECONDS
    for piece in pieces:
        yield piece
        sent += len(piece)
        if on_terminal and time.monotonic() >= due:
            log.log_info(f"copied {sent >> 20} MiB so far")
            due = time.monotonic() + EVERY_SECONDS
