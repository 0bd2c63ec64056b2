"""Wire-level clients of the conformance suite."""

from __future__ import annotations

import json
import socket
import ssl
import time
from dataclasses import dataclass, field


@dataclass
class Reply:
    """One HTTP reply as it came over the wire."""

    line: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def status(self) -> int:
        parts = self.line.split(" ")
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> dict:
        return json.loads(self.body)


class Wire:
    """A socket with a buffer, so that tunnels keep bytes read too far."""

    def __init__(self, sock: socket.socket, buffered: bytes = b"") -> None:
        self.sock, self.buf = sock, buffered

    def fill(self) -> bool:
        try:
            chunk = self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return False
        self.buf += chunk
        return bool(chunk)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buf:
            if not self.fill():
                break
        head, sep, self.buf = self.buf.partition(mark)
        return head + sep

    def exactly(self, n: int) -> bytes:
        while len(self.buf) < n and self.fill():
            pass
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def rest(self) -> bytes:
        while self.fill():
            pass
        out, self.buf = self.buf, b""
        return out

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()

    def closed_within(self, seconds: float) -> float | None:
        """Seconds until the peer closed, or None when it did not."""
        began = time.monotonic()
        self.sock.settimeout(seconds)
        try:
            while self.fill():
                self.sock.settimeout(max(0.05, seconds - (time.monotonic() - began)))
        except TimeoutError:
            return None
        return time.monotonic() - began

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_reply(wire: Wire, *, connect: bool = False, head: bool = False) -> Reply:
    raw = wire.until(b"\r\n\r\n")
    if not raw:
        return Reply()
    first, *rest = raw[:-4].decode("latin1").split("\r\n")
    reply = Reply(first, [tuple(h.split(": ", 1)) if ": " in h else (h.rstrip(":"), "") for h in rest])
    if head or (connect and reply.status == 200) or reply.status in (204, 304):
        return reply
    if (reply.header("Transfer-Encoding") or "").lower() == "chunked":
        while True:
            size = int(wire.until(b"\r\n").split(b";")[0] or b"0", 16)
            reply.body += wire.exactly(size)
            wire.exactly(2)
            if not size:
                return reply
    length = reply.header("Content-Length")
    reply.body = wire.exactly(int(length)) if length is not None else wire.rest()
    return reply


def start_tls(wire: Wire, ca: bytes, sni: str | None, alpn: list[str] | None = None) -> Wire:
    context = ssl.create_default_context(cadata=ca.decode())
    context.check_hostname = bool(sni)
    if alpn:
        context.set_alpn_protocols(alpn)
    try:
        return Wire(context.wrap_socket(wire.sock, server_hostname=sni or None))
    except BaseException:
        wire.close()
        raise
