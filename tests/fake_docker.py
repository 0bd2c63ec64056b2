"""The fake docker as tests use it: a folder for PATH, the engine's state, what fails, and what was asked."""

from __future__ import annotations

import io
import marshal
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parent.parent / "fixtures" / "fake-docker"
STUB = """#!{python} -IS
import sys
sys.path.insert(0, {program!r})
from engine import main
sys.exit(main({folder!r}, sys.argv[1:]))
"""


class FakeDocker:
    """One engine of a test's own.

    Args:
        folder: an empty or absent folder; the engine's state and the bin folder go there.
        state: the engine at the start: lists `containers`, `networks`, `images` of objects with at least a name;
            `down` (true: docker info fails), `no_pull` (docker's text when an image cannot be pulled).
    """

    def __init__(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        wrapper = self.bin / "docker"
        wrapper.write_text(STUB.format(python=sys.executable, program=str(PROGRAM), folder=str(folder)))
        wrapper.chmod(0o755)
        self._faults: list[dict[str, Any]] = []
        self._write("state", complete(state or {}))

    def _write(self, name: str, value: object) -> None:
        new = self.folder / f"{name}.new-{os.getpid()}"
        new.write_bytes(marshal.dumps(value))
        new.rename(self.folder / name)

    def fault(self, spec: str, *, mode: str = "fail", status: int = 1, when: str = "before") -> int:
        """Make a call fail, hang or pause.

        Args:
            spec: `<object> <verb...>[#<occurrence>][: <stderr>]`, as in `sidecar create: no space`,
                `agent exec chown#2: x`, `agent cp .git: x`, `internal-network rm`; `*` is any object.
            mode: fail, hang (until killed) or pause (until released).
            status: of the failure.
            when: before or after the call's effect.

        Returns:
            The fault's number, for `wait_for_pause` and `release`.
        """
        head, _, text = spec.partition(": ")
        name, _, occurrence = head.partition("#")
        object_, _, verb = name.partition(" ")
        fault = {"object": object_, "verb": verb, "stderr": text, "mode": mode, "status": status, "when": when}
        if occurrence:
            fault["occurrence"] = int(occurrence)
        self._faults.append(fault)
        self._write("faults", self._faults)
        return len(self._faults) - 1

    def session(self, script: str) -> None:
        """Run this shell script in place of claude; its status is the session's."""
        (self.folder / "session.sh").write_text(script)

    def during_build(self, script: str) -> None:
        """Run this shell script in each build."""
        (self.folder / "build.sh").write_text(script)

    def path(self, others: Sequence[str] = ("/usr/bin", "/bin")) -> str:
        """Return a PATH on which docker is this one."""
        return os.pathsep.join([str(self.bin), *others])

    def wait_for_pause(self, number: int, seconds: float = 10) -> int:
        """Return the pid of the docker call that has reached the fault.

        Raises:
            TimeoutError: no call came there in time.
        """
        mark, limit = self.folder / f"hit-{number}", time.monotonic() + seconds
        while time.monotonic() < limit:
            if mark.exists() and mark.read_text():
                return int(mark.read_text())
            time.sleep(0.005)
        raise TimeoutError(f"no docker call reached fault {self._faults[number]}")

    def release(self, number: int) -> None:
        """Let a paused call go on."""
        (self.folder / f"go-{number}").touch()

    def calls(self) -> list[dict[str, Any]]:
        """Return the finished calls in the order in which they ended."""
        return self._records("calls")

    def argvs(self) -> list[list[str]]:
        """Return the words of all calls, finished or not, in the order in which they began."""
        return [line["argv"] for line in self._records("begun")]

    def pids(self, verb: str) -> list[int]:
        """Return the pids of the calls of a verb, finished or not."""
        return [line["pid"] for line in self._records("begun") if line["argv"][0] == verb]

    def unknown(self) -> list[list[str]]:
        """Return the calls that the fake has no answer to; a good test has none."""
        return [call["argv"] for call in self.calls() if call.get("unknown")]

    def _records(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        rest = io.BytesIO(path.read_bytes() if path.exists() else b"")
        found = []
        while rest.tell() < len(rest.getbuffer()):
            found.append(marshal.load(rest))
        return found

    def _state(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = marshal.loads((self.folder / "state").read_bytes()).get(kind, [])
        return found

    def containers(self) -> list[dict[str, Any]]:
        """Return the containers there are."""
        return self._state("containers")

    def networks(self) -> list[dict[str, Any]]:
        """Return the networks there are."""
        return self._state("networks")

    def images(self) -> list[dict[str, Any]]:
        """Return the images there are."""
        return self._state("images")


def complete(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with what a thing of its kind needs beside its name."""
    whole = dict(state)
    serial = 1000
    for kind in ("containers", "networks", "images"):
        things = []
        for thing in state.get(kind, []):
            serial += 1
            base: dict[str, Any] = {"id": f"{serial:064x}", "labels": {}}
            if kind == "containers":
                base |= {"image": "other:latest", "status": "running", "networks": [], "argv": []}
            things.append(base | thing)
        whole[kind] = things
    return whole
