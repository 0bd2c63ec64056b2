"""``approve``: agrees to what the current folder's manifest adds to the home's; the shell has no such command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claude_bottle.lib import env, log
from claude_bottle.lib.consent import approval, approved
from claude_bottle.lib.host import terminal
from claude_bottle.lib.manifest import FILE_NAME, manifest_find

FORM = 1  # of what is printed as JSON; another one means that a reader must know more


def approve(environ: Mapping[str, str], cwd: str, yes: bool, as_json: bool) -> int:
    """List what the folder's file adds for all agents, ask, and remember it.

    Args:
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.
        yes: do not ask.
        as_json: print it as ``approval.schema.json`` has it; nothing is asked or remembered.

    Returns:
        0.

    Raises:
        BottleError: the manifest is at fault, there is no terminal to ask on, or it cannot be remembered.
        Declined: the user said no.
    """
    settings = env.read_settings(environ)
    env.env_require_home(settings)
    found = manifest_find(cwd, settings.host_home)
    for warning in found.warnings:
        log.log_warn(warning)
    entries = approval.added(found, found.agents)
    if as_json:
        log.data_json(_as_data(approval.Approval(entries, approved.recall(environ, cwd))))
        return 0
    if not entries:
        log.log_info(f"nothing to approve: ./{FILE_NAME} adds nothing that reaches out of a bottle")
        return 0
    asked = approval.Approval(entries, approved.recall(environ, cwd))
    asked.say()
    log.log_info(f"digest: {approval.folder_digest(entries)}")
    if not asked.pending:
        log.log_info(f"nothing to approve: what ./{FILE_NAME} adds is approved already")
        return 0
    if not yes:
        terminal.confirm("approve this?")
    approved.remember(environ, cwd, asked.digests)
    log.log_info(f"approved in {cwd}: {len(asked.pending)} entries of ./{FILE_NAME}")
    return 0


def _as_data(asked: approval.Approval) -> dict[str, Any]:
    pending = asked.pending
    return {
        "approval": FORM,
        "digest": approval.folder_digest(asked.entries),
        "entries": [
            {"path": each.path, "reaches": each.reaches, "digest": each.digest, "approved": each not in pending}
            for each in asked.entries
        ],
    }
