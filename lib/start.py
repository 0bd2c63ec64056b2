"""``start``: boots a bottle, hands over the terminal, and removes everything again (shell: cmd_start)."""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from claude_bottle.lib import env_resolve, log, plan, runner, stage
from claude_bottle.lib.consent import approved
from claude_bottle.lib.consent.plan_data import plan_data
from claude_bottle.lib.consent.receipt import Receipt
from claude_bottle.lib.egress import credential_values
from claude_bottle.lib.engine import Asking, Engine
from claude_bottle.lib.errors import BottleError, EngineAway, reason
from claude_bottle.lib.far import seat
from claude_bottle.lib.home import bring, record
from claude_bottle.lib.host import calls, run, slots, terminal, wait
from claude_bottle.lib.inside import session
from claude_bottle.lib.steps import Launch
from claude_bottle.lib.teardown import cleanup, notes
from claude_bottle.lib.teardown.journal import Journal, new_launch
from claude_bottle.lib.teardown.presence import ENDING, RUNNING, STARTING, Presence
from claude_bottle.lib.teardown.reaper import PATIENCE_SECONDS, Reaper


def start(asking: Asking, request: plan.Request, cwd: str, report: Callable[[BaseException], int]) -> int:
    """Run one bottle from its plan to its end (contract section 6).

    Args:
        asking: the engine, whose answer is waited for first (shell: docker_require).
        request: the command line.
        cwd: the caller's working directory, symlinks kept.
        report: prints what went wrong and returns its status; called before the teardown, as the shell does.

    Returns:
        The session's status; 128 plus the number after a signal; 1 if something could not be removed.

    Raises:
        BottleError: no engine answers, or the plan is at fault; nothing has been made.
    """
    engine, planned = plan_for(asking, request, cwd)
    receipt = Receipt(planned)
    status = with_teardown(engine, lambda reaper: _launch(engine, planned, reaper, receipt), report)
    return receipt.end(status, report)


def with_teardown(engine: Engine, work: Callable[[Reaper], int], report: Callable[[BaseException], int]) -> int:
    """Do what makes things on the engine, and remove all of them, whatever happens.

    Args:
        engine: that they are made on.
        work: notes each in the reaper's journal before it is made, and returns a status.
        report: see ``start``.

    Returns:
        See ``start``.
    """
    run.load()
    reaper = Reaper(engine, new_launch())
    run.watch(reaper)
    terminal.tty_announce(reaper.journal.saved_terminal)
    status = 1
    try:
        status = work(reaper)
    except Exception as problem:
        status = report(problem)
    finally:
        came: list[int] = []
        engine = reaper.journal.engine or engine  # a Swarm may have chosen another
        remains = cleanup.cleanup_all(engine, reaper.journal, lambda: came.append(_come_home(engine, reaper, report)))
        status = status or sum(came)
        log.hurry()
        bring.forget(reaper.journal)
        calls.detach_all()
        if remains.left:
            status = status or 1
        if remains.final:
            reaper.dismiss()
        elif reaper.hand_over():
            minutes = PATIENCE_SECONDS / 60
            log.log_info(f"the background goes on for {minutes:.0f} minutes; the next command tells what is left then")
    number = wait.pending_signal()
    return status if number is None else 128 + number


def _come_home(engine: Engine, reaper: Reaper, report: Callable[[BaseException], int]) -> int:
    """Bring home what the session has made; a failure costs the user nothing but the status 1.

    Raises:
        EngineAway: the engine gives no answer, so that it has to come another time.
    """
    signalled = wait.pending_signal() is not None
    if signalled:
        log.hurry()
    try:
        seconds = bring.HURRIED_SECONDS if signalled else bring.PATIENT_SECONDS
        away = (lambda: False) if engine.is_local else reaper.hears_nothing
        outcome = bring.at_end(engine.reachable(), reaper.journal, seconds, away)
    except EngineAway:
        raise
    except Exception as problem:
        return report(problem)
    else:
        outcome.tell()
    finally:
        log.hurry()  # what follows waits for no reader
    if signal.SIGHUP in wait.signals_seen():  # there is no terminal any more to have said it on
        notes.leave(f"ended: {line}" for line in (*outcome.said, *outcome.warnings))
    return int(bool(outcome.warnings))


def plan_for(asking: Asking, request: plan.Request, cwd: str) -> tuple[Engine, plan.Plan]:
    """Return the engine that has answered, and what is to be done on it.

    Raises:
        BottleError: no engine answers, or the plan is at fault.
    """
    name = plan.look_for_name(asking.found, request, os.environ)
    try:
        engine = asking.get()
        if engine.socket != asking.found.socket:  # what the name was looked for by leads nowhere
            name.leave()
            name = plan.look_for_name(engine, request, os.environ)
        return engine, plan.make_plan(engine, name, request, os.environ, cwd)
    finally:
        name.leave()


def _launch(engine: Engine, planned: plan.Plan, reaper: Reaper, receipt: Receipt) -> int:
    journal = reaper.journal
    shown = stage.stage_create(journal, planned.slug, os.environ.get("TMPDIR", ""))
    staged = Path(shown)
    for warning in planned.warnings:
        log.log_warn(warning)
    stage.stage_write(staged, planned)
    if planned.dry_run:
        _show_plan(planned, shown)
        if planned.request.receipt:
            log.log_info("a dry run writes no receipt")
        return 0
    secrets = plan.resolve_secrets(planned, os.environ, _ask)
    plan.print_preflight(planned, shown)
    if not planned.request.yes:
        terminal.confirm("launch this agent?")
        _remember(planned)
    receipt.begin()
    credential_values.credentials_run(secrets, planned.sources, os.environ)
    gc.enable()  # a session may be long
    engine, planned, taken = settle(engine, planned, journal)
    guarded = engine.keeping_out(secrets.injected)
    work = _work(engine, planned, journal)
    launch = Launch(guarded, planned, journal, staged, secrets.payload(), secrets.injected, work=work, seat=taken)
    present = Presence(journal, engine.identity, planned.agent, planned.bottle, planned.cwd)
    present.say(STARTING)
    with slots.start_slot(engine.facts.cpus, _turn()):
        made = runner.run_steps(launch, timed=os.isatty(log.STDERR) and not planned.request.quiet)
    proof = made["proof"]
    containers = {role: made[role].identity for role in ("agent", "sidecar", "broker") if made[role]}
    receipt.tested(engine, containers, proof.probes)
    engine.require_link()
    if taken:
        seat.require(taken)
    proof.require()
    if work:
        _session_begins(journal, made["work"] or work)
    return _session(engine, planned, made, receipt, present, reaper.hears_nothing)


def settle(engine: Engine, planned: plan.Plan, journal: Journal) -> tuple[Engine, plan.Plan, seat.Seat | None]:
    """Return the engine that the bottle is made on, the plan for it, and the seat, if a Swarm has chosen the engine.

    Args:
        engine: that was asked; the manager of the Swarm.
        planned: what is to be done.
        journal: of the launch.

    Raises:
        BottleError: there is no place, or it cannot be used.
        Interrupted: a signal arrived.
    """
    if not planned.placed:
        return engine, planned, None
    taken = seat.take(engine, journal, planned.slug, planned.booking, os.environ)
    return taken.engine, planned.moved_to(taken.engine), taken


def _session(
    engine: Engine,
    planned: plan.Plan,
    made: Mapping[str, Any],
    receipt: Receipt,
    present: Presence,
    silent: Callable[[], bool],
) -> int:
    agent, watch = made["agent"], made["watch"]
    watches = [each for each in (watch, made["broker_watch"]) if each]
    present.counting(watch.rows)
    present.say(RUNNING, agent.name)
    try:
        return session.attach(engine, planned, agent.identity, agent.name, watches, present.look, silent)
    finally:
        present.say(ENDING)
        receipt.denied(watch.rows())


def _work(engine: Engine, planned: plan.Plan, journal: Journal) -> record.Record | None:
    """Note, before there is a container, what goes in and where its work goes; None without a project."""
    if not planned.project:
        return None
    homing = planned.homing
    work = record.Record(
        launch=journal.owner.launch,
        agent=planned.agent,
        slug=planned.slug,
        kind=homing.kind,
        folder=planned.cwd,
        repository=homing.repository,
        workspace=planned.workspace,
        engine=engine.identity,
        node=engine.facts.node,
    )
    _note(work)
    return work


def _session_begins(journal: Journal, work: record.Record) -> None:
    """Note that there may be work from now on."""
    begun = work.with_(began=True)
    journal.session_begins(begun)
    _note(begun)


def _note(work: record.Record) -> None:
    try:
        record.write(work)
    except OSError as problem:
        log.log_warn(f"cannot note where the work goes: {reason(problem)}: only this start can bring it home")


def _show_plan(planned: plan.Plan, stage_dir: str) -> None:
    if planned.request.as_json:
        log.data_json(plan_data(planned))
        return
    plan.print_preflight(planned, stage_dir)
    log.log_info("dry-run requested; not starting container.")


def _turn() -> Callable[[], float]:
    """Return what is called while other starts have to end first: it says so once, and heeds signals."""
    said: list[bool] = []

    def check() -> float:
        wait.check_signals()
        if not said:
            said.append(True)
            log.log_info("waiting for other starts")
        return math.inf

    return check


def _remember(planned: plan.Plan) -> None:
    """Remember what the user has just agreed to; the start does not depend on it."""
    if planned.approval.pending:
        try:
            approved.remember(os.environ, planned.cwd, planned.approval.digests)
        except BottleError as problem:
            log.log_warn(problem.message)


def _ask(name: str, question: str) -> str:
    terminal.tty_require(env_resolve.no_terminal(name))
    return terminal.ask_secret(question or f"enter value for {name}", f"the value for '{name}'")
