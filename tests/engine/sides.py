"""The shell's launcher and ours, side by side: one image with a scripted client, the same desk, one after the other."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.checkout import clone
from tests.terminal import Terminal

from . import observe
from .conftest import ROOT, Desk, docker
from .scenarios import HOME, IMAGE, OTHER_HOME, RUN, Scenario

BASE = f"{RUN}-base:latest"
STATUS = 7
READY, WORD = "the session is ready", "zebra"  # the builder shows the client's lines, so none has the first
AT_ONCE = 4  # an engine has room for some thirty networks, and every bottle needs two

CLIENT = f"""#!/bin/sh
echo $$ >{observe.PID_FILE}
printf 'the session is %s\\n' ready
read -r word
echo "it was told $word"
exit {STATUS}
"""


def dockerfile() -> str:
    """Return how the image is made: the product's own, a scripted client, a second home, a skill."""
    lines = " ".join(map(shlex.quote, CLIENT.splitlines()))
    held = f"{HOME}/.claude/skills/held"
    return (
        f"FROM {BASE}\nUSER root\n"
        f"RUN cd /usr/local/bin && rm claude && printf '%s\\n' {lines} >claude && chmod 755 claude\n"
        f"RUN mkdir -p {OTHER_HOME} {held}/old && echo old >{held}/old/file && chown node:node {OTHER_HOME} {held}\n"
        "USER node\n"
    )


class Start:
    """One start of one launcher, from its first line to its end."""

    def __init__(self, launcher: Path, scenario: Scenario, desk: Desk) -> None:
        self.scenario, self.desk = scenario, desk
        self.host = observe.on_host(desk.cwd.parent)
        words = [launcher, "start", *scenario.flags, scenario.slug]
        self.terminal = Terminal(words, desk.cwd, desk.env)

    def answer(self) -> None:
        for question, answer in (*self.scenario.answers, ("launch this agent? [y/N] ", "y")):
            self.terminal.until(question, 120)
            self.terminal.type(f"{answer}\n")

    def look(self) -> observe.Fields:
        """Return what there is while the session runs."""
        folders = [self.scenario.home]
        return observe.running(self.scenario.slug, self.scenario.container, folders, self.desk.tmp)

    def end(self) -> observe.Fields:
        """Let the client end, and return what there is afterwards."""
        self.terminal.type(f"{WORD}\n")
        after: dict[str, object] = {
            "status": self.terminal.wait(120),
            "heard": f"it was told {WORD}" in self.terminal.said,
            "terminal as before": self.terminal.settings() == self.terminal.before,
            "host as before": observe.on_host(self.desk.cwd.parent) == self.host,
            "remembered": observe.files(Path(self.desk.env["XDG_STATE_HOME"])),
            **observe.afterwards(self.scenario.slug),
        }
        return dict(observe.flat(after, "afterwards"))


def run_side(launcher: Path, scenarios: list[Scenario], desks: dict[str, Desk]) -> dict[str, observe.Fields]:
    """Run every scenario with one launcher, some at a time, and return what there was during and after each."""
    seen: dict[str, observe.Fields] = {}
    for first in range(0, len(scenarios), AT_ONCE):
        seen.update(_run_batch(launcher, scenarios[first : first + AT_ONCE], desks))
    return seen


def _run_batch(launcher: Path, scenarios: list[Scenario], desks: dict[str, Desk]) -> dict[str, observe.Fields]:
    starts = []
    try:
        for scenario in scenarios:
            starts.append(Start(launcher, scenario, desks[scenario.name]))
        for start in starts:
            start.answer()
        for start in starts:
            start.terminal.until(READY, 300)
        with ThreadPoolExecutor() as pool:
            during = list(pool.map(Start.look, starts))
        return {start.scenario.name: {**seen, **start.end()} for start, seen in zip(starts, during, strict=True)}
    finally:
        for start in starts:
            start.terminal.close()
        sweep(scenarios)


def sweep(scenarios: Iterable[Scenario]) -> None:
    """Remove what a launcher may have left: the shell's keeps the image of `--cwd`, and a killed one everything."""
    removals = {"containers": "rm -f", "networks": "network rm", "images": "rmi -f", "unnamed images": "rmi -f"}
    for scenario in scenarios:
        left = observe.afterwards(scenario.slug)
        for kind, words in removals.items():
            if left[kind]:
                docker(*words.split(), *left[kind], check=False)


@contextmanager
def both_launchers(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the two launchers, each beside the Dockerfile with the scripted client; the images go afterwards."""
    shell = Path(shutil.copytree(ROOT / "fixtures" / "shell", folder / "shell"))
    port = clone(folder / "port")
    for side in (shell, port):
        (side / "Dockerfile").write_text(dockerfile())
        shutil.copy(ROOT / ".dockerignore", side)
    if (ROOT / ".venv-run").is_dir():
        (port / ".venv-run").symlink_to(ROOT / ".venv-run")
    # Its packages are there before several starts want them.
    subprocess.run([port / "cli.sh", "help"], check=True, capture_output=True)
    docker("build", "-q", "-t", "claude-bottle:latest", "-t", BASE, str(ROOT))  # the first tag keeps the cache
    docker("build", "-q", "-t", IMAGE, str(shell))
    try:
        yield shell / "cli.sh", port / "cli.sh"
    finally:
        docker("rmi", "-f", IMAGE, BASE)
