"""A bottle with a credential of each kind, and how its agent asks the scenery's hosts."""

from __future__ import annotations

import base64
import secrets
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixtures.scenery import Scenery

from .conftest import client_desk
from .inside import Inside
from .secrecy import Search, searching

MODEL, OPEN, CLOSED, VAULT, GIT = "api.anthropic.com", "open.test", "closed.test", "vault.test", "git.test"
TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"
MESSAGES = f"https://{MODEL}/v1/messages"
BEARER = f"Authorization: Bearer ${TOKEN}"


def values() -> dict[str, str]:
    """Return a value of each credential, nobody else's: with all that JSON, addresses and shells write otherwise."""
    own = secrets.token_hex(8)
    return {
        TOKEN: f"sk-ant-oat01-not-a-real-token-{own}",
        "VAULT_TOKEN": f'a "real" \\ value; $of = {own}/vault?',
        "FORGE_TOKEN": f"glpat_{own}_of_a_command",
        "REGISTRY_PASSWORD": f"registry:{own}:&{own}",
    }


CREDENTIALS: dict[str, dict[str, Any]] = {
    "VAULT_TOKEN": {"value": "${VAULT_VALUE}", "hosts": [VAULT]},
    "FORGE_TOKEN": {"hosts": [VAULT], "header": "PRIVATE-TOKEN", "paths": ["/api/v4/*"]},
    "REGISTRY_PASSWORD": {"value": "${REGISTRY_VALUE}", "hosts": [GIT], "scheme": "basic", "user": "robot"},
}


class Office:
    """A desk whose bottle has a credential of each kind, and their values.

    Args:
        folder: an empty one.
        launcher: see ``clients``.
        dlp: what is done with a secret that is found.
        credentials: of the bottle, if not one of each kind.
    """

    def __init__(self, folder: Path, launcher: Path, dlp: str = "", credentials: Any = None) -> None:
        self.values, self.apart = values(), folder / "apart"
        self.desk = client_desk(folder / "desk", launcher)
        self.apart.mkdir()
        (self.apart / "forge").write_text(self.values["FORGE_TOKEN"] + "\n")
        self.desk.env.update(
            CLAUDE_BOTTLE_OAUTH_TOKEN=self.values[TOKEN],
            VAULT_VALUE=self.values["VAULT_TOKEN"],
            REGISTRY_VALUE=self.values["REGISTRY_PASSWORD"],
        )
        command = {"value": {"command": ["cat", str(self.apart / "forge")]}}
        granted = CREDENTIALS if credentials is None else credentials
        granted = {name: {**(command if name == "FORGE_TOKEN" else {}), **each} for name, each in granted.items()}
        egress = {"allowlist": [OPEN, CLOSED], "inspect": {CLOSED: False}, **({"dlp": dlp} if dlp else {})}
        self.desk.manifest({"egress": egress, "credentials": granted})

    @contextmanager
    def search(self) -> Iterator[Search]:
        """A search for the values from now on."""
        with searching(self.desk, self.values, self.apart) as search:
            yield search


def words(url: str, *headers: str, body: str = "", form: str = "%{http_code}", more: Sequence[str] = ()) -> str:
    """Return what asks for a page and prints what came of it; the shell puts variables into headers and body."""
    asked = ["curl", "-sS", "-o", "/dev/null", "-w", form, "--max-time", "30", *more, url]
    parts = [
        shlex.join(asked),
        *(f'-H "{header}"' for header in headers),
        *([f'--data-binary "{body}"'] if body else []),
    ]
    return " ".join(parts) + " || :"


def ask(bottle: Inside, url: str, *headers: str, **how: Any) -> str:
    """Return the status that a bottle's curl got; 000 is none."""
    return bottle.run(words(url, *headers, **how)).out


def arrived(scenery: Scenery, path: str, service: str = "web") -> list[dict[str, str]]:
    """Return the headers of the requests for a path."""
    return [each["headers"] for each in scenery.requests(service) if each["path"] == path]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
