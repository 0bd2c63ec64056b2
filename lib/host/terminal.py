"""Questions on the terminal, and its state (shell: tty_require and the questions of lib/log.sh).

Questions are asked on /dev/tty, never on stdin, which may be a pipe that belongs to the session.
"""

from __future__ import annotations

import json
import os
import re
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.errors import BottleError, Declined
from claude_bottle.lib.host import wait

YES = ("y", "Y", "yes", "YES")
PASTE_SECONDS = 0.1  # within which the rest of a paste comes
SEVERAL_LINES = ["a secret is one line: give a longer one as a host variable, ${NAME} in the manifest"]
# Undoes what a program that was ended has left. Where there is nothing to undo nothing changes: leaving the alternate
# screen and setting the margins move the cursor, which is therefore saved before.
RESET = (
    b"\x1b7\x1b[?1049l\x1b7\x1b[r\x1b8"  # alternate screen, margins
    b"\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l"  # mouse
    b"\x1b[?1004l\x1b[?2004l\x1b[?2026l\x1b[?2031l"  # focus, paste, synchronised output, colour scheme reports
    b"\x1b[<u\x1b[>4;0m\x1b[?1l\x1b>"  # key reports of kitty and of xterm, cursor keys and keypad
    b"\x1b[?7h\x1b[?25h\x1b[0 q\x1b(B\x0f\x1b[0m"  # wrap, cursor and its shape, letters, colours
)

_saved: list[Any] = []  # what tcgetattr said before we, or the session, changed it
_announce: list[Callable[[str], None]] = []


def tty_announce(announce: Callable[[str], None]) -> None:
    """Tell someone how the terminal was before each change of it, so that another process can put it back."""
    _announce[:] = [announce]


@contextmanager
def _terminal() -> Iterator[int]:
    fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    try:
        yield fd
    finally:
        os.close(fd)


def tty_exists() -> bool:
    """Say whether there is a terminal to ask on."""
    with suppress(OSError), _terminal():
        return True
    return False


def tty_require(error: str) -> None:
    """Fail unless there is a terminal (shell: tty_require).

    Raises:
        BottleError: with the given text.
    """
    if not tty_exists():
        raise BottleError(error)


def tty_save(*, screen: bool = False) -> None:
    """Remember the terminal's settings until ``tty_restore``; nothing without a terminal.

    Args:
        screen: a program gets it that may change what its screen shows and its keys send.
    """
    with suppress(OSError, termios.error), _terminal() as fd:
        _saved[:] = [termios.tcgetattr(fd)]
        for announce in _announce:
            announce(dump_settings(_device(fd), _saved[0], screen))


def tty_in_foreground() -> bool:
    """Say whether stdin and stdout are a terminal that is ours to read: who does so in the background is stopped."""
    if not (os.isatty(0) and os.isatty(1)):
        return False
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # not the one that controls us: nobody stops us
        return True


def tty_hand_over(program: Callable[[], int]) -> int:
    """Let a program have the terminal, which is as before after it, also where the program was ended for it.

    Args:
        program: runs it.

    Returns:
        Its status.
    """
    tty_save(screen=os.isatty(1))
    ended = True
    try:
        status = program()
        ended = status > 128
        return status
    finally:
        if ended and os.isatty(1):
            _reset_screen(1)
        tty_restore()


def _reset_screen(fd: int) -> None:
    log.hurry()
    log.write(RESET, fd)


def _device(fd: int) -> str:
    """Return the terminal's path under which another process can open it, which ``/dev/tty`` is not."""
    for standard in (0, 1, 2):
        try:
            os.tcgetpgrp(standard)  # only the controlling terminal answers
            return os.ttyname(standard)
        except OSError:
            continue
    return os.ttyname(fd)


def tty_restore() -> None:
    """Put the remembered settings back (shell: tty_restore); nothing when there are none."""
    if not _saved:
        return
    settings = _saved.pop()
    with suppress(OSError), _terminal() as fd:  # it may be gone, and its settings with it
        if os.tcgetpgrp(fd) == os.getpgrp():  # else it is somebody else's by now, and we would be stopped
            _set(fd, settings)
    for announce in _announce:
        announce("")


def _set(fd: int, settings: Any) -> None:
    """Set without waiting for output, which may be stopped, and drop what was typed or answered under the others."""
    with suppress(OSError, termios.error):
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        termios.tcflush(fd, termios.TCIFLUSH)


def dump_settings(path: str, settings: Any, screen: bool) -> str:
    """Return a terminal's device and settings, and whether its screen may be changed too, as one text."""
    *numbers, special = settings
    return json.dumps([path, screen, numbers, [c.hex() if isinstance(c, bytes) else c for c in special]])


def restore_settings(text: str) -> None:
    """Put back what ``dump_settings`` wrote, from a process that has no terminal of its own."""
    path, screen, numbers, special = json.loads(text)
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return
    _set(fd, [*numbers, [bytes.fromhex(c) if isinstance(c, str) else c for c in special]])
    if screen:
        _reset_screen(fd)
    os.close(fd)


def _read(fd: int) -> bytes:
    """Wait for what is typed and return it; nothing at an end of file, or when the terminal has gone."""
    while True:
        wait.check_signals()
        ready, _ = wait.wait_for([fd])
        if fd not in ready:
            continue
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            wait.check_signals()
        return data


def _read_line(fd: int) -> tuple[str, bool]:
    """Return what was typed, and whether a newline ended it rather than the end of file."""
    data = b""
    while not data.endswith(b"\n"):
        piece = _read(fd)
        if not piece:
            return data.decode("utf-8", "surrogateescape"), False
        data += piece
    return data[:-1].decode("utf-8", "surrogateescape"), True


def _key(special: Sequence[bytes | int], index: int) -> bytes:
    """Return a control character, nothing for one that is switched off."""
    key = special[index]
    return key if isinstance(key, bytes) and key not in (b"\0", b"\xff") else b""


class _HiddenLine:
    """A line that is edited here as a terminal does it: a terminal would cut it after 4,095 bytes.

    Args:
        special: the terminal's control characters.
    """

    def __init__(self, special: Sequence[bytes | int]) -> None:
        self.typed = bytearray()
        self.ends = {b"\n", b"\r", _key(special, termios.VEOF)}
        self.erases = {b"\x08", b"\x7f", _key(special, termios.VERASE)}
        self.clear, self.shorten = _key(special, termios.VKILL), _key(special, termios.VWERASE)

    @property
    def text(self) -> str:
        return self.typed.decode("utf-8", "surrogateescape")

    def take(self, data: bytes) -> bytes | None:
        """Take what was typed; return what stands behind the line's end, None before it has come."""
        for number in range(len(data)):
            key = data[number : number + 1]
            if key in self.ends:
                return data[number + 1 :]
            if key in self.erases:
                self._keep(self.text[:-1])
            elif key == self.clear:
                self._keep("")
            elif key == self.shorten:
                self._keep(re.sub(r"\S*\s*\Z", "", self.text))
            else:
                self.typed += key
        return None

    def _keep(self, text: str) -> None:
        self.typed[:] = text.encode("utf-8", "surrogateescape")


def _read_hidden(fd: int, settings: Any, what: str) -> str:
    """Return one line; nothing that was typed behind it is left for whoever reads next."""
    line = _HiddenLine(settings[-1])
    rest = None
    while rest is None:
        data = _read(fd)
        rest = line.take(data) if data else b""
    if (rest + _read_rest(fd)).strip(b" \t" + b"".join(line.ends)):
        raise BottleError(f"{what} has several lines", SEVERAL_LINES)
    return line.text


def _read_rest(fd: int) -> bytes:
    """Return what comes until the terminal is quiet."""
    said = b""
    quiet = time.monotonic() + PASTE_SECONDS
    while time.monotonic() < quiet:
        wait.check_signals()
        ready, _ = wait.wait_for([fd], deadline=quiet)
        if ready:
            piece = _read(fd)
            if not piece:
                break
            said += piece
            quiet = time.monotonic() + PASTE_SECONDS
    return said


def ask_secret(question: str, what: str) -> str:
    """Ask for a value that is typed without echo; what stands before an end of file counts (shell: ask_secret).

    Args:
        question: the text between the prefix and the colon.
        what: how an error names the value.

    Raises:
        BottleError: several lines were pasted.
        Interrupted: a signal arrived; the echo is back on.
    """
    with _terminal() as fd:
        try:
            return _ask_silently(fd, question, what)
        finally:
            tty_restore()
            log.line()


def _ask_silently(fd: int, question: str, what: str) -> str:
    tty_save()
    settings = _saved[0] if _saved else None
    if settings:
        _set(fd, _silent(settings))
    log.ask(f"{question}: ")
    return _read_hidden(fd, settings, what) if settings else _read_line(fd)[0]


def _silent(settings: Any) -> Any:
    """Return settings without echo and without a limit to a line."""
    silent = [*settings[:-1], list(settings[-1])]
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    silent[-1][termios.VMIN], silent[-1][termios.VTIME] = 1, 0
    return silent


def ask_line(question: str) -> str:
    """Ask for a line; blanks around it are dropped, what stands before an end of file counts (shell: ask_line).

    Args:
        question: the text behind the prefix.

    Raises:
        Interrupted: a signal arrived.
    """
    return _answer(question)[0].strip(" \t")


def _answer(question: str) -> tuple[str, bool]:
    """Return what was typed, and whether a newline ended it rather than the end of file."""
    log.ask(question)
    with _terminal() as fd:
        return _read_line(fd)


def confirm(question: str) -> None:
    """Return if the user says yes (shell: confirm).

    Raises:
        BottleError: there is no terminal to ask on.
        Declined: any other answer; it has been said that the user aborted.
        Interrupted: a signal arrived.
    """
    tty_require("cannot ask for confirmation: no terminal")
    answer, ended = _answer(f"{question} [y/N] ")
    if not ended or answer not in YES:
        log.log_info("aborted by user")
        raise Declined
