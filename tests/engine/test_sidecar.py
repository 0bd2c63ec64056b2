"""The running sidecar, as whoever broke into it would find it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sidecar import SIDECAR

from .conftest import AGENT, Desk, container, docker, end, leftovers

REAL = "pipelock-real:2.3.0"
USER = 65534
IN_MEMORY = {"/dev/shm", "/dev/mqueue"}  # docker's own, from which nothing runs

# Goes where a process is, as the user that it is, and prints what it can write to there, but for devices and /proc. The
# image needs no program for this.
WRITABLE = r"""
import ctypes, json, os, stat, sys
pid, user, system = sys.argv[1], int(sys.argv[2]), ctypes.CDLL(None, use_errno=True)
assert system.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0) == 0, os.strerror(ctypes.get_errno())
os.setgroups([]); os.setgid(user); os.setuid(user)
found = []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        kind = os.lstat(path).st_mode
        if not (stat.S_ISLNK(kind) or stat.S_ISCHR(kind)) and os.access(path, os.W_OK):
            found.append(path)
print(json.dumps(found))
"""


def there(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0


@pytest.mark.parametrize("image", sorted({SIDECAR, REAL}))
def test_nothing_in_a_running_sidecar_can_be_written(desk: Desk, tmp_path: Path, image: str) -> None:
    if not there(image):
        pytest.skip(f"this engine has no {image}")
    desk.env["CLAUDE_BOTTLE_PIPELOCK_IMAGE"] = image
    child = desk.terminal("start", "-y", AGENT)
    child.expect_exact(f"attaching to claude-bottle-{AGENT}")
    box = container("sidecar")
    pid = docker("inspect", "-f", "{{.State.Pid}}", box)
    words = [sys.executable, "-c", WRITABLE, pid, str(USER)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == IN_MEMORY
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    options = {mount[1]: set(mount[3].split(",")) for mount in mounts if mount[1] in IN_MEMORY}
    assert all(each >= {"noexec", "nosuid", "nodev"} for each in options.values()) and set(options) == IN_MEMORY
    (tmp_path / "file").write_text("mode: permissive\n")
    for target in ("/", "/etc/", "/pipelock.yaml"):
        tried = subprocess.run(["docker", "cp", tmp_path / "file", f"{box}:{target}"], capture_output=True, text=True)
        assert tried.returncode != 0 and "read-only" in tried.stderr, tried
    end(child)
    assert leftovers(desk) == []
