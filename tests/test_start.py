"""A start on a fake engine: what no recording of the shell's shows."""

from __future__ import annotations

from pathlib import Path

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
    created = [
        argv for argv in run.fake.argvs() if argv[0] == "create" and "/usr/local/bin/claude-bottle-guard" in argv
    ]
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
