"""How the user's own ssh is told to forward an engine's socket."""

from __future__ import annotations

from collections.abc import Mapping

OPTIONS = {
    "BatchMode": "yes",  # nobody is there to be asked
    "ClearAllForwardings": "no",  # ours is one
    "ConnectTimeout": "20",
    "ControlMaster": "no",  # it may use a connection that the user has, and never becomes one for others
    "ExitOnForwardFailure": "no",  # the user's own forwards are no reason to fail; ours is looked at
    "RemoteCommand": "none",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "4",
    "StreamLocalBindUnlink": "yes",
}
# Stays until its stdin ends; the user's own shell there runs it.
SAY_ENDPOINT = "docker context inspect --format '{{.Endpoints.docker.Host}}' && exec cat"


def ssh_words(target: Mapping[str, str], near: str, far: str) -> list[str]:
    """Return ssh's arguments, with the program that it runs there as the last.

    Args:
        target: user, host and port; empty where ssh's own configuration is to say it.
        near: path of the socket that it listens on.
        far: path of the engine's.
    """
    options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
    whom = [
        word for flag in ("user", "port") if target[flag] for word in (f"-{flag[0].replace('u', 'l')}", target[flag])
    ]
    return ["-T", "-a", "-x", *options, *whom, "-L", f"{near}:{far}", "--", target["host"], SAY_ENDPOINT]
