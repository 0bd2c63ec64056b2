"""The shell launcher in fixtures/shell is the oracle; it is never changed to make the port pass."""

from __future__ import annotations

import hashlib
from pathlib import Path

SHELL = Path(__file__).resolve().parent.parent / "fixtures" / "shell"
DIGEST = "e6c5efbfc771222c76e8eaca66003f392db20b2bfcd3b8c6c9005af57f0bff51"


def test_the_shell_side_is_unchanged() -> None:
    names = sorted(path.relative_to(SHELL).as_posix() for path in SHELL.rglob("*") if path.is_file())
    whole = hashlib.sha256()
    for name in names:
        whole.update(name.encode() + b"\0" + hashlib.sha256((SHELL / name).read_bytes()).digest())
    assert whole.hexdigest() == DIGEST
