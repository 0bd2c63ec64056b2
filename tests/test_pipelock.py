"""The sidecar's file and port."""

from __future__ import annotations

import pytest
from claude_bottle.lib import pipelock
from claude_bottle.lib.errors import BottleError

CONTRACT = """\
mode: strict
enforce: true
api_allowlist:
  - "100.64.0.7"
  - "git.example.org"
trusted_domains:
  - "git.example.org"
ssrf:
  ip_allowlist:
    - "100.64.0.7/32"
forward_proxy:
  enabled: true
"""


def test_the_sidecars_file_begins_as_the_contract_has_it() -> None:
    text = pipelock.pipelock_yaml(["100.64.0.7", "git.example.org"], ["git.example.org", "100.64.0.7"], "8888")
    assert text.startswith(CONTRACT)
    assert "\ndlp:\n  include_defaults: true\n  scan_env: true\n" in text
    assert 'metrics_listen: "127.0.0.1:9091"' in text


def test_the_metrics_port_steps_aside_for_the_proxys() -> None:
    assert 'metrics_listen: "127.0.0.1:9092"' in pipelock.pipelock_yaml(["a.test"], [], "9091")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8 8", "\u0661"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(BottleError, match="CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number"):
        pipelock.pipelock_check_port(port)
