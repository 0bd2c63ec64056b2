"""What this launch makes, written down before it is made, so that all of it can be removed.

Every line also goes to the reaper, the process that cleans up when the launcher itself is killed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claude_bottle.lib.engine import Engine
from claude_bottle.lib.home.record import Record, load
from claude_bottle.lib.teardown.inventory import KINDS, SERVICE
from claude_bottle.lib.teardown.owner import Owner

STAGE = "stage"


def new_launch() -> str:
    """Return a random word that names one launch."""
    return secrets.token_hex(16)


@dataclass(eq=False)
class Entry:
    """One thing that may exist.

    Attributes:
        role: what it is.
        name: the name, or path, that it was to get.
        identity: the id that the engine gave it; empty before it has answered.
        gone: the engine will not make it, or has removed it.
        lost: docker gave no answer: the thing may come later.
    """

    role: str
    name: str
    identity: str = ""
    gone: bool = False
    lost: bool = False

    @property
    def kind(self) -> str:
        """The engine's word for it; empty for a folder of the host's."""
        return KINDS.get(self.role, "")

    @property
    def title(self) -> str:
        """How it is named in a message."""
        return f"{self.kind or 'folder'} '{self.name}'"


@dataclass
class Journal:
    """The list of what a launch may have made.

    Args:
        owner: whose it is, on a label of everything that is made.
        sink: takes each line; the reaper's pipe.
    """

    owner: Owner
    sink: Callable[[bytes], None] = lambda line: None
    entries: list[Entry] = field(default_factory=list)
    children: set[int] = field(default_factory=set)
    terminal: str = ""
    engine: Engine | None = None
    manager: Engine | None = None
    work: Record | None = None
    kept: set[str] = field(default_factory=set)
    leases: list[list[str]] = field(default_factory=list)

    def on_engine(self, engine: Engine) -> None:
        """Note the engine that things are made on."""
        self.engine = engine
        self._tell(engine=engine.dump())

    def moves_to(self, engine: Engine) -> None:
        """Note that things are made on another engine from now on, and that its seat stays on the first."""
        self.manager, self.engine = self.engine, engine
        self._tell(moves=engine.dump())

    def engine_of(self, kind: str) -> Engine | None:
        """Return the engine that things of a kind are on."""
        return self.manager or self.engine if kind == SERVICE else self.engine

    def intend(self, role: str, name: str) -> Entry:
        """Note that something is about to be made."""
        self._tell(intend=[role, name])
        return self._add(role, name)

    def _add(self, role: str, name: str) -> Entry:
        self.entries.append(Entry(role, name))
        return self.entries[-1]

    def answered(self, entry: Entry, identity: str) -> None:
        """Note that the engine has made a thing, or with an empty text that it has refused to."""
        self._tell(answered=[self.entries.index(entry), identity])
        entry.identity = identity
        entry.gone = not identity

    def removed(self, identity: str) -> None:
        """Note that a thing is gone already."""
        for entry in self.entries:
            if entry.identity == identity:
                self.answered(entry, "")

    def lost(self, entry: Entry) -> None:
        """Note that docker gave no answer in time."""
        self._tell(lost=self.entries.index(entry))
        entry.lost = True

    def on_the_engine(self) -> list[Entry]:
        """Return what may exist on the engine."""
        return [entry for entry in self.entries if entry.kind and not entry.gone]

    def folders(self) -> list[Entry]:
        """Return the folders on the host."""
        return [entry for entry in self.entries if not entry.kind]

    def has_lost(self) -> bool:
        """Say whether docker gave no answer about something."""
        return any(entry.lost for entry in self.on_the_engine())

    def lose_unanswered(self) -> None:
        """Take what the engine has not answered about for what may still come."""
        for entry in self.on_the_engine():
            entry.lost = entry.lost or not entry.identity

    def leased(self, words: list[str]) -> None:
        """Note that a container is about to run that ends where nobody renews its lease.

        Args:
            words: docker's, of what renews it.
        """
        self._tell(leased=words)
        self.leases.append(words)

    def child(self, pid: int, alive: bool) -> None:
        """Note a process that would outlive a killed launcher, or that it has ended."""
        (self.children.add if alive else self.children.discard)(pid)
        self._tell(child=[pid, alive])

    def session_begins(self, work: Record) -> None:
        """Note that there may be work from now on.

        Args:
            work: where it is, and where it goes.
        """
        self.work = work
        self._tell(work=work.dump())

    def keep(self, entry: Entry) -> None:
        """Note that a thing stays, with work that could not come home; ``kept`` has its id."""
        self._tell(keep=self.entries.index(entry))
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        entry.gone = True
        self.kept.add(entry.identity)

    def saved_terminal(self, state: str) -> None:
        """Note how the terminal was, or with an empty text that it is so again."""
        self.terminal = state
        self._tell(terminal=state)

    def done(self) -> None:
        """Note that all is removed; the reaper then ends without a word."""
        self._tell(done=True)

    def _tell(self, **what: object) -> None:
        self.sink(json.dumps(what).encode() + b"\n")

    def replay(self, line: bytes) -> bool:
        """Take a line that another process's journal wrote.

        Returns:
            Whether the line says that all is removed.
        """
        what = json.loads(line)
        if "intend" in what:
            self._add(*what["intend"])
        elif "answered" in what:
            index, identity = what["answered"]
            self.answered(self.entries[index], identity)
        elif "lost" in what:
            self.lost(self.entries[what["lost"]])
        elif "child" in what:
            pid, alive = what["child"]
            (self.children.add if alive else self.children.discard)(pid)
        elif "leased" in what:
            self.leases.append(what["leased"])
        elif "work" in what:
            self.work = load(what["work"])
        elif "keep" in what:
            self._keep(self.entries[what["keep"]])
        elif "terminal" in what:
            self.terminal = what["terminal"]
        elif "engine" in what:
            self.engine = Engine(**what["engine"])
        elif "moves" in what:
            self.manager, self.engine = self.engine, Engine(**what["moves"])
        return "done" in what
