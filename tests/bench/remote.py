"""A start on an engine over ssh beside a local one, and what a long way there adds to it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench import launch
from tests.bench.launch import GONE, SESSION, Launch
from tests.bench.sides import Sides
from tests.engine.conftest import until
from tests.engine.far import Far
from tests.line import Line

FAR_SECONDS = 0.05  # each way
COUNTING_SECONDS = 0.25  # long beside what else a start waits for, so that the difference counts the round trips


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
        env["DOCKER_HOST"] += urlsplit(os.environ.get("DOCKER_HOST", "")).path  # where it is not the usual one
        near = whole(sides, side, env)
        longer = []
        for seconds in (FAR_SECONDS, COUNTING_SECONDS):
            line = Line(far.port, seconds)
            far.go_by(line.port)
            longer.append(whole(sides, side, env))
            line.close()
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
