"""``cli.sh`` on its first use and after: packages, races, interrupts, odd surroundings, in copies of the checkout.

Every run has a PATH on which each tool refuses what BSD's does not know, as on macOS, and nothing else but Python.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pip
import pytest

from tests.checkout import clone
from tests.conftest import ROOT
from tests.sweep import Run, each, gone, until
from tests.terminal import Terminal

LINE = "claude-bottle: setting up Python packages (once)\n"
USAGE = "usage: cli.sh <command> [args...]\n"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# What cli.sh calls, with the letters that BSD's options have.
TOOLS = {"cksum": "o", "mkdir": "mpv", "mktemp": "dqtu", "readlink": "n", "rm": "dfiPRrvW", "tail": "bcFfnqr"}
STRICT = """#!/bin/sh
operand=
for word do
    case $operand:$word in
        :--) operand=yes ;;
        :--* | :-*[!-{letters}]* | yes:-?*) echo "{tool}: illegal option: $word" >&2; exit 64 ;;
        :-?*) ;;
        *) operand=yes ;;
    esac
done
exec {program} "$@"
"""
# In the place of ensurepip, which takes seconds to unpack the same.
PIP = f"""
import os, sysconfig
os.symlink({str(Path(pip.__file__).parent)!r}, os.path.join(sysconfig.get_path("purelib"), "pip"))
"""
STUCK = """
import os, pathlib, time
pathlib.Path(os.environ["STUCK"]).write_text(f"{os.getpid()}\\n")
time.sleep(1000)
"""


def installation(folder: Path, ensurepip: str = PIP, without: str = "") -> Path:
    """Make a Python that can be changed and removed.

    Args:
        folder: where to.
        ensurepip: program of that module; an empty text for none.
        without: a module that it does not have.

    Returns:
        The program.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    copy = folder / stdlib.relative_to(sys.base_prefix)
    copy.mkdir(parents=True)
    for target, source in ((copy.parent, stdlib.parent), (copy, stdlib)):
        for path in source.iterdir():
            if path.name not in ("ensurepip", "site-packages", "EXTERNALLY-MANAGED", stdlib.name, without):
                (target / path.name).symlink_to(path)
    if ensurepip:
        (copy / "ensurepip").mkdir()
        (copy / "ensurepip" / "__main__.py").write_text(ensurepip)
    program = folder / "bin" / PYTHON
    program.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), program)
    return program


def link(folder: Path, program: Path) -> Path:
    """Return a folder for PATH with a python3 that is no Python 3.11, and the program under its own name."""
    folder.mkdir()
    (folder / "python3").write_text("#!/bin/sh\nexit 1\n")
    (folder / "python3").chmod(0o755)
    (folder / PYTHON).symlink_to(program)
    return folder


class Parts:
    """What all tests share: the strict tools, a Python, and the packages of the lock file."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "tools"
        self.tools.mkdir()
        (self.tools / "bash").symlink_to(shutil.which("bash") or "")
        for tool, letters in TOOLS.items():
            text = STRICT.format(tool=tool, letters=letters, program=shutil.which(tool))
            (self.tools / tool).write_text(text)
            (self.tools / tool).chmod(0o755)
        self.python = link(folder / "python", installation(folder / "installation"))
        self.wheels = folder / "wheels"
        words = ["-m", "pip", "download", "--quiet", "--require-hashes", "-r", ROOT / "requirements-top.lock"]  # all
        subprocess.run([sys.executable, *words, "-d", self.wheels], check=True, capture_output=True, timeout=300)


class Checkout:
    """A copy of the checkout that has not been used yet, and the environment of a user.

    Args:
        folder: an absent folder.
        parts: what is shared.
        name: of the checkout.
        python: a folder for PATH with another Python than the shared one.
    """

    def __init__(self, folder: Path, parts: Parts, name: str = "checkout", python: Path | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.root = clone(folder / name)
        self.lock = self.root / "requirements.lock"
        self.made = self.root / ".venv-run"
        self.home = folder / "home"
        self.home.mkdir()
        self.tools = str(parts.tools)
        self.env = {"PATH": f"{parts.tools}:{python or parts.python}", "HOME": str(self.home)}
        self.env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(parts.wheels), "PIP_NO_COMPILE": "1"}

    def begin(self, *words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        program = words or (self.root / "cli.sh", "help")
        how |= {"env": self.env | env, "cwd": cwd or self.folder, "text": True, "start_new_session": True}
        return subprocess.Popen(program, **how)

    def use(self, *words: str | Path, cwd: Path | None = None, **env: str) -> tuple[int, str]:
        """Return status and stderr of a run."""
        child = self.begin(*words, cwd=cwd, **env)
        _, err = child.communicate(timeout=120)
        return child.returncode, err

    def works(self, first: bool, *words: str | Path, cwd: Path | None = None, **env: str) -> None:
        """Hold a run of ``help`` to what it says: one line of progress on a first use, and the usage."""
        status, err = self.use(*words, cwd=cwd, **env)
        name = Path(words[-2]).name if words else "cli.sh"
        assert (status, err.startswith(LINE * first + f"usage: {name} <command> [args...]\n")) == (0, True), err

    def fails(self, said: str, *words: str | Path, **env: str) -> str:
        """Hold a run to one error that begins with the text, and to nothing left; return the error."""
        status, err = self.use(*words, **env)
        error = err.removeprefix(LINE)
        assert status == 1 and error.startswith(f"claude-bottle: error: {said}"), err
        assert self.names() == [] and error.count("claude-bottle: ") == 1 and "cli.sh: line" not in error
        return error

    def names(self) -> list[str]:
        """Return what there is in the folder of the venvs."""
        return sorted(path.name for path in self.made.iterdir()) if self.made.exists() else []


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def checkout(tmp_path: Path, parts: Parts) -> Checkout:
    return Checkout(tmp_path / "one", parts)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Checkout:
    """A checkout under an awkward name, used once by somebody with awkward settings of pip."""
    made = Checkout(tmp_path_factory.mktemp("used") / "one", parts, name="-s [a]* ?'q' $x")
    settings = made.folder / "pip.conf"
    settings.write_text(
        f"[install]\nuser = true\ntarget = {made.home}/t\nprefix = {made.home}/p\nroot = {made.home}/r\n"
    )
    where = {f"PIP_{name}": f"{made.home}/{name}" for name in ("TARGET", "PREFIX", "ROOT")}
    status, err = made.use(made.root / "cli.sh", PIP_USER="1", PIP_CONFIG_FILE=str(settings), **where)
    assert (status, err.startswith(LINE + USAGE)) == (2, True), err
    return made


def test_settings_of_pip_that_say_where_to_have_no_effect(used: Checkout) -> None:
    assert list(used.home.iterdir()) == []
    (venv,) = used.made.iterdir()
    assert list(venv.glob("lib/*/site-packages/click/__init__.py"))


def test_a_second_use_says_nothing_and_needs_no_python_on_path(used: Checkout) -> None:
    before = used.names()
    status, err = used.use(used.root / "cli.sh", "help", PATH=used.tools)
    assert status == 0 and err.startswith(USAGE)
    assert used.names() == before and len(before) == 1


def test_it_runs_however_it_is_called(used: Checkout) -> None:
    name = used.root.name
    used.works(False, "./cli.sh", "help", cwd=used.root)
    used.works(False, f"./{name}/cli.sh", "help")
    used.works(False, f"../{name}/cli.sh", "help", cwd=used.home)
    used.works(False, "bash", "cli.sh", "help", cwd=used.root)
    used.works(False, "bash", "--", f"{name}/cli.sh", "help")
    used.works(False, "cli.sh", "help", cwd=Path("/"), PATH=f"{used.tools}:{used.root}")
    used.works(False, "bash", "cli.sh", "help", cwd=used.root, CDPATH=f"/:{used.home}")


def test_links_without_a_folder_in_front_lead_to_the_checkout(used: Checkout) -> None:
    (used.home / "-x").symlink_to("second")
    (used.home / "second").symlink_to(f"../{used.root.name}/cli.sh")
    used.works(False, "bash", "--", "-x", "help", cwd=used.home)
    used.works(False, "bash", "second", "help", cwd=used.home)
    for path in (used.home / "-x", used.home / "second"):
        path.unlink()


def test_the_shell_becomes_python_so_signals_and_the_status_are_its_own(tmp_path: Path, used: Checkout) -> None:
    bottle = Run(tmp_path / "bottle")
    bottle.words = [used.root / "cli.sh", "start", "-y", "a"]
    call = bottle.fake.fault("agent create", mode="pause")
    child = bottle.begin()
    bottle.fake.wait_for_pause(call)
    args = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(child.pid)], capture_output=True, text=True).stdout
    assert args.startswith(f"{used.made}/") and "/bin/python -I " in args
    child.send_signal(signal.SIGTERM)
    bottle.fake.release(call)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, bottle.leftovers()) == (143, []), err
    bottle.fake.session("exit 7")
    again = bottle.begin()
    assert "attaching" in again.communicate(timeout=60)[1] and again.returncode == 7


def test_who_helps_at_a_first_use_does_not_get_the_token_and_the_launcher_does(tmp_path: Path, parts: Parts) -> None:
    seen = tmp_path / "seen"
    program = f"import os\nprint(*os.environ, file=open({str(seen)!r}, 'w'))\n{PIP}"
    python = link(tmp_path / "python", installation(tmp_path / "installation", program))
    checkout = Checkout(tmp_path / "one", parts, python=python)
    child = checkout.begin(checkout.root / "cli.sh", "doctor", CLAUDE_BOTTLE_OAUTH_TOKEN="sk-ant-oat01-a-value")
    out, err = child.communicate(timeout=120)
    assert err.startswith(LINE) and re.search(r"^ok +token ", out, re.MULTILINE), out + err
    names = seen.read_text().split()
    assert "HOME" in names and "CLAUDE_BOTTLE_OAUTH_TOKEN" not in names


def test_four_first_uses_in_one_moment_all_work_and_make_one_venv(checkout: Checkout) -> None:
    children = [checkout.begin() for _ in range(4)]
    for child in children:
        _, err = child.communicate(timeout=120)
        assert (child.returncode, err.startswith(LINE + USAGE)) == (0, True), err
    (name,) = checkout.names()
    assert not (checkout.made / name / "venv").exists()
    checkout.works(False)


def test_a_changed_lock_gets_a_venv_of_its_own_and_the_old_one_stays(checkout: Checkout, used: Checkout) -> None:
    shutil.copytree(used.made, checkout.made, symlinks=True)
    checkout.works(False)
    with checkout.lock.open("a") as lock:
        lock.write("# one more line\n")
    checkout.works(True)
    checkout.works(False)
    (old,) = used.names()
    assert len(checkout.names()) == 2
    assert subprocess.run([checkout.made / old / "bin" / "python", "-I", "-c", "import click"]).returncode == 0


class DeafIndex:
    """A package index that takes a connection and never answers."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(60)
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}/"
        self.env = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_INDEX_URL": self.url}

    def accept(self) -> socket.socket:
        """Return the connection of a pip that now waits."""
        connection = self.server.accept()[0]
        connection.settimeout(60)
        assert connection.recv(65536).startswith(b"GET ")
        return connection


@pytest.fixture
def index() -> Iterator[DeafIndex]:
    made = DeafIndex()
    yield made
    made.server.close()


def test_a_signal_during_the_installation_ends_all_of_it_and_leaves_nothing(tmp_path: Path, parts: Parts) -> None:
    def check(name: str) -> str:
        checkout, index, number = Checkout(tmp_path / name, parts), DeafIndex(), signal.Signals[name]
        child = checkout.begin(**index.env)
        with index.accept() as connection:
            child.send_signal(number)
            said = child.communicate(timeout=60)
            if (*said, child.returncode, checkout.names()) != ("", LINE, 128 + number, []):
                return f"status {child.returncode}, {checkout.names()}, {said}"
            if connection.recv(1):
                return "pip still runs"
        index.server.close()
        if number == signal.SIGTERM:
            checkout.works(True)
        return ""

    assert each(["SIGHUP", "SIGINT", "SIGTERM"], check) == []


def test_a_signal_while_the_venv_is_made_ends_the_grandchild_too(tmp_path: Path, parts: Parts) -> None:
    python = link(tmp_path / "python", installation(tmp_path / "installation", STUCK))
    checkout = Checkout(tmp_path / "one", parts, python=python)
    stuck = tmp_path / "stuck"
    child = checkout.begin(STUCK=str(stuck))
    assert until(lambda: stuck.exists() and stuck.read_text().endswith("\n"))
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=60) == ("", LINE)
    assert (child.returncode, checkout.names()) == (143, [])
    assert until(lambda: gone(int(stuck.read_text())))


def test_a_killed_first_use_does_not_stand_in_the_way_of_the_next(checkout: Checkout, index: DeafIndex) -> None:
    child = checkout.begin(**index.env)
    with index.accept():
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        checkout.works(True)  # while the killed one's pip still runs
    checkout.works(False)


def test_ctrl_c_ends_a_first_use_on_a_terminal_and_the_next_one_has_the_terminal(
    checkout: Checkout, index: DeafIndex, tmp_path: Path
) -> None:
    bottle = Run(tmp_path / "bottle")
    home = bottle.env["HOME"]
    env = {**bottle.env, **checkout.env, "HOME": home, "PATH": f"{checkout.env['PATH']}:{bottle.fake.bin}"}
    words = [checkout.root / "cli.sh", "start", "a"]
    terminal = Terminal(words, bottle.cwd, {**env, **index.env})
    with index.accept():
        terminal.type("\x03")
        assert (terminal.wait(), checkout.names()) == (130, [])
    terminal.close()
    terminal = Terminal(words, bottle.cwd, env)
    terminal.until("launch this agent? [y/N] ")
    terminal.type("n\n")
    assert terminal.wait() == 0 and terminal.said.count("setting up") == 1, terminal.said
    terminal.close()


@pytest.mark.parametrize("where", ["variable", "file"])
def test_the_users_own_index_is_asked_and_its_failure_leaves_nothing(
    checkout: Checkout, index: DeafIndex, where: str
) -> None:
    settings = checkout.folder / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {index.url}\n")
    kept = {"PIP_CONFIG_FILE": str(settings), "PIP_INDEX_URL": ""} if where == "file" else {}
    child = checkout.begin(**index.env | kept)
    index.accept().close()
    index.server.close()
    _, err = child.communicate(timeout=60)
    error = "claude-bottle: error: cannot install Python packages; pip says:\nERROR: "
    assert child.returncode == 1 and err.startswith(LINE + error), err
    assert checkout.names() == []


def test_a_wrong_hash_is_refused_by_name(checkout: Checkout) -> None:
    attrs, others = checkout.lock.read_text().split("\nclick==")
    checkout.lock.write_text(re.sub("sha256:[0-9a-f]*", f"sha256:{'0' * 64}", attrs) + "\nclick==" + others)
    error = checkout.fails("cannot install Python packages; pip says:\n")
    assert "HASHES" in error and "attrs==" in error and "Expected sha256 0000" in error


def test_a_pip_that_installs_nothing_is_no_success(checkout: Checkout) -> None:
    error = checkout.fails("cannot install Python packages; pip says:\n", PIP_DRY_RUN="1")
    assert "No module named 'click'" in error


def test_a_disk_that_takes_no_more_is_said(checkout: Checkout) -> None:
    error = checkout.fails("cannot", "bash", "-c", 'ulimit -f 16; exec "$0" help', checkout.root / "cli.sh")
    assert "File too large" in error


@pytest.fixture
def sealed(checkout: Checkout) -> Iterator[Checkout]:
    """A checkout that cannot be written to."""
    checkout.root.chmod(0o555)
    yield checkout
    checkout.root.chmod(0o755)


def bound(*words: str | Path) -> list[str | Path]:
    """Return a command line that file modes bind, which by itself they do not for root."""
    if os.geteuid() != 0:
        return list(words)
    program, drop = shutil.which("setpriv") or "setpriv", "-dac_override,-dac_read_search"
    return [program, "--bounding-set", drop, "--inh-caps", drop, *words]


def test_a_sealed_checkout_uses_the_cache_folder(sealed: Checkout) -> None:
    words = bound(sealed.root / "cli.sh", "help")
    sealed.works(True, *words)
    sealed.works(False, *words)
    assert sealed.names() == []
    (name,) = os.listdir(sealed.home / ".cache" / "claude-bottle")
    (sealed.folder / "cache").mkdir()
    (sealed.home / ".cache" / "claude-bottle").rename(sealed.folder / "cache" / "claude-bottle")
    sealed.env |= {"XDG_CACHE_HOME": str(sealed.folder / "cache"), "HOME": "", "PATH": sealed.tools}
    sealed.works(False, *words)
    assert os.listdir(sealed.folder / "cache" / "claude-bottle") == [name]
    sealed.env["XDG_CACHE_HOME"] = "cache"  # a relative one is to be ignored, and in /tmp others could lay a trap
    sealed.fails("HOME is not set\n", *words)


def test_a_sealed_checkout_that_was_used_before_needs_no_cache_folder(used: Checkout) -> None:
    used.root.chmod(0o555)
    try:
        used.works(False, *bound(used.root / "cli.sh", "help"))
    finally:
        used.root.chmod(0o755)
    assert list(used.home.iterdir()) == []


def test_without_a_python_that_is_new_enough_one_line_says_so(checkout: Checkout) -> None:
    (checkout.folder / "bin").mkdir()
    old = checkout.folder / "bin" / "python3"
    old.write_text("#!/bin/sh\necho 'SyntaxError: old' >&2\nexit 1\n")
    old.chmod(0o755)
    checkout.env["PATH"] = f"{checkout.tools}:{old.parent}"
    assert checkout.fails("Python 3.11 or newer not found on PATH").endswith("PATH\n")


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_said_with_what_helps(tmp_path: Path, parts: Parts, missing: str) -> None:
    program = installation(tmp_path / "installation", PIP if missing == "venv" else "", missing)
    checkout = Checkout(tmp_path / "one", parts, python=link(tmp_path / "python", program))
    checkout.fails("cannot make a Python environment (on Debian: apt-get install python3-venv): ")


def test_a_venv_whose_python_has_gone_is_made_anew(tmp_path: Path, parts: Parts) -> None:
    program = installation(tmp_path / "installation")
    names = link(tmp_path / "python", program)
    checkout = Checkout(tmp_path / "one", parts, python=names)
    checkout.works(True)
    (names / PYTHON).unlink()
    (names / PYTHON).symlink_to(names / "python3")  # the name leads elsewhere, the Python itself is still there
    checkout.works(False)
    program.unlink()
    (old,) = checkout.names()
    status, err = checkout.use()
    assert (status, err) == (1, "claude-bottle: error: Python 3.11 or newer not found on PATH\n")
    checkout.env["PATH"] = f"{parts.tools}:{parts.python}"
    checkout.works(True)
    checkout.works(False)
    assert checkout.names() == [old, f"{old}+"]


def test_top_has_packages_of_its_own_that_it_installs_on_its_first_use(checkout: Checkout) -> None:
    for first in (True, False):
        status, err = checkout.use(checkout.root / "cli.sh", "top")
        assert status == 1 and err.startswith(f"{LINE * first}claude-bottle: error: top needs a terminal\n"), err
    checkout.works(True)
    checkout.works(False)
    assert len(checkout.names()) == 2


def test_a_copy_of_the_script_alone_says_what_is_missing(checkout: Checkout) -> None:
    copy = checkout.folder / "cli.sh"
    shutil.copy(checkout.root / "cli.sh", copy)
    checkout.fails(f"no requirements.lock in {checkout.folder}: ", copy)
