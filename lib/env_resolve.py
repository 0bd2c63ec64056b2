"""The bottle's env: its values stay in memory; the literals are shown in a file too (shell: lib/env_resolve.sh)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NoReturn

from claude_bottle.lib import env
from claude_bottle.lib.egress.credentials import API_KEY, Injection, git_helpers
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import redact
from claude_bottle.lib.manifest import Manifest, manifest_bottle, manifest_env_names
from claude_bottle.lib.problems import fail_with, nearest
from claude_bottle.lib.schema.manifest_parse import EnvEntry

# What Claude Code takes for a login, and what makes it use another provider's.
CREDENTIALS = (API_KEY, "ANTHROPIC_AUTH_TOKEN", env.TOKEN_NAME)
PROVIDERS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")
_OFF = ("", "0", "false", "no", "off")
_VARIABLE = re.compile(r"\$(\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_])", re.ASCII)


class Secrets:
    """Values that no argument may hold and, but for literals, no file. It shows names, never a value."""

    __slots__ = ("_git", "_injected", "_values")

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._injected: dict[str, str] = {}
        self._git: list[tuple[str, str]] = []

    def add(self, name: str, value: str) -> None:
        """Keep a value; the last one of a name counts."""
        self._values[name] = value
        redact.remember(value)

    def inject(self, injection: Injection, value: str) -> None:
        """Keep a value for the broker; the bottle gets what stands for it."""
        self._values[injection.variable] = injection.placeholder
        self._injected[injection.variable] = value
        self._git += git_helpers(injection)
        redact.remember(value)

    @property
    def injected(self) -> Mapping[str, str]:
        """The values that only the broker gets, by variable."""
        return MappingProxyType(self._injected)

    def payload(self) -> bytes:
        """Return what the bottle gets: NAME=VALUE, or =NAME and a line with the value for git; each ended by a NUL."""
        values = (f"{name}={value}\0" for name, value in self._values.items())
        settings = (f"={name}\n{value}\0" for name, value in self._git)
        return "".join((*values, *settings)).encode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<Secrets {' '.join(self._values)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not to be copied")


def env_names(names: Iterable[str], has_token: bool) -> list[str]:
    """Return the names that reach the container, the token's last and once.

    Args:
        names: the manifest's, of its env and its credentials.
        has_token: whether there is a token.
    """
    listed = list(names)
    if has_token:
        listed = [name for name in listed if name != env.TOKEN_NAME] + [env.TOKEN_NAME]
    return listed


def env_check_object(manifest: Manifest, bottle: str) -> None:
    """Fail unless a bottle's env is an object (shell: manifest_check_env_object).

    Raises:
        BottleError: it is something else.
    """
    if not manifest_env_names(manifest, bottle):
        env_check(manifest, bottle)


def env_check(manifest: Manifest, bottle: str) -> None:
    """Fail unless names and types are right (shell: env_check).

    Raises:
        BottleError: with all that is wrong; never with a value.
    """
    fail_with(manifest.checks.problems("bottles", bottle, "env"))


def env_entries(manifest: Manifest, bottle: str) -> tuple[EnvEntry, ...]:
    """Return the variables in manifest order (shell: env_entries); those of a wrong type are left out."""
    return manifest_bottle(manifest, bottle).env


def env_warnings(manifest: Manifest, bottle: str) -> list[str]:
    """Return a line for each literal that reads as if something in it were expanded; never the value."""
    return [
        f"bottle '{bottle}': env '{entry.name}' has a $NAME in it, which nothing expands; "
        "only a value that is ${NAME} and no more takes the host's"
        for entry in env_entries(manifest, bottle)
        if entry.mode == "literal" and _VARIABLE.search(entry.text)
    ]


def env_has_login(entries: Iterable[EnvEntry], environ: Mapping[str, str]) -> bool:
    """Say whether a bottle's env has what Claude Code logs in with, so that it will not ask.

    Args:
        entries: of the bottle.
        environ: the caller's environment.
    """
    return any(
        (entry.name in CREDENTIALS and bool(_known_value(entry, environ)))
        or (entry.name in PROVIDERS and _known_value(entry, environ).lower() not in _OFF)
        for entry in entries
    )


def _known_value(entry: EnvEntry, environ: Mapping[str, str]) -> str:
    """Return what is known of a value before any question; of a secret only that there will be one."""
    if entry.mode == "host":
        return environ.get(entry.text, "unset")  # which a start does not get past
    return entry.text if entry.mode == "literal" else "asked for"


def no_terminal(name: str) -> str:
    """Return what is said of a secret that cannot be asked for."""
    return f"cannot prompt for '{name}': no terminal"


def env_check_values(
    manifest: Manifest,
    bottle: str,
    reserved: frozenset[str],
    environ: Mapping[str, str] | None,
    has_terminal: bool,
) -> None:
    """Fail unless every value can be had (shell: the checks of env_resolve, before anything is asked).

    Args:
        manifest: the merged one.
        bottle: its name.
        reserved: names that the launcher sets itself.
        environ: the caller's environment; None in a dry run, which takes no value from it and asks for none.
        has_terminal: whether there is one to ask on.

    Raises:
        BottleError: with all values that cannot be had, in manifest order; never with a value.
    """
    problems = []
    for entry in env_entries(manifest, bottle):
        if entry.name in reserved:
            continue
        line, hints = _value_problem(entry, environ, has_terminal)
        if line:
            problems.append(BottleError(line, [entry.at, *hints]))
    fail_with(problems)


def _value_problem(entry: EnvEntry, environ: Mapping[str, str] | None, has_terminal: bool) -> tuple[str, list[str]]:
    if entry.mode == "literal":
        for character, name in (("\n", "newline"), ("\0", "NUL")):
            if character in entry.text:
                return f"env '{entry.name}': literal value contains a {name}", []
    elif environ is None:
        pass
    elif entry.mode == "host" and entry.text not in environ:
        return f"host variable '{entry.text}' (for '{entry.name}') is not set", nearest(entry.text, environ)
    elif entry.mode == "secret" and not has_terminal:
        return no_terminal(entry.name), []
    return "", []


def env_resolve(
    entries: Iterable[EnvEntry],
    environ: Mapping[str, str],
    ask_secret: Callable[[str, str], str],
    reserved: frozenset[str],
) -> Secrets:
    """Return the values, asking where needed (shell: env_resolve).

    Args:
        entries: in manifest order, checked.
        environ: the caller's environment.
        ask_secret: gets name and question, returns the answer.
        reserved: names that the launcher sets itself.

    Raises:
        BottleError: no value was entered.
    """
    secrets = Secrets()
    for entry in entries:
        if entry.name not in reserved:
            secrets.add(entry.name, _value(entry, environ, ask_secret))
    return secrets


def _value(entry: EnvEntry, environ: Mapping[str, str], ask_secret: Callable[[str, str], str]) -> str:
    if entry.mode == "literal":
        return entry.text
    if entry.mode == "host":
        return environ[entry.text]
    value = ask_secret(entry.name, entry.text)
    if not value:
        raise BottleError(f"no value entered for '{entry.name}'")
    return value


def env_file(entries: Iterable[EnvEntry], reserved: frozenset[str]) -> str:
    """Return the literals as the stage dir shows them, in the form of docker's env files."""
    literals = (entry for entry in entries if entry.mode == "literal" and entry.name not in reserved)
    return "".join(f"{entry.name}={entry.text}\n" for entry in literals)
