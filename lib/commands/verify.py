"""``verify``: boots an agent's bottle without a session, looks at its seals closely, and removes it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from pathlib import Path

from claude_bottle.lib import log, plan, runner, stage
from claude_bottle.lib.commands.search import Search, look_at
from claude_bottle.lib.egress import credential_values
from claude_bottle.lib.engine import Asking, Engine
from claude_bottle.lib.env_resolve import Secrets
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host.calls import Work, perform
from claude_bottle.lib.inside import seals
from claude_bottle.lib.manifest import FILE_NAME
from claude_bottle.lib.start import plan_for, settle, with_teardown
from claude_bottle.lib.steps import Launch
from claude_bottle.lib.subnets import subnets_of
from claude_bottle.lib.teardown import inventory
from claude_bottle.lib.teardown.inventory import AGENT, BROKER, INTERNAL, NETWORK, SIDECAR
from claude_bottle.lib.teardown.journal import Journal

MOST_SIBLINGS = 32


def verify(asking: Asking, agent: str, cwd: str, report: Callable[[BaseException], int]) -> int:
    """Print what each seal of an agent's bottle is found to be.

    Nobody works in the bottle: no secret is asked for, none goes in, and nothing is approved by it. The broker gets the
    values that are at hand, and random ones for the others; they are looked for from outside.

    Args:
        asking: the engine.
        agent: its name.
        cwd: the caller's working directory, symlinks kept.
        report: prints what went wrong and returns its status.

    Returns:
        0 where all hold, 1 where one is broken or something could not be removed.

    Raises:
        BottleError: no engine answers, the plan is at fault, or it would build what nobody has agreed to; nothing has
            been made.
    """
    engine, planned = plan_for(asking, plan.Request(agent, dry_run=True), cwd)
    if planned.approval.is_pending(("bottles", planned.bottle, "dockerfile")):
        line = f"nothing is built of what ./{FILE_NAME} adds; './cli.sh approve' lists and remembers it"
        raise BottleError(line, planned.approval.lines())
    return with_teardown(engine, lambda reaper: _look(engine, planned, reaper.journal), report)


def _look(engine: Engine, planned: plan.Plan, journal: Journal) -> int:
    shown = stage.stage_create(journal, planned.slug, os.environ.get("TMPDIR", ""))
    for warning in planned.warnings:
        log.log_warn(warning)
    engine, planned, taken = settle(engine, planned, journal)
    siblings = tuple(perform(_siblings(engine)))
    allowed = next(host for host in planned.hosts if "*" not in host)
    test = seals.SelfTest(seals.PATIENT_SECONDS, siblings, allowed)
    secrets = Secrets()
    credential_values.credentials_at_hand(secrets, planned.credentials, planned.sources, os.environ)
    guarded = engine.keeping_out(secrets.injected)
    launch = Launch(guarded, planned, journal, Path(shown), secrets.payload(), secrets.injected, test, seat=taken)
    made = runner.run_steps(launch, timed=os.isatty(log.STDERR))
    engine.require_link()
    proof: seals.Proof = made["proof"]
    if secrets.injected:
        log.log_info("looking for the values of the credentials from outside")
        containers = {role: made[role].identity for role in (AGENT, SIDECAR, BROKER)}
        proof = proof.with_probe(perform(_search(engine, secrets.injected, containers)))
    log.data(*((probe.name, probe.outcome, probe.detail) for probe in proof.probes))
    proof.require()
    return 0


def _search(engine: Engine, values: Mapping[str, str], containers: Mapping[str, str]) -> Work[seals.Probe]:
    search = Search(values)
    for role, identity in containers.items():
        yield from look_at(engine, search, role, identity)
    return seals.Probe(seals.SECRETS, "broken" if search.leaks else "held", search.detail)


def _siblings(engine: Engine) -> Work[list[IPv4Network]]:
    """Find the own networks of the bottles that there are."""
    filters = ["--filter", f"label={inventory.PREFIX}role={INTERNAL}"]
    there = yield from inventory.find(engine, NETWORK, filters)
    return (yield from subnets_of(engine, [item.identity for item in there[:MOST_SIBLINGS]]))
