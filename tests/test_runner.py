"""The runner: steps side by side, told in their order, and what a failure or a signal makes of those under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib import log, runner
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError, Interrupted
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.steps import STEPS, Launch, Step

from .test_cleanup import fake_docker

# Docker's words are shell commands here.
DOCKER = 'cd "{folder}" || exit; eval "$1"'


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return fake_docker(tmp_path, monkeypatch, DOCKER.format(folder=tmp_path)).engine


def run(engine: Engine, *steps: Step) -> dict[str, Any]:
    return runner.run_steps(Launch(engine, None, None, Path("/"), b"", {}), steps)  # type: ignore[arg-type]


def step(makes: str, *scripts: str, needs: tuple[str, ...] = (), interruptible: bool = False) -> Step:
    """Return a step that runs scripts one after another, and says its name before each."""

    def work(launch: Launch, *_facts: object) -> Work[str]:
        for script in scripts:
            log.log_info(makes)
            result = yield launch.engine.call([script], interruptible=interruptible)
            if not result.ok:
                raise DockerError(f"{makes} failed: {result.failure}")
        return makes

    return Step(needs, makes, work, makes)


def meets(mine: str, other: str) -> str:
    """Return a script that ends only when another one has begun."""
    return f"touch {mine}; until [ -e {other} ]; do sleep 0.02; done"


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.replace(log.PREFIX, "").split()


def test_steps_that_need_nothing_of_each_other_run_at_once(engine: Engine) -> None:
    facts = run(engine, step("a", meets("a", "b")), step("b", meets("b", "a")))
    assert facts == {"a": "a", "b": "b"}


def test_a_step_waits_for_what_it_comes_after_and_is_not_given_it(engine: Engine) -> None:
    given: list[object] = []

    def work(launch: Launch, *facts: object) -> Work[None]:
        given.extend(facts)
        result = yield launch.engine.call(["test -e made"])
        assert result.ok

    later = Step(("first",), "later", work, "later", after=("second",))
    run(engine, step("first", "true"), later, step("second", "sleep 0.2; touch made"))
    assert given == ["first"]


def test_while_files_go_into_a_bottle_nobody_waits_for_an_answer_from_in_there() -> None:
    steps = {step.makes: step for step in STEPS}
    before = {*steps["files"].needs, *steps["files"].after}
    afterwards = {name for name, step in steps.items() if "files" in (*step.needs, *step.after)}
    assert {name for name, step in steps.items() if "agent" in step.needs} - {"files"} == before & {"ssh"} | afterwards
    assert afterwards == {"work", "proof"}


def test_a_step_begins_as_soon_as_its_own_needs_are_there(engine: Engine) -> None:
    # "first" waits for what needs "second" only.
    run(
        engine,
        step("first", meets("x", "third")),
        step("second", "true"),
        step("third", "touch third", needs=("second",)),
    )


def test_what_is_said_comes_in_the_order_of_the_steps(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    run(engine, step("a", meets("a", "c"), "true"), step("b", "true"), step("c", "true", "touch c"))
    assert said(capfd) == ["a", "a", "b", "c", "c"]


def test_a_failure_is_told_where_it_belongs(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    # "b" fails while "a" and "c" are under way: "a" goes on to its end, of "c" nothing is heard.
    steps = (
        step("a", meets("a", "b"), "touch d"),
        step("b", "touch b; echo no >&2; exit 1"),
        step("c", "sleep 0.1", "touch c"),
    )
    with pytest.raises(DockerError, match="b failed: no"):
        run(engine, *steps)
    assert said(capfd) == ["a", "a", "b"]


def test_of_two_failures_the_first_in_order_is_told(engine: Engine) -> None:
    fail = "echo no >&2; exit 1"
    with pytest.raises(DockerError, match="a failed"):
        run(engine, step("a", f"{meets('a', 'b')}; {fail}"), step("b", f"touch b; {fail}"))


def test_a_failure_ends_what_may_be_interrupted_and_lets_the_rest_finish(engine: Engine, tmp_path: Path) -> None:
    long = "echo $$ >pid; sleep 600"
    create = "until [ -e pid ]; do sleep 0.02; done; sleep 0.2; touch made"
    steps = (
        step("fails", "until [ -e pid ]; do sleep 0.02; done; exit 1"),
        step("copy", long, interruptible=True),
        step("create", create, "touch never"),
        step("after", "touch never", needs=("create",)),
    )
    with pytest.raises(DockerError):
        run(engine, *steps)
    assert (tmp_path / "made").exists() and not (tmp_path / "never").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the launcher's handlers for a test, and the signals that it sees forgotten."""
    monkeypatch.setattr(wait, "_pending", [])
    before = {number: signal.getsignal(number) for number in wait.STOPPING}
    wait.signals_install()
    yield lambda: None
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_lets_a_create_finish_and_begins_nothing(engine: Engine, tmp_path: Path, signals: object) -> None:
    create = f"kill -TERM {os.getpid()}; sleep 0.2; touch made"
    with pytest.raises(Interrupted):
        run(engine, step("create", create, "touch never"), step("next", "touch never", needs=("create",)))
    assert (tmp_path / "made").exists() and not (tmp_path / "never").exists()
