"""What the launcher keeps of a bottle with a workspace, in the user's state folder, from before its container is made.

Where the work goes is read from here, never from what the engine or the bottle says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from claude_bottle.lib.files.replace import replace as replace_file
from claude_bottle.lib.host.state import state_folder, state_make

GIT, FOLDER, NONE = "git", "folder", "none"  # the kinds of coming home
FILE, RAW = "session.json", "work.tar"
LONGEST = 1 << 20  # bytes of a record
_LAUNCH = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Record:
    """One bottle's workspace, and where its work goes.

    Attributes:
        launch: names the launch, as the owner label does.
        agent: its name.
        slug: of the agent.
        kind: how its work comes home: GIT, FOLDER or NONE.
        folder: of the host, that went in.
        repository: common folder of its repository, where there is one.
        workspace: in the bottle.
        engine: id that the engine gave itself.
        node: its id in the Swarm that it is part of, or an empty text.
        image: what the bottle runs, for who has to open what is left of it.
        began: whether there was a session, so that there may be work.
        head: commit of the bottle's HEAD when work last came home, or the session began; empty for none.
        tree: likewise of its working tree, with what was not committed.
        kept: what could not come home and is still there: RAW for a file beside this one, the container's name for a
            container; empty for nothing.
    """

    launch: str
    agent: str
    slug: str
    kind: str
    folder: str
    repository: str
    workspace: str
    engine: str
    node: str = ""
    image: str = ""
    began: bool = False
    head: str = ""
    tree: str = ""
    kept: str = ""

    def dump(self) -> dict[str, Any]:
        """Return all of it, as a line of the journal holds it."""
        return asdict(self)

    def with_(self, **changes: Any) -> Record:
        """Return the same with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Brought:
    """What has come home.

    Attributes:
        record: of the bottle, as it is now.
        said: a line for the user; empty where there was nothing new.
        refused: why something could not come, while the rest did; empty where all did.
    """

    record: Record
    said: str = ""
    refused: str = ""


def load(said: Mapping[str, Any]) -> Record | None:
    """Return the record that a file or a journal holds; None where it is none."""
    fields = Record.__dataclass_fields__
    try:
        found = Record(**{name: value for name, value in said.items() if name in fields})
    except TypeError:
        return None
    right = all(isinstance(getattr(found, name), bool if name == "began" else str) for name in fields)
    return found if right and _LAUNCH.fullmatch(found.launch) else None


def place(launch: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of a launch, which need not exist; None where there can be none."""
    state = state_folder(environ)
    return state / "work" / launch if state and _LAUNCH.fullmatch(launch) else None


def write(record: Record) -> None:
    """Write a record, or write it anew.

    Raises:
        OSError: it cannot be written.
    """
    folder = place(record.launch)
    if folder is None:
        raise OSError("there is no home folder to write to")
    state_make(folder)
    replace_file(str(folder / FILE), json.dumps(record.dump()).encode())


def read(launch: str) -> Record | None:
    """Return the record of a launch, None where there is none to be believed."""
    folder = place(launch)
    if folder is None:
        return None
    try:
        with open(folder / FILE, "rb") as file:
            said = json.loads(file.read(LONGEST))
    except (OSError, ValueError, RecursionError):
        return None
    found = load(said) if isinstance(said, dict) else None
    return found if found and found.launch == launch else None


def records() -> list[Record]:
    """Return all that there are."""
    state = state_folder(os.environ)
    try:
        names = sorted(os.listdir(state / "work")) if state else []
    except OSError:
        return []
    return [found for found in map(read, names) if found]


def remove(launch: str) -> None:
    """Remove what is kept of a launch, whose bottle is gone and whose work is home."""
    folder = place(launch)
    if folder:
        with suppress(OSError):
            shutil.rmtree(folder)
