"""The session's first program as it prepares a session: it keeps the values, and waits for the sidecar."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = ["env", "-i", "PATH=/usr/bin:/bin", "perl", "-t", str(ROOT / "lib" / "session.pl"), "--prepare"]
Done = tuple[int, str, str]


def prepare(values: Path, host: str, port: int, seconds: int, fed: bytes = b"") -> Done:
    words = [*PROGRAM, str(values), host, str(port), str(seconds)]
    done = subprocess.run(words, input=fed, capture_output=True, timeout=30)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@contextmanager
def sidecar(answers: Sequence[str]) -> Iterator[tuple[int, list[bytes]]]:
    """Answer each connection in turn with a status line; the last one goes on, and an empty one is no answer."""
    asked: list[bytes] = []
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                held.append(link)
                asked.append(link.recv(1000))
                answer = answers[min(len(asked), len(answers)) - 1]
                if answer:
                    link.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
                    link.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for link in held:
                link.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_keeps_the_values_and_waits_until_the_sidecar_is_healthy(tmp_path: Path) -> None:
    fed = b"A=1\0B=two\nlines \xff\0"
    with sidecar(["503 Service Unavailable", "503 Service Unavailable", "", "200 OK"]) as (port, asked):
        assert prepare(tmp_path / "values", "127.0.0.1", port, 20, fed) == (0, "", "")
    assert asked == [b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"] * 4
    assert (tmp_path / "values").read_bytes() == fed
    assert (tmp_path / "values").stat().st_mode & 0o777 == 0o600


def test_no_values_make_no_file(tmp_path: Path) -> None:
    with sidecar(["200 OK"]) as (port, _):
        assert prepare(tmp_path / "values", "localhost", port, 5) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answers", "reason"),
    [(["503 Service Unavailable"], "status 503"), (["x"], "no HTTP answer"), ([""], "no answer within a second")],
)
def test_a_sidecar_that_is_not_healthy_in_time_is_said(tmp_path: Path, answers: list[str], reason: str) -> None:
    began = time.monotonic()
    with sidecar(answers) as (port, asked):
        said = f"the sidecar does not answer at 127.0.0.1:{port}: {reason}\n"
        assert prepare(tmp_path / "values", "127.0.0.1", port, 1) == (1, "", said)
    assert 1 < time.monotonic() - began < 6 and len(asked) > 1


def test_a_sidecar_that_is_not_there_is_said(tmp_path: Path) -> None:
    port = free_port()
    said = f"the sidecar does not answer at 127.0.0.1:{port}: connect: Connection refused\n"
    assert prepare(tmp_path / "values", "127.0.0.1", port, 0) == (1, "", said)
    said = "the sidecar does not answer at no.name.invalid:8888: Bad hostname 'no.name.invalid'\n"
    assert prepare(tmp_path / "values", "no.name.invalid", 8888, 0) == (1, "", said)


@pytest.mark.parametrize("what", ["file", "link", "no folder"])
def test_values_that_cannot_be_kept_are_said_and_overwrite_nothing(tmp_path: Path, what: str) -> None:
    values, other = tmp_path / "values", tmp_path / "other"
    if what == "file":
        values.write_text("kept")
    elif what == "link":
        values.symlink_to(other)
    else:
        values = tmp_path / "no" / "values"
    with sidecar(["200 OK"]) as (port, asked):
        status, out, err = prepare(values, "127.0.0.1", port, 1, b"A=secret\0")
    reason = "No such file or directory" if what == "no folder" else "File exists"
    assert (status, out, err) == (1, "", f"cannot keep the session's values in the bottle: {reason}\n")
    assert asked == [] and not other.exists() and (what != "file" or values.read_text() == "kept")
