"""``start``: boots a bottle, hands over the terminal, and removes everything again (shell: cmd_start)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from claude_bottle.lib import cleanup, env_resolve, log, plan, run, session, stage, steps, terminal, wait
from claude_bottle.lib.journal import new_owner
from claude_bottle.lib.reaper import Reaper


def start(request: plan.Request, cwd: str, report: Callable[[BaseException], int]) -> int:
    """Run one bottle from its plan to its end (contract section 6).

    Args:
        request: the command line.
        cwd: the caller's working directory, symlinks kept.
        report: prints what went wrong and returns its status; called before the teardown, as the shell does.

    Returns:
        The session's status; 128 plus the number after a signal; 1 if something could not be removed.

    Raises:
        BottleError: the plan is at fault; nothing has been made.
    """
    planned = plan.make_plan(request, os.environ, cwd)
    run.load()
    reaper = Reaper(new_owner())
    run.watch(reaper)
    terminal.tty_announce(reaper.journal.saved_terminal)
    status = 1
    try:
        status = _launch(planned, reaper)
    except Exception as problem:
        status = report(problem)
    finally:
        log.hurry()
        if not cleanup.cleanup_all(reaper.journal):
            status = status or 1
        reaper.dismiss()
    number = wait.pending_signal()
    return status if number is None else 128 + number


def _launch(planned: plan.Plan, reaper: Reaper) -> int:
    shown = stage.stage_create(reaper.journal, os.environ.get("TMPDIR", ""))
    staged = Path(shown)
    for warning in planned.warnings:
        log.log_warn(warning)
    stage.stage_write(staged, planned)
    if planned.dry_run:
        plan.print_preflight(planned, shown)
        log.log_info("dry-run requested; not starting container.")
        return 0
    secrets = plan.resolve_secrets(planned, os.environ, _ask)
    plan.print_preflight(planned, shown)
    if not planned.request.yes:
        terminal.confirm("launch this agent?")
    made = steps.run_steps(steps.Launch(planned, reaper.journal, staged))["agent"]
    session.feed_values(made.identity, secrets)
    wait.check_signals()
    return session.attach(planned, made.identity, made.name)


def _ask(name: str, question: str) -> str:
    terminal.tty_require(env_resolve.no_terminal(name))
    return terminal.ask_secret(question or f"enter value for {name}", f"the value for '{name}'")
