"""The settings that come from environment variables (shell: lib/env.sh; contract section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from claude_bottle.lib.errors import BottleError

DEFAULT_IMAGE = "claude-bottle:latest"
DEFAULT_PIPELOCK_IMAGE = (
    "ghcr.io/luckypipewrench/pipelock@sha256:3b1a39417b98406ddc5dc2d8fcb42865ddc0c68a43d355db55f0f8cb06bc6de9"
)
DEFAULT_BROKER_IMAGE = "claude-bottle-broker:latest"
DEFAULT_PIPELOCK_PORT = "8888"
DEFAULT_HOME = "/home/node"
DEFAULT_SUBNET_POOL = "10.213.0.0/16"

TOKEN_VARIABLE = "CLAUDE_BOTTLE_OAUTH_TOKEN"
IN_BOTTLE_VARIABLE = "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE"
SUBNET_POOL_VARIABLE = "CLAUDE_BOTTLE_SUBNET_POOL"
RUNTIME_VARIABLE = "CLAUDE_BOTTLE_RUNTIME"
PATIENCE_VARIABLE = "CLAUDE_BOTTLE_PATIENCE"
APPROVED_VARIABLE = "CLAUDE_BOTTLE_APPROVED"
TOKEN_NAME = "CLAUDE_CODE_OAUTH_TOKEN"

HOST_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)  # as a manifest names one
LEAST_PATIENCE, MOST_PATIENCE, DEFAULT_PATIENCE = 30, 86400, 600  # seconds
withheld = {TOKEN_VARIABLE}  # what no child gets of the caller's environment


@dataclass(frozen=True)
class Settings:
    """What the CLAUDE_BOTTLE_* variables and HOME say. Set but empty counts as unset.

    The OAuth token is not here: see ``has_token`` and ``Secrets``.
    """

    image: str
    pinned_container: str
    derived_image: str
    pipelock_image: str
    broker_image: str
    pipelock_port: str
    subnet_pool: str
    runtime: str
    patience_text: str
    bottle_home: str
    bottle_skills_dir: str
    approved: str
    has_token: bool
    token_in_bottle: bool
    dry_run: bool
    no_note: bool
    host_home: str

    @property
    def patience(self) -> int:
        """How long a bottle lives without a word from who would remove it, in seconds.

        Raises:
            BottleError: what the variable says is not that.
        """
        return patience_of(self.patience_text)


def patience_of(text: str) -> int:
    """Return the seconds of a patience; see ``Settings.patience``.

    Raises:
        BottleError: it is none, or out of bounds.
    """
    number = int(text) if re.fullmatch("[0-9]{1,6}", text) else 0
    if not LEAST_PATIENCE <= number <= MOST_PATIENCE:
        allowed = f"a number of seconds from {LEAST_PATIENCE} to {MOST_PATIENCE}"
        raise BottleError(f"{PATIENCE_VARIABLE} must be {allowed}, not '{text}'")
    return number


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an environment.

    Args:
        environ: the caller's environment.
    """

    def get(name: str, default: str = "") -> str:
        return environ.get(name) or default

    home = get("CLAUDE_BOTTLE_CONTAINER_HOME", DEFAULT_HOME)
    return Settings(
        image=get("CLAUDE_BOTTLE_IMAGE", DEFAULT_IMAGE),
        pinned_container=get("CLAUDE_BOTTLE_CONTAINER"),
        derived_image=get("CLAUDE_BOTTLE_DERIVED_IMAGE"),
        pipelock_image=get("CLAUDE_BOTTLE_PIPELOCK_IMAGE", DEFAULT_PIPELOCK_IMAGE),
        broker_image=get("CLAUDE_BOTTLE_BROKER_IMAGE", DEFAULT_BROKER_IMAGE),
        pipelock_port=get("CLAUDE_BOTTLE_PIPELOCK_PORT", DEFAULT_PIPELOCK_PORT),
        subnet_pool=get(SUBNET_POOL_VARIABLE, DEFAULT_SUBNET_POOL),
        runtime=get(RUNTIME_VARIABLE),
        patience_text=get(PATIENCE_VARIABLE, str(DEFAULT_PATIENCE)),
        bottle_home=home,
        bottle_skills_dir=get("CLAUDE_BOTTLE_CONTAINER_SKILLS_DIR", f"{home}/.claude/skills"),
        approved=get(APPROVED_VARIABLE),
        has_token=bool(get(TOKEN_VARIABLE)),
        token_in_bottle=get(IN_BOTTLE_VARIABLE) == "1",
        dry_run=get("CLAUDE_BOTTLE_DRY_RUN") == "1",
        no_note=get("CLAUDE_BOTTLE_NO_NOTE") == "1",
        host_home=get("HOME"),
    )


def is_needed(name: str) -> bool:
    """Say whether a variable is one that docker itself needs, and that is kept from no child."""
    return name in ("HOME", "PATH") or name.startswith("DOCKER_")


def env_require_home(settings: Settings) -> None:
    """Fail unless HOME is set (shell: env_require_home).

    Raises:
        BottleError: HOME is unset or empty.
    """
    if not settings.host_home:
        raise BottleError("HOME is not set")
