"""The only writer of the launcher: messages on stderr, data on stdout (shell: lib/log.sh).

A terminal that is gone or a closed pipe never raises here: the teardown reports to whoever still listens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

PREFIX = "claude-bottle: "
STDOUT = 1
STDERR = 2


def encode(text: str) -> bytes:
    """Return the bytes of a text; bytes that were not UTF-8 when they came in leave as they were.

    Args:
        text: any text, undecodable bytes in it as lone surrogates.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte, as JSON may hold
        return text.encode("utf-8", "replace")


def write(data: bytes, fd: int = STDERR) -> None:
    """Write bytes as they are.

    Args:
        data: what to write.
        fd: 1 or 2.
    """
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # a descriptor shared with a program that made it non-blocking
            _wait_until_writable(fd)
        except OSError:
            return


def _wait_until_writable(fd: int) -> None:
    # Not the waiting function: it would make the only writer depend on what reports through it.
    import select

    select.select([], [fd], [], 1.0)


def line(text: str = "") -> None:
    """Write one line on stderr without the prefix."""
    write(encode(text) + b"\n")


def data_line(text: str = "") -> None:
    """Write one line of data on stdout."""
    write(encode(text) + b"\n", STDOUT)


def log_info(text: str) -> None:
    """Say what happens (shell: log_info)."""
    line(PREFIX + text)


def log_warn(text: str) -> None:
    """Say what the user should know (shell: log_warn)."""
    line(f"{PREFIX}warning: {text}")


def log_error(text: str) -> None:
    """Say what ends the command (shell: log_error)."""
    line(f"{PREFIX}error: {text}")


def log_hint(text: str) -> None:
    """Help with the error just printed; the shell has no such line (contract 14.15)."""
    for part in text.splitlines():
        line(f"{PREFIX}hint: {part}")


def ask(question: str) -> None:
    """Print a question without a newline; its answer is typed behind it."""
    write(encode(PREFIX + question))


def labelled(label: str, text: str) -> None:
    """Print one line of the preflight or of ``info`` (shell: labelled)."""
    log_info(f"{label:<16} : {text}")


def join_words(separator: str, words: Sequence[str]) -> str:
    """Return the words in one line, or ``(none)`` (shell: join_words)."""
    return separator.join(words) if words else "(none)"
