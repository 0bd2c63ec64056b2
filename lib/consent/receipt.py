"""The receipt of a start: what was granted, what the bottle's self-test saw, and how it ended (``--receipt``)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from claude_bottle.lib.consent.plan_data import plan_digest
from claude_bottle.lib.egress.refused import Row, refused_data
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError, reason
from claude_bottle.lib.host import calls
from claude_bottle.lib.inside.seals import Probe
from claude_bottle.lib.plan import Plan
from claude_bottle.lib.teardown.inventory import CONTAINER
from claude_bottle.lib.version import launcher_version

FORM = 1  # of receipts; another one means that a reader must know more
_NAME = "claude-bottle"


class Receipt:
    """One start's receipt, in a file that speaks of no other start once this one has begun.

    Args:
        plan: of the start; without ``--receipt`` nothing is written.

    Raises:
        BottleError: there can be no such file.
    """

    def __init__(self, plan: Plan) -> None:
        self.path = plan.request.receipt
        self.target = _target(self.path) if self.path else ""
        self.plan = plan
        self.content: dict[str, Any] = {}

    def begin(self) -> None:
        """Note that the user has agreed to the plan.

        Raises:
            BottleError: the file cannot be written.
        """
        if self.path:
            self.content = {
                "receipt": FORM,
                "launcher": launcher_version(),
                "agent": self.plan.agent,
                "plan": plan_digest(self.plan),
                "images": None,
                "probes": [],
                "denied": None,
                "times": {"begun": _now(), "tested": None, "ended": None},
                "status": None,
            }
            self._write()

    def tested(self, engine: Engine, containers: Mapping[str, str], probes: Sequence[Probe]) -> None:
        """Note what the self-test has seen, whether the seals hold or not.

        Args:
            engine: to ask for the images.
            containers: the ids of the start's, by role.
            probes: what came of each.

        Raises:
            BottleError: the engine gave no answer, or the file cannot be written.
            Interrupted: a signal arrived.
        """
        if self.content:
            self.content["probes"] = [asdict(probe) for probe in probes]
            self.content["times"]["tested"] = _now()
            self.content["images"] = _images(engine, containers)
            self._write()

    def denied(self, rows: Sequence[Row]) -> None:
        """Note what the sidecar has refused in the session, for when all is over.

        Args:
            rows: hosts, why, and how often; without a host is what had no room.
        """
        if self.content:
            self.content["denied"] = refused_data(rows)

    def end(self, status: int, report: Callable[[BaseException], int]) -> int:
        """Note that all is over.

        Args:
            status: of the launcher.
            report: prints that the file cannot be written, and returns the status for that.

        Returns:
            The status to end with.
        """
        if not self.content:
            return status
        self.content["times"]["ended"] = _now()
        self.content["status"] = status
        try:
            self._write()
        except BottleError as problem:
            failed = report(problem)
            return status or failed
        return status

    def _write(self) -> None:
        from claude_bottle.lib.files.replace import replace  # for few starts

        try:
            replace(self.target, f"{json.dumps(self.content, indent=2)}\n".encode())
        except OSError as problem:
            raise _unwritable(self.path, reason(problem)) from None


def _unwritable(path: str, why: str) -> BottleError:
    return BottleError(f"cannot write the receipt to {path}", [why])


def _target(path: str) -> str:
    """Return the file behind a path; fail where it cannot be written, as far as that can be told before."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(path):
        raise _unwritable(path, "it is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise _unwritable(path, "it is no file that could be replaced")
    if not os.path.isdir(folder):
        raise _unwritable(path, "there is no such folder")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK) or not os.access(folder, os.W_OK):
        raise _unwritable(path, "it may not be written")
    return target


def _images(engine: Engine, containers: Mapping[str, str]) -> dict[str, str]:
    words = [CONTAINER, "inspect", "--format", "{{.Image}}", *containers.values()]
    answer = calls.perform(calls.one(engine.question(words)))
    found = answer.text.split()
    if not answer.ok or len(found) != len(containers):
        raise DockerError(f"docker container inspect failed: {answer.failure or answer.text}")
    return dict(zip(containers, found, strict=True))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
