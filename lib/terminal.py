"""Questions on the terminal, and its state (shell: tty_require and the questions of lib/log.sh).

Questions are asked on /dev/tty, never on stdin, which may be a pipe that belongs to the session.
"""

from __future__ import annotations

import json
import os
import termios
from collections.abc import Callable
from typing import Any

from claude_bottle.lib import log, wait
from claude_bottle.lib.errors import BottleError, Declined

YES = ("y", "Y", "yes", "YES")

_saved: list[Any] = []  # what tcgetattr said before we, or the session, changed it
_announce: list[Callable[[str], None]] = []


def tty_announce(announce: Callable[[str], None]) -> None:
    """Tell someone how the terminal was before each change of it, so that another process can put it back."""
    _announce[:] = [announce]


def _open() -> int:
    return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)


def tty_exists() -> bool:
    """Say whether there is a terminal to ask on."""
    try:
        os.close(_open())
    except OSError:
        return False
    return True


def tty_require(error: str) -> None:
    """Fail unless there is a terminal (shell: tty_require).

    Raises:
        BottleError: with the given text.
    """
    if not tty_exists():
        raise BottleError(error)


def tty_save() -> None:
    """Remember the terminal's settings until ``tty_restore``; nothing without a terminal."""
    try:
        fd = _open()
    except OSError:
        return
    try:
        _saved[:] = [termios.tcgetattr(fd)]
        for announce in _announce:
            announce(dump_settings(_device(fd), _saved[0]))
    except (OSError, termios.error):
        pass
    finally:
        os.close(fd)


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
    try:
        fd = _open()
    except OSError:  # the terminal is gone, and its settings with it
        return
    _set(fd, settings)
    for announce in _announce:
        announce("")


def _set(fd: int, settings: Any) -> None:
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, settings)
    except (OSError, termios.error):
        pass
    finally:
        os.close(fd)


def dump_settings(path: str, settings: Any) -> str:
    """Return a terminal's device and settings as one text."""
    *numbers, special = settings
    return json.dumps([path, numbers, [c.hex() if isinstance(c, bytes) else c for c in special]])


def restore_settings(text: str) -> None:
    """Put back what ``dump_settings`` wrote, from a process that has no terminal of its own."""
    path, numbers, special = json.loads(text)
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return
    _set(fd, [*numbers, [bytes.fromhex(c) if isinstance(c, str) else c for c in special]])


def _read_line(fd: int) -> tuple[str, bool]:
    """Return what was typed, and whether a newline ended it rather than the end of file."""
    data = b""
    while not data.endswith(b"\n"):
        wait.check_signals()
        ready, _ = wait.wait_for([fd])
        if fd not in ready:
            continue
        try:
            piece = os.read(fd, 4096)
        except OSError:  # the terminal went away
            piece = b""
        if not piece:
            wait.check_signals()
            return data.decode("utf-8", "surrogateescape"), False
        data += piece
    return data[:-1].decode("utf-8", "surrogateescape"), True


def ask_secret(question: str) -> str:
    """Ask for a value that is typed without echo; what stands before an end of file counts (shell: ask_secret).

    Args:
        question: the text between the prefix and the colon.

    Raises:
        Interrupted: a signal arrived; the echo is back on.
    """
    fd = _open()
    try:
        tty_save()
        if _saved:
            silent = list(_saved[0])
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(fd, termios.TCSADRAIN, silent)
        log.ask(f"{question}: ")
        answer, _ = _read_line(fd)
    finally:
        tty_restore()
        os.close(fd)
        log.line()
    return answer


def ask_line(question: str) -> str:
    """Ask for a line; blanks around it are dropped, what stands before an end of file counts (shell: ask_line).

    Args:
        question: the text behind the prefix.

    Raises:
        Interrupted: a signal arrived.
    """
    log.ask(question)
    fd = _open()
    try:
        answer, _ = _read_line(fd)
    finally:
        os.close(fd)
    return answer.strip(" \t")


def confirm(question: str) -> None:
    """Return if the user says yes (shell: confirm).

    Raises:
        BottleError: there is no terminal to ask on.
        Declined: any other answer; it has been said that the user aborted.
        Interrupted: a signal arrived.
    """
    tty_require("cannot ask for confirmation: no terminal")
    log.ask(f"{question} [y/N] ")
    fd = _open()
    try:
        answer, ended = _read_line(fd)
    finally:
        os.close(fd)
    if not ended or answer not in YES:
        log.log_info("aborted by user")
        raise Declined
