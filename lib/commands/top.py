"""``top``: the bottles that there are, live, with keys to stop one and to see what it was denied.

Docker's calls go on beside the keys, in the one thread: each turn of the clock takes what they have said by then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from claude_bottle.lib import log
from claude_bottle.lib.commands import active, logs, stop
from claude_bottle.lib.commands.active import Active, Usage
from claude_bottle.lib.commands.bottles import Found
from claude_bottle.lib.commands.table import HEAD, row
from claude_bottle.lib.egress.refused import Row, denied_words
from claude_bottle.lib.engine import Engine, docker_require
from claude_bottle.lib.errors import BottleError, Interrupted
from claude_bottle.lib.host import wait
from claude_bottle.lib.host.calls import Crew, Outcome, Work
from claude_bottle.lib.teardown.inventory import Item, LookFailed, tell
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Static

TURN_SECONDS = 0.1
PAUSE_SECONDS = 1.0  # between two looks; a look takes docker two seconds
FIND, MEASURE, COUNT = "find", "measure", "count"
NOTHING = "no active containers"


def top() -> int:
    """Show the bottles until the user has seen enough.

    Returns:
        0.

    Raises:
        BottleError: there is no terminal, or no engine answers, or none any more.
        Interrupted: a signal arrived.
    """
    if not all(map(os.isatty, (0, 1, 2))):
        raise BottleError("top needs a terminal", ["'list active --json' prints the same once, for programs"])
    shown = Top(docker_require(os.environ))
    shown.run()
    wait.check_signals()
    if isinstance(shown.problem, LookFailed):
        tell(shown.problem)
    if shown.problem:
        raise shown.problem
    return 0


class Sure(ModalScreen[bool]):
    """Asks whether to stop a bottle."""

    CSS = "Sure { align: center middle; } Sure Static { width: auto; border: round $primary; padding: 1 2; }"
    BINDINGS: ClassVar[list[BindingType]] = [("y", "answer(True)", "Yes"), ("n,escape,q,ctrl+c", "answer(False)", "No")]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(self._question, markup=False)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Top(App[None]):
    """The table, what one bottle was denied, and what there is to say.

    Args:
        engine: whose bottles are shown.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    DataTable { height: 1fr; }
    #denials { display: none; height: auto; max-height: 50%; border-top: solid $primary; }
    #said { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,enter", "denials", "Denials", key_display="d", priority=True),
        ("s", "stop", "Stop"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q", priority=True),
    ]

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._crew: Crew[str] = Crew()
        self._found: list[Active] = []
        self._usage: Mapping[str, Usage] = {}
        self._rows: list[tuple[str, ...]] = []
        self._counted: dict[str, Sequence[str]] = {}  # what logs tell of bottles of launchers not ours
        self._look_at = 0.0
        self.problem: Exception | None = None

    def _handle_exception(self, error: Exception) -> None:
        """Leave, and keep what went wrong for who reports it: the library would print the values of variables."""
        self.problem = self.problem or error
        self._close_messages_no_wait()

    def compose(self) -> ComposeResult:
        yield DataTable[Text](cursor_type="row")
        with VerticalScroll(id="denials"):
            yield Static(id="denied", markup=False)
        yield Static(id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*HEAD)
        self.set_interval(TURN_SECONDS, self._turn)

    def on_unmount(self) -> None:
        self._crew.leave([FIND, MEASURE, COUNT])

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    @property
    def _panel(self) -> Widget:
        return self.query_one("#denials")

    @property
    def _chosen(self) -> Active | None:
        """The bottle that the cursor is on."""
        at = self._table.cursor_row
        return self._found[at] if 0 <= at < len(self._found) else None

    def _turn(self) -> None:
        """Take what has come, and begin what is due."""
        if wait.pending_signal() is not None:
            self.exit()
            return
        for key, outcome in self._crew.turn(time.monotonic()) if len(self._crew) else ():
            self._take(key, outcome)
        if not len(self._crew) and time.monotonic() >= self._look_at:
            self._crew.begin(FIND, active.find(self._engine))

    def _take(self, key: str, outcome: Outcome[Any]) -> None:
        value = outcome.get()
        if key == COUNT:
            self._show_denials()
        elif key == FIND:
            self._show([replace(one, usage=self._usage.get(_key(one))) for one in value])
            self._crew.begin(MEASURE, active.measured(self._engine, value))
            self._count()
        else:
            self._usage = {_key(one): one.usage for one in value if one.usage}
            self._show(value)
            self._look_at = time.monotonic() + PAUSE_SECONDS

    def _count(self) -> None:
        """Have the log of the chosen bottle read, once, where its launcher tells us nothing."""
        one = self._chosen
        if self._panel.display and one and one.item and one.refused is None and _key(one) not in self._counted:
            self._crew.begin(COUNT, self._read(one.item))

    def _read(self, item: Item) -> Work[None]:
        try:
            self._counted[item.identity] = _denials((yield from logs.count(self._engine, item)), logs.ANY_BOTTLE)
        except BottleError as problem:
            self._counted[item.identity] = [problem.message]

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(log.visible(text))

    def _show(self, found: list[Active]) -> None:
        """Put bottles into the table; the cursor stays on the one that it is on."""
        before, chosen = [_key(one) for one in self._found], self._chosen
        self._found = found
        keys, rows = [_key(one) for one in found], [row(one) for one in found]
        if keys != before:
            self._table.clear()
            for cells in rows:
                self._table.add_row(*map(Text, cells))
            if chosen and _key(chosen) in keys:
                self._table.move_cursor(row=keys.index(_key(chosen)))
        for at, (now, then) in enumerate(zip(rows, self._rows if keys == before else rows, strict=True)):
            for column in (column for column in range(len(now)) if now[column] != then[column]):
                self._table.update_cell_at(Coordinate(at, column), Text(now[column]), update_width=True)
        self._rows = rows
        self._say("" if found else NOTHING)
        self._show_denials()

    def on_data_table_row_highlighted(self) -> None:
        """Show the denials of the bottle that the cursor has come to."""
        self._show_denials()

    def action_denials(self) -> None:
        """Show what the chosen bottle was denied, or show it no more."""
        self._panel.display = not self._panel.display
        self._show_denials()

    def _show_denials(self) -> None:
        if self._panel.display:
            lines = self._lines_of(self._chosen)
            self.query_one("#denied", Static).update("\n".join(map(log.visible, lines)))

    def _lines_of(self, one: Active | None) -> Sequence[str]:
        """Return what the panel has of a bottle; nothing when the last one has gone."""
        if one is None:
            return ()
        if one.present:
            return (f"{one.agent}:", *_denials(one.present.refused, one.present.bottle))
        return (f"{one.agent}:", *self._counted.get(_key(one), ["its sidecar's log is being read"]))

    def action_stop(self) -> None:
        """Ask, and stop the chosen bottle as ``stop`` does, which speaks where the shell was."""
        one = self._chosen
        if one is None or one.item is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._stop(one)

        self.push_screen(Sure(log.visible(f"stop {one.container}? [y/N]")), answered)

    def _stop(self, one: Active) -> None:
        assert one.item
        try:
            with self.suspend():
                left = stop.end(self._engine, [Found(self._engine, one.item, "")])
            self._say(f"something of {one.container} is left" if left else f"stopped {one.container}")
        except BottleError as problem:
            self._say(problem.message)
        except Interrupted:  # the next turn heeds it
            return
        self._look_at = 0.0


def _key(one: Active) -> str:
    """Return what a bottle is known by: its container's id, or before there is one its launch."""
    return one.item.identity if one.item else one.present.owner.launch if one.present else ""


def _denials(rows: Iterable[Row], bottle: str) -> list[str]:
    return [denied_words(*each, bottle) for each in rows] or ["nothing was denied"]
