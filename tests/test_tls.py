"""The line on which a client speaks TLS: each direction ends by itself; who shows no certificate does not get in."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.tls import CA, CERTIFICATE, KEY, TlsLine, make_keys


def answer(there: socket.socket) -> None:
    """Say all that was said, in capitals, when it has come to its end."""
    far, _ = there.accept()
    with far:
        far.sendall(b"".join(iter(lambda: far.recv(65536), b"")).upper())


def test_what_is_answered_after_the_end_of_a_question_arrives(tmp_path: Path) -> None:
    make_keys(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / CA))
    with socket.create_server(("127.0.0.1", 0)) as there:
        line = TlsLine(there.getsockname()[1], tmp_path)
        with (
            pytest.raises(OSError),
            socket.create_connection(("127.0.0.1", line.port), 30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as here,
        ):
            here.recv(1)
        context.load_cert_chain(tmp_path / CERTIFICATE, tmp_path / KEY)
        threading.Thread(target=answer, args=(there,), daemon=True).start()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with socket.create_connection(("127.0.0.1", line.port), 30) as raw:

            def until(what: str, *words: object) -> bytes:
                while True:
                    try:
                        return getattr(tls, what)(*words) or b""
                    except ssl.SSLWantReadError:
                        raw.sendall(outgoing.read())
                        if what == "unwrap":
                            return b""
                        incoming.write(raw.recv(65536))

            until("do_handshake")
            for _ in range(100):
                tls.write(b"x" * 10_000)
            until("unwrap")
            said = b""
            while len(said) < 1_000_000:
                said += until("read", 65536)
        line.close()
    assert said == b"X" * 1_000_000
