"""A bottle's credentials: what they may be, and their values, which the broker alone gets."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from secrets import token_urlsafe
from typing import Literal

from claude_bottle.lib import env, withhold
from claude_bottle.lib.docker import PROXY_NAMES
from claude_bottle.lib.egress.broker_config import MOST_HOSTS
from claude_bottle.lib.egress.credentials import AUTHORIZATION, Injection, model_injection, shared_target
from claude_bottle.lib.egress.inspection import plain
from claude_bottle.lib.env_resolve import CREDENTIALS, Secrets, no_terminal
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import calls, run, wait
from claude_bottle.lib.manifest import Manifest, manifest_bottle
from claude_bottle.lib.problems import UnseenByShell, fail_with, nearest
from claude_bottle.lib.schema.manifest_parse import Bottle, Credential

TokenGoes = Literal["", "bottle", "broker"]
COMMAND_SECONDS = 30.0
BASE_URL = "ANTHROPIC_BASE_URL"
BROKER_PORT = "443"
LONGEST = 8000  # the broker has room for one that is a third longer, which it is in base64
LAST_LINES = 8  # of what a command says that fails
# They say how a message is read or where it goes, or hold more than a credential.
_OTHER_HEADERS = frozenset(
    ("connection", "content-length", "content-type", "cookie", "expect", "host", "keep-alive", "proxy-authorization")
)
_OTHER_HEADERS |= {"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_NO_HEADER = re.compile("[\0-\x1f\x7f]")


def credentials_check(manifest: Manifest, bottle: str, settings: env.Settings, environ: Mapping[str, str]) -> None:
    """Fail unless a bottle's credentials are such as the schema has them, and go together with all else.

    Args:
        manifest: the merged one.
        bottle: its name.
        settings: from the environment.
        environ: the caller's environment.

    Raises:
        BottleError: with all that is wrong with them.
    """
    found = manifest_bottle(manifest, bottle)
    problems = manifest.checks.problems("bottles", bottle, "credentials")
    own = [problem for credential in found.credentials for problem in _problems(found, credential)]
    meetings = (*_meetings(found, settings, environ), *_ssh_meetings(found, settings, environ))
    others = (*_no_place_for_token(found, settings, environ), *_too_many(found, settings, environ))
    fail_with([*problems, *own, *meetings, *others])


def _problems(bottle: Bottle, credential: Credential) -> Iterator[BottleError]:
    injection, name = credential.injection, credential.injection.variable
    who = f"bottle '{bottle.name}': credentials.{name}"
    if name in bottle.env_names:
        yield UnseenByShell(f"bottle '{bottle.name}': '{name}' is in env and in credentials", [credential.at])
    if name in PROXY_NAMES:
        yield UnseenByShell(f"{who}: the variable is set by claude-bottle", [credential.at])
    if credential.mode == "host" and env.is_needed(credential.text):
        line = f"{who}: the host variable '{credential.text}' is what docker itself needs, and no credential"
        yield UnseenByShell(line, [credential.at])
    if credential.has_header and injection.header == AUTHORIZATION:
        yield UnseenByShell(f"{who}: leave header out for Authorization; scheme says which", [credential.at])
    if injection.header in _OTHER_HEADERS:
        line = f"{who}: the header '{injection.header}' is not one that holds a credential"
        yield UnseenByShell(line, [credential.at])


def _meetings(bottle: Bottle, settings: env.Settings, environ: Mapping[str, str]) -> Iterator[BottleError]:
    places = {credential.injection.variable: credential.at for credential in bottle.credentials}
    for one, other in combinations(injections(bottle, settings, environ), 2):
        wait.check_signals()  # among many this takes a while
        if target := shared_target(one, other):
            names = sorted((one.variable, other.variable))
            line = f"bottle '{bottle.name}': the credentials {names[0]} and {names[1]} are both for {target}"
            yield UnseenByShell(line, [places.get(name, env.TOKEN_VARIABLE) for name in names])


def _ssh_meetings(bottle: Bottle, settings: env.Settings, environ: Mapping[str, str]) -> Iterator[BottleError]:
    """Yield the ssh entries of hosts that the broker itself answers for on that port."""
    hosts = {host for injection in injections(bottle, settings, environ) for host in injection.hosts}
    for entry in bottle.ssh:
        if plain(entry.hostname) in hosts and entry.port.lstrip("0") == BROKER_PORT:
            line = f"bottle '{bottle.name}': ssh to {entry.hostname}:{entry.port}, where a credential is put in"
            yield UnseenByShell(line, [entry.at])


def _too_many(bottle: Bottle, settings: env.Settings, environ: Mapping[str, str]) -> Iterator[BottleError]:
    hosts = {host for injection in injections(bottle, settings, environ) for host in injection.hosts}
    if len(hosts) > MOST_HOSTS:
        line = f"bottle '{bottle.name}': credentials are for {len(hosts)} hosts, and a bottle can have {MOST_HOSTS}"
        yield UnseenByShell(line, [credential.at for credential in bottle.credentials])


def _no_place_for_token(bottle: Bottle, settings: env.Settings, environ: Mapping[str, str]) -> Iterator[BottleError]:
    """Yield why the token cannot be put in at the manifest's own place of the model, if the client would send it."""
    names = {*bottle.env_names, *(credential.injection.variable for credential in bottle.credentials)}
    if names & {*CREDENTIALS} - {env.TOKEN_NAME} or token_goes(bottle, settings) != "broker":
        return
    url, at = _base_url(bottle, environ)
    if url is None or (url and model_injection(url) is None):
        line = f"bottle '{bottle.name}': env '{BASE_URL}' must be https://, a host's name and at most a path"
        fix = f"only there can the token be put in; {env.IN_BOTTLE_VARIABLE}=1 gives it to the bottle"
        yield UnseenByShell(line, [at, fix])


def _base_url(bottle: Bottle, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the manifest's own place of the model, and where it says so; None for one that will be asked for."""
    for entry in bottle.env:
        if entry.name == BASE_URL:
            known = {"literal": entry.text, "host": environ.get(entry.text, ""), "secret": None}
            return known[entry.mode], entry.at
    return "", ""


def token_goes(bottle: Bottle, settings: env.Settings) -> TokenGoes:
    """Return who gets the caller's token: nobody where there is none, or the manifest has a credential in its place."""
    named = any(credential.injection.variable == env.TOKEN_NAME for credential in bottle.credentials)
    if not settings.has_token or named:
        return ""
    return "bottle" if settings.token_in_bottle else "broker"


def injections(bottle: Bottle, settings: env.Settings, environ: Mapping[str, str]) -> tuple[Injection, ...]:
    """Return all that is put in for a bottle, the token's first.

    Args:
        bottle: parsed.
        settings: from the environment.
        environ: the caller's environment.
    """
    own = tuple(credential.injection for credential in bottle.credentials)
    if token_goes(bottle, settings) != "broker":
        return own
    token = model_injection(_base_url(bottle, environ)[0] or "") or model_injection()
    assert token is not None
    return (token, *own)


def has_login(bottle: Bottle) -> bool:
    """Say whether one of a bottle's credentials is what Claude Code logs in with."""
    return any(credential.injection.variable in CREDENTIALS for credential in bottle.credentials)


def credentials_check_values(
    bottle: Bottle, settings: env.Settings, environ: Mapping[str, str], has_terminal: bool
) -> None:
    """Fail unless every value can be had, as far as that can be told before anything is asked or run.

    Args:
        bottle: checked.
        settings: from the environment.
        environ: the caller's environment.
        has_terminal: whether there is one to ask on.

    Raises:
        BottleError: with all values that cannot be had; never with a value.
    """
    problems = []
    if token_goes(bottle, settings) == "broker" and (wrong := _misfit(environ[env.TOKEN_VARIABLE])):
        problems.append(UnseenByShell(f"{env.TOKEN_VARIABLE} {wrong}"))
    for credential in bottle.credentials:
        line, hints = _value_problem(credential, environ, has_terminal)
        if line:
            problems.append(UnseenByShell(line, [credential.at, *hints]))
    fail_with(problems)


def _value_problem(credential: Credential, environ: Mapping[str, str], has_terminal: bool) -> tuple[str, list[str]]:
    name = credential.injection.variable
    match credential.mode:
        case "host" if credential.text not in environ:
            hints = nearest(credential.text, environ)
            return f"host variable '{credential.text}' (for '{name}') is not set", hints
        case "host" if wrong := _misfit(environ[credential.text]):
            return f"host variable '{credential.text}' (for '{name}') {wrong}", []
        case "secret" if not has_terminal:
            return no_terminal(name), []
        case "command" if not _program(credential, environ):
            return f"the command for '{name}' cannot be found: {credential.command[0]}", []
    return "", []


def _misfit(value: str) -> str:
    """Return why a value cannot be put into a header; an empty text if it can."""
    if not value:
        return "is empty"
    if len(value) > LONGEST:
        return f"is longer than {LONGEST} characters"
    return "has a line break or a control character in it, which no header can hold" if _NO_HEADER.search(value) else ""


def credentials_resolve(
    secrets: Secrets, credentials: Iterable[Credential], environ: Mapping[str, str], ask: Callable[[str, str], str]
) -> None:
    """Take the values that need no command, asking where needed.

    Args:
        secrets: gets them.
        credentials: of the bottle, checked.
        environ: the caller's environment.
        ask: gets name and question, returns the answer.

    Raises:
        BottleError: no value was entered, or one that no header can hold.
    """
    for credential in credentials:
        name = credential.injection.variable
        if credential.mode == "host":
            secrets.inject(credential.injection, environ[credential.text])
        elif credential.mode == "secret":
            _take(secrets, credential, ask(name, credential.text), f"the answer for '{name}'")


def credentials_at_hand(
    secrets: Secrets, injections: Iterable[Injection], sources: Iterable[Credential], environ: Mapping[str, str]
) -> None:
    """Take the values that are in the environment, and random ones for the others: nothing is asked, nothing runs.

    Args:
        secrets: gets them.
        injections: what is put in.
        sources: where the values of the manifest's own come from.
        environ: the caller's environment.
    """
    variables = {env.TOKEN_NAME: env.TOKEN_VARIABLE}
    variables |= {each.injection.variable: each.text if each.mode == "host" else "" for each in sources}
    for injection in injections:
        value = environ.get(variables[injection.variable], "")
        usable = len(value) >= withhold.SHORTEST and not _misfit(value)
        secrets.inject(injection, value if usable else token_urlsafe())


def credentials_run(secrets: Secrets, credentials: Iterable[Credential], environ: Mapping[str, str]) -> None:
    """Run the commands that say values: only after the user's word.

    Args:
        secrets: gets what they say.
        credentials: of the bottle, checked.
        environ: the caller's environment.

    Raises:
        BottleError: one failed, said nothing or what no header can hold, or was not done in time.
        Interrupted: a signal arrived.
    """
    for credential in credentials:
        if credential.mode == "command":
            _take(secrets, credential, _said(credential, environ), _what(credential))


def _take(secrets: Secrets, credential: Credential, value: str, what: str) -> None:
    if wrong := _misfit(value):
        raise BottleError(f"{what} {wrong}", [credential.at])
    secrets.inject(credential.injection, value)


def _what(credential: Credential) -> str:
    return f"what the command for '{credential.injection.variable}' says"


def _program(credential: Credential, environ: Mapping[str, str]) -> str:
    return shutil.which(credential.command[0], path=environ.get("PATH", "")) or ""


def _said(credential: Credential, environ: Mapping[str, str]) -> str:
    until = time.monotonic() + COMMAND_SECONDS

    def awaited() -> float:
        run.on_signal()
        return until

    def is_late() -> bool:
        return time.monotonic() >= until

    program, words = _program(credential, environ), credential.command[1:]
    call = calls.Call(program, words, run.child_env(), math.inf, check=awaited, interruptible=True, needless=is_late)
    done = calls.perform(calls.one(call))
    late = is_late()  # whatever its status is then: it may take its end for a good one
    if late or not done.ok:
        how = f"was not done within {COMMAND_SECONDS:.0f} s" if late else f"failed with status {done.status}"
        lines = done.failure.splitlines()[-LAST_LINES:]
        raise BottleError(f"the command for '{credential.injection.variable}' {how}", [credential.at, *lines])
    return done.text
