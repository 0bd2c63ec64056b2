"""The only writer of the launcher: messages on stderr, data on stdout (shell: lib/log.sh).

A terminal that is gone or a closed pipe never raises on stderr: the teardown reports to whoever still listens. A reader
who pauses is waited for, but a stopping signal is heard meanwhile, and a command that ends does not wait for long.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from claude_bottle.lib.errors import BottleError, ReaderGone
from claude_bottle.lib.host import wait

PREFIX = "claude-bottle: "
STDOUT = 1
STDERR = 2
PIECE = 512  # what a pipe that is said to be writable takes without blocking, on every system
RETRY_SECONDS = 0.05
LAST_WORDS_SECONDS = 1.0

# Control and format characters, separators that end a line, and what else has no shape of its own.
_UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_COLOURS = {"ok": "32", "warning": "33", "error": "31;1", "problem": "31;1", "hint": "36"}
_WIPE = b"\r\x1b[K"
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}

_own: dict[int, int] = {}  # for a terminal, a descriptor whose mode no other program shares
_held: list[list[bytes]] = []  # where messages go for now, the innermost last
_passing: list[bytes] = []  # what stands in the terminal's last line for a while
_ending: list[float] = []  # until when the readers of a command that ends are waited for


def encode(text: str) -> bytes:
    """Return the bytes of a text; bytes that were not UTF-8 when they came in leave as they were.

    Args:
        text: any text, undecodable bytes in it as lone surrogates.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte, as JSON may hold
        return text.encode("utf-8", "replace")


def visible(text: str) -> str:
    """Return a text in which every character that a terminal obeys, or shows nothing for, is spelt out.

    Args:
        text: any text; half characters in it may make up a whole one.
    """
    return _UNSEEN.sub(_spelt, encode(text).decode("utf-8", "surrogateescape"))


def _spelt(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    form = "\\x{:02x}" if number < 0x100 else "\\u{:04x}" if number < 0x10000 else "\\U{:08x}"
    return _SHORT.get(character) or form.format(number)


def hurry() -> None:
    """Stop waiting for readers, but for a second in all: the command ends, and what it made must go."""
    if not _ending:
        _ending.append(time.monotonic() + LAST_WORDS_SECONDS)
    passing("")


def write(data: bytes, fd: int = STDERR) -> None:
    """Write bytes as they are; what nobody takes is dropped.

    Args:
        data: what to write.
        fd: where to.
    """
    if _held and fd == STDERR:
        _held[-1].append(data)
        return
    if _passing and fd == STDERR:
        _passing.clear()
        data = _WIPE + data
    with suppress(OSError):
        _write(data, fd)


def obeys(fd: int = STDERR) -> bool:
    """Say whether a descriptor is a terminal that obeys: it has colours, and a line in it can be written again.

    Args:
        fd: the descriptor.
    """
    return os.isatty(fd) and os.environ.get("TERM", "dumb") not in ("", "dumb")


def passing(text: str) -> None:
    """Show a text, on a terminal that ``obeys``, until something else is said; an empty one takes it away.

    Args:
        text: less than a line.
    """
    if text or _passing:
        write(encode(visible(text)))
        _passing[:] = [b""] if text else []


def _painted(word: str, fd: int) -> bytes:
    """Return a word in its colour, where there are colours and nobody minds (https://no-color.org)."""
    if word in _COLOURS and obeys(fd) and not os.environ.get("NO_COLOR"):
        return f"\x1b[{_COLOURS[word]}m{word}\x1b[0m".encode()
    return encode(visible(word))


@contextmanager
def held(pieces: list[bytes]) -> Iterator[None]:
    """Keep what is said on stderr, for as long as the block runs.

    Args:
        pieces: what it is added to.
    """
    _held.append(pieces)
    try:
        yield
    finally:
        _held.pop()


def _write(data: bytes, fd: int) -> bool:
    """Write when the descriptor is ready, and say whether all was taken; give up when told to stop and nobody reads."""
    own = _own_descriptor(fd)
    rest = memoryview(data)
    while rest:
        if wait.pending_signal() is not None:
            hurry()
        deadline = _ending[0] if _ending else None
        _, ready = wait.wait_for(writable=[own], deadline=deadline)
        try:
            if ready:
                rest = rest[os.write(own, rest[:PIECE]) :]
                continue
        except BlockingIOError:  # too little room for what comes next
            wait.pause(RETRY_SECONDS)
        if deadline is not None and time.monotonic() >= deadline:
            return False
    return True


def _own_descriptor(fd: int) -> int:
    """Return a descriptor that never blocks, where it is a terminal that can be opened; a ready one takes any amount.

    Setting the mode on the one we got would set it for every program that shares the terminal.
    """
    if fd not in _own:
        try:
            _own[fd] = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            _own[fd] = fd
    return _own[fd]


def line(text: str = "") -> None:
    """Write one line on stderr without the prefix."""
    write(encode(visible(text)) + b"\n")


def data(*lines: Sequence[str], rated: bool = False) -> None:
    """Write a command's data on stdout; a signal that comes while they are taken is too late to change anything.

    Args:
        lines: the fields of each, which get tabs between them.
        rated: the word that each begins with has a colour on a terminal.

    Raises:
        BottleError: it cannot be written.
        Interrupted: a stopping signal has arrived before, or while nobody read.
        ReaderGone: nobody reads any more.
    """
    texts = ["\t".join(map(visible, fields)) for fields in lines]
    whole = b"".join((_rated(text) if rated else encode(text)) + b"\n" for text in texts)
    try:
        wait.check_signals()
        if not _write(whole, STDOUT):
            wait.check_signals()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as problem:
        raise BottleError(f"cannot write to stdout: {problem.strerror}") from None


def _rated(text: str) -> bytes:
    word, blank, rest = text.partition(" ")
    return _painted(word, STDOUT) + encode(blank + rest)


def data_json(value: object) -> None:
    """Write a command's data on stdout as JSON, in ASCII; it fails as ``data`` does."""
    import json  # for few commands

    text = json.dumps(value, indent=2).replace("\x7f", "\\u007f")  # the one that JSON does not spell out
    data(*((line,) for line in text.split("\n")))


def log_info(text: str) -> None:
    """Say what happens (shell: log_info)."""
    line(PREFIX + text)


def log_warn(text: str, *, lines: bool = False) -> None:
    """Say what the user should know (shell: log_warn).

    Args:
        text: the message.
        lines: it ends in docker's words, whose line breaks stay.
    """
    _say("warning", text, lines)


def log_error(text: str, *, lines: bool = False) -> None:
    """Say what ends the command (shell: log_error).

    Args:
        text: the message.
        lines: it ends in docker's words, whose line breaks stay.
    """
    _say("error", text, lines)


def _say(word: str, text: str, lines: bool = False) -> None:
    first, *others = text.split("\n") if lines else [text]
    write(encode(PREFIX) + _painted(word, STDERR) + encode(visible(f": {first}")) + b"\n")
    for other in others:
        line(other)


def log_hint(text: str) -> None:
    """Help with the error just printed; the shell has no such line (contract 14.15)."""
    _say("hint", text)


def ask(question: str) -> None:
    """Print a question without a newline; its answer is typed behind it."""
    write(encode(visible(PREFIX + question)))


def labelled(label: str, text: str) -> None:
    """Print one line of the preflight or of ``info`` (shell: labelled)."""
    log_info(f"{label:<16} : {text}")


def join_words(separator: str, words: Sequence[str]) -> str:
    """Return the words in one line, or ``(none)`` (shell: join_words)."""
    return separator.join(words) if words else "(none)"
