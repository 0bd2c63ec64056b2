"""A line to an engine, or to the ssh server before it, that can break: cut, or swallowing all; it may be long too."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PASS, CUT, HOLE = "pass", "cut", "hole"
CHUNK = 65536
_AT_ONCE = struct.pack("ii", 1, 0)  # a connection that is closed so is reset


class Line:
    """A port that leads to another one, or to a socket; what goes through takes a while, each way, however much it is.

    Args:
        to: where it leads to: a port of this machine, or the path of a socket.
        seconds: each way.
    """

    def __init__(self, to: int | str, seconds: float = 0.0) -> None:
        self._to, self._seconds, self._mode, self.port = to, seconds, PASS, 0
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen)

    def _do(self, what: Callable[[], object]) -> None:
        """Have it done in the thread that all of it lives in, and wait for that."""

        async def done() -> None:
            answer = what()
            if asyncio.iscoroutine(answer):
                await answer

        asyncio.run_coroutine_threadsafe(done(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def become(self, mode: str) -> None:
        """Have it be as said from now on.

        Args:
            mode: PASS; CUT, all that is open is reset, and what is new refused; or HOLE, all is taken, no end of a
                connection either, and nothing comes out. What was swallowed is lost: those connections are reset when
                the line is as before.
        """
        self._do(lambda: self._become(mode))

    async def _become(self, mode: str) -> None:
        self._mode = mode
        if mode == HOLE:
            return
        for task, ends in list(self._open.items()):
            for each in ends:
                with suppress(OSError):
                    each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                each.transport.abort()
            task.cancel()
        if mode == CUT and self._server:
            self._server.close()
            self._server = None
        elif mode == PASS and not self._server:
            await self._listen()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this
        ends = self._open[this] = [writer]
        try:
            if self._mode == HOLE:
                await self._swallow(reader)
            reader, writer = await self._greet(reader, writer)
            if isinstance(self._to, str):
                there, to = await asyncio.open_unix_connection(self._to)
            else:
                there, to = await asyncio.open_connection("127.0.0.1", self._to)
            ends.append(to)
            await asyncio.gather(self._way(reader, to), self._way(there, writer))
        except (OSError, asyncio.CancelledError):  # streams complain of a task that ends otherwise
            pass
        finally:
            del self._open[this]
            for each in ends:
                each.close()

    async def _greet(self, reader: Any, writer: Any) -> tuple[Any, Any]:
        """Return what reads and writes what is meant to go on."""
        return reader, writer

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        """Take all that comes, and its end, until the connection is reset."""
        with suppress(OSError):
            while not reader.at_eof():
                await reader.read(CHUNK)
        await asyncio.Event().wait()

    async def _way(self, reader: Any, writer: Any) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(pieces, writer))
        try:
            while True:
                data = await self._read(reader)
                pieces.put_nowait((self._loop.time() + self._seconds, data))
                if not data:
                    break
            await arriving
        finally:
            arriving.cancel()

    async def _read(self, reader: Any) -> bytes:
        data = b""
        try:
            data = await reader.read(CHUNK)
        except OSError:
            if self._mode != HOLE:
                raise
        if self._mode == HOLE:
            await self._swallow(reader)
        return data

    async def _arrive(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: Any) -> None:
        while True:
            at, data = await pieces.get()
            await asyncio.sleep(at - self._loop.time())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    def close(self) -> None:
        """End it, and all that goes through it."""
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
