"""The engine that a command works with: found once, and then the one that every call of its goes to.

``docker context use``, a changed variable or a relative path must not send a teardown elsewhere: which client runs, and
what it reads to find its engine, is settled before anything is made, and the reaper gets the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from claude_bottle.lib import log, withhold
from claude_bottle.lib.errors import EngineUnfit, LinkLost
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Begun, Call, Work, perform

DEFAULT_CONTEXT = "default"
SHORTEST_SECONDS = 1.0
# What docker info says of the limits that it enforces; what it does not mention is taken for enforced.
_ENFORCED = {"memory": "MemoryLimit", "swap": "SwapLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}
_KEPT = ("client", "host", "context", "config", "cert_path", "identity", "socket")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)? ?(Z|[+-]\d\d:?\d\d)", re.ASCII)
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
SSH = "ssh://"


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself; a number that it does not say is 0.

    Attributes:
        cpus: processors of its machine.
        memory: bytes of it.
        runtimes: names of those that it has.
        unlimited: of memory, swap, cpus and pids those that it cannot limit.
        name: of its machine.
        version: its own.
        node: its id in the Swarm that it is part of, or an empty text.
        manages: whether that can be asked there.
        clock: its time when it was asked, in seconds of the epoch.
    """

    cpus: int = 0
    memory: int = 0
    runtimes: tuple[str, ...] = ()
    unlimited: tuple[str, ...] = ()
    name: str = ""
    version: str = ""
    node: str = ""
    manages: bool = False
    clock: float = 0.0

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Facts:
        """Return them from what docker info says."""
        return cls(
            cpus=said.get("NCPU") or 0,
            memory=said.get("MemTotal") or 0,
            runtimes=tuple(sorted(said.get("Runtimes") or ())),
            unlimited=tuple(name for name, key in _ENFORCED.items() if said.get(key) is False),
            name=said.get("Name") or "",
            version=said.get("ServerVersion") or "",
            node=(said.get("Swarm") or {}).get("NodeID") or "",
            manages=bool((said.get("Swarm") or {}).get("ControlAvailable")),
            clock=moment(str(said.get("SystemTime") or "")) or 0.0,
        )


@dataclass(frozen=True)
class Engine:
    """Which docker client runs, and which engine it talks to. All paths are absolute.

    Attributes:
        client: path of the docker client.
        host: what DOCKER_HOST says; where it is empty the context counts.
        context: name of the docker context.
        config: folder of the client's configuration.
        cert_path: folder of the client's TLS keys, empty for the configuration's own.
        identity: the id that the engine gave itself; empty before it has been asked.
        socket: path of the one by which it is reached, where that is our own link's; its host stays what the user says.
        line: descriptor that keeps the link, for who is to inherit it; below 0 there is none.
        facts: what else it said then.
        until: when every call is to have ended, in seconds of ``time.monotonic()``.
        check: called while a call is waited for, in place of looking for signals.
        kept_out: values, by variable, that no container may be fed.
    """

    client: str
    host: str
    context: str
    config: str
    cert_path: str
    identity: str = ""
    socket: str = ""
    line: int = field(default=-1, compare=False)
    facts: Facts = field(default=Facts(), compare=False)
    until: float = field(default=math.inf, compare=False)
    check: run.Check = field(default=run.uninterrupted, compare=False)
    kept_out: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def where(self) -> str:
        """How it is reached, for a message."""
        return self.host or f"context '{self.context}'"

    @cached_property
    def is_local(self) -> bool:
        """Whether its host is, as far as can be told, this machine: its socket is here."""
        return self.address.startswith(("unix://", "npipe://"))

    @property
    def address(self) -> str:
        """Docker's address of it, an empty text where only docker knows."""
        if self.host:
            return self.host
        return DEFAULT_SOCKET if self.context == DEFAULT_CONTEXT else context_address(self.config, self.context)

    def described(self) -> str:
        """Return where it is, how it is reached and what it is; an empty text for the one that needs no word."""
        address = self.address
        if address == DEFAULT_SOCKET:
            return ""
        where = address or self.where
        if not self.host and address:
            where = f"{address} ({self.where})"
        way = "by one ssh connection" if self.socket else "by an ssh connection for every call"
        way = f", {way}" if address.startswith(SSH) else ""
        return f"{where}{way}: Docker {self.facts.version or '?'} on {self.facts.name or '?'}"

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a call."""
        host = f"unix://{self.socket}" if self.socket else self.host
        pinned = {
            "DOCKER_HOST": host,
            "DOCKER_CONTEXT": "" if host else self.context,
            "DOCKER_CONFIG": self.config,
            "DOCKER_CERT_PATH": "" if self.socket else self.cert_path,
            # The builder of the engine itself: another one may build and load nothing.
            "BUILDX_BUILDER": DEFAULT_CONTEXT if host else self.context,
        }
        if self.socket or host.startswith(SSH):  # what would have the client speak TLS on it, or look for keys
            pinned |= {"DOCKER_TLS": "", "DOCKER_TLS_VERIFY": ""}
        rest = {name: value for name, value in run.child_env().items() if name not in pinned}
        return rest | {name: value for name, value in pinned.items() if value}

    def call(
        self,
        words: Sequence[str],
        *,
        seconds: float | None = None,
        stdin: Iterable[bytes] = (),
        interruptible: bool = False,
        shown: Collection[str] = (),
        needless: Callable[[], bool] = lambda: False,
        heard: Callable[[str, bytes], None] | None = None,
    ) -> Call:
        """Return a docker call, for work that yields it.

        Args:
            words: docker's arguments.
            seconds: the longest it may be silent, if not as long as any change.
            stdin: pieces of what it reads.
            interruptible: end it when a stopping signal arrives; for calls that change nothing, or only what is
                removed then. Others are left a while then where the engine is elsewhere, or as long as they take.
            shown: see ``Call``; it may be interrupted.
            needless: see ``Call``.
            heard: see ``Call``.
        """
        interruptible = interruptible or bool(shown)
        check = self.check
        if check is run.uninterrupted and interruptible:
            check = run.on_signal
        elif check is run.uninterrupted and self.until == math.inf and not self.is_local:
            check = run.soon_after_signal()  # there may be nobody any more who answers
        most = seconds or (run.SILENT_SECONDS if shown else run.CHANGE_SECONDS)
        most = min(most, max(SHORTEST_SECONDS, self.until - time.monotonic()))
        env = self.environment()
        stdin = withhold.Without(self.kept_out, stdin) if self.kept_out and stdin else stdin
        return Call(self.client, words, env, most, stdin, check, interruptible, shown, needless, heard)

    def question(self, words: Sequence[str]) -> Call:
        """Return a call that changes nothing; it is short, and a signal ends it."""
        return self.call(words, seconds=run.QUERY_SECONDS, interruptible=True)

    def bounded(self, until: float, check: run.Check) -> Engine:
        """Return the same engine for calls that have one end in common.

        Args:
            until: seconds of ``time.monotonic()``; a call that begins later has a moment all the same.
            check: see ``Call``.
        """
        return replace(self, until=until, check=check)

    def keeping_out(self, values: Mapping[str, str]) -> Engine:
        """Return the same engine for calls that feed none of some values to a container.

        Args:
            values: by variable.
        """
        return replace(self, kept_out=values)

    def foreground(self, words: Sequence[str], *, no_stdin: bool = False, alone: bool = False) -> run.Process:
        """Start docker with our own three streams, in our process group: it has the terminal.

        Args:
            words: docker's arguments.
            no_stdin: keep our stdin from it.
            alone: in a session of its own instead.
        """
        return run.foreground(self.client, words, self.environment(), no_stdin=no_stdin, alone=alone)

    def ask(self) -> Work[Engine]:
        """Ask the engine for its id and what it has; it comes to the engine with that.

        Raises:
            EngineUnfit: no engine answers.
        """
        said = yield from self.said()
        return replace(self, identity=said.get("ID") or "", facts=Facts.of(said))

    def said(self) -> Work[dict[str, Any]]:
        """Ask the engine for all that it says of itself.

        Raises:
            EngineUnfit: no engine answers.
        """
        answer = yield self.question(["info", "--format", "{{json .}}"])
        said = _object(answer.text)
        errors = said.get("ServerErrors")  # of clients of 20.10, which end well all the same; later ones use stderr
        if errors or not answer.ok:
            reasons = errors or answer.failure.splitlines()[-1:]
            raise EngineUnfit("cannot reach the Docker daemon (docker info failed)", reasons)
        return said

    def reachable(self) -> Engine:
        """Return the same engine, reached by docker's own way where its link has been killed."""
        if self.socket:
            from claude_bottle.lib.far.link import link_alive

            if not link_alive(self.socket):
                return replace(self, socket="")
        return self

    def require_link(self) -> None:
        """Fail where the link has broken since the command began, though it may be there again.

        A client whose stream is cut asks for the status of what it ran, and takes none for 0.

        Raises:
            LinkLost: it has.
        """
        if why := self._break():
            raise self.lost(why)

    @property
    def is_cut_off(self) -> bool:
        """Whether the link has broken since the command began; see ``require_link``."""
        return bool(self._break())

    def _break(self) -> str:
        if self.line < 0:
            return ""
        from claude_bottle.lib.far.link import link_lost

        return link_lost(self.line)

    def lost(self, why: str) -> LinkLost:
        """Return the error for a connection that has broken.

        Args:
            why: it is said to have.
        """
        return LinkLost(f"the connection to {self.where} was lost, and with it what was under way", [why])

    def dump(self) -> dict[str, str]:
        """Return all of it as a line of the journal holds it."""
        return {name: getattr(self, name) for name in _KEPT}


def moment(text: str) -> float | None:
    """Return when something was, as docker writes that, in seconds of the epoch; None where it is not so written.

    Args:
        text: a date, a time and an offset, and what may come behind.
    """
    found = _MOMENT.match(text)
    if not found:
        return None
    date, clock, offset = found.groups()
    with suppress(ValueError):
        return datetime.strptime(f"{date} {clock} {offset.replace('Z', '+0000')}", "%Y-%m-%d %H:%M:%S %z").timestamp()
    return None


def engine_find(environ: Mapping[str, str]) -> Engine:
    """Settle which client runs and what it reads, without asking any engine.

    Args:
        environ: the caller's environment.

    Raises:
        EngineUnfit: no docker on PATH.
    """
    client = shutil.which("docker", path=environ.get("PATH", ""))
    if client is None:
        raise EngineUnfit("docker not found on PATH")
    config = _absolute(environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or "/", ".docker"))
    return Engine(
        client=os.path.abspath(client),
        host=_absolute_host(environ.get("DOCKER_HOST", "")),
        context=environ.get("DOCKER_CONTEXT") or _current_context(config),
        config=config,
        cert_path=_absolute(environ.get("DOCKER_CERT_PATH", "")),
    )


def docker_require(environ: Mapping[str, str]) -> Engine:
    """Fail unless there is a docker client and an engine that answers it (shell: docker_require).

    Args:
        environ: the caller's environment.

    Returns:
        The engine, with its id.

    Raises:
        EngineUnfit: no docker on PATH, or no engine behind it.
    """
    return Asking(environ).get()


class Asking:
    """An engine that has been found and asked whether it is there, for who has other work until it answers.

    One that is reached over ssh gets a link, by which it is asked, and all that follows goes.

    Args:
        environ: the caller's environment.
        found: another than the one that it names.

    Raises:
        EngineUnfit: no docker on PATH.
    """

    def __init__(self, environ: Mapping[str, str], found: Engine | None = None) -> None:
        self.found = found or engine_find(environ)
        self._link: Any = None
        address = self.found.address
        if address.startswith(SSH):
            from claude_bottle.lib.far.link import link_open

            self._link = link_open(address, self.found.where, environ)
        if self._link:
            self.found = replace(self.found, socket=self._link.socket, line=self._link.held)
        self._answer = Begun(self.found.ask())

    def get(self) -> Engine:
        """Wait for its answer; return it with its id.

        Raises:
            EngineUnfit: no engine behind the client.
            Interrupted: a signal arrived.
        """
        if not self._link:
            return self._answer.get()
        try:
            refusal = self._link.require()
        except BaseException:
            self._answer.leave()
            raise
        if refusal:
            return self._by_itself(refusal)
        engine = self._answer.get()
        self._link.pin(engine.identity)
        return engine

    def _by_itself(self, refusal: str) -> Engine:
        """Ask the engine by docker's own way, since there is no link to it."""
        self._answer.leave()
        self._link.close()
        log.log_warn(f"no link to {self.found.where}: {refusal}", lines=True)
        log.log_info("every docker call opens an ssh connection of its own, which is slow")
        return perform(replace(self.found, socket="", line=-1).ask())


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _absolute_host(host: str) -> str:
    scheme, separator, path = host.partition("://")
    return f"unix://{_absolute(path)}" if separator and scheme == "unix" else host


def _current_context(config: str) -> str:
    """Return the context that the client's configuration names; a file that cannot be read names none."""
    try:
        name = _object(Path(config, "config.json").read_bytes()).get("currentContext")
    except OSError:
        return DEFAULT_CONTEXT
    return name if isinstance(name, str) and name else DEFAULT_CONTEXT


def context_address(config: str, context: str) -> str:
    """Return the address of a context, an empty text where the client's files do not say it.

    Args:
        config: folder of the client's configuration.
        context: its name.
    """
    folder = hashlib.sha256(context.encode("utf-8", "surrogateescape")).hexdigest()
    try:
        said = _object(Path(config, "contexts", "meta", folder, "meta.json").read_bytes())
        host = said["Endpoints"]["docker"]["Host"]
    except (OSError, KeyError, TypeError):
        return ""
    return host if isinstance(host, str) else ""


def _object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object, an empty one in place of anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
