"""The line that tests go by: what goes a long way, what is cut, and what a hole swallows."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.line import CUT, HOLE, PASS, Line


@pytest.fixture
def there() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(30)
        yield made


def connected(line: Line, there: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection that goes by a line, and by which something has gone."""
    here = socket.create_connection(("127.0.0.1", line.port), 30)
    far, _ = there.accept()
    here.sendall(b"?")
    assert far.recv(1) == b"?"
    return here, far


def test_what_goes_a_long_way_arrives_after_a_while_and_whole(there: socket.socket) -> None:
    line = Line(there.getsockname()[1], 0.2)
    began = time.monotonic()
    here, far = connected(line, there)
    with here, far:
        here.sendall(b"a question")
        here.shutdown(socket.SHUT_WR)
        assert far.recv(100) == b"a question" and time.monotonic() - began >= 0.2
        assert far.recv(100) == b""
        far.sendall(b"x" * 1_000_000)
        far.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: here.recv(65536), b""))
    line.close()
    assert answer == b"x" * 1_000_000 and time.monotonic() - began >= 0.4


def test_a_cut_resets_what_is_open_and_refuses_what_is_new_until_it_is_mended(there: socket.socket) -> None:
    line = Line(there.getsockname()[1])
    here, far = connected(line, there)
    with here, far:
        line.become(CUT)
        for end in (here, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", line.port))
    line.become(PASS)
    here, far = connected(line, there)
    with here, far:
        here.sendall(b"again")
        assert far.recv(100) == b"again"
    line.close()


def test_a_hole_swallows_ends_too_and_what_went_into_it_is_reset_when_it_is_mended(there: socket.socket) -> None:
    line = Line(there.getsockname()[1])
    here, far = connected(line, there)
    line.become(HOLE)
    with far, socket.create_connection(("127.0.0.1", line.port)) as new:
        new.sendall(b"anybody?")
        here.sendall(b"lost")
        here.close()
        for end in (far, new):
            end.settimeout(0.3)
            with pytest.raises(TimeoutError):
                end.recv(1)
        line.become(PASS)
        for end in (far, new):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    line.close()


def test_a_line_leads_to_a_socket_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "s"))
        there.listen()
        line = Line(str(tmp_path / "s"))
        here, far = connected(line, there)
        with here, far:
            far.sendall(b"hello")
            assert here.recv(100) == b"hello"
        line.close()
