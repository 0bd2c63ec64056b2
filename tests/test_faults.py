"""A docker call that fails, or never answers, each in turn: bounded, reported, nothing left behind unsaid."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.sweep import Run, each, name_of, points, wrong_words

WORDS = {"fail": ("it broke",), "hang": ("gave no answer within", "is not healthy after")}


@pytest.mark.parametrize("mode", ["fail", "hang"])
def test_a_docker_call_that_goes_wrong_is_said_and_leaves_nothing_unsaid(tmp_path: Path, mode: str) -> None:
    def check(point: str) -> str:
        run = Run(name_of(tmp_path, point), {} if mode == "hang" else None)
        run.fake.fault(f"{point}: it broke", mode=mode)
        began = time.monotonic()
        child = run.begin()
        _, err = child.communicate(timeout=90)
        if child.returncode not in (0, 1):
            return f"status {child.returncode}, {err}"
        unsaid = [name for name in run.leftovers() if name not in err]
        if unsaid or (run.leftovers() and child.returncode == 0):
            return f"left {unsaid}, status {child.returncode}, {err}"
        if child.returncode == 1 and not any(words in err for words in WORDS[mode]):
            return f"no word of what went wrong: {err}"
        if time.monotonic() - began > 60:
            return f"took {time.monotonic() - began:.0f} s"
        return wrong_words(err)

    calls = points(tmp_path / "first")
    if mode == "hang":  # the session may last as long as it likes
        calls.remove([call for call in calls if "exec" in call][-1])
    assert each(calls, check) == []


ODD = {
    "words": "echo odd words; echo",
    "bytes": "printf '\\377\\000\\033[2J\\n'",
    "nothing": ":",
    "many lines": "seq 5000",
    "only tabs": "printf '\\t\\t\\t\\n\\t\\n'",
}


@pytest.mark.parametrize("answer", ODD)
@pytest.mark.parametrize("status", [0, 1])
def test_an_odd_answer_of_a_wrapper_is_no_defect_of_ours(tmp_path: Path, answer: str, status: int) -> None:
    run = Run(tmp_path)
    (run.fake.bin / "docker").write_text(f"#!/bin/sh\n{ODD[answer]}\nexit {status}\n")
    start = run.words
    for words in (start, [start[0], "list", "active"], [start[0], "cleanup"], [start[0], "build"]):
        how = {"cwd": run.cwd, "env": run.env, "stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 90}
        done = subprocess.run(words, start_new_session=True, **how)
        assert done.returncode in (0, 1) and wrong_words(done.stderr.decode(errors="replace")) == "", done
