"""The fake docker as tests use it: a folder for PATH, the engine's state, what fails, and what was asked."""

from __future__ import annotations

import fcntl
import io
import marshal
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parent.parent / "fixtures" / "fake-docker"
# Nothing that it makes is worth looking for, or taking apart at the end: that would be a fifth of a call's time.
STUB = """#!{python} -IS
import gc, sys
gc.disable()
sys.path.insert(0, {program!r})
from engine import main, os
status = main({folder!r}, sys.argv[1:])
sys.stdout.flush()
os._exit(status)
"""


DEFAULT_HOST = "unix:///var/run/docker.sock"


class FakeEngine:
    """One engine of a test's own.

    Args:
        folder: an empty or absent folder for its state.
        state: the engine at the start: lists `containers`, `networks`, `images` of objects with at least a name;
            `down` (true: no call is answered), `id` (that it gives itself), `info` (what else its `docker info` says),
            `broken` (the seals that a probe of our own image beside a bottle finds broken),
            `swarm` (`id` of its node; of a manager also `nodes`, each with `id`, `name` and perhaps `address`, `state`;
            `order` of the nodes that services get in turn, or a `refusal`; what is said of a `task`, and its `error`;
            `no_node`, docker's text for one that there is not, `{}` in place of its id),
            `no_pull` (docker's text when an image cannot be pulled), `same_names` (two networks may have one name).
            Of the client: `cannot_see` (a folder of the host that it does not see), `id_file` (`none` or `empty`: what
            it writes where it should write a build's id), `words` (`legacy` or `buildkit`: how a build ends),
            `builder` (the one it has selected; other than the context's own it loads nothing),
            `loads_nothing` (true: nor does the context's own).
    """

    def __init__(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._write("state", complete(state or {}))

    def _write(self, name: str, value: object) -> None:
        new = self.folder / f"{name}.new-{os.getpid()}"
        new.write_bytes(marshal.dumps(value))
        new.rename(self.folder / name)

    def down(self) -> None:
        """Begin an outage: sessions end, and no call is answered."""
        self._change(lambda state: state.update(down=True))
        with open(self.folder / "outages", "a") as outages:
            outages.write("x")

    def up(self, restarted: bool = False) -> None:
        """End an outage.

        Args:
            restarted: it was the engine's end, and so that of its containers.
        """

        def change(state: dict[str, Any]) -> None:
            state["down"] = False
            for box in state["containers"] if restarted else ():
                box["status"] = "exited" if box["status"] == "running" else box["status"]

        self._change(change)

    def end(self, name: str, status: int) -> None:
        """Let the process of a container end."""

        def change(state: dict[str, Any]) -> None:
            (box,) = (box for box in state["containers"] if box["name"] == name)
            box.update(status="exited", exit_code=status)

        self._change(change)

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        with open(self.folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = marshal.loads((self.folder / "state").read_bytes())
            change(state)
            self._write("state", state)

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

    def services(self) -> list[dict[str, Any]]:
        """Return the services there are."""
        return self._state("services")

    def volumes(self) -> list[dict[str, Any]]:
        """Return the volumes that no container has."""
        there = {box["id"] for box in self.containers()}
        return [volume for volume in self._state("volumes") if volume["of"] not in there]


class FakeDocker(FakeEngine):
    """A docker client of a test's own and the engine behind it.

    Args:
        folder: an empty or absent folder; the state of both and the bin folder go there.
        state: as of an engine.
    """

    def __init__(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, state)
        self.bin = folder / "bin"
        self.bin.mkdir()
        wrapper = self.bin / "docker"
        wrapper.write_text(STUB.format(python=sys.executable, program=str(PROGRAM), folder=str(folder)))
        wrapper.chmod(0o755)
        self._faults: list[dict[str, Any]] = []
        self._served = 0
        self._places: dict[str, dict[str, str]] = {
            "contexts": {"default": DEFAULT_HOST},
            "engines": {DEFAULT_HOST: str(folder)},
        }

    def serve(self, host: str, state: Mapping[str, Any] | None = None) -> FakeEngine:
        """Let an engine of its own answer at an address from now on; until then every address leads to the first.

        Args:
            host: as DOCKER_HOST has it; the path of a socket is absolute.
            state: as of an engine; its id is of its own.
        """
        self._served += 1
        state = {"id": f"FAKE:OTHER-{self._served}", **(state or {})}
        engine = FakeEngine(self.folder / f"engine-{self._served}", state)
        self.move(engine, host)
        return engine

    def move(self, engine: FakeEngine, host: str) -> None:
        """Let an engine answer at one more address, in place of what answered there."""
        self._places["engines"][host] = str(engine.folder)
        self._write("places", self._places)

    def point(self, context: str, host: str) -> None:
        """Make or change a docker context."""
        self._places["contexts"][context] = host
        self._write("places", self._places)

    def fault(self, spec: str, *, mode: str = "fail", status: int = 1, when: str = "before") -> int:
        """Make a call fail, hang or pause.

        Args:
            spec: `<object> <verb...>[#<occurrence>][: <stderr>]`, as in `sidecar create: no space`,
                `agent exec chown#2: x`, `agent cp .git: x`, `internal-network rm`; `*` is any object. Of a removal
                of several, one that fails is the object's alone; with `*`, or when it hangs or pauses, it is the call.
            mode: fail (without text it says nothing), hang (until killed), pause (until released), or late (hang, with
                the effect when it is released, whether the client still lives or not).
            status: of the failure.
            when: before or after the call's effect, or between what a build makes and where it writes the id. After the
                effect of a start that stays attached means: its container runs and has what it was fed.

        Returns:
            The fault's number, for `wait_for_pause` and `release`.
        """
        head, told, words = spec.partition(": ")
        text = words if told else None  # not even an empty line
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

    def workspace(self, folder: Path) -> None:
        """Let this folder stand for a bottle's workspace, where its repository is looked at."""
        (self.folder / "workspace").write_text(str(folder))

    def during_build(self, script: str) -> None:
        """Run this shell script in each build."""
        (self.folder / "build.sh").write_text(script)

    def path(self, others: Sequence[str] = ("/usr/bin", "/bin")) -> str:
        """Return a PATH on which docker is this one."""
        return os.pathsep.join([str(self.bin), *others])

    def wait_for_pause(self, number: int, seconds: float = 30) -> int:
        """Return the pid of the docker call that has reached the fault.

        Raises:
            TimeoutError: no call came there in time.
        """
        return int(self._await(number, "hit", seconds))

    def _await(self, number: int, what: str, seconds: float) -> str:
        mark, limit = self.folder / f"{what}-{number}", time.monotonic() + seconds
        while not mark.exists():
            if time.monotonic() > limit:
                raise TimeoutError(f"no '{what}' of the docker call with fault {self._faults[number]}")
            time.sleep(0.005)
        return mark.read_text()

    def release(self, number: int) -> None:
        """Let a paused call go on, or a late one have its effect."""
        (self.folder / f"go-{number}").touch()

    def wait_for_effect(self, number: int, seconds: float = 30) -> str:
        """Return what came of a late call: `done`, or docker's words.

        Raises:
            TimeoutError: it has not been released, or does not end in time.
        """
        return self._await(number, "done", seconds)

    def calls(self) -> list[dict[str, Any]]:
        """Return the finished calls in the order in which they ended."""
        return self._records("calls")

    def argvs(self) -> list[list[str]]:
        """Return the words of all calls, finished or not, in the order in which they began."""
        return [line["argv"] for line in self._records("begun")]

    def begun(self) -> list[tuple[int, list[str]]]:
        """Return pid and words of all calls, finished or not."""
        return [(line["pid"], line["argv"]) for line in self._records("begun")]

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
