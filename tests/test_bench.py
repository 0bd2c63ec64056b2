"""The bench's own arithmetic, clock and pages; that it measures is seen on an engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from tests.bench import figures, launch, main, memory, page
from tests.bench.figures import FLOOR, PORT, SHELL, Figures, Target
from tests.bench.launch import GONE, QUESTION, SESSION, Failed, Launch
from tests.engine.conftest import until

LAUNCHER = """\
printf 'launch this agent? [y/N] '
read -r answer
[ "$answer" = y ] || exit 9
printf 'the session is %s\\n' up
read -r line
exit "${STATUS:-0}"
"""


def some_figures() -> Figures:
    found = Figures("20.10.24+dfsg1", "28.2.2", "side:car", 2)
    for shell, port, floor in ((2.0, 1.0, 0.8), (4.0, 1.2, 1.0), (2.0, 1.1, 1.0)):
        for side, value in ((SHELL, shell), (PORT, port), (FLOOR, floor)):
            found.add(side, {"session": value, "up 15": value})
    found.add(PORT, {"memory 50": 1 << 30})
    found.calls = {SHELL: ["info"] * 24, PORT: ["info", "network create"]}
    found.profile = [("info", -0.25, -0.125), ("network create internal", 0.5, 1.0)]
    return found


def test_the_page_tells_when_each_call_began_and_ended() -> None:
    assert page.profile(some_figures()).endswith("| info | -250 | -125 |\n| network create internal | 500 | 1000 |\n")
    assert page.profile(Figures("20.10", "28", "side:car", 2)) == ""


def test_a_spread_has_the_quartiles_among_the_runs() -> None:
    assert figures.spread([5.0, 1.0, 4.0, 2.0, 3.0]) == figures.Spread(1.0, 2.0, 3.0, 4.0, 5.0)
    assert figures.spread([7.0]) == figures.Spread(7.0, 7.0, 7.0, 7.0, 7.0)


def test_a_ratio_is_the_median_of_the_pairs_ratios() -> None:
    runs = some_figures().rows["session"]  # 0.5, 0.3, 0.55; the medians' is 0.55
    assert figures.ratio(runs, PORT, SHELL) == 0.5
    assert figures.ratio({PORT: [1.0]}, PORT, SHELL) is None


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(shell=0.5), True),
        (Target(shell=0.49), False),
        (Target(shell=0.5, floor=1.0), False),
        (Target(value=1.1), True),
        (Target(value=1.09), False),
        (Target(), None),
    ],
)
def test_a_target_is_met_when_each_of_its_limits_is(target: Target, met: bool | None) -> None:
    assert target.held(some_figures().rows["session"]) is met


def test_a_target_is_neither_met_nor_missed_where_nothing_was_measured() -> None:
    assert Target(shell=0.5, floor=2.0).held({SHELL: [2.0], PORT: [1.0]}) is None


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where figures are kept."""
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "bench")
    return figures.path("20.10.24+dfsg1")


def test_figures_are_kept_and_rows_that_were_not_measured_stay(place: Path) -> None:
    first = some_figures()
    figures.keep(first)
    assert figures.load_all() == [first]
    later = Figures(first.server, first.client, first.sidecar, first.cores)
    later.add(PORT, {"session": 9.0})
    figures.keep(later)
    (kept,) = figures.load_all()
    assert (kept.rows["session"], kept.calls) == ({PORT: [9.0]}, first.calls)
    assert kept.rows["up 15"] == first.rows["up 15"]
    assert '"shell": [ 2.0, 4.0, 2.0 ]' in place.read_text()


def test_figures_with_another_sidecar_are_not_mixed_with_the_old(place: Path) -> None:
    figures.keep(some_figures())
    other = Figures("20.10.24+dfsg1", "28.2.2", "another:one", 2)
    other.add(PORT, {"session": 9.0})
    figures.keep(other)
    assert figures.load_all() == [other]


def test_a_row_of_the_table_has_the_medians_the_ratios_and_the_target() -> None:
    rows = page.table(some_figures()).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert rows[2] == (
        "| `y` to the session's first byte | 2.00 s (2.00, 2.00, 3.00, 4.00) | 1.10 s (1.00, 1.05, 1.15, 1.20) "
        "| 1.00 s (0.80, 0.90, 1.00, 1.00) | 0.50 | 1.20 | 0.55 of the shell, 1.25 of the floor | yes |"
    )
    assert rows[-1] == "| docker calls of a plain start and teardown | 24 | 2 |  | 0.08 |  | 16 | yes |"


def test_a_missed_target_stands_out() -> None:
    found = some_figures()
    found.add(PORT, {"memory 50": 3 << 30})
    row = next(line for line in page.table(found).splitlines() if "waiting" in line)
    assert row == (
        "| 50 waiting: memory of launchers and reapers |  | 2048 MiB (1024, 1536, 2560, 3072) |  |  |  | 1843 MiB "
        "| **no** |"
    )


def test_rows_of_one_number_of_bottles_stand_together() -> None:
    names = ["up 50", "calls", "gone 5", "session", "up 5", "memory 5"]
    assert sorted(names, key=figures.order) == ["session", "up 5", "gone 5", "memory 5", "up 50", "calls"]


def test_every_target_is_of_a_row_that_has_a_title() -> None:
    assert all(figures.title(name) for name in figures.TARGETS)


def test_a_bar_is_as_long_as_its_row_has_it_to_the_longest() -> None:
    picture = xml.fromstring(page.picture([some_figures()]))
    bars = [each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if each.get("x") == str(page.LEFT)]
    widths = [float(each.get("width", "")) for each in bars if each.get("height") == str(page.LINE - 3)]
    assert widths[:3] == [page.BAR, pytest.approx(page.BAR * 0.55, abs=0.1), page.BAR * 0.5]
    words = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"engine 20.10.24+dfsg1", "y to the session's first byte", "1.10 s"} <= set(words)


def test_the_page_and_the_picture_are_those_of_the_kept_figures() -> None:
    every = figures.load_all()
    assert (page.DOCS / "bench.md").read_text() == page.page(every)
    assert (page.DOCS / "bench.svg").read_text() == page.picture(every)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "0,z"], "'z' is no row"),
        (["--pairs", "0"], "'0' is not a number from 1 on"),
        (["--at-once", "5,many"], "'many' is not a number from 1 on"),
    ],
)
def test_words_that_cannot_be_are_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.parse(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_all_sides_take_turns_at_being_first() -> None:
    order: list[str] = []

    def run(side: str) -> dict[str, float]:
        order.append(side)
        return {"session": float(len(order))}

    found = Figures("20", "20", "side:car", 1)
    main.alternate(found, 3, [SHELL, PORT, FLOOR], run, "test")
    assert order == [SHELL, PORT, FLOOR, PORT, FLOOR, SHELL, FLOOR, SHELL, PORT]
    assert found.rows["session"] == {SHELL: [1.0, 6.0, 8.0], PORT: [2.0, 4.0, 9.0], FLOOR: [3.0, 5.0, 7.0]}


def test_a_pair_of_which_one_fails_does_not_count() -> None:
    def run(side: str) -> dict[str, float]:
        if side == SHELL and found.rows:
            raise Failed("broken")
        return {"session": 1.0}

    found = Figures("20", "20", "side:car", 1)
    with pytest.raises(Failed):
        main.alternate(found, 2, [SHELL, PORT], run, "test")
    assert found.rows == {"session": {SHELL: [1.0], PORT: [1.0]}}


def test_what_comes_after_a_failure_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise Failed("no network left")

    done: list[str] = []
    monkeypatch.setattr(main, "jobs", lambda *_: iter([broken, lambda: done.append("next")]))
    assert main.measure(Figures("20", "20", "side:car", 1), None, main.parse([])) is False  # type: ignore[arg-type]
    assert done == ["next"]


def fake(folder: Path, **env: str) -> Launch:
    return Launch(["/bin/sh", "-c", LAUNCHER], folder, env)


def test_a_launch_is_answered_and_its_moments_are_taken(tmp_path: Path) -> None:
    with launch.closing([fake(tmp_path) for _ in range(3)]) as launches:
        launch.until(launches, SESSION)
        for each in launches:
            each.type("\n")
        last = launch.until(launches, GONE)
    came = [(each.began, each.came[QUESTION], each.came[SESSION], each.came[GONE]) for each in launches]
    assert all(list(moments) == sorted(moments) for moments in came)
    assert last == max(moments[-1] for moments in came)


def test_a_launch_that_fails_is_said_with_its_words(tmp_path: Path) -> None:
    with launch.closing([fake(tmp_path, STATUS="3")]) as (one,):
        launch.until([one], SESSION)
        one.type("\n")
        with pytest.raises(Failed, match=r"(?s)bin/sh ended with 3: .*the session is up"):
            launch.until([one], GONE)


def test_a_launch_that_ends_too_early_is_not_waited_for(tmp_path: Path) -> None:
    with (
        launch.closing([Launch(["/bin/sh", "-c", "echo broken"], tmp_path, {})]) as launches,
        pytest.raises(Failed, match="broken"),
    ):
        launch.until(launches, SESSION)


def test_what_still_runs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", f"sleep 600 & echo $! >{tmp_path}/pid; printf 'go on? [y/N] '; wait"]
    with launch.closing([Launch(words, tmp_path, {})]) as (one,):
        launch.until([one], QUESTION)
    child = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{child}/stat")
    assert one.child.returncode is not None
    until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", 10)


def test_memory_of_a_family_is_its_members_with_docker_clients_apart(tmp_path: Path) -> None:
    shutil.copy(shutil.which("sleep") or "", tmp_path / "docker")
    script = f"{tmp_path}/docker 600 & sleep 600 & wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as child:

        def ours() -> dict[int, str]:
            every = memory.processes()
            return {pid: every[pid][1] for pid in memory.family([child.pid], every) - {child.pid}}

        try:
            until(lambda: sorted(ours().values()) == ["docker", "sleep"], 10)
            taken = memory.measure([child.pid])
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert taken.launchers > 0 and taken.clients > 0
    assert memory.measure([child.pid]).clients == 0


def test_an_engine_of_another_name_is_refused_before_anything_is_done() -> None:
    done = subprocess.run(
        [Path(main.__file__).parents[2] / "scripts" / "bench", "--engine", "19"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("usage: scripts/bench [--engine 20|28]")
