"""A bottle that nobody can reach ends by itself, on the real engine; one that somebody looks after does not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .conftest import AGENT, SHELL_IMAGE, Desk, container, docker, leftovers, until
from .test_stale import reaper_of

PATIENCE = 30
SLACK = 15  # seconds, of a machine that has much to do
# Whatever the session's user may try to renew the lease, or to end or to hold its guard.
TRIES = r"""
for signal in USR1 TERM KILL STOP CONT HUP; do kill -$signal 1 2>/dev/null && echo "$signal reached it"; done
[ -w /usr/local/bin/claude-bottle-guard ] && echo "its program can be written"
ls /proc/1/fd >/dev/null 2>&1 && echo "its descriptors can be read"
python3 - <<'END'
import ctypes, os
if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0:  # PTRACE_ATTACH
    print("it can be traced")
END
/usr/local/bin/claude-bottle-guard --renew 30 <<END && echo "the lease can be renewed"
x
END
kill -0 1 2>/dev/null && echo "it can be signalled"
ps -o user=,args= -p 1
"""


def sessions(shell: Desk, *names: str) -> list[Desk]:
    """Return desks like one, each with an agent of its own."""
    made = []
    for name in names:
        desk = Desk(shell.cwd.parent.parent / name, f"{AGENT}-{name}")
        desk.launcher = shell.launcher
        desk.env.update(CLAUDE_BOTTLE_IMAGE=SHELL_IMAGE, CLAUDE_BOTTLE_PATIENCE=str(PATIENCE))
        made.append(desk)
    return made


@contextmanager
def begun(desk: Desk) -> Iterator[subprocess.Popen[str]]:
    """A session without a terminal, whose client is a shell that reads from us."""
    words = [desk.launcher, "start", "-y", desk.agent]
    with open(desk.said, "w") as said, subprocess.Popen(
        words, cwd=desk.cwd, env=desk.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        text=True, start_new_session=True,
    ) as child:  # fmt: skip
        try:
            ask(child, "true")
            yield child
        finally:
            for pid in (child.pid, *reapers(child.pid)):
                with_signal(pid, signal.SIGCONT)
            child.terminate()


def ask(child: subprocess.Popen[str], script: str) -> str:
    assert child.stdin and child.stdout
    child.stdin.write(f"{script}\necho; echo over\n")
    child.stdin.flush()
    said = list(iter(child.stdout.readline, "over\n"))
    return "".join(said).rstrip("\n")


def reapers(pid: int) -> list[int]:
    try:
        return [reaper_of(pid)]
    except (AssertionError, OSError):
        return []


def with_signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def elsewhere(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher as if on another machine of the same user: what is proved there, is by the engine alone."""
    script = 'hostname elsewhere; exec "$0" "$@"'
    env = {**desk.env, "HOME": f"{desk.home}-elsewhere", "XDG_STATE_HOME": f"{desk.home}-elsewhere/state"}
    Path(env["HOME"]).mkdir(exist_ok=True)
    command = ["unshare", "--uts", "sh", "-c", script, desk.launcher, *words]
    return subprocess.run(command, cwd=desk.cwd, env=env, capture_output=True, text=True, timeout=120)


def test_a_bottle_that_nobody_looks_after_ends_and_the_others_stay(shell: Desk) -> None:
    lost, idle, orphan = sessions(shell, "lost", "idle", "orphan")
    with begun(lost) as gone, begun(idle) as well, begun(orphan) as alone:
        assert ask(well, TRIES).split("\n") == ["root     claude-bottle-guard"]
        os.kill(reaper_of(alone.pid), signal.SIGKILL)  # its launcher renews in its place
        box = container("agent", lost.agent)
        ends = {role: container(role, lost.agent) for role in ("agent", "broker")}
        for pid in (gone.pid, reaper_of(gone.pid)):
            os.kill(pid, signal.SIGSTOP)  # a killed one is swept by any start, of the other tests too
        began = time.monotonic()
        until(lambda: not any(container(role, lost.agent) for role in ends), PATIENCE + SLACK)
        assert time.monotonic() > began + PATIENCE / 2
        for identity in ends.values():
            assert docker("inspect", "--format", "{{.State.ExitCode}}", identity) == "75"
        assert elsewhere(idle, "cleanup", "--stale", "--yes").returncode == 0
        assert box not in docker("ps", "-aq", "--no-trunc") and container("sidecar", lost.agent) == ""
        time_left = began + PATIENCE + SLACK - time.monotonic()
        until(lambda: time.monotonic() > began + PATIENCE + SLACK, max(1, time_left) + 5)
        for desk, child in ((idle, well), (orphan, alone)):
            assert ask(child, "echo here") == "here" and container("broker", desk.agent)
    for desk in (lost, idle, orphan):
        until(lambda desk=desk: not leftovers(desk), 60)
