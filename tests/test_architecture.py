"""The rules that hold everywhere, and the page that tells them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

MODULES = sorted(path for folder in ("cli", "lib") for path in (ROOT / folder).glob("[a-z]*.py"))


def calls(path: Path) -> Iterator[str]:
    """Yield the names of what a module calls, as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def where(wanted: set[str]) -> set[str]:
    """Return the modules that call one of these."""
    return {str(path.relative_to(ROOT)) for path in MODULES if wanted & set(calls(path))}


def test_the_page_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [str(path.relative_to(ROOT)) for path in MODULES if f"`{path.relative_to(ROOT)}`" not in page] == []


def test_processes_start_in_one_module() -> None:
    assert {str(path.relative_to(ROOT)) for path in MODULES if "plumbum" in imports(path)} == {"lib/run.py"}
    starters = {f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")}
    assert where({*starters, "os.system", "os.fork", "os.execv", "os.posix_spawn", "pty.fork"}) == set()


def test_one_module_writes_and_one_place_ends_the_program() -> None:
    assert where({"print", "sys.stdout.write", "sys.stderr.write", "click.echo"}) == set()
    assert where({"sys.exit", "os._exit", "exit"}) == {"cli/main.py"}


def test_one_module_blocks() -> None:
    assert where({"select.select", "time.sleep", "signal.pause", "signal.signal"}) <= {"lib/wait.py", "lib/log.py"}
