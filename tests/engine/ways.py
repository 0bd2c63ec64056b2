"""Ways to the engine that is asked, each of which a user may have: what a launcher's environment has for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.line import Line
from tests.tls import CA, CERTIFICATE, KEY, TlsLine, make_keys

from .conftest import Desk, docker, until
from .far import Far

TCP, TLS, TLS_CONTEXT, SSH = WAYS = ("tcp", "tls", "context", "ssh")


def local() -> str:
    """Return the path of the engine's socket."""
    return docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").removeprefix("unix://")


@contextmanager
def way(name: str, folder: Path, path: str) -> Iterator[dict[str, str]]:
    """Open a way to the engine.

    Args:
        name: of the way.
        folder: an empty one.
        path: the PATH of who goes there.
    """
    if name == SSH:
        far = Far(folder / "far")
        until(far.up)
        try:
            yield far.env(path)
        finally:
            far.close()
        return
    make_keys(folder)
    line = Line(local()) if name == TCP else TlsLine(local(), folder)
    try:
        host = f"tcp://127.0.0.1:{line.port}"
        if name == TCP:
            yield {"DOCKER_HOST": host}
        elif name == TLS:
            yield {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
        else:
            keys = ",".join(
                f"{word}={folder / file}" for word, file in (("ca", CA), ("cert", CERTIFICATE), ("key", KEY))
            )
            yield context(folder / ".docker", f"host={host},{keys}", os.environ)
    finally:
        line.close()


def context(folder: Path, endpoint: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Make a docker context, in a configuration of its own; return what an environment has for it.

    Args:
        folder: of the configuration; it must not exist.
        endpoint: what docker is told of it.
        environ: with a docker client.
    """
    usual = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folder.mkdir()
    (folder / "cli-plugins").symlink_to(usual / "cli-plugins")  # the same builder, and its cache
    env = {**environ, "DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": ""}
    words = ["docker", "context", "create", "big", "--docker", endpoint]
    subprocess.run(words, env=env, check=True, capture_output=True)
    return {"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": "big"}


def go(desk: Desk, env: Mapping[str, str]) -> None:
    """Have a desk's launcher go by a way."""
    desk.env.pop("DOCKER_HOST", None)
    desk.env |= env
