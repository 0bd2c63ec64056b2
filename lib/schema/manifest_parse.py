"""A manifest as typed values, each with the file and the JSON path that it comes from.

This module, ``manifest_check`` and ``approval`` alone walk the JSON. A value that is missing or of a wrong type is
empty or left out here; what is wrong with it is the first other's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from claude_bottle.lib.egress.credentials import AUTHORIZATION, Injection, placeholder
from claude_bottle.lib.env import HOST_VARIABLE
from claude_bottle.lib.host import wait
from claude_bottle.lib.schema import schema_check
from claude_bottle.lib.schema.manifest_words import FILE_NAME
from claude_bottle.lib.schema.schema_check import Place

Dlp = Literal["warn", "block"]
SSH_FIELDS = ("Host", "IdentityFile", "Hostname", "User", "Port")  # required, in the shell's order


@dataclass(frozen=True)
class Agent:
    """One agent.

    Attributes:
        name: of the agent.
        at: its file and JSON path.
        is_object: whether there is anything to ask for the rest.
        bottle: its bottle's name.
        bottle_at: the name's file and JSON path.
        skills: names of folders.
        prompt: its text.
    """

    name: str
    at: str
    is_object: bool
    bottle: str
    bottle_at: str
    skills: tuple[str, ...]
    prompt: str


@dataclass(frozen=True)
class EnvEntry:
    """One variable: its literal value, the host variable it comes from, or the question to ask."""

    name: str
    mode: Literal["literal", "host", "secret"]
    text: str
    at: str = ""


@dataclass(frozen=True)
class SshEntry:
    """One host that a bottle may reach by ssh."""

    host: str
    identity_file: str
    hostname: str
    user: str
    port: str
    known_host_key: str
    at: str = ""


@dataclass(frozen=True)
class ListedHost:
    """One entry of a bottle's allowlist."""

    host: str
    at: str = ""


@dataclass(frozen=True)
class Credential:
    """One credential of a bottle: how it is put in, and the host variable, question or command that it comes from."""

    injection: Injection
    mode: Literal["host", "secret", "command"]
    text: str = ""
    command: tuple[str, ...] = ()
    has_header: bool = False
    at: str = ""


@dataclass(frozen=True)
class Limit:
    """One limit of a bottle: of what (a key of the schema's), and its value as it is written."""

    name: str
    text: str
    at: str = ""


@dataclass(frozen=True)
class Dockerfile:
    """The Dockerfile of a bottle's own: its path as it is written, the folder that this begins at, and where it is."""

    name: str
    folder: str
    at: str = ""

    @property
    def path(self) -> str:
        """Where it is on the host."""
        return os.path.normpath(os.path.join(self.folder, self.name))


@dataclass(frozen=True)
class Bottle:
    """One bottle.

    Attributes:
        name: of the bottle.
        at: its file and JSON path.
        env_names: all names of its env, in manifest order.
        env: the variables that are texts, in manifest order.
        ssh: the entries with all fields, each of its type.
        allowlist: the hosts that are texts.
        limits: those that are of their type, in the schema's order.
        runtime: the name of the engine's.
        runtime_at: the name's file and JSON path.
        dockerfile: what its own image is built by, if it has one.
        place: whether a Swarm chooses its machine.
        placement: what that has to be, in Swarm's words.
        credentials: those that are whole, in manifest order.
        inspect: whether a host's traffic is to be looked into, where the manifest says so.
        dlp: what becomes of a secret that is found in it: "warn" or "block".
    """

    name: str
    at: str = ""
    env_names: tuple[str, ...] = ()
    env: tuple[EnvEntry, ...] = ()
    ssh: tuple[SshEntry, ...] = ()
    allowlist: tuple[ListedHost, ...] = ()
    limits: tuple[Limit, ...] = ()
    runtime: str = ""
    runtime_at: str = ""
    dockerfile: Dockerfile | None = None
    place: bool = False
    placement: tuple[str, ...] = ()
    credentials: tuple[Credential, ...] = ()
    inspect: tuple[tuple[str, bool], ...] = ()
    dlp: Dlp = "warn"


@dataclass(frozen=True)
class Sources:
    """The files that a manifest comes from, the working directory's first, and what each of them holds."""

    files: tuple[str, ...] = ()
    parts: tuple[dict[str, Any], ...] = ()

    def where(self, place: Place) -> str:
        """Return the file and the JSON path of a place: the file that says what is there, or at the nearest above."""
        wait.check_signals()  # every loop over a large manifest comes here
        return f"{self.file_of(place)}: {schema_check.json_path(place)}"

    def file_of(self, place: Place) -> str:
        """Return the file that says what is at a place, or at the nearest above."""
        for length in range(len(place), 0, -1):
            for file, part in zip(self.files, self.parts, strict=True):
                if _has(part, place[:length]):
                    return file
        return self.files[0] if self.files else FILE_NAME


def _has(value: Any, place: Place) -> bool:
    for step in place:
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if step not in inside:
            return False
        value = value[step]
    return True


def parse_agents(merged: Any, sources: Sources) -> dict[str, Agent]:
    """Return a manifest's agents by name.

    Args:
        merged: the whole manifest.
        sources: where it comes from.
    """
    return {name: _agent(name, value, sources) for name, value in as_object(merged.get("agents")).items()}


def _agent(name: str, value: Any, sources: Sources) -> Agent:
    place, fields = ("agents", name), as_object(value)
    return Agent(
        name=name,
        at=sources.where(place),
        is_object=isinstance(value, dict),
        bottle=_text(fields.get("bottle")),
        bottle_at=sources.where((*place, "bottle")),
        skills=tuple(item for item in as_list(fields.get("skills")) if isinstance(item, str)),
        prompt=_text(fields.get("prompt")),
    )


def parse_bottles(merged: Any, sources: Sources, broken: Collection[Place]) -> dict[str, Bottle]:
    """Return a manifest's bottles by name.

    Args:
        merged: the whole manifest.
        sources: where it comes from.
        broken: the places of the entries that are left out.
    """
    bottles = as_object(merged.get("bottles"))
    return {name: _bottle(name, value, sources, broken) for name, value in bottles.items()}


def _bottle(name: str, value: Any, sources: Sources, broken: Collection[Place]) -> Bottle:
    place, fields = ("bottles", name), as_object(value)
    env = as_object(fields.get("env"))
    egress, credentials = as_object(fields.get("egress")), as_object(fields.get("credentials"))
    inspect = as_object(egress.get("inspect"))
    return Bottle(
        name=name,
        at=sources.where(place),
        env_names=tuple(env),
        env=tuple(_env((*place, "env"), env, sources)),
        ssh=tuple(_ssh((*place, "ssh"), as_list(fields.get("ssh")), sources, broken)),
        allowlist=tuple(_listed((*place, "egress", "allowlist"), as_list(egress.get("allowlist")), sources)),
        limits=tuple(_limits((*place, "limits"), as_object(fields.get("limits")), sources)),
        runtime=_text(fields.get("runtime")),
        runtime_at=sources.where((*place, "runtime")),
        dockerfile=_dockerfile((*place, "dockerfile"), _text(fields.get("dockerfile")), sources),
        place=fields.get("place") is True,
        placement=tuple(text for text in as_list(fields.get("placement")) if isinstance(text, str)),
        credentials=tuple(_credentials((*place, "credentials"), credentials, sources, broken)),
        inspect=tuple((host, wish) for host, wish in inspect.items() if isinstance(wish, bool)),
        dlp="block" if egress.get("dlp") == "block" else "warn",
    )


def _env(place: Place, env: dict[str, Any], sources: Sources) -> Iterator[EnvEntry]:
    for name, value in env.items():
        if isinstance(value, str):
            yield env_entry(name, value, sources.where((*place, name)))


def env_entry(name: str, value: str, at: str = "") -> EnvEntry:
    """Return what a variable's text asks for.

    Args:
        name: of the variable.
        value: its text.
        at: its file and JSON path.
    """
    if value.startswith("?"):
        return EnvEntry(name, "secret", value[1:], at)
    host = HOST_VARIABLE.fullmatch(value)
    return EnvEntry(name, "host", host[1], at) if host else EnvEntry(name, "literal", value, at)


def _ssh(place: Place, entries: list[Any], sources: Sources, broken: Collection[Place]) -> Iterator[SshEntry]:
    for index, entry in enumerate(entries):
        here = (*place, index)
        if here not in broken:
            host, key, hostname, user, port = (as_word(entry[field]) for field in SSH_FIELDS)
            yield SshEntry(host, key, hostname, user, port, entry.get("KnownHostKey") or "", sources.where(here))


def _listed(place: Place, hosts: list[Any], sources: Sources) -> Iterator[ListedHost]:
    for index, host in enumerate(hosts):
        if isinstance(host, str):
            yield ListedHost(host, sources.where((*place, index)))


def _dockerfile(place: Place, name: str, sources: Sources) -> Dockerfile | None:
    folder = os.path.dirname(sources.file_of(place))
    return Dockerfile(name, folder, sources.where(place)) if name else None


def _credentials(
    place: Place, credentials: dict[str, Any], sources: Sources, broken: Collection[Place]
) -> Iterator[Credential]:
    for name, fields in credentials.items():
        here = (*place, name)
        if here not in broken and fields is not None:
            yield _credential(name, fields, sources.where(here))


def _credential(name: str, fields: dict[str, Any], at: str) -> Credential:
    injection = Injection(
        variable=name,
        placeholder=placeholder(name),
        hosts=tuple(dict.fromkeys(fields["hosts"])),
        paths=tuple(dict.fromkeys(as_list(fields.get("paths")))),
        header=_text(fields.get("header")).lower() or AUTHORIZATION,
        scheme=fields.get("scheme") or "",
        user=_text(fields.get("user")),
    )
    value = fields["value"]
    has_header = bool(fields.get("header"))
    if isinstance(value, dict):
        return Credential(injection, "command", "", tuple(value["command"]), has_header, at)
    entry = env_entry(name, value)
    return Credential(injection, "host" if entry.mode == "host" else "secret", entry.text, (), has_header, at)


def _limits(place: Place, limits: dict[str, Any], sources: Sources) -> Iterator[Limit]:
    for name in schema_check.KEYS["limits"]:
        value = limits.get(name)
        if isinstance(value, str if name == "memory" else int | float) and not isinstance(value, bool):
            yield Limit(name, as_word(value), sources.where((*place, name)))


def as_object(value: Any) -> dict[str, Any]:
    """Return an object, an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return an array, an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def as_word(value: Any) -> str:
    """Return a text or a number as it is written; a number that is whole is written whole, as jq does."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
