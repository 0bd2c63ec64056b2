"""Credentials that never enter a bottle: what stands for each in there, and where the broker puts the real one."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from claude_bottle.lib.env import TOKEN_NAME

Scheme = Literal["", "bearer", "token", "basic"]
AUTHORIZATION = "authorization"
API_KEY = "ANTHROPIC_API_KEY"

MODEL_HOST = "api.anthropic.com"
# All that the client asks of it with the switches of a bottle; other paths would make a mailbox of the host.
MODEL_PATHS = (
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/claude_code/settings",
    "/api/claude_code/policy_limits",
)
TOKEN_PLACEHOLDER = "bottle-placeholder-claude"
_PLAIN = "bottle-placeholder-"
# How a value begins for clients that look at it first. With more than a few characters behind that, the sidecar would
# take a placeholder for a secret.
_BEGINNINGS = {
    "ghp_": ("GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"),
    "glpat-": ("GITLAB_TOKEN", "GITLAB_PAT", "GITLAB_PRIVATE_TOKEN", "GL_TOKEN"),
    "npm_": ("NPM_TOKEN", "NODE_AUTH_TOKEN"),
    "sk-ant-": (API_KEY, "ANTHROPIC_AUTH_TOKEN"),
    "sk-proj-": ("OPENAI_API_KEY",),
    "xoxb-": ("SLACK_TOKEN", "SLACK_BOT_TOKEN"),
}
_BEGINS = {variable: begin for begin, variables in _BEGINNINGS.items() for variable in variables}
_TAIL = 6
_GIT_USER = "x-access-token"  # what forges take with a token for a password
_LONGEST = 40  # of a variable's name that is spelt in its placeholder
_BASE_URL = re.compile(
    r"https://([A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*)(?::443)?((?:/[A-Za-z0-9._~!&+,;=:@%-]+)*)/?"
)


@dataclass(frozen=True)
class Injection:
    """One credential as the broker knows it; its value is elsewhere (``Secrets.injected``, by variable).

    Attributes:
        variable: of the bottle's environment, whose value there is the placeholder.
        placeholder: what a client in the bottle sends.
        hosts: exact names, in lower case, of those that get the real value.
        paths: the only ones that do; one that ends with ``*`` stands for all that begin so; none for every path.
        header: that carries it, in lower case.
        scheme: the only one that is taken, where the header is ``authorization``; empty for whichever the client uses.
        user: of ``basic``; empty for the client's own.
    """

    variable: str
    placeholder: str
    hosts: tuple[str, ...]
    paths: tuple[str, ...] = ()
    header: str = AUTHORIZATION
    scheme: Scheme = ""
    user: str = ""


def placeholder(variable: str) -> str:
    """Return what stands for a variable's value in a bottle: another one for each, the same in every start.

    Args:
        variable: its name.
    """
    if variable == TOKEN_NAME:
        return TOKEN_PLACEHOLDER
    tail = hashlib.sha256(variable.encode()).hexdigest()[:_TAIL]
    if variable in _BEGINS:
        return _BEGINS[variable] + tail
    plain = variable.lower().replace("_", "-")
    made = _PLAIN + plain
    if plain.upper().replace("-", "_") == variable and len(variable) <= _LONGEST and made != TOKEN_PLACEHOLDER:
        return made
    return f"{made[: len(_PLAIN) + _LONGEST]}-{tail}"  # another name could be spelt so


def model_injection(base_url: str = "") -> Injection | None:
    """Return how the Claude token is put in.

    Args:
        base_url: the manifest's own place of the model; empty for Anthropic's.

    Returns:
        None where that is no place that a broker can stand before: no https, another port, an address.
    """
    found = _BASE_URL.fullmatch(base_url or f"https://{MODEL_HOST}")
    if not found or found[1].rpartition(".")[2].isdigit():
        return None
    host, prefix = found[1].lower(), found[2]
    return Injection(
        TOKEN_NAME, TOKEN_PLACEHOLDER, (host,), tuple(prefix + path for path in MODEL_PATHS), scheme="bearer"
    )


def git_helpers(injection: Injection) -> Iterator[tuple[str, str]]:
    """Yield git's settings, name and value, by which it answers with the placeholder where it is asked for a password.

    Args:
        injection: one of another header, or of a scheme that git does not speak, has none.
    """
    if injection.header != AUTHORIZATION or injection.scheme not in ("", "basic"):
        return
    answer = shlex.join([f"username={injection.user or _GIT_USER}", f"password={injection.placeholder}"])
    helper = f"!f() {{ test \"$1\" = get && printf '%s\\n' {answer}; }}; f"
    for path in dict.fromkeys(map(_git_folder, injection.paths or ("",))):
        for host in injection.hosts:
            yield f"credential.https://{host}{path}.helper", helper


def _git_folder(path: str) -> str:
    """Return the folder that a granted path is, so that each of two credentials of a host has its repositories.

    Others say nothing of where a repository begins: theirs is the whole host.
    """
    return path.removesuffix("/*") if path.endswith("/*") else ""


def shared_target(one: Injection, other: Injection) -> str:
    """Return a host and path that two credentials are both for, in the same header; an empty text if there is none.

    Args:
        one: of them.
        other: the other.
    """
    hosts = [host for host in one.hosts if host in other.hosts]
    if one.header != other.header or not hosts:
        return ""
    paths = (_shared_path(mine, its) for mine in one.paths or ("/*",) for its in other.paths or ("/*",))
    return next((f"{hosts[0]}{path}" for path in paths if path), "")


def _shared_path(one: str, other: str) -> str:
    """Return the narrower of two paths where the other takes it in."""
    for wide, narrow in ((one, other), (other, one)):
        begin = wide.removesuffix("*")
        if wide == narrow or (wide != begin and narrow.removesuffix("*").startswith(begin)):
            return narrow
    return ""
