"""What this launch makes, written down before it is made, so that all of it can be removed.

Every line also goes to the reaper, the process that cleans up when the launcher itself is killed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claude_bottle.lib.engine import Engine

OWNER_LABEL = "claude-bottle.owner"
SLUG_LABEL = "claude-bottle.slug"
ROLE_LABEL = "claude-bottle.role"
IMAGE_LABEL = "claude-bottle.image"

AGENT = "agent"
SIDECAR = "sidecar"
INTERNAL = "internal"
EGRESS = "egress"
WORKSPACE = "workspace"
STAGE = "stage"


def new_owner() -> str:
    """Return a random label that names one launch."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Entry:
    """One thing that may exist: what it is and the name (or path) it was to get."""

    role: str
    name: str


@dataclass
class Journal:
    """The list of what a launch may have made.

    Args:
        owner: the launch's own label, on everything it makes.
        sink: takes each line; the reaper's pipe.
    """

    owner: str
    sink: Callable[[bytes], None] = lambda line: None
    entries: list[Entry] = field(default_factory=list)
    children: set[int] = field(default_factory=set)
    terminal: str = ""
    engine: Engine | None = None

    def on_engine(self, engine: Engine) -> None:
        """Note the engine that things are made on."""
        self.engine = engine
        self._tell(engine=engine.dump())

    def intend(self, role: str, name: str) -> None:
        """Note that something is about to be made."""
        self.entries.append(Entry(role, name))
        self._tell(intend=[role, name])

    def names(self, role: str) -> list[str]:
        """Return the names under which things of a role may exist."""
        return [entry.name for entry in self.entries if entry.role == role]

    def child(self, pid: int, alive: bool) -> None:
        """Note a process that would outlive a killed launcher, or that it has ended."""
        (self.children.add if alive else self.children.discard)(pid)
        self._tell(child=[pid, alive])

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
            self.entries.append(Entry(*what["intend"]))
        elif "child" in what:
            pid, alive = what["child"]
            (self.children.add if alive else self.children.discard)(pid)
        elif "terminal" in what:
            self.terminal = what["terminal"]
        elif "engine" in what:
            self.engine = Engine(**what["engine"])
        return "done" in what
