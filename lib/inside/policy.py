"""What is allowed in a bottle, told in there: a note for the agent, and the same as data (not the shell's)."""

from __future__ import annotations

import json
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.consent.summary import Grants
from claude_bottle.lib.schema.manifest_words import FILE_NAME
from claude_bottle.lib.schema.schema_check import json_path

FORM = 1  # of policies; another one means that a reader must know more
SHOWN_HOSTS = 20
WORK = {
    "branches": "{copy} When the session ends, its commits and whatever is not committed come home as branches below"
    " claude-bottle/ of the user's repository; nothing has to be pushed for that.",
    "folder": "{copy} When the session ends, what is new or changed in it comes home as a folder of its own.",
    "none": "nothing of this box comes home by itself; all of it is gone when the session ends.",
}


def policy(granted: Grants, workspace: str, work: str) -> dict[str, Any]:
    """Return what a bottle is allowed, as ``policy.schema.json`` has it; no value of anything.

    Args:
        granted: to its agent.
        workspace: the copy of the user's folder in it, an empty text without one.
        work: how what comes of it comes home, one of ``WORK``.
    """
    return {
        "policy": FORM,
        "agent": granted.agent,
        "bottle": granted.bottle or None,
        "hosts": sorted(granted.hosts),
        "inspected": sorted(each.host for each in granted.watched if each.inspected),
        "ssh": [
            {"host": each.host, "hostname": each.hostname, "port": each.port, "user": each.user} for each in granted.ssh
        ],
        "credentials": [
            {"variable": each.variable, "hosts": list(each.hosts), "paths": list(each.paths)}
            for each in granted.credentials
        ],
        "allow": json_path(("bottles", granted.bottle, "egress", "allowlist"))[2:] if granted.bottle else None,
        "workspace": workspace or None,
        "work": work,
    }


def policy_text(told: dict[str, Any]) -> bytes:
    """Return it as its file holds it."""
    return f"{json.dumps(told, indent=2)}\n".encode()


def note(told: dict[str, Any], data: str) -> bytes:
    """Return what the agent reads of it.

    Args:
        told: the policy.
        data: path of the same as data.
    """
    hosts = told["hosts"]
    more = f", and {len(hosts) - SHOWN_HOSTS} more in {data}" if len(hosts) > SHOWN_HOSTS else ""
    allowed = f'`{told["allow"]} += "HOST"`' if told["allow"] else "a bottle with an `egress.allowlist`"
    copy = f"{told['workspace']} is a copy of the user's folder."
    lines = [
        "# Your box",
        "You work in a claude-bottle: a sealed container without root, whose only way out is the proxy in HTTPS_PROXY.",
        f"- Hosts that are allowed: {', '.join(hosts[:SHOWN_HOSTS])}{more}.",
        "- Every other host is refused on purpose (status 403, or no answer): do not try to get around it.",
        f"- Where your task needs one, tell the user its name, and that {allowed} in {FILE_NAME} allows it.",
        *["- Tokens and keys here are placeholders; the real ones are put in outside, for their own hosts alone."]
        * bool(told["credentials"]),
        f"- Your work: {WORK[told['work']].format(copy=copy)}",
        f"- All of this as data: {data}",
    ]
    return log.encode("".join(f"{log.visible(line)}\n" for line in lines))
