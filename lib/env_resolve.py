"""The bottle's env: literals go into a file, the other values stay in memory (shell: lib/env_resolve.sh)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

from claude_bottle.lib import env, redact
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest, bottle_part
from claude_bottle.lib.problems import fail_with, nearest

_HOST = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)


@dataclass(frozen=True)
class EnvEntry:
    """One variable: its literal value, the host variable it comes from, or the question to ask."""

    name: str
    mode: Literal["literal", "host", "secret"]
    text: str


class Secrets:
    """Values that no file and no argument may hold. It shows names, never a value."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        """Keep a value; the last one of a name counts."""
        self._values[name] = value
        redact.remember(value)

    def names(self) -> tuple[str, ...]:
        """Return the names."""
        return tuple(self._values)

    def payload(self) -> bytes:
        """Return NAME=VALUE, each ended by a NUL."""
        lines = (f"{name}={value}\0" for name, value in self._values.items())
        return "".join(lines).encode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<Secrets {' '.join(self._values)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not to be copied")


def env_names(names: Iterable[str], has_token: bool) -> list[str]:
    """Return the names that reach the container, the token's last and once.

    Args:
        names: the manifest's.
        has_token: whether a token is forwarded.
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
    if not isinstance(bottle_part(manifest, bottle, "env"), dict | None):
        env_check(manifest, bottle)


def env_check(manifest: Manifest, bottle: str) -> None:
    """Fail unless names and types are right (shell: env_check).

    Raises:
        BottleError: with all that is wrong; never with a value.
    """
    fail_with(map(manifest.problem, manifest.faults_at("bottles", bottle, "env")))


def env_entries(manifest: Manifest, bottle: str) -> tuple[EnvEntry, ...]:
    """Return the variables in manifest order (shell: env_entries); those of a wrong type are left out."""
    values = bottle_part(manifest, bottle, "env")
    values = values if isinstance(values, dict) else {}
    return tuple(_entry(name, value) for name, value in values.items() if isinstance(value, str))


def _entry(name: str, value: str) -> EnvEntry:
    if value.startswith("?"):
        return EnvEntry(name, "secret", value[1:])
    host = _HOST.fullmatch(value)
    return EnvEntry(name, "host", host[1]) if host else EnvEntry(name, "literal", value)


def _goes_into_file(entry: EnvEntry) -> bool:
    """Say whether a value is stored with the container: a literal, unless perl, the first to run, would obey it."""
    return entry.mode == "literal" and not entry.name.startswith("PERL")


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
            problems.append(BottleError(line, [manifest.where(("bottles", bottle, "env", entry.name)), *hints]))
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
    """Return the values that go into no file, asking where needed (shell: env_resolve).

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
        if entry.name not in reserved and not _goes_into_file(entry):
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
    """Return the literals as docker's env file has them."""
    literals = (entry for entry in entries if _goes_into_file(entry) and entry.name not in reserved)
    return "".join(f"{entry.name}={entry.text}\n" for entry in literals)
