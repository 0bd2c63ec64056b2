"""A start on a fake engine: what no recording of the shell's shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sweep import Run

NO_IPV6 = (
    "Error response from daemon: failed to create task for container: OCI runtime create failed: error during container"
    " init: open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory: unknown"
)


def test_a_kernel_without_ipv6_gets_its_bottle_all_the_same_and_hears_it_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.fault(f"agent start#1: {NO_IPV6}")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err
    created = [argv for argv in run.fake.argvs() if argv[0] == "create" and "sleep" in argv]
    assert ["--sysctl" in argv for argv in created] == [True, False]
    said = [line for line in err.splitlines() if line]
    assert len(said) == len(set(said)), err


def test_another_failure_of_the_start_is_no_reason_to_try_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.fault("agent start: no space left on device")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (1, [])
    assert "error: docker run failed: no space left on device" in err


@pytest.mark.parametrize(("when", "name"), [("before", "claude-bottle-net-a-3"), ("after", "claude-bottle-net-a-2")])
def test_of_two_networks_of_one_name_and_moment_the_older_keeps_it(tmp_path: Path, when: str, name: str) -> None:
    run = Run(tmp_path, same_names=True)  # an engine gives two creates of one moment the same name
    fault = run.fake.fault("internal-network create#1", mode="pause", when=when)
    child = run.begin()
    run.fake.wait_for_pause(fault, 30)
    other = [run.fake.bin / "docker", "network", "create", "claude-bottle-net-a-2"]
    theirs = subprocess.run(other, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    run.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert f"creating network {name}\n" in err
    used = [argv[argv.index("--network") + 1] for argv in run.fake.argvs() if argv[0] == "create"]
    assert theirs not in used and len(set(used)) == 1
    assert [network["id"] for network in run.fake.networks() if network["name"] == "claude-bottle-net-a-2"] == [theirs]
