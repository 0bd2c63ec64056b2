"""scripts/faults: at each docker call of a start and its teardown, before it and after it, one thing goes wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fixtures.scenery import sigterm_raises
from tests.reliability import kept
from tests.reliability.kept import Outcome
from tests.reliability.launches import One, Place, place

ACTS = ("fail", "hang", "INT", "TERM", "HUP", "KILL", "reaper", "both")
WHENS = ("before", "after")
SESSION = "exec session"
STATUS = {
    **{"fail": (0, 1), "hang": (0, 1), "INT": (130,), "TERM": (143,), "HUP": (129,)},
    **{"KILL": (-9,), "both": (-9,), "reaper": (0,)},
}
CLEAN_SECONDS = 90.0  # for the reaper, which waits for what may still come
SWEEPS = 3
SWEPT_SECONDS = 10.0  # after a start that has swept up
CALLS_SECONDS = 30.0

Case = tuple[str, str, str]  # point, when, act


def say(text: str) -> None:
    print(f"faults: {text}", file=sys.stderr, flush=True)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Faults at every docker call of a start.")
    parser.add_argument("--call", action="append", help="only at this call, as the first run names it; may be repeated")
    parser.add_argument("--act", action="append", choices=ACTS, help="only this; may be repeated")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="keep the outcomes in docs/reliability, write the page")
    return parser.parse_args(words)


def points(there: Place) -> list[str]:
    """Return the docker calls of an undisturbed start and teardown."""
    one = there.launch(fault={})
    try:
        status = one.run()
        assert status == 0, one.words_said()
        return one.calls()
    finally:
        one.close()


def cases(calls: Sequence[str], acts: Sequence[str]) -> Iterator[Case]:
    for act in acts:
        for call in calls:
            for when in WHENS:
                if (call, act) != (SESSION, "hang"):  # a session may last as long as it likes
                    yield call, when, act


def check(there: Place, case: Case) -> Outcome:
    """Run one start with one fault, and see what has become of it."""
    call, when, act = case
    one = there.launch(fault={"point": call, "when": when, "act": act}, patient=act != "hang")
    try:
        status = one.run()
        began = time.monotonic()
        before_sweep = swept(there, one) if act == "both" else []
        left = one.clean_within(SWEPT_SECONDS if act == "both" else CLEAN_SECONDS)
        took = time.monotonic() - began
        return Outcome(call, when, act, status, len(before_sweep), left, round(took, 1), wrong(one, case))
    finally:
        one.close()


def swept(there: Place, one: One) -> list[str]:
    """Return what two killed processes have left once their docker calls have ended; then start for the same user."""
    end = time.monotonic() + CALLS_SECONDS
    while any(" create " in f"{name} " for name in one.left()) and time.monotonic() < end:
        time.sleep(0.1)
    left = one.left()
    for _ in range(SWEEPS):  # one that finds another one sweeping leaves it to that
        another = there.launch(tmp=one.desk.tmp)
        try:
            another.run()
        finally:
            another.close()
        if not one.left():
            break
    return left


def wrong(one: One, case: Case) -> str:
    """Return what is not as it should be, but for leftovers."""
    act = case[2]
    if not (one.shim / "hit").exists():
        return "the call did not come"
    if one.status not in STATUS[act]:
        return f"status {one.status}: {one.words_said()}"
    if "Traceback" in one.terminal.said or "internal error" in one.terminal.said:
        return one.words_said()
    if act != "both" and not one.terminal_is_back():
        return "the terminal is not as before"
    return ""


def run(there: Place, wanted: Sequence[Case], at_once: int) -> list[Outcome]:
    def one(case: Case) -> Outcome:
        found = check(there, case)
        said = f"left {found.left}" if found.left else found.wrong or "clean"
        say(f"{found.act} {found.when} '{found.point}': {said} ({found.seconds:.1f} s)")
        return found

    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(one, wanted))
    finally:
        pool.shutdown(cancel_futures=True)


def main(words: Sequence[str]) -> int:
    """Run the cases, print the table, and keep it if asked to; return the status."""
    args = parse(words)
    with (
        sigterm_raises(),
        tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder,
        place(Path(folder)) as there,
    ):
        calls = points(there)
        unknown = set(args.call or ()) - set(calls)
        if unknown:
            say(f"no call is named {sorted(unknown)}; there are: {', '.join(calls)}")
            return 2
        wanted = list(cases(args.call or calls, args.act or ACTS))
        say(f"{len(wanted)} cases at {len(args.call or calls)} calls, {args.at_once} at once")
        outcomes = run(there, wanted, args.at_once)
    print(kept.faults_table(outcomes), end="")
    if args.write:
        kept.keep_faults(outcomes)
    return 1 if any(each.left or each.wrong for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
