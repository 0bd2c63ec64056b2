"""Who made a thing, written on it, and whether that launch is provably dead: its launcher's and its reaper's."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Call, one, perform

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SYSCTL = "/usr/sbin/sysctl"
_PS = "/bin/ps"
FACTS = ("owner", "host", "boot", "namespaces", "user", "launcher", "reaper", "login")


@dataclass(frozen=True)
class Place:
    """Where a process has its number; a fact that cannot be told is an empty text.

    Attributes:
        host: the name of the machine.
        boot: the id of that machine's present boot.
        namespaces: the kernel's numbers of those of processes and of time; there are none on macOS.
        user: number of the user.
    """

    host: str = ""
    boot: str = ""
    namespaces: str = ""
    user: str = ""

    def is_certainly(self, other: Place) -> bool:
        """Say whether two are provably one: launchers in containers may share a name and a boot."""
        known = self.host and self.boot and self.user and (self.namespaces or sys.platform == "darwin")
        return bool(known) and self == other


@dataclass(frozen=True)
class Owner:
    """Who made a thing.

    Attributes:
        launch: a random word that names one launch.
        place: where its processes run.
        launcher: pid and start time of the launcher.
        reaper: those of its reaper.
        login: the user's name, which is the same on all machines of theirs where the number need not be.
    """

    launch: str
    place: Place = Place()
    launcher: str = ""
    reaper: str = ""
    login: str = ""

    def facts(self) -> dict[str, str]:
        """Return all of it, as labels have it."""
        place = self.place
        values = (self.launch, place.host, place.boot, place.namespaces, place.user, self.launcher, self.reaper)
        return dict(zip(FACTS, (*values, self.login), strict=True))

    def is_dead(self, here: Place) -> bool:
        """Say whether neither of its processes can be alive; what cannot be told is no proof.

        Args:
            here: where we run.
        """
        return bool(self.launch) and here.is_certainly(self.place) and _ended(self.launcher) and _ended(self.reaper)

    def living(self, here: Place) -> tuple[int, int]:
        """Return the pids of its launcher and of its reaper, 0 for one that is not provably that process, and alive.

        Args:
            here: where we run.
        """
        if not here.is_certainly(self.place):
            return 0, 0
        return _living(self.launcher), _living(self.reaper)


def owner_from(facts: Mapping[str, str]) -> Owner:
    """Return the owner that labels tell of; a fact that they lack is an empty text."""
    launch, host, boot, namespaces, user, launcher, reaper, login = (facts.get(name, "") for name in FACTS)
    return Owner(launch, Place(host, boot, namespaces, user), launcher, reaper, login)


def owner_here(launch: str, reaper: int) -> Owner:
    """Return the owner of what this process makes.

    Args:
        launch: names the launch.
        reaper: pid of the reaper.
    """
    return Owner(launch, place_here(), process_mark(os.getpid()), process_mark(reaper), login_here())


def login_here() -> str:
    """Return the name of our user, an empty text where nobody knows it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def dead_launches(owners: Iterable[Owner]) -> set[str]:
    """Return the launches that are provably dead by all of these owners that are of theirs."""
    named = {owner for owner in owners if owner.launch}
    if not named:
        return set()
    here = place_here()
    return {owner.launch for owner in named} - {owner.launch for owner in named if not owner.is_dead(here)}


def place_here() -> Place:
    """Return where this process runs."""
    return Place(os.uname().nodename, _boot(), _namespaces(), str(os.getuid()))


def _boot() -> str:
    if sys.platform == "darwin":
        return _said(_SYSCTL, "-n", "kern.bootsessionuuid")
    try:
        return Path(_BOOT_ID).read_text().strip()
    except OSError:
        return ""


def _namespaces() -> str:
    """Return the numbers, if /proc shows the processes of our own: that of another one has other pids."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""
        times = os.readlink("/proc/self/ns/time") if os.path.lexists("/proc/self/ns/time") else ""  # since Linux 5.6
        return f"{os.readlink('/proc/self/ns/pid')} {times}".rstrip()
    except OSError:
        return ""


def process_mark(pid: int) -> str:
    """Return a process's pid, and its start time where it can be told: clock ticks since the boot, a date on macOS."""
    return f"{pid} {_process(pid)[1]}".rstrip()


def _ended(mark: str) -> bool:
    """Say whether a process has provably ended; its pid may be another one's by now.

    The kernel is asked before /proc, which may hide a living process even of our own user.
    """
    pid, _, started = mark.partition(" ")
    if not (started and pid.isascii() and pid.isdecimal()):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    except OverflowError:
        return False
    state, start = _process(int(pid))
    return state.startswith("Z") or (bool(start) and start != started)


def _living(mark: str) -> int:
    """Return the pid of a process that provably still is the one that was marked, else 0."""
    pid, _, started = mark.partition(" ")
    if not (started and pid.isascii() and pid.isdecimal()):
        return 0
    state, start = _process(int(pid))
    return int(pid) if start == started and not state.startswith("Z") else 0


def _process(pid: int) -> tuple[str, str]:
    """Return the state and the start time of a process, empty where they cannot be told."""
    if sys.platform == "darwin":
        state, _, start = _said(_PS, "-o", "stat=", "-o", "lstart=", "-p", str(pid)).partition(" ")
        return state, start.strip()
    try:
        # The name, in brackets, may hold blanks.
        words = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return words[0], words[19]
    except (OSError, IndexError):
        return "", ""


def _said(program: str, *words: str) -> str:
    """Return what a tool of macOS says, in one language and time zone; nothing where it fails, or may not run."""
    env = {"LC_ALL": "C", "TZ": "UTC0"}
    try:
        answer = perform(one(Call(program, words, env, run.QUERY_SECONDS)))
    except OSError:
        return ""
    return answer.text.strip() if answer.ok else ""
