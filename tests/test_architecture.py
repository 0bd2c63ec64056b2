"""The rules that hold everywhere, and the page that tells them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.origins import Origins, under

MODULES = sorted(
    path for folder in ("cli", "lib") for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"
)
STARTERS = {f"subprocess.{name}" for name in ("Popen", "run", "call", "check_*", "get*")} | {
    f"os.{name}" for name in ("system", "popen", "fork*", "exec*", "spawn*", "posix_spawn*", "startfile")
}
STARTERS |= {"pty", "multiprocessing", "concurrent", "asyncio", "_posixsubprocess", "posix"}
WRITERS = {"builtins.print", "builtins.input", "sys.stdout", "sys.stderr", "sys.__std*", "click.echo*", "click.secho"}
WRITERS |= {"click.prompt", "click.confirm", "logging", "warnings", "os.writev", "os.pwrite*", "os.sendfile"}
ENDERS = {"sys.exit", "os._exit", "os.abort", "builtins.exit", "builtins.quit", "builtins.SystemExit"}
BLOCKERS = {"select", "selectors", "time.sleep", "signal.signal", "signal.pause", "signal.sig*wait*", "threading"}
# What would hide an origin from this test.
DISGUISES = {"builtins.__import__", "builtins.eval", "builtins.exec", "builtins.vars", "builtins.globals", "runpy"}
DISGUISES |= {"importlib.import_module", "importlib.__import__", "importlib.util", "builtins.getattr.*"}


def breaches(origins: Origins, rule: set[str]) -> set[str]:
    """Return what a module refers to against a rule, with what it imports whole for anybody's use."""
    whole = {name.partition("*")[0].rpartition(".")[0] for name in rule}
    stars = {f"{module}.*" for module in whole if module} | {f"{module}.__dict__" for module in whole if module}
    return under(origins.references, rule) | (origins.references & stars)


def where(rule: set[str]) -> set[str]:
    """Return the modules that refer to one of these."""
    return {path.relative_to(ROOT).as_posix() for path in MODULES if breaches(Origins(path.read_text("utf-8")), rule)}


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (STARTERS, "from subprocess import run as _quiet\n_quiet(['true'])"),
        (STARTERS, "import os as x\nx.fork()"),
        (STARTERS, "import os\nstart = os.execv\nagain = start\nagain('/bin/true', [])"),
        (STARTERS, "import os\ngetattr(os, 'posix_spawn')('/bin/true', [], {})"),
        (STARTERS, "import os\ngetattr(os, 'po' + 'pen')('true')"),
        (STARTERS, "from os import *\nfork()"),
        (STARTERS, "import os\nos.__dict__['fork']()"),
        (STARTERS, "def start(how=None):\n    import subprocess as s\n    (how or s.Popen)(['true'])"),
        (STARTERS, "if (o := __import__) and True:\n    import os\n    (f := os.system)('true')"),
        ({"os.write"}, "from os import write as _say\n_say(1, b'')"),
        ({"os.write"}, "import os\n_say = os.write\n_say(1, b'')"),
        (WRITERS, "import sys as s\nout = s.stdout\nout.write('')"),
        (WRITERS, "from builtins import print as say\nsay()"),
        (WRITERS, "say = print\nsay()"),
        (ENDERS, "raise SystemExit(1)"),
        (BLOCKERS, "from time import sleep as rest\nrest(1)"),
        (BLOCKERS, "import select as s\ns.poll()"),
        (DISGUISES, "s = __import__('subprocess')\ns.run(['true'])"),
        (DISGUISES, "from importlib import import_module as load\nload('plumbum')"),
        (DISGUISES, "import importlib\nimportlib.import_module('subprocess').run(['true'])"),
        ({"plumbum"}, "def f():\n    from plumbum.cmd import ls as docker\n    docker()"),
    ],
)
def test_no_spelling_hides_where_a_thing_comes_from(rule: set[str], source: str) -> None:
    assert breaches(Origins(source), rule)


@pytest.mark.parametrize("source", ["import os\nos.path.join('a')", "import subprocess\nsubprocess.PIPE", "run()", ""])
def test_what_starts_nothing_breaks_no_rule(source: str) -> None:
    for rule in (STARTERS, WRITERS, ENDERS, BLOCKERS, DISGUISES, {"os.write"}, {"plumbum"}):
        assert not breaches(Origins(source), rule)


def test_the_page_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = [path.relative_to(ROOT).as_posix() for path in MODULES if path.name != "__main__.py"]
    assert [name for name in names if f"`{name}`" not in page] == []


def levels() -> dict[str, int]:
    """Return the page's picture: on which line each module stands."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^ {4} ?(\d+)  (.+)$", page, re.MULTILINE)
    return {name: int(level) for level, names in rows for name in names.split()}


def test_a_module_imports_from_below_its_own_level_only() -> None:
    drawn = levels()
    names = {path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("lib/"): path for path in MODULES}
    assert set(drawn) == set(names)
    upwards = []
    for name, path in names.items():
        origins = {origin.removeprefix("claude_bottle.") for origin in Origins(path.read_text("utf-8")).imports}
        for other in names.keys() - {name}:
            dotted = other.replace("/", ".") if other.startswith("cli/") else f"lib.{other.replace('/', '.')}"
            if under(origins, {dotted}) and drawn[other] >= drawn[name]:
                upwards.append(f"{name} imports {other}")
    assert upwards == []


def test_processes_start_in_one_module() -> None:
    assert where({"plumbum"}) == {"lib/host/run.py"}
    assert where(STARTERS) == {"lib/host/run.py"}
    assert not under(
        Origins(Path(ROOT, "lib", "host", "run.py").read_text()).calls, STARTERS
    )  # there too plumbum starts them
    assert where(DISGUISES) == set()


def test_one_module_writes_and_one_place_ends_the_program() -> None:
    assert where(WRITERS) == set()
    assert where({"os.write"}) == {
        "lib/log.py",
        "lib/host/calls.py",
        "lib/teardown/reaper.py",
    }  # the two feed a process they started
    assert where(ENDERS) == {"cli/main.py"}


def test_one_module_blocks() -> None:
    assert where(BLOCKERS) <= {"lib/host/wait.py", "lib/log.py"}
