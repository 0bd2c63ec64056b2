"""A line on which a client speaks TLS; each direction ends by itself, as with docker's own, where asyncio ends both."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.line import CHUNK, Line

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"  # as docker's client calls them


def make_keys(folder: Path) -> None:
    """Make a certificate that is its own authority, for both sides.

    Args:
        folder: where to.
    """
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1"]
    places = ["-keyout", str(folder / KEY), "-out", str(folder / CERTIFICATE)]
    subprocess.run([*words, *places], check=True, capture_output=True)
    (folder / CA).write_bytes((folder / CERTIFICATE).read_bytes())


class TlsLine(Line):
    """Such a line; who comes has to show the certificate.

    Args:
        to: see ``Line``.
        folder: with keys.
    """

    def __init__(self, to: int | str, folder: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        self._context.load_verify_locations(folder / CA)
        self._context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(to)

    async def _greet(self, reader: Any, writer: Any) -> tuple[Any, Any]:
        both = _Tls(self._context, reader, writer)
        await both.begin()
        return both, both


class _Tls:
    """As much of a reader and of a writer as a line needs."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def begin(self) -> None:
        """Greet each other.

        Raises:
            OSError: the other one is not who it should be.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._more()
            except ssl.SSLError:
                await self.drain()  # which says why
                raise
        await self.drain()

    async def _more(self) -> None:
        await self.drain()
        data = await self._reader.read(CHUNK)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def at_eof(self) -> bool:
        return self._reader.at_eof()

    async def read(self, most: int) -> bytes:
        while True:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                await self._more()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def write(self, data: bytes) -> None:
        self._tls.write(data)

    async def drain(self) -> None:
        self._writer.write(self._out.read())
        await self._writer.drain()

    def write_eof(self) -> None:
        with suppress(ssl.SSLWantReadError):  # it says its end, and does not wait for the other one's
            self._tls.unwrap()
        self._writer.write(self._out.read())
