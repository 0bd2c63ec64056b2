"""Notices the end of what a bottle cannot do without: the sidecar, and the broker beside it."""

from __future__ import annotations

from collections.abc import Sequence

from claude_bottle.lib.egress.refused import Refused, Row
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import DockerError, SidecarLost
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import ERR, OUT, Talk, one, perform

LOG_LINES = 8
ENDED, REMOVED = ("exited", "dead", "removing"), "removed"


def state_words(container: str) -> list[str]:
    """Return docker's words that ask for a container's state."""
    return ["container", "inspect", "--format", "{{.State.Status}}", container]


def state_of(engine: Engine, container: str) -> str:
    """Return docker's word for a container's state, "removed" where it is gone; empty where no answer is given.

    Args:
        engine: to ask.
        container: its id.
    """
    look = perform(one(engine.call(state_words(container), seconds=run.QUERY_SECONDS)))
    return look.text if look.ok else REMOVED * ("No such" in look.failure)


class Watch:
    """Notices the end of a container beside the bottle, by the client that is attached to it.

    Args:
        engine: to ask.
        container: its id.
        talk: with the client.
        name: what it is called in messages.
        loss: what its end means to a session.
        refused: counts in its log.
    """

    def __init__(self, engine: Engine, container: str, talk: Talk, name: str, loss: str, refused: Refused) -> None:
        self._engine, self._container, self._talk, self._name, self._loss = engine, container, talk, name, loss
        self.refused = refused
        self._ended: bool | None = None

    def rows(self) -> list[Row]:
        """Return what was refused by now, as ``Refused.rows`` does."""
        return self.refused.rows()

    @property
    def is_alone(self) -> bool:
        """Whether its client has ended, for whatever reason."""
        return self._talk.ended

    def stopped(self) -> DockerError:
        """Return the error for one that has ended before there was a session, with its last words."""
        return DockerError(f"{self._name} stopped right after its start", self._last_words())

    def lost(self) -> SidecarLost:
        """Return the error for one that has ended while there was a session."""
        return SidecarLost(f"{self._name} has stopped, so {self._loss}")

    def not_healthy(self, seconds: float) -> DockerError:
        """Return the error for one that runs and has not answered for so long."""
        return DockerError(f"{self._name} is not healthy after {seconds:.0f} s", self._last_words())

    def _last_words(self) -> list[str]:
        said = self._talk.said(OUT) + b"\n" + self._talk.said(ERR)
        return run.decode(said).strip().splitlines()[-LOG_LINES:]

    def has_ended(self) -> bool:
        """Say whether it runs no more; an engine that gives no answer is no proof."""
        if self._ended is None and self.is_alone:
            self._ended = state_of(self._engine, self._container) in (*ENDED, REMOVED)
        return bool(self._ended)

    def is_cut_off(self) -> bool:
        """Say whether its client has ended and it has not, as far as can be told: then a connection has broken."""
        return self.is_alone and not self.has_ended()

    def look_again(self) -> bool:
        """Say the same after a look of now, whatever an earlier one said."""
        self._ended = self._ended or None
        return self.has_ended()


class Losses:
    """What has ended beside a bottle that runs.

    Where the bottle has ended too, as when the engine ends, its session's own outcome counts, whichever is seen first.

    Args:
        engine: to ask.
        container: the bottle's id.
        watches: notice the end of the others.
    """

    def __init__(self, engine: Engine, container: str, watches: Sequence[Watch]) -> None:
        self._engine, self._container, self._watches = engine, container, watches
        self._is_over = False

    def seen(self) -> bool:
        """Say whether one is lost; a look that has been taken is not taken again."""
        return any(watch.has_ended() for watch in self._watches) and self._bottle_runs()

    def found(self) -> list[Watch]:
        """Return those that are lost, after looks of now."""
        lost = [watch for watch in self._watches if watch.look_again()]
        return lost if lost and self._bottle_runs() else []

    def _bottle_runs(self) -> bool:
        self._is_over = self._is_over or state_of(self._engine, self._container) in ENDED
        return not self._is_over
