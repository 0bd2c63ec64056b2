"""All of a launch goes to the engine that it began with, whatever the user's docker says meanwhile."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.fake_docker import DEFAULT_HOST, FakeEngine
from tests.sweep import SIBLING, Run, until
from tests.terminal import Terminal

OTHER = "tcp://other:2375"


class Two(Run):
    """A start with a second engine in reach, that holds a sibling's bottle too, behind the context `other`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.other = self.fake.serve(OTHER, {**SIBLING, "id": "OTHER"})
        self.fake.point("other", OTHER)
        self.within = folder / "within"
        self.fake.session(f"touch {self.within}; exec sleep 100")

    def use_other(self) -> None:
        subprocess.run([self.fake.bin / "docker", "context", "use", "other"], env=self.env, check=True, timeout=30)

    def into_session(self) -> subprocess.Popen[str]:
        """Begin, and return when the session runs."""
        child = self.begin()
        assert until(self.within.exists) or child.kill()
        return child

    def begin_on_other(self) -> subprocess.Popen[str]:
        child = self.into_session()
        assert (len(self.other.containers()), len(self.other.networks())) == (5, 3)
        return child

    def clean(self) -> bool:
        """Say whether both engines have what they had, and the host too."""
        return self.leftovers() == [] and names(self.other) == names(FakeEngine(self.tmp.parent / "was", SIBLING))


def names(engine: FakeEngine) -> list[str]:
    return sorted(thing["name"] for thing in (*engine.containers(), *engine.networks()))


def end(child: subprocess.Popen[str], number: signal.Signals) -> str:
    """Signal the launcher and return its words."""
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number), err
    return err


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


@pytest.mark.parametrize("call", ["internal-network create", "sidecar create", "agent cp", "agent rm"])
def test_another_context_in_the_middle_changes_nothing(two: Two, call: str) -> None:
    two.fake.session("exit 7")
    fault = two.fake.fault(call + "#1", mode="pause", when="after")
    child = two.begin()
    two.fake.wait_for_pause(fault)
    two.use_other()
    two.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, two.clean()) == (7, True), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_another_context_in_a_session_changes_nothing(two: Two, number: signal.Signals) -> None:
    child = two.into_session()
    two.use_other()
    err = end(child, number)
    assert until(two.clean), (two.leftovers(), err)


def test_the_cleanup_removes_from_the_engine_that_it_has_listed(two: Two) -> None:
    two.words[-4:] = ["cleanup"]
    fault = two.fake.fault("network ls", mode="pause", when="after")
    terminal = Terminal(two.words, two.cwd, two.env)
    two.fake.wait_for_pause(fault)
    two.use_other()
    two.fake.release(fault)
    terminal.until("[y/N] ")
    terminal.type("y\n")
    assert terminal.wait() == 0, terminal.said
    terminal.close()
    assert names(two.fake) == ["mine"] and len(names(two.other)) == 3


def test_a_docker_on_a_relative_path_is_the_same_for_the_reaper(two: Two) -> None:
    (two.cwd / "tools").symlink_to(two.fake.bin)
    two.env["PATH"] = "tools:/usr/bin:/bin"
    end(two.into_session(), signal.SIGKILL)
    assert until(two.clean), two.leftovers()


def test_a_docker_in_an_empty_entry_of_path_is_the_same_for_the_reaper(two: Two) -> None:
    (two.cwd / "docker").symlink_to(two.fake.bin / "docker")
    two.env["PATH"] = ":/usr/bin:/bin"
    end(two.into_session(), signal.SIGKILL)
    assert until(two.clean), two.leftovers()


RELATIVE = {
    "DOCKER_CONFIG": {"DOCKER_CONFIG": "config"},
    "DOCKER_CERT_PATH": {"DOCKER_HOST": OTHER, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "config"},
    "DOCKER_HOST": {"DOCKER_HOST": "unix://config/x.sock"},
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("variable", RELATIVE)
def test_what_is_relative_is_so_to_the_callers_folder_for_the_reaper_too(
    two: Two, variable: str, number: signal.Signals
) -> None:
    config = two.cwd / "config"
    config.mkdir()
    (config / "config.json").write_text('{"currentContext": "other"}')
    (config / "ca.pem").touch()
    two.fake.move(two.other, f"unix://{config}/x.sock")
    two.env |= RELATIVE[variable]
    child = two.begin_on_other()
    err = end(child, number)
    assert until(two.clean), (names(two.other), err)


@pytest.mark.parametrize("name", ["other", "default"])
def test_the_variables_decide_before_the_configuration(two: Two, name: str) -> None:
    two.use_other()
    two.env["DOCKER_CONTEXT"] = name
    child = two.into_session()
    assert len(names(two.other)) == (8 if name == "other" else 3)
    two.use_other()
    err = end(child, signal.SIGTERM)
    assert two.clean(), err


def test_an_empty_variable_counts_as_none(two: Two) -> None:
    two.use_other()
    two.env |= {"DOCKER_HOST": "", "DOCKER_CONTEXT": "", "DOCKER_CONFIG": "", "DOCKER_CERT_PATH": ""}
    err = end(two.begin_on_other(), signal.SIGTERM)
    assert two.clean(), err


@pytest.mark.parametrize("config", ["", "[]", "{", '{"currentContext": 3}', '{"currentContext": ""}'])
def test_a_configuration_that_names_no_context_means_the_default(two: Two, config: str) -> None:
    (two.cwd / "config").mkdir()
    (two.cwd / "config" / "config.json").write_text(config)
    two.env["DOCKER_CONFIG"] = str(two.cwd / "config")
    two.fake.session("exit 0")
    child = two.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, two.clean()) == (0, True), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("how", ["context update", "the socket"])
def test_what_another_engine_says_at_the_end_is_not_taken_for_removed(
    two: Two, how: str, number: signal.Signals
) -> None:
    child = two.into_session()
    made = two.fake.containers()[2:] + two.fake.networks()[1:]
    assert len(made) == 5
    third = two.fake.serve("tcp://third:1" if how == "context update" else DEFAULT_HOST, SIBLING)
    if how == "context update":
        two.fake.point("default", "tcp://third:1")
    said = end(child, number)
    if number == signal.SIGKILL:
        said = two.note()
    assert len(names(third)) == 3 and len(names(two.fake)) == 8
    for thing in made:
        assert thing["id"] in said, said
    assert "another engine" in said


def test_another_builder_that_the_user_has_selected_is_not_asked(tmp_path: Path) -> None:
    run = Run(tmp_path, builder="remote")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err


@pytest.mark.parametrize("env", [{"BUILDX_BUILDER": "remote"}, {"BUILDX_BUILDER": "remote", "DOCKER_HOST": OTHER}])
def test_another_builder_that_a_variable_names_is_not_asked(two: Two, env: dict[str, str]) -> None:
    two.env |= env
    two.fake.session("exit 7")
    child = two.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, two.clean()) == (7, True), err


def test_the_builder_of_a_context_has_its_name(two: Two) -> None:
    two.use_other()
    two.other = two.fake.serve(OTHER, {**SIBLING, "builder": "remote"})
    err = end(two.begin_on_other(), signal.SIGTERM)
    assert two.clean(), err
