"""A plan as data (``start --dry-run --json``), and its digest, which the receipt has too.

Names of secrets and of host variables are in it, never their values; of literals, prompts and host keys it has digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from claude_bottle.lib import log
from claude_bottle.lib.egress.credentials import Injection
from claude_bottle.lib.plan import RESERVED, Plan
from claude_bottle.lib.schema.manifest_parse import EnvEntry, SshEntry
from claude_bottle.lib.version import launcher_version

FORM = 1  # of plans; another one means that a reader must know more


def plan_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as ``plan.schema.json`` has it.

    Args:
        plan: of the start.
    """
    granted = grants(plan)
    return {
        "plan": FORM,
        "launcher": launcher_version(),
        "digest": _canonical_digest(granted),
        "grants": granted,
        "container": plan.container,
        "folder": plan.cwd if plan.request.with_cwd else None,
        "left_out": len(plan.project.left_out) if plan.project else 0,
        "warnings": list(plan.warnings),
        "pending": [{"path": each.path, "reaches": each.reaches} for each in plan.approval.pending],
    }


def plan_digest(plan: Plan) -> str:
    """Return the digest of what a plan grants, the same for the same grants on every machine.

    It is the SHA-256 of ``grants`` as JSON with sorted keys, in ASCII and without blanks.

    Args:
        plan: of the start.
    """
    return _canonical_digest(grants(plan))


def grants(plan: Plan) -> dict[str, Any]:
    """Return what a plan grants, the same for the same grants on every machine."""
    return {
        "agent": plan.agent,
        "bottle": plan.bottle,
        "image": plan.settings.image,
        "sidecar": plan.settings.pipelock_image,
        "broker": plan.settings.broker_image if plan.brokered else "",
        "hosts": sorted(plan.hosts),
        "env": _by_name(_variable(entry) for entry in plan.entries if entry.name not in RESERVED),
        "token": plan.token_goes,
        "credentials": _by_name(_credentials(plan)),
        "inspected": sorted(each.host for each in plan.watched if each.inspected),
        "dlp": plan.dlp,
        "ssh": [_ssh(entry) for entry in plan.ssh],
        "skills": sorted(plan.skills),
        "limits": _by_name({"name": limit.name, "value": limit.text} for limit in plan.limits),
        "runtime": plan.runtime,
        "place": list(plan.placement) if plan.placed else None,
        "dockerfile": f"sha256:{plan.tools.digest}" if plan.tools else None,
        "prompt": _digest(plan.prompt),
        "workspace": plan.request.with_cwd,
        "work": plan.work,
        "remote_control": plan.request.remote_control,
    }


def _variable(entry: EnvEntry) -> dict[str, Any]:
    key = {"literal": "digest", "host": "variable", "secret": "question"}[entry.mode]
    return {"name": entry.name, key: _digest(entry.text) if entry.mode == "literal" else entry.text}


def _credentials(plan: Plan) -> Iterator[dict[str, Any]]:
    sources = {source.injection.variable: source for source in plan.sources}
    for each in plan.credentials:
        source = sources.get(each.variable)
        if source is None:
            yield _injection(each)  # the caller's token
        elif source.command:
            yield {**_injection(each), "command": list(source.command)}
        else:
            yield {**_injection(each), {"host": "variable", "secret": "question"}[source.mode]: source.text}


def _injection(each: Injection) -> dict[str, Any]:
    return {
        "name": each.variable,
        "hosts": list(each.hosts),
        "paths": list(each.paths),
        "header": each.header,
        "scheme": each.scheme,
        "user": each.user,
    }


def _ssh(entry: SshEntry) -> dict[str, Any]:
    return {
        "host": entry.host,
        "user": entry.user,
        "hostname": entry.hostname,
        "port": entry.port,
        "host_key": _digest(entry.known_host_key) if entry.known_host_key else None,
    }


def _by_name(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["name"]))


def _canonical_digest(value: Any) -> str:
    return _digest(json.dumps(value, sort_keys=True, separators=(",", ":")))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(log.encode(text)).hexdigest()}"
