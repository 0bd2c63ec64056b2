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
MOST_AT_ONCE = 64 << 20  # bytes; the engine needs a tenth of a second more for each


def copy_in(
    engine: Engine,
    what: str,
    container: str,
    pieces: Iterable[bytes],
    seconds: float | None = None,
    folder: str = "/",
) -> Work[None]:
    """Unpack a tar stream in a folder of a container; a long one in parts.

    As long as one is unpacked the engine answers nothing else about the container, not even who renews its lease.

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

    words, told = ["cp", "-", f"{container}:{folder}"], _Told()
    for part in tarstream.parts(pieces, MOST_AT_ONCE):
        data = told.passing(tarstream.packed(part))
        try:
            result = yield engine.call(words, stdin=data, seconds=seconds, interruptible=True)
        except OSError as problem:
            raise BottleError(f"{what} failed: {problem.strerror}: {problem.filename}") from None
        if not result.ok:
            raise DockerError(f"{what} failed: {result.failure}")


class _Told:
    """Says now and then how much has gone, to a user at a terminal."""

    def __init__(self) -> None:
        self._sent, self._on_terminal = 0, os.isatty(log.STDERR)
        self._due = time.monotonic() + QUIET_SECONDS

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a stream on."""
        for piece in pieces:
            yield piece
            self._sent += len(piece)
            if self._on_terminal and time.monotonic() >= self._due:
                log.log_info(f"copied {self._sent >> 20} MiB so far")
                self._due = time.monotonic() + EVERY_SECONDS
