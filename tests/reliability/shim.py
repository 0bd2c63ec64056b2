"""Stands before the docker client: notes each call, and does one thing at one of them.

Runs by its path, as ``docker`` in a folder of its own that holds ``settings.json`` too: the client, and perhaps a fault
(point, when, act). Each call has a name by what it is, since calls overlap and no two runs need have the same order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
WORDS = {  # an engine that refuses, and one whose answer got lost
    "before": "Error response from daemon: it broke",
    "after": "error during connect: Post: EOF",
}
GROUPS = ("network", "container", "image")
ROLE = "claude-bottle.role="
SIGNALS = ("INT", "TERM", "HUP", "KILL")
VERBS = {"ps": "look for containers", "network ls": "look for networks"}


def kind(words: list[str]) -> str:
    """Return what a call is."""
    verb = " ".join(words[:2] if words[0] in GROUPS else words[:1])
    role = next((word.partition(ROLE)[2] for word in words if word.startswith(ROLE)), "")
    if verb in ("create", "network create") and role:
        return f"{verb} {role}"
    if verb == "build":
        return "build broker" if "-f" in words else "build"
    if verb == "start" and "-ai" in words:  # the broker's comes after the sidecar's
        return "start broker" if (HERE / "calls" / "start sidecar").exists() else "start sidecar"
    if verb == "start":
        return "start agent"
    if verb == "exec":
        if "/usr/bin/perl" in words and "-" in words:  # work.pl, which is fed
            return f"exec work {words[words.index('-') + 1]}"
        if "--renew" in words:  # the reaper's, of a session that lasts
            return "exec renewal"
        return "exec session" if "-it" in words or "-t" in words else "exec seals"
    return VERBS.get(verb, verb)


def named(words: list[str]) -> str:
    """Return the call's name, no other call's of this launch: the second of a kind has its number."""
    (HERE / "calls").mkdir(exist_ok=True)
    number = 0
    while True:
        number += 1
        name = kind(words) + (f" {number}" if number > 1 else "")
        with contextlib.suppress(FileExistsError), (HERE / "calls" / name).open("x") as file:
            json.dump(words, file)
            return name


def reaper_of(launcher: int) -> int:
    """Return the pid of a launcher's reaper; 0 if it has none."""
    said = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(launcher)], capture_output=True, text=True).stdout
    return next((int(line.split()[0]) for line in said.splitlines() if "reaper.py" in line), 0)


def act(what: str, when: str) -> None:
    """Do it: to the launcher, to its reaper, or to this call, which then does not come back."""
    launcher = os.getppid()
    (HERE / "hit").touch()
    if what == "fail":
        sys.exit(WORDS[when])
    while what == "hang":
        signal.pause()
    if what == "pause":
        while not (HERE / "go").exists():
            time.sleep(0.05)
        return
    if what in ("reaper", "both") and (reaper := reaper_of(launcher)):
        os.kill(reaper, signal.SIGKILL)
    if what != "reaper":
        os.kill(launcher, signal.Signals[f"SIG{'KILL' if what == 'both' else what}"])


def main(words: list[str]) -> None:
    settings = json.loads((HERE / "settings.json").read_text())
    client, fault = settings["client"], settings.get("fault")
    if named(words) != (fault or {}).get("point"):
        os.execv(client, ["docker", *words])
    if fault["when"] == "before":
        act(fault["act"], fault["when"])
        os.execv(client, ["docker", *words])
    lost = fault["act"] in ("fail", "hang") and "-ai" not in words  # who is attached has heard it all along
    said = subprocess.DEVNULL if lost else None
    child = subprocess.Popen([client, *words], stdout=said)

    def stop(number: int, frame: FrameType | None) -> None:
        child.terminate()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    status = child.wait()
    act(fault["act"], fault["when"])
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
