"""The sidecar's contract, case by case: on the real image where the engine has it, else on the stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipelock.cases import CASES, CORE
from tests.pipelock.exceptions import EXCEPTIONS, exception
from tests.pipelock.lab import Lab
from tests.pipelock.run import run_cases
from tests.sidecar import IS_STAND_IN, SIDECAR

UPSTREAM = "node:22-slim"
BY_IDENT = {case.ident: case for case in CASES}


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What differs in each of the cases that were selected, run side by side."""
    parameters = (getattr(item, "callspec", None) for item in request.session.items)
    selected = {found.params["ident"] for found in parameters if found and "ident" in found.params}
    with Lab(SIDECAR, UPSTREAM, "2.3.0-standin" if IS_STAND_IN else "") as lab:
        yield run_cases(lab, [case for ident, case in BY_IDENT.items() if ident in selected])


@pytest.mark.parametrize("ident", BY_IDENT)
def test_case(ident: str, results: dict[str, str]) -> None:
    reason = exception(ident) if IS_STAND_IN else ""
    if reason:
        assert results[ident], f"passes now, so this is out of date: {reason}"
    else:
        assert results[ident] == "", f"{BY_IDENT[ident].title}; sidecar: {SIDECAR}"


def test_the_stand_in_must_pass_most_of_the_core_cases() -> None:
    core = [case.ident for case in CASES if case.klass == CORE]
    assert sum(not exception(ident) for ident in core) >= 100
    assert set(EXCEPTIONS) <= set(BY_IDENT)
