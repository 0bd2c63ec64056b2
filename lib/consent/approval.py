"""What the current folder's manifest adds to the home's: whoever cloned a repository has not chosen it.

Each entry that reaches out of the bottle is shown, and needs the user's word once. With ``manifest_parse`` and
``manifest_check`` this walks the JSON, since a digest covers an entry as it is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from claude_bottle.lib import env, log
from claude_bottle.lib.docker import PROXY_NAMES
from claude_bottle.lib.egress.pipelock_hosts import DEFAULT_HOSTS
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.files.recipe import SHOWN, look
from claude_bottle.lib.host import wait
from claude_bottle.lib.manifest import FILE_NAME, Manifest, manifest_bottle
from claude_bottle.lib.schema.manifest_parse import SSH_FIELDS, Dockerfile, as_list, as_object, env_entry
from claude_bottle.lib.schema.schema_check import KEYS, Place, json_path

SOURCE = f"from ./{FILE_NAME}"
STEERING = ("ANTHROPIC_", "CLAUDE_")  # names of what tells the client where to go, and with which token
NOTHING: Mapping[Place, None] = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """One entry of a manifest that reaches out of its bottle.

    Attributes:
        path: its JSON path, in ASCII: two letters that look alike are told apart.
        reaches: what it reaches, in words.
        key: its place, without a list's index, and what is there.
        digest: of the key, and of the bottle as the home's manifest has it: a change there can change what it means.
    """

    path: str
    reaches: str
    key: str
    digest: str = ""


def added(found: Manifest, agents: Iterable[str]) -> tuple[Entry, ...]:
    """Return what the current folder's file adds or changes, for some agents and their bottles.

    Args:
        found: the merged manifest.
        agents: their names.
    """
    if found.home is None:
        return ()
    merged, home = found.merged, found.home
    names, entries = list(agents), list[Entry]()
    for agent in names:
        entries += _added_to_agent(merged, home, agent)
    chosen = {(_bottle_of(merged, agent), _bottle_of(merged, agent) == _bottle_of(home, agent)) for agent in names}
    for bottle, kept in sorted(chosen):
        entries += _added_to_bottle(bottle, as_object(merged.get("bottles")), as_object(home.get("bottles")), kept)
        entries += _added_dockerfile(found, bottle, kept)
    return tuple({entry.path: entry for entry in entries}.values())


def _added_to_agent(merged: dict[str, Any], home: dict[str, Any], agent: str) -> Iterator[Entry]:
    bottle, instead_of = _bottle_of(merged, agent), _bottle_of(home, agent)
    before = _bottle(home, bottle)
    if bottle != instead_of and (instead_of or before is not None):
        what = f"the bottle {_quoted(bottle)}" + (" of the home manifest" if before is not None else "")
        instead = f", in place of {_quoted(instead_of)}" if instead_of else ""
        yield _digested(_entry(("agents", agent, "bottle"), what + instead, [bottle, instead_of]), before)
    yield from _new(_skill_entries(merged, agent), _skill_entries(home, agent), before)


def _added_to_bottle(name: str, merged: dict[str, Any], home: dict[str, Any], kept: bool) -> Iterator[Entry]:
    """Yield what a bottle has more than the home's.

    Args:
        name: of the bottle.
        merged: all bottles.
        home: the home's.
        kept: the home's manifest too gives it to the agent; else all that it has comes to the agent by the folder's.
    """
    now, before = as_object(merged.get(name)), as_object(home.get(name)) if kept else {}
    lifted = {place: None for place, value in _settings(name, home.get(name)) if value is not None}
    yield from _new(_bottle_entries(name, now, lifted), _bottle_entries(name, before), home.get(name))


def _added_dockerfile(found: Manifest, name: str, kept: bool) -> Iterator[Entry]:
    """Yield what builds a bottle's image, where the home's has not the same: what is in the files counts."""
    now, home = manifest_bottle(found, name).dockerfile, _bottle(found.home or {}, name)
    text = as_object(home).get("dockerfile")
    before = Dockerfile(text, found.home_folder) if kept and isinstance(text, str) and text else None
    known = [_dockerfile_entry(found, name, before)] if before else []
    if now:
        yield from _new([_dockerfile_entry(found, name, now)], known, home)


def _dockerfile_entry(found: Manifest, name: str, dockerfile: Dockerfile) -> Entry:
    try:
        digest = look(dockerfile.path, dockerfile.folder, found.home_folder).digest
    except BottleError:  # a start says why
        digest = ""
    what = f"sha256:{digest[:SHOWN]}" if digest else "cannot be read"
    reaches = f"the image, built by {_word(dockerfile.name)} ({what}) with the engine's network"
    return _entry(("bottles", name, "dockerfile"), reaches, digest)


def _new(entries: Iterable[Entry], known: Iterable[Entry], before: Any) -> Iterator[Entry]:
    keys = {entry.key for entry in known}
    return (_digested(entry, before) for entry in entries if entry.key not in keys)


def _digested(entry: Entry, before: Any) -> Entry:
    return Entry(entry.path, entry.reaches, entry.key, _digest([entry.key, before]))


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _agent(manifest: dict[str, Any], agent: str) -> dict[str, Any]:
    return as_object(as_object(manifest.get("agents")).get(agent))


def _bottle_of(manifest: dict[str, Any], agent: str) -> str:
    name = _agent(manifest, agent).get("bottle")
    return name if isinstance(name, str) else ""


def _bottle(manifest: dict[str, Any], name: str) -> Any:
    return as_object(manifest.get("bottles")).get(name)


def _skill_entries(manifest: dict[str, Any], agent: str) -> Iterator[Entry]:
    for index, skill in enumerate(as_list(_agent(manifest, agent).get("skills"))):
        yield _entry(("agents", agent, "skills", index), f"the host's skill {_quoted(skill)}", skill)


def _bottle_entries(name: str, bottle: dict[str, Any], lifted: Mapping[Place, None] = NOTHING) -> Iterator[Entry]:
    """Yield what a bottle reaches, in the manifest's order, and the settings that it no longer has."""
    place = ("bottles", name)
    yield from _env_entries((*place, "env"), as_object(bottle.get("env")))
    for index, entry in enumerate(as_list(bottle.get("ssh"))):
        yield _ssh_entry((*place, "ssh", index), as_object(entry))
    yield from _credential_entries((*place, "credentials"), as_object(bottle.get("credentials")))
    for index, host in enumerate(as_list(as_object(bottle.get("egress")).get("allowlist"))):
        if host not in DEFAULT_HOSTS:
            yield _entry((*place, "egress", "allowlist", index), f"the host {_word(host)}", host)
    settings = {**lifted, **dict(_settings(name, bottle))}
    for at, value in settings.items():
        if value is not None or at in lifted:
            yield _setting_entry(at, value)


def _env_entries(place: Place, env: dict[str, Any]) -> Iterator[Entry]:
    for name, value in env.items():
        entry = env_entry(name, value if isinstance(value, str) else "")
        if name in PROXY_NAMES:
            yield _entry((*place, name), "a proxy variable", value)
        elif entry.mode == "host":
            yield _entry((*place, name), f"the host's variable {entry.text}", value)
        elif entry.mode == "secret":
            asked = f"a secret, asked for as {_quoted(entry.text)}" if entry.text else "a secret"
            yield _entry((*place, name), asked, value)
        elif name.startswith(STEERING):
            yield _entry((*place, name), "where the client takes the token", value)


def _credential_entries(place: Place, credentials: dict[str, Any]) -> Iterator[Entry]:
    for name, value in credentials.items():
        if value is not None:
            fields = {field: as_object(value).get(field) for field in KEYS["credential"]}
            yield _entry((*place, name), _credential(fields), fields)


def _credential(fields: dict[str, Any]) -> str:
    """Return where a credential comes from and where it goes."""
    value = fields.get("value")
    command = " ".join(map(_word, as_list(as_object(value).get("command"))))
    entry = env_entry("", value if isinstance(value, str) else "?")
    source = f"the host's variable {entry.text}" if entry.mode == "host" else "a secret"
    if entry.mode == "secret" and entry.text:
        source = f"a secret, asked for as {_quoted(entry.text)}"
    hosts, paths = (", ".join(map(_word, as_list(fields.get(key)))) for key in ("hosts", "paths"))
    return f"{f'what the command {command} says' if command else source}, put in for {hosts}, {paths or 'any path'}"


def _ssh_entry(place: Place, entry: dict[str, Any]) -> Entry:
    key, hostname, user, port = (_word(entry.get(field)) for field in SSH_FIELDS[1:])
    fields = {field: entry.get(field) for field in (*SSH_FIELDS, "KnownHostKey")}
    return _entry(place, f"the host's ssh key {key}, for {user}@{hostname}:{port}", fields)


def _settings(name: str, bottle: Any) -> Iterator[tuple[Place, Any]]:
    fields = as_object(bottle)
    yield ("bottles", name, "runtime"), fields.get("runtime")
    yield ("bottles", name, "place"), fields.get("place")
    yield ("bottles", name, "placement"), fields.get("placement")
    for key, value in as_object(fields.get("limits")).items():
        yield ("bottles", name, "limits", key), value
    egress = as_object(fields.get("egress"))
    yield ("bottles", name, "egress", "dlp"), egress.get("dlp")
    for host, wish in as_object(egress.get("inspect")).items():
        yield ("bottles", name, "egress", "inspect", host), wish


def _setting_entry(place: Place, value: Any) -> Entry:
    match place[2:]:
        case ("egress", "inspect", host):
            shown = "it is" if value is True else "it is not" if value is False else "as by default"
            return _entry(place, f"whether traffic with {_word(host)} is inspected: {shown}", value)
        case ("egress", "dlp"):
            what = "what becomes of a secret in inspected traffic"
        case ("limits", name):
            what = f"the limit {_word(name)}"
        case ("place",):
            what = "whether a Swarm chooses the machine"
        case ("placement",):
            what = "which machines a Swarm may choose"
        case _:
            what = "the runtime"
    return _entry(place, f"{what}: {'none' if value is None else _word(value)}", value)


def _entry(place: Place, reaches: str, value: Any) -> Entry:
    wait.check_signals()  # a large manifest takes a while
    return Entry(_path(place), reaches, _canonical([[step for step in place if isinstance(step, str)], value]))


def _path(place: Place) -> str:
    return json_path(place).encode("ascii", "backslashreplace").decode()


def _quoted(text: Any) -> str:
    return json.dumps(text, ensure_ascii=False)


def _word(value: Any) -> str:
    """Return a word as it is, and whatever has blanks or no form of its own in quotes."""
    return value if isinstance(value, str) and value.split() == [value] else _quoted(value)


@dataclass(frozen=True)
class Approval:
    """What the current folder's manifest adds, and what of it the user has not agreed to.

    Attributes:
        entries: all of it, in the manifest's order.
        remembered: digests by JSON path, of what the user has agreed to in this folder.
    """

    entries: tuple[Entry, ...] = ()
    remembered: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """All that there will be to remember after the user's yes."""
        return {entry.path: entry.digest for entry in self.entries}

    @property
    def pending(self) -> list[Entry]:
        """What the user has not agreed to; an entry that only moved in its list is agreed to."""
        known = set(self.remembered.values())
        return [entry for entry in self.entries if entry.digest not in known]

    def is_pending(self, place: Place) -> bool:
        """Say whether the user has not agreed to what is at a place."""
        return _path(place) in {entry.path for entry in self.pending}

    def lines(self) -> list[str]:
        """Return a line for each entry that is pending: its JSON path and what it reaches."""
        return [f"{entry.path}{self._mark(entry)} : {entry.reaches}" for entry in self.pending]

    def _mark(self, entry: Entry) -> str:
        return " (changed)" if entry.path in self.remembered else ""

    def say(self) -> None:
        """Print what is pending as a part of the preflight."""
        lines = self.lines()
        for line in [SOURCE, *(f"  {line}" for line in lines)] if lines else ():
            log.log_info(line)


def folder_digest(entries: Iterable[Entry]) -> str:
    """Return one digest over entries: those of all agents stand for the whole of the folder's file."""
    return _digest({entry.path: entry.digest for entry in entries})


def unapproved(approval: Approval, given: str, digest: str) -> BottleError:
    """Return the error of a start that asks nobody: ``--yes`` is no word for a manifest that somebody else wrote.

    Args:
        approval: of the agent.
        given: the folder's digest as the user's variable has it, or an empty text.
        digest: as it is.
    """
    message = f"--yes does not cover what ./{FILE_NAME} adds; './cli.sh approve' lists and remembers it"
    if given:
        message = f"{env.APPROVED_VARIABLE} is not the digest of what ./{FILE_NAME} adds"
    return BottleError(message, [*approval.lines(), f"in CI: {env.APPROVED_VARIABLE}={digest}"])
