"""Makes the package known as a bare checkout does, and keeps the user's own settings out of the tests."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tests.sidecar import IS_STAND_IN, SIDECAR

ROOT = Path(__file__).resolve().parent.parent

package = types.ModuleType("claude_bottle")
package.__path__ = [str(ROOT)]
sys.modules["claude_bottle"] = package


def pytest_report_header() -> str:
    return f"sidecar: {SIDECAR}" + (" (a STAND-IN, not the real image)" if IS_STAND_IN else "")


@pytest.fixture(autouse=True)
def no_settings_of_the_user(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import os

    # Where docker is played, nothing may be written into the configuration of the real client.
    played = not {"engine", "pipelock"} & set(request.path.relative_to(ROOT).parts)
    for name in list(os.environ):
        if name.startswith("CLAUDE_BOTTLE_") or (played and name.startswith(("DOCKER_", "BUILDX_"))):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
