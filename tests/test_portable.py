"""The launcher on what macOS has of Python's standard library, without /proc, and with no tool but docker.

macOS cannot be tried here. So a Python of the test's own begins each of its processes, the reaper's too, by deleting
what typeshed says macOS lacks; every process notes in a file that it did, and what it wanted from /proc or /sys.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from claude_bottle.lib.host import run
from claude_bottle.lib.teardown import inventory

from tests.conftest import ROOT
from tests.sweep import Run, gone, until, wrong_words
from tests.terminal import Terminal

# The modules written in C, from which those written in Python take what is there. `os` is loaded before anything.
MODULES = ("posix", "os", "_signal", "select", "_socket", "time", "fcntl", "resource", "mmap", "termios", "errno")
STUBS = {"os": "os/__init__", "_signal": "signal"}
UNUSABLE = {"select": ["poll"]}  # macOS has it, but not for terminals
EXPECTED = {
    "os": "pidfd_open memfd_create eventfd splice copy_file_range sched_getaffinity getrandom posix_fadvise"
    " posix_fallocate O_PATH O_TMPFILE setresuid pipe2 waitid getxattr",
    "_signal": "sigtimedwait sigwaitinfo pidfd_send_signal SIGRTMIN",
    "select": "epoll poll",
    "_socket": "AF_NETLINK AF_VSOCK AF_PACKET SOCK_CLOEXEC SO_PEERCRED",
    "fcntl": "F_SETPIPE_SZ F_NOTIFY",
    "resource": "prlimit",
    "time": "CLOCK_BOOTTIME",
}
TAKE_AWAY = """
import importlib, os, sys, types

def note(what):
    fd = os.open(os.environ.get("NOTES", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, what.encode() + b"\\n")
    os.close(fd)

def hook(event, args):
    if event in ("open", "os.listdir", "os.scandir") and str(args[0]).startswith(("/proc", "/sys")):
        note("refused " + args[0])
        raise FileNotFoundError(2, "No such file or directory", args[0])

for module, names in MISSING.items():
    for name in names:
        importlib.import_module(module).__dict__.pop(name, None)
sys.platform = "darwin"
uname = os.uname_result(("Darwin", "mac.local", "23.0.0", "Darwin Kernel Version 23.0.0", "arm64"))
os.uname = lambda: uname
proxies = sys.modules["_scproxy"] = types.ModuleType("_scproxy")  # what only macOS has
proxies._get_proxies = proxies._get_proxy_settings = dict
note("began " + " ".join(sys.orig_argv))
sys.addaudithook(hook)
"""


def names(body: Iterable[ast.stmt], platform: str) -> Iterator[str]:
    """Yield the names that a stub defines on a platform, for this version of Python."""
    scope = {"sys": types.SimpleNamespace(platform=platform, version_info=sys.version_info)}
    for node in body:
        match node:
            case ast.If():
                true = eval(compile(ast.Expression(node.test), "stub", "eval"), scope)
                yield from names(node.body if true else node.orelse, platform)
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in node.names)


def missing(module: str) -> list[str]:
    """Return what a module has on Linux and not on macOS."""
    mypy = importlib.util.find_spec("mypy")
    assert mypy and mypy.origin
    stub = Path(mypy.origin).parent / "typeshed" / "stdlib" / f"{STUBS.get(module, module)}.pyi"
    body = ast.parse(stub.read_text()).body
    return sorted({*names(body, "linux")} - {*names(body, "darwin")}) + UNUSABLE.get(module, [])


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python as on macOS; a .pth file is read by isolated Pythons too."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (site,) = folder.glob("lib/*/site-packages")
    lacking = {module: missing(module) for module in MODULES}
    (site / "take_away.py").write_text(f"MISSING = {json.dumps(lacking)}\n{TAKE_AWAY}")
    (site / "macos.pth").write_text(f"{Path(click.__file__).parent.parent}\nimport take_away\n")
    return folder / "bin" / "python"


class Mac(Run):
    """A start on such a Python."""

    def __init__(self, folder: Path, python: Path) -> None:
        super().__init__(folder)
        self.notes = folder / "notes"
        self.env["NOTES"] = str(self.notes)
        self.program = [python, "-I", "-X", "utf8", ROOT / "cli" / "__main__.py", "cli.sh"]
        self.words = [*self.program, "start", "-y", "--cwd", "a"]

    def session(self, script: str) -> Path:
        """Let the session say in a file that it runs; return the file."""
        mark = self.fake.folder / "in-session"
        self.fake.session(f'echo $$ >"{mark}"; {script}')
        return mark

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        how: dict[str, Any] = {"cwd": self.cwd, "env": self.env | env, "capture_output": True, "text": True}
        return subprocess.run([*self.program, *words], timeout=60, **how)

    def on_terminal(self, *words: str) -> Terminal:
        return Terminal([*self.program, *words], self.cwd, self.env)

    def wrong(self, processes: int = 1) -> list[str]:
        """Return what was wanted from /proc; this many processes of ours must have been without it."""
        lines = self.notes.read_text().splitlines()
        assert len([line for line in lines if line.startswith("began ")]) == processes, lines
        assert processes == 1 or "/lib/teardown/reaper.py " in lines[1]
        return [line for line in lines if not line.startswith("began ")]


@pytest.fixture
def mac(tmp_path: Path, python: Path) -> Mac:
    return Mac(tmp_path / "mac", python)


def test_this_python_is_as_on_macos(tmp_path: Path, python: Path) -> None:
    for module, wanted in EXPECTED.items():
        assert set(wanted.split()) <= set(missing(module)), module
    assert not {"kill", "posix_spawn", "sendfile", "getpgid", "select", "openpty"} & {*missing("os")}
    script = """import os, selectors, signal, socket, sys
        assert not {*dir(os), *dir(signal), *dir(socket)} & {"pidfd_open", "sigtimedwait", "AF_NETLINK"}
        assert selectors.DefaultSelector is selectors.SelectSelector
        assert (sys.platform, os.uname().sysname) == ("darwin", "Darwin")
        open("/proc/self/status")"""
    words = [python, "-I", "-c", "\n".join(line.strip() for line in script.split("\n"))]
    done = subprocess.run(words, env={"NOTES": str(tmp_path / "notes")}, capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("No such file or directory: '/proc/self/status'\n"), done.stderr
    assert (tmp_path / "notes").read_text().endswith("refused /proc/self/status\n")


def test_a_whole_start_runs_and_leaves_nothing(mac: Mac) -> None:
    mac.session("exit 7")
    child = mac.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, mac.leftovers(), mac.fake.unknown()) == (7, [], []), err
    assert (wrong_words(err), mac.wrong(processes=2)) == ("", [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_session_leaves_nothing(mac: Mac, number: signal.Signals) -> None:
    mark = mac.session("exec sleep 100")
    child = mac.begin()
    assert until(lambda: mark.exists() and mark.read_text().endswith("\n"))
    child.send_signal(number)
    assert child.wait(60) == (143 if number == signal.SIGTERM else -number)
    child.communicate(timeout=60)
    assert until(lambda: mac.leftovers() == []), mac.leftovers()
    assert mac.wrong(processes=2) == []


def test_a_kill_during_a_create_leaves_nothing(mac: Mac) -> None:
    call = mac.kill_during("sidecar create")
    assert until(lambda: mac.leftovers() == [] and gone(call)), mac.leftovers()
    assert mac.wrong(processes=2) == []


def test_the_labels_say_when_launcher_and_reaper_began(mac: Mac) -> None:
    mark = mac.session("exec sleep 100")
    mac.env |= {"TZ": "Asia/Kolkata", "LC_ALL": "de_DE.UTF-8"}
    child = mac.begin()
    assert until(lambda: mark.exists() and mark.read_text().endswith("\n"))
    labels = next(box["labels"] for box in mac.fake.containers() if "claude-bottle.launcher" in box["labels"])
    launcher, reaper = labels["claude-bottle.launcher"], labels["claude-bottle.reaper"]
    assert int(launcher.split()[0]) == child.pid
    for pid, _, began in (launcher.partition(" "), reaper.partition(" ")):
        ps = ["ps", "-o", "lstart=", "-p", pid]
        env = {"TZ": "UTC", "LC_ALL": "C"}
        assert began == subprocess.run(ps, env=env, capture_output=True, text=True, check=True).stdout.strip()
        assert time.strptime(began, "%a %b %d %H:%M:%S %Y")
    child.terminate()
    child.communicate(timeout=60)
    assert mac.wrong(processes=2) == []


SYSCTL = """#!/bin/sh
[ "$*" = "-n kern.bootsessionuuid" ] && [ "$LC_ALL$TZ" = CUTC0 ] && echo A-UUID
exit $(cat "${0%/*}/status")
"""


@pytest.mark.parametrize(("status", "boot"), [(0, "A-UUID"), (1, ""), (None, "")])
def test_the_labels_say_which_boot_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, boot: str
) -> None:
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(SYSCTL)
    sysctl.chmod(0o644 if status is None else 0o755)
    (tmp_path / "status").write_text(f"{status}\n")
    run.load()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(inventory, "_SYSCTL", str(sysctl))
    assert inventory.owner_here("a-launch", os.getpid()).boot == boot


def test_questions_and_a_session_on_a_terminal_give_it_back_as_it_was(mac: Mac) -> None:
    manifest = {"bottles": {"b": {"env": {"KEY": "?"}}}, "agents": {"a": {"bottle": "b"}}}
    (mac.home / "claude-bottle.json").write_text(json.dumps(manifest))
    mac.fake.session("stty raw -echo; echo in session; exec sleep 100")
    terminal = mac.on_terminal("start", "a")
    terminal.until("enter value for KEY: ")
    assert not terminal.echoes()
    terminal.type("a-secret-value\n")
    terminal.until("launch this agent? [y/N] ")
    terminal.type("y\n")
    terminal.until("in session")
    terminal.child.send_signal(signal.SIGHUP)
    assert terminal.wait() == 129, terminal.said
    assert (terminal.settings(), mac.leftovers()) == (terminal.before, [])
    terminal.close()
    assert (wrong_words(terminal.said), mac.wrong(processes=2)) == ("", [])


def test_an_agent_is_made_changed_and_shown(mac: Mac) -> None:
    terminal = mac.on_terminal("init")
    for question, answer in (("agent name", "new"), ("bottle", ""), ("skills", ""), ("prompt", "be kind")):
        terminal.until(f"{question}")
        terminal.type(f"{answer}\n")
    assert terminal.wait() == 0, terminal.said
    terminal.close()
    edited = mac.run("edit", "new", EDITOR="sed -i s/kind/brief/")
    assert (edited.returncode, edited.stderr) == (
        0,
        f"claude-bottle: updated agent 'new' in {mac.cwd}/claude-bottle.json\n",
    )
    listed, info = mac.run("list"), mac.run("info", "new")
    assert listed.stdout == "a\tb\nnew\tdefault\n" and "be brief" in info.stderr, info.stderr
    active = mac.run("list", "active")
    assert active.stdout.startswith("claude-bottle-a\t"), active
    assert {line for line in mac.notes.read_text().splitlines() if not line.startswith("began ")} == set()


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """A start where PATH leads to docker alone."""
    run = Run(tmp_path / "bare")
    run.env["PATH"] = str(run.fake.bin)
    run.words = [
        sys.executable,
        "-I",
        "-X",
        "utf8",
        ROOT / "cli" / "__main__.py",
        "cli.sh",
        "start",
        "-y",
        "--cwd",
        "a",
    ]
    return run


def test_a_start_needs_no_tool_but_docker(bare: Run) -> None:
    child = bare.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, bare.leftovers(), bare.fake.unknown()) == (0, [], []), err


def test_the_reaper_needs_no_tool_but_docker(bare: Run) -> None:
    bare.kill_during("agent create")
    assert until(lambda: bare.leftovers() == []), bare.leftovers()


def test_an_edit_needs_no_tool_but_the_editor(bare: Run) -> None:
    editor = bare.fake.bin / "vim"
    editor.write_text("""#!/bin/sh\necho '{"bottle": "b", "prompt": "other"}' >"$1"\n""")
    editor.chmod(0o755)
    bare.words[-4:] = ["edit", "a"]
    child = bare.begin()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0 and "updated agent 'a'" in err
    assert '"prompt": "other"' in (bare.home / "claude-bottle.json").read_text()
