"""A start on an engine over ssh beside a local one, and what a long way there adds to it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import launch
from tests.bench.launch import GONE, SESSION, Launch
from tests.bench.sides import Sides
from tests.engine.conftest import until
from tests.engine.far import Far

FAR_SECONDS = 0.05  # each way
COUNTING_SECONDS = 0.25  # long beside what else a start waits for, so that the difference counts the round trips


class Delayed:
    """A port that leads to another one; what goes through takes a while, each way, however much it is.

    Args:
        port: where it leads to.
        seconds: each way.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._to, self._seconds, self.port = port, seconds, 0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await asyncio.gather(self._way(reader, to), self._way(there, writer))
        except (OSError, asyncio.CancelledError):  # streams complain of a task that ends otherwise
            pass
        finally:
            to.close()
            writer.close()

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(pieces, writer))
        try:
            while True:
                data = await reader.read(65536)
                pieces.put_nowait((self._loop.time() + self._seconds, data))
                if not data:
                    break
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            at, data = await pieces.get()
            await asyncio.sleep(at - self._loop.time())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


@contextmanager
def server() -> Iterator[Far]:
    with tempfile.TemporaryDirectory(prefix="far-") as folder:
        far = Far(Path(folder).resolve() / "far")
        try:
            until(far.up)
            yield far
        finally:
            far.close()


def over_ssh(sides: Sides, side: str) -> dict[str, float]:
    """Boot a bottle and end its session four times: here, over ssh, and over two longer ways; return what that adds."""
    here = whole(sides, side, {})
    with server() as far:
        env = far.env(sides.env(side)["PATH"])
        near = whole(sides, side, env)
        longer = []
        for seconds in (FAR_SECONDS, COUNTING_SECONDS):
            delayed = Delayed(far.port, seconds)
            far.go_by(delayed.port)
            longer.append(whole(sides, side, env))
            delayed.close()
    return {"ssh": near / here, "far": longer[0] - near, "trips": (longer[1] - near) / (2 * COUNTING_SECONDS)}


def whole(sides: Sides, side: str, env: dict[str, str]) -> float:
    """Return how long a start with its end takes.

    Args:
        sides: of the bench.
        side: which.
        env: what of its environment is another.
    """
    with launch.closing([Launch(sides.start(side, 1), sides.desk.cwd, {**sides.env(side), **env})]) as (one,):
        launch.until([one], SESSION)
        one.type("\n")
        return launch.until([one], GONE) - one.began
