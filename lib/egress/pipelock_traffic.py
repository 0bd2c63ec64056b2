"""What the sidecar is told of the traffic that it opens: how large it may be, and what becomes of a secret in it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from claude_bottle.lib.egress.inspection import Watched, plain

MIB = 1024**2
MOST_SENT = 34 * MIB  # the model itself takes 32 MB: a history that is full of images passes
MOST_RECEIVED = 16 * MIB

_OPENED = """\
tls_interception:
  enabled: true
  ca_cert: {folder}/ca.pem
  ca_key: {folder}/ca-key.pem
  max_response_bytes: {received}
{passed}request_body_scanning:
  enabled: true
  action: {dlp}
  max_body_bytes: {sent}
seed_phrase_detection:
  enabled: false
"""
# A key in the history of a conversation would have each later turn refused. No class covers the plain header of a key.
_REDACTED = """\
redaction:
  enabled: true
  default_profile: bottle
  profiles:
    bottle:
      classes:
{classes}      dictionaries:
        - "private-key-header"
  dictionaries:
    private-key-header:
      class: private-key-header
      entries:
        - "-----BEGIN PRIVATE KEY-----"
      case_insensitive: true
  limits:
    max_body_bytes: {sent}
"""
CLASSES = ("aws-access-key", "google-api-key", "github-token", "slack-token", "jwt", "ssh-private-key")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*")  # what the list of such hosts takes


@dataclass(frozen=True)
class _Demoted:
    """A pattern that takes the place of the sidecar's own of that name, and is only logged."""

    name: str
    regex: str
    severity: str
    validator: str = ""


# What a shell's `env`, a test's data and a page's form are full of: they would refuse half of a day's work.
_DEMOTED = (
    _Demoted(
        "Environment Variable Secret",
        r"(?-i:\b[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD))\s*=\s*\S{8,}",
        "high",
    ),
    _Demoted("Credential in URL", r"[?&;](?:password|passwd|secret|token|api[_-]?key)=[^\s&]{4,}", "high"),
    _Demoted("Social Security Number", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", "low"),
    _Demoted("Credit Card Number", r"\b[2-6][0-9]{3}(?:[ -]?[0-9]){10,15}\b", "medium", "luhn"),
    _Demoted("IBAN", r"\b[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\b", "medium", "mod97"),
)


def items(values: Iterable[str], indent: str) -> str:
    """Return a YAML list, an item a line.

    Args:
        values: its items.
        indent: of each line.
    """
    return "".join(f"{indent}- {json.dumps(value, ensure_ascii=False)}\n" for value in values)


def patterns(dlp: str) -> str:
    """Return what ``dlp`` has beyond its switches: the patterns that only log where all others refuse.

    Args:
        dlp: what becomes of a secret: ``warn`` or ``block``.
    """
    return "  patterns:\n" + "".join(map(_pattern, _DEMOTED)) if dlp == "block" else ""


def _pattern(one: _Demoted) -> str:
    text = f'    - name: "{one.name}"\n      regex: {json.dumps(one.regex)}\n      severity: {one.severity}\n'
    return text + (f"      validator: {one.validator}\n" if one.validator else "") + "      action: warn\n"


def opened(watched: Sequence[Watched], dlp: str, folder: str, models: Collection[str]) -> str:
    """Return the sections about traffic that is opened.

    Args:
        watched: what becomes of each host's traffic.
        dlp: what becomes of a secret in it: ``warn`` or ``block``.
        folder: of the sidecar's, where the bottle's authority is.
        models: the hosts that the model answers at, which are sent nothing but JSON.
    """
    passed = _list("  passthrough_domains:\n", "    ", _names(each for each in watched if not each.inspected))
    text = _OPENED.format(folder=folder, passed=passed, dlp=dlp, sent=MOST_SENT, received=MOST_RECEIVED)
    return text + (_redaction(watched, models) if dlp == "block" else "")


def _redaction(watched: Sequence[Watched], models: Collection[str]) -> str:
    """Return the section that takes keys out of JSON; what is no JSON passes unchanged, but to the model."""
    apis = (name for name in _names(each for each in watched if each.inspected) if _HOST.fullmatch(name))
    opaque = _list("  allowlist_unparseable:\n", "    ", (name for name in apis if name not in models))
    return _REDACTED.format(classes=items(CLASSES, "        "), sent=MOST_SENT) + opaque


def _list(key: str, indent: str, names: Iterable[str]) -> str:
    found = sorted(set(names))
    return key + items(found, indent) if found else ""


def _names(watched: Iterable[Watched]) -> Iterator[str]:
    """Yield the hosts as the sidecar's lists take them, where a wildcard is what is below only."""
    for each in watched:
        host = plain(each.host)
        yield host
        if host.startswith("*."):
            yield host.removeprefix("*.")
