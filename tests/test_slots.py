"""How many launchers remove things at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from claude_bottle.lib.teardown import slots

from tests.checkout import clone
from tests.conftest import ROOT
from tests.sweep import Run

HOLD = """
import fcntl, sys, time
files = [open(path) for path in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""


def test_a_teardown_waits_for_its_turn_and_has_it_when_another_launcher_is_killed(tmp_path: Path) -> None:
    copy = clone(tmp_path / "copy")  # nobody else's launcher is to wait
    (copy / ".venv-run").symlink_to(ROOT / ".venv-run")
    run = Run(tmp_path / "run")
    run.words[0] = copy / "cli.sh"
    files = sorted(copy.glob("lib/*.py"))[: slots.SLOTS]
    with subprocess.Popen([sys.executable, "-c", HOLD, *files], stdout=subprocess.PIPE, text=True) as others:
        assert others.stdout and others.stdout.readline() == "held\n"
        child = run.begin()
        assert child.stderr
        said = iter(child.stderr.readline, "")
        assert any("still waiting for other removals" in line for line in said)
        assert [argv for argv in run.fake.argvs() if "rm" in argv[:2]] == []
        others.send_signal(signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err
