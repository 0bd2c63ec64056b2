"""As much of an engine as a link asks for: who it is, and that it is there, on a socket."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    identity = ""
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return ""

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(json.dumps({"ID": self.server.identity}).encode())

    def do_POST(self) -> None:
        """Take the connection over, as an attached client has it: all is read before anything is said."""
        said = self.rfile.read()
        self.server.asked.append(f"{self.command} {self.path}")
        self.wfile.write(said.upper())
        self.close_connection = True


class HttpEngine:
    """One of them, until it is closed.

    Args:
        path: of its socket.
        identity: the id that it gives itself.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._server = _Server(str(path), _Handler)
        self._server.identity, self._server.asked = identity, []
        self.path = path
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def asked(self) -> list[str]:
        return list(self._server.asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
