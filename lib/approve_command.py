"""``approve``: agrees to what the current folder's manifest adds to the home's; the shell has no such command."""

from __future__ import annotations

from collections.abc import Mapping

from claude_bottle.lib import approval, approved, env, log
from claude_bottle.lib.host import terminal
from claude_bottle.lib.manifest import FILE_NAME, manifest_find


def approve(environ: Mapping[str, str], cwd: str, yes: bool) -> int:
    """List what the folder's file adds for all agents, ask, and remember it.

    Args:
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.
        yes: do not ask.

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
