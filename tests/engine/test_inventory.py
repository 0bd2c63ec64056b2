"""The check for leftovers sees what bears no name and no label of ours, and knows whose engine it is."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from . import inventory
from .conftest import docker


def test_what_has_no_name_of_ours_is_seen(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(uuid.uuid4().hex)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY secret /\nCMD x\n")
    before = inventory.everything()
    image = docker("build", "-q", str(tmp_path))
    box = docker("create", "-v", "/anonymous", image)
    network = docker("network", "create", f"n{uuid.uuid4().hex}")
    try:
        came = inventory.new(before, inventory.everything(), alone=True)
    finally:
        docker("rm", "-f", "-v", box)
        docker("network", "rm", network)
        docker("rmi", "-f", image)
        inventory.expected.update(inventory.copied_files())
    seen = [line.split()[0:2] for line in came]
    assert [["container", box], ["network", network], ["image", image]] == [
        each for each in seen if each[1] in (box, network, image)
    ]
    kinds = {kind for kind, _ in seen}
    assert "volume" in kinds
    buildkit = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    assert ("build" in kinds) == buildkit  # the older builder keeps nothing but images
    assert inventory.new(before, inventory.everything(), alone=False) == []


def test_a_run_knows_whether_it_has_had_the_engine_to_itself() -> None:
    engine = uuid.uuid4().hex
    first = inventory.Sharing(engine)
    assert first.alone()
    second = inventory.Sharing(engine)
    assert not first.alone() and not second.alone()
    first.close()
    second.close()
    third = inventory.Sharing(engine)
    assert third.alone()
    third.close()
    third.path.unlink()
