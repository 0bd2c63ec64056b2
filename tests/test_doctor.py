"""What doctor finds, on a fake engine, and which errors of a start lead to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.doctor.holes import holes, parts, version
from claude_bottle.lib.doctor.room import registry, repository
from claude_bottle.lib.env import DEFAULT_PIPELOCK_IMAGE, SUBNET_POOL_VARIABLE
from claude_bottle.lib.home.record import FILE, GIT, RAW, Record
from claude_bottle.lib.teardown.owner import Owner, place_here

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run

IMAGES = ("node:22-slim", "claude-bottle:latest", "claude-bottle-broker:latest", DEFAULT_PIPELOCK_IMAGE)
READS = {"info", "version", "network ls", "network inspect", "image inspect", "ps", "pull"}
DEAD = Owner("0f" * 16, place_here(), "4194304 17", "4194304 17")  # no process has a pid as high as that


def desk(tmp_path: Path, images: tuple[str, ...] = IMAGES, **engine: Any) -> Run:
    """Return a place to start from where nothing is wrong, but for what the engine's state says."""
    info = {"SystemTime": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime()), **engine.pop("info", {})}
    return Run(tmp_path, **{"images": [{"name": name} for name in images], "info": info, **engine})


def findings(run: Run, status: int | None = None) -> dict[str, list[dict[str, str]]]:
    before = len(run.fake.argvs())
    done = run.command("doctor", "--json")
    said = json.loads(done.stdout)
    assert not done.stderr and done.returncode == int(not said["well"]) and status in (None, done.returncode), (
        done.stdout
    )
    assert not run.fake.unknown()
    asked = {" ".join(argv[:2]) if argv[0] in ("network", "image") else argv[0] for argv in run.fake.argvs()[before:]}
    assert asked <= READS and TOKEN not in done.stdout
    assert all(each["mend"] for each in said["checks"] if each["state"] == "problem")
    found: dict[str, list[dict[str, str]]] = {}
    for each in said["checks"]:
        found.setdefault(each["check"], []).append(each)
    return found


def worst(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Return the check and the text of each problem."""
    return {name: each["text"] for name, every in found.items() for each in every if each["state"] == "problem"}


def test_where_all_is_well_each_thing_has_a_line_and_the_status_is_0(tmp_path: Path) -> None:
    found = findings(desk(tmp_path), 0)
    things = "python terminal token engine client server rootless limits clock disk subnets manifest leftovers registry"
    images = {"base image", "bottle's image", "sidecar's image", "broker's image"}
    assert set(found) >= {*things.split(), *images, "known holes"}
    assert all(
        found[name][0]["state"] == "ok" for name in (*images, "engine", "clock", "limits", "subnets", "registry")
    )
    assert "age" in found["token"][0]["text"] and "unknown" in found["token"][0]["text"]
    assert "1 agent" in found["manifest"][0]["text"]


def test_a_line_says_what_mends_it(tmp_path: Path) -> None:
    run = desk(tmp_path)
    del run.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    done = run.command("doctor")
    rows = [line.split(None, 2) for line in done.stdout.splitlines()]
    assert {row[0] for row in rows} == {"ok", "warning"} and done.returncode == 0
    (row,) = (row for row in rows if row[1] == "token")
    assert row[0] == "warning" and row[2].endswith("-> claude setup-token")


def test_an_engine_that_does_not_answer_is_one_problem_and_hides_nothing_of_the_host(tmp_path: Path) -> None:
    run = desk(tmp_path, down=True)
    found = findings(run, 1)
    assert list(worst(found)) == ["engine"] and "Is the docker daemon running?" in worst(found)["engine"]
    assert found["manifest"][0]["state"] == "ok" and "server" not in found


def test_without_docker_it_says_where_that_is_to_be_had(tmp_path: Path) -> None:
    run = desk(tmp_path)
    (run.fake.bin / "docker").unlink()
    run.env["PATH"] = os.pathsep.join([str(run.fake.bin), *(str(path) for path in _without_docker(tmp_path))])
    found = findings(run, 1)
    assert worst(found) == {"engine": "docker not found on PATH"} and "https://" in found["engine"][0]["mend"]


def _without_docker(tmp_path: Path) -> list[Path]:
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for path in Path(folder).iterdir():
            if path.name != "docker" and not (tools / path.name).is_symlink():
                (tools / path.name).symlink_to(path)
    return [tools]


@pytest.mark.parametrize(
    ("engine", "check", "words"),
    [
        ({"info": {"MemoryLimit": False, "SecurityOptions": ["name=rootless"]}}, "limits", "memory"),
        ({"info": {"SystemTime": "2001-01-01T00:00:00Z"}}, "clock", "s away"),
        ({"parts": {"Engine": "19.03.1"}}, "server", "older than 20.10"),
        ({"parts": {"Podman Engine": "5.0.0"}}, "server", "Podman"),
        ({"client": "19.03.1"}, "client", "older than 20.10"),
        ({"platform": "Docker Desktop 4.40.0 (1)"}, "known holes", "CVE-2025-9074"),
        ({"networks": [{"name": "wide", "subnet": "10.0.0.0/9"}]}, "subnets", "0 of 8192"),
        ({"images": [], "no_pull": "dial tcp: lookup ghcr.io: no such host"}, "registry", "does not answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_an_engine_is_found(tmp_path: Path, engine: dict[str, Any], check: str, words: str) -> None:
    found = findings(desk(tmp_path, **engine))
    assert any(words in each["text"] and each["state"] != "ok" and each["mend"] for each in found[check]), found[check]


def test_a_registry_that_answers_is_reached_and_nothing_is_pulled(tmp_path: Path) -> None:
    run = desk(tmp_path, images=IMAGES[1:3], no_pull="manifest unknown")
    before = [image["name"] for image in run.fake.images()]
    found = findings(run, 0)
    assert [each["text"] for each in found["registry"]] == [
        "docker.io answers the engine",
        "ghcr.io answers the engine",
    ]
    pulled = [argv[-1].partition("@sha256:") for argv in run.fake.argvs() if argv[0] == "pull"]
    assert [(name, digest) for name, _, digest in pulled] == [
        ("node", "0" * 64),
        ("ghcr.io/luckypipewrench/pipelock", "0" * 64),
    ]
    assert [image["name"] for image in run.fake.images()] == before


def test_what_killed_launches_have_left_is_counted_and_stays(tmp_path: Path) -> None:
    labels = {f"claude-bottle.{name}": value for name, value in DEAD.facts().items()}
    boxes = [{"name": f"old-{role}", "labels": {**labels, "claude-bottle.role": role}} for role in ("agent", "sidecar")]
    run = desk(tmp_path, containers=boxes)
    (each,) = findings(run, 0)["leftovers"]
    assert (each["state"], each["mend"]) == ("warning", "cli.sh cleanup --stale") and "2 containers" in each["text"]
    assert len(run.fake.containers()) == 2


def test_work_that_could_not_come_home_is_named_with_or_without_an_engine(tmp_path: Path) -> None:
    run = desk(tmp_path, down=True)
    place = run.home / ".local" / "state" / "claude-bottle" / "work" / DEAD.launch
    place.mkdir(parents=True)
    told = Record(DEAD.launch, "a", "a", GIT, "/project", "/project/.git", "/w", "FAKE:ENGINE", kept=RAW)
    (place / FILE).write_text(json.dumps(told.dump()))
    (each,) = findings(run, 1)["kept work"]
    assert each["mend"] == "cli.sh bring a" and "/project" in each["text"]


def test_every_agents_problems_are_named_once_with_the_file(tmp_path: Path) -> None:
    run = desk(tmp_path)
    bottle = {"env": {"A": "${NOT_SET_ANYWHERE}"}, "limits": {"pids": "many"}}
    agents = {name: {"bottle": "b"} for name in ("a", "c", "d")}
    (run.home / "claude-bottle.json").write_text(json.dumps({"bottles": {"b": bottle}, "agents": agents}))
    texts = [each["text"] for each in findings(run, 1)["manifest"] if each["state"] == "problem"]
    assert len(texts) == len(set(texts)) and sum("limits.pids" in text for text in texts) == 1
    (run.home / "claude-bottle.json").unlink()
    (each,) = findings(run, 1)["manifest"]
    assert each["mend"] == "cli.sh init"


def test_a_dockerfile_that_is_not_there_or_leads_elsewhere_is_a_problem_of_the_manifest(tmp_path: Path) -> None:
    run = desk(tmp_path)
    bottles = {name: {"dockerfile": f"{name}.Dockerfile"} for name in ("absent", "linked")}
    agents = {name: {"bottle": name} for name in bottles}
    (run.home / "claude-bottle.json").write_text(json.dumps({"bottles": bottles, "agents": agents}))
    (run.home / "linked.Dockerfile").symlink_to("/etc/hostname")
    texts = [each["text"] for each in findings(run, 1)["manifest"]]
    assert len(texts) == 2 and "there is no" in texts[0] and "out of the manifest's folder" in texts[1]


def test_what_a_folder_adds_is_pointed_to(tmp_path: Path) -> None:
    run = desk(tmp_path)
    (run.cwd / "claude-bottle.json").write_text('{"bottles": {"b": {"egress": {"allowlist": ["new.example"]}}}}')
    (each,) = findings(run, 0)["approval"]
    assert each["mend"] == "cli.sh approve"


def test_a_token_that_cannot_be_one_is_a_problem_and_is_not_shown(tmp_path: Path) -> None:
    run = desk(tmp_path)
    run.env["CLAUDE_BOTTLE_OAUTH_TOKEN"] = f"{TOKEN} "
    assert "token" in worst(findings(run, 1))


OLD = ["CVE-2024-29018", "CVE-2025-54410", "CVE-2024-23651"]  # of engines


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"Engine": "20.10.24+dfsg1", "runc": "1.1.5+ds1"}, [*OLD, "CVE-2024-21626", "CVE-2025-31133"]),
        ({"Engine": "23.0.10", "runc": "1.1.12"}, [*OLD, "CVE-2025-31133"]),
        ({"Engine": "23.0.11", "runc": "1.2.8"}, ["CVE-2025-54410", "CVE-2024-23651"]),
        ({"Engine": "24.0.9", "runc": "1.3.2"}, ["CVE-2024-29018", "CVE-2025-54410", "CVE-2025-31133"]),
        ({"Engine": "25.0.1"}, OLD),
        ({"Engine": "25.0.5", "runc": "1.4.0"}, ["CVE-2025-54410"]),
        ({"Engine": "26.0.1"}, ["CVE-2024-32473", "CVE-2025-54410"]),
        ({"Engine": "28.5.2+dfsg4", "runc": "1.3.6+ds1", "Desktop": "4.44.3"}, []),
        ({"Engine": "29.0.0-rc.1", "Desktop": "4.44.2"}, ["CVE-2025-9074"]),
        ({"Engine": "library-import", "runc": ""}, []),
    ],
)
def test_holes_are_known_by_version(there: dict[str, str], found: list[str]) -> None:
    assert [each.text.split(": ")[1].split(",")[0] for each in holes(there)] == found


def test_versions_are_read_from_what_an_engine_says() -> None:
    said = {
        "Components": [{"Name": "runc", "Version": "1.3.0"}],
        "Platform": {"Name": "Docker Desktop 4.43.1 (198352)"},
    }
    assert parts(said) == {"runc": "1.3.0", "Desktop": "4.43.1"} and parts({}) == {}
    assert (version("28.5.2+dfsg4"), version("v1.3"), version("x")) == ((28, 5, 2), (1, 3, 0), ())


@pytest.mark.parametrize(
    ("image", "host", "name"),
    [
        ("node:22-slim", "docker.io", "node"),
        ("ghcr.io/a/b@sha256:12", "ghcr.io", "ghcr.io/a/b"),
        ("localhost:5000/b", "localhost:5000", "localhost:5000/b"),
        ("a/b:1", "docker.io", "a/b"),
    ],
)
def test_an_image_says_where_it_comes_from(image: str, host: str, name: str) -> None:
    assert (registry(image), repository(image)) == (host, name)


HINT = "claude-bottle: hint: 'cli.sh doctor' looks at what a start depends on\n"


@pytest.mark.parametrize(
    ("engine", "env", "fault"),
    [
        ({"down": True}, {}, ""),
        ({}, {SUBNET_POOL_VARIABLE: "8.8.8.0/24"}, ""),
        ({}, {"TMPDIR": "/nowhere"}, ""),
        ({"networks": [{"name": "wide", "subnet": "10.0.0.0/8"}]}, {}, ""),
        ({"images": [], "no_pull": "dial tcp: no such host"}, {}, ""),
        ({}, {}, "agent start: no space left on device"),
    ],
    ids=["no engine", "no block", "no stage dir", "no subnet", "no registry", "no room"],
)
def test_an_error_of_a_start_that_doctor_explains_says_so(
    tmp_path: Path, engine: dict[str, Any], env: dict[str, str], fault: str
) -> None:
    run = Run(tmp_path, **engine)
    if fault:
        run.fake.fault(fault)
    run.env.update(env)
    done = run.command("start", "-y", "a")
    assert done.returncode == 1 and done.stderr.endswith(HINT), done.stderr
    assert findings(run)  # which does not fall over what it explains


def test_an_error_of_the_manifest_is_not_doctors() -> None:
    done = subprocess.run([ROOT / "cli.sh", "info", "nobody"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "doctor" not in done.stderr
