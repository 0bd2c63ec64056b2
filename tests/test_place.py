"""Bottles whose machines a Swarm chooses: a seat on its manager, and the rest on the engine of the node, both fake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from claude_bottle.lib.engine import Engine, Facts
from claude_bottle.lib.far import nodes, seat
from claude_bottle.lib.far.nodes import Node

from tests.conftest import ROOT
from tests.fake_docker import FakeEngine
from tests.sweep import IMAGES, Run, until
from tests.terminal import Terminal
from tests.test_home import EVIL, begin_work
from tests.test_project import git, write

FIRST, SECOND = "1" * 25, "2" * 25
TWO = "unix:///run/two.sock"
NODES = [{"id": FIRST, "name": "one", "address": "192.0.2.1"}, {"id": SECOND, "name": "two", "address": "192.0.2.2"}]
BUILT = {"name": seat.IMAGE, "labels": {}}
GIB = 1024**3
PLACED = "claude-bottle-a-2"  # the first name is the sibling's, on the manager


def context(home: Path, name: str, host: str) -> None:
    """Make a context as docker's own client keeps it."""
    folder = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


class Placed(Run):
    """Starts on a Swarm of two: the manager, ``one``, and ``two``, which a context of its name leads to.

    Args:
        folder: an empty folder.
        bottle: of the agent.
        hasty: with bounds of seconds.
        swarm: what else the manager's says; without other words the first seat is on ``two``.
    """

    def __init__(
        self, folder: Path, bottle: dict[str, Any] | None = None, *, hasty: bool = False, **swarm: Any
    ) -> None:
        super().__init__(
            folder,
            {"patience": 30.0} if hasty else None,
            images=[*IMAGES, BUILT],
            swarm={"id": FIRST, "nodes": NODES, "order": [SECOND, FIRST], **swarm},
            info={"Name": "one"},
        )
        self.manifest(bottle or {})
        there = {"images": [*IMAGES, BUILT], "swarm": {"id": SECOND}, "info": {"Name": "two"}}
        self.two = self.fake.serve(TWO, there)
        self.fake.point("two", TWO)
        context(self.home, "two", TWO)
        self.words = [*self.program, "start", "-y", "--place", "a"]

    def manifest(self, bottle: dict[str, Any]) -> None:
        content = {"bottles": {"b": bottle}, "agents": {"a": {"bottle": "b", "prompt": "x"}}}
        (self.home / "claude-bottle.json").write_text(json.dumps(content))

    def end(self) -> tuple[int, str]:
        with self.begin() as child:
            _, err = child.communicate(timeout=60)
        assert self.fake.unknown() == []
        return child.returncode, err

    def node(self, name: str, **facts: str) -> None:
        """Have the manager say something else of a node."""

        def change(state: dict[str, Any]) -> None:
            (node,) = (node for node in state["swarm"]["nodes"] if node["name"] == name)
            node.update(facts)

        self.fake._change(change)

    def left(self) -> list[str]:
        """Return what is left on either engine, seats among it."""
        every = (*self.two.containers(), *self.two.networks(), *self.two.volumes(), *self.fake.services())
        return sorted([thing["name"] for thing in every] + self.leftovers())

    def created(self) -> list[str]:
        """Return the words of the call that asks for the seat."""
        (words,) = [argv for argv in self.fake.argvs() if argv[:2] == ["service", "create"]]
        return words

    def in_session(self) -> subprocess.Popen[str]:
        """Return a start whose session lasts."""
        folder = self.fake.folder
        (folder / "there").unlink(missing_ok=True)  # another's
        self.fake.session(f"touch {folder}/there; until [ -e {folder}/over ]; do sleep 0.05; done")
        child = self.begin()
        assert until(lambda: (self.fake.folder / "there").exists()), child.kill()
        return child


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    return Placed(tmp_path)


def test_the_seat_is_the_managers_and_all_else_the_nodes_and_nothing_stays(placed: Placed) -> None:
    child = placed.in_session()
    (taken,) = placed.fake.services()
    assert {box["labels"]["claude-bottle.role"] for box in placed.two.containers()} == {"agent", "sidecar", "broker"}
    assert len(placed.two.networks()) == 2
    assert len({it["labels"]["claude-bottle.owner"] for it in (taken, *placed.two.containers())}) == 1
    assert taken["labels"]["claude-bottle.role"] == "seat" and taken["argv"] == ["infinity"]
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, placed.left()) == (143, []), err
    assert "claude-bottle: the Swarm has chosen node two\n" in err
    assert "bottle" not in {box["name"] for box in placed.fake.containers()} - {"claude-bottle-a", "mine"}
    verbs = [argv[:2] for argv in placed.fake.argvs() if argv[0] in ("service", "rm", "network") and "rm" in argv[:2]]
    assert verbs[-1] == ["service", "rm"]


def test_what_is_booked_is_what_all_containers_may_take_and_the_manifest_says_where(tmp_path: Path) -> None:
    limits = {"memory": "4g", "cpus": 1.5}
    placed = Placed(tmp_path, {"place": True, "placement": ["node.labels.gpu==1"], "limits": limits})
    placed.words.remove("--place")
    status, err = placed.end()
    assert (status, placed.left()) == (0, []), err
    words = placed.created()
    options = dict(pairwise(words))
    memory = 4 * GIB + 2 * GIB + 64 * 1024**2
    assert (options["--reserve-memory"], options["--reserve-cpu"]) == (str(memory), "1.500")
    assert options["--constraint"] == "node.labels.gpu==1" and options["--restart-condition"] == "none"
    line = "place            : a node that the Swarm chooses, 6.06g of memory, 1.5 cpus, node.labels.gpu==1\n"
    assert f"claude-bottle: {line}" in err
    assert "  place" not in placed.command("info", "a").stderr
    assert (
        "place            : a node that the Swarm chooses, node.labels.gpu==1\n" in placed.command("info", "a").stderr
    )
    plan = json.loads(placed.command("start", "--dry-run", "--json", "a").stdout)
    assert plan["grants"]["place"] == ["node.labels.gpu==1"]


def test_a_bottle_without_a_limit_takes_what_was_booked_however_large_the_machine_is(placed: Placed) -> None:
    status, err = placed.end()
    assert status == 0, err
    (words,) = [argv for argv in placed.fake.argvs() if argv[0] == "create" and "--dns" in argv]
    assert words[words.index("--memory") + 1] == str(2 * GIB)
    assert str(2 * GIB + 2 * GIB + 64 * 1024**2) in placed.created() and "--reserve-cpu" not in placed.created()


def test_a_seat_on_the_manager_itself_needs_no_way_there(tmp_path: Path) -> None:
    placed = Placed(tmp_path, order=[FIRST])
    child = placed.in_session()
    assert placed.two.containers() == [] and len(placed.fake.services()) == 1
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, placed.left()) == (143, []), err


REFUSAL = "no suitable node (insufficient resources on 2 nodes)"


def test_swarms_refusal_is_shown_with_what_was_asked(tmp_path: Path) -> None:
    placed = Placed(tmp_path, {"limits": {"memory": "900g"}}, refusal=REFUSAL)
    status, err = placed.end()
    assert (status, placed.left()) == (1, [])
    asked = "claude-bottle: hint: asked for: 902.06g of memory\n"
    assert err.endswith(f"claude-bottle: error: the Swarm has no place: {REFUSAL}\n{asked}"), err


@pytest.mark.parametrize(
    ("swarm", "words"),
    [(None, "is in no Swarm"), ({"id": SECOND}, "is no manager of its Swarm")],
)
def test_without_a_swarm_one_message_says_so_and_nothing_is_made(
    tmp_path: Path, swarm: dict[str, str] | None, words: str
) -> None:
    run = Run(tmp_path, **({"swarm": swarm} if swarm else {}))
    for command in (["start", "-y", "--place", "a"], ["build", "--place"], ["list", "active", "--place"]):
        done = run.command(*command)
        error = f"a place is chosen by a Docker Swarm, and the engine at context 'default' {words}"
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"claude-bottle: error: {error}")
    assert [argv for argv in run.fake.argvs() if "create" in argv or argv[0] == "build"] == []


def test_a_node_without_the_seats_image_is_told_how_to_get_it(placed: Placed) -> None:
    placed.two._change(lambda state: state.update(images=IMAGES_ALONE))
    status, err = placed.end()
    assert (status, placed.left()) == (1, [])
    assert f"error: node 'two' lacks the image that the seat needs: {seat.IMAGE}\n" in err
    assert "hint: ./cli.sh build --place builds it on every node\n" in err


IMAGES_ALONE = [{"id": "9" * 64, **each} for each in IMAGES]


def test_a_seat_that_is_not_kept_ends_the_start(tmp_path: Path) -> None:
    placed = Placed(tmp_path, task="Rejected 1 second ago", error='"No such image: x"')
    status, err = placed.end()
    assert (status, placed.left()) == (1, [])
    assert "error: the seat on node 'two' is not kept: rejected No such image: x\n" in err


def test_another_engine_behind_the_nodes_name_is_refused(placed: Placed) -> None:
    placed.two._change(lambda state: state["swarm"].update(id="3" * 25))
    status, err = placed.end()
    assert (status, placed.left()) == (1, [])
    assert "error: the engine at context 'two' is not that of node 'two'\n" in err
    assert f"it says that it is node {'3' * 25} of a Swarm, not {SECOND}" in err


def test_a_node_that_cannot_be_reached_is_named_and_its_seat_removed(placed: Placed) -> None:
    placed.two.down()
    status, err = placed.end()
    assert status == 1 and placed.fake.services() == [], err
    assert "error: cannot reach the engine of node 'two' at context 'two'\n" in err


@pytest.mark.parametrize("call", ["service create", "service ps", "service rm", "* start", "* exec claude"])
def test_a_killed_launchers_reaper_removes_on_both(tmp_path: Path, call: str) -> None:
    placed = Placed(tmp_path, hasty=True)
    if call == "service rm":
        placed.fake.session("exit 0")
    placed.kill_during(call)
    assert until(lambda: placed.left() == [], 40), placed.left()


def test_a_node_that_comes_back_late_is_the_backgrounds_and_its_seat_says_where(tmp_path: Path) -> None:
    placed = Placed(tmp_path, hasty=True)
    child = placed.in_session()
    placed.two.down()
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0 and len(placed.fake.services()) == 1, err
    placed.two.up()
    assert until(lambda: placed.left() == [], 40), placed.left()


class Dead:
    """A placed start whose launcher and reaper were killed in its session."""

    def __init__(self, placed: Placed) -> None:
        child = placed.in_session()
        (self.seat,) = placed.fake.services()
        launcher, reaper = (self.seat["labels"][f"claude-bottle.{who}"].split()[0] for who in ("launcher", "reaper"))
        for pid in (reaper, launcher):
            os.kill(int(pid), signal.SIGKILL)
        (placed.fake.folder / "over").touch()  # which ends the session's client, too
        child.communicate(timeout=60)


def test_what_a_dead_placed_launch_has_left_is_swept_on_its_node_and_then_its_seat(placed: Placed) -> None:
    Dead(placed)
    assert len(placed.two.containers()) == 3
    done = placed.command("start", "-y", "a")
    assert (done.returncode, placed.left()) == (0, []), done.stderr
    assert "removed what a killed launch of a had left: 3 containers, 2 networks\n" in done.stderr
    assert "removed what a killed launch of a had left: 1 service\n" in done.stderr


def test_what_cannot_be_asked_keeps_its_seat_until_it_can(placed: Placed) -> None:
    dead = Dead(placed)
    placed.two.down()
    done = placed.command("cleanup", "--stale", "--yes")
    assert done.returncode == 1 and len(placed.fake.services()) == 1
    assert f"could not remove service '{dead.seat['name']}': cannot reach the engine of node 'two'" in done.stderr
    placed.two.up()
    done = placed.command("cleanup", "--stale", "--yes")
    assert (done.returncode, placed.two.containers(), placed.fake.services()) == (0, [], []), done.stderr
    assert "  container claude-bottle-a-2 on node two\n" in done.stderr


@pytest.mark.parametrize("words", [["--stale", "--yes"], []], ids=["stale", "all"])
def test_what_is_on_the_managers_own_node_is_offered_and_removed_once(tmp_path: Path, words: list[str]) -> None:
    placed = Placed(tmp_path, order=[FIRST])
    owner = Dead(placed).seat["labels"]["claude-bottle.owner"]
    there = (*placed.fake.containers(), *placed.fake.networks())
    ours = [it["name"] for it in there if it["labels"].get("claude-bottle.owner") == owner]
    with closing(Terminal([*placed.program, "cleanup", *words], placed.cwd, placed.env)) as asked:
        if not words:
            asked.until("remove all of the above? [y/N] ")
            asked.type("y\n")
        assert asked.wait() == 0, asked.said
    listed = [line.split()[1] for line in asked.said.splitlines() if line.startswith(("  container ", "  network "))]
    assert [listed.count(name) for name in ours] == [1] * 5, asked.said
    assert [it for it in (*placed.fake.containers(), *placed.fake.services()) if it["name"] in ours] == []


@pytest.mark.parametrize("words", ["Error: No such node: {}", "Error response from daemon: node {} not found"])
def test_a_node_that_was_removed_from_the_swarm_holds_nothing_up(tmp_path: Path, words: str) -> None:
    placed = Placed(tmp_path, no_node=words)
    dead = Dead(placed)

    def leave(state: dict[str, Any]) -> None:
        state["swarm"]["nodes"] = [node for node in state["swarm"]["nodes"] if node["name"] != "two"]

    placed.fake._change(leave)
    assert placed.command("list", "active", "--place").returncode == 0
    done = placed.command("cleanup", "--stale", "--yes")
    assert (done.returncode, placed.fake.services()) == (0, []), done.stderr
    assert f"  service {dead.seat['name']}\n" in done.stderr


def test_a_manager_by_tls_has_nodes_by_ssh(placed: Placed) -> None:
    keys = placed.home / "keys"
    keys.mkdir()
    (keys / "ca.pem").touch()
    manager = "tcp://big:2376"
    placed.fake.move(placed.fake, manager)
    placed.fake.move(placed.two, "ssh://192.0.2.2")
    child = placed.in_session()
    shutil.rmtree(placed.home / ".docker" / "contexts")  # from now on
    placed.env |= {"DOCKER_HOST": manager, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(keys)}
    done = placed.command("list", "active", "--place")
    assert (done.returncode, done.stdout.split("\t")[-1]) == (0, "two\n"), done.stderr
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)


def test_doctor_counts_what_is_on_a_swarm_and_says_what_it_cannot_see(placed: Placed) -> None:
    dead = Dead(placed)
    (found,) = [line for line in placed.command("doctor").stdout.splitlines() if " leftovers " in line]
    assert found.startswith("warning") and found.endswith("cli.sh cleanup --stale")
    assert "3 containers, 1 folder, 2 networks, 1 service of launches that were killed" in found
    placed.two.down()
    (found,) = [line for line in placed.command("doctor").stdout.splitlines() if " leftovers " in line]
    assert "1 service of launches that were killed; on node two it cannot be seen: cannot reach" in found
    assert [it["name"] for it in placed.fake.services()] == [dead.seat["name"]]


class Other:
    """What a start has left whose machine is gone: it says that it was another one, of the same user."""

    def __init__(self, placed: Placed, **labels: str) -> None:
        Dead(placed)
        self.placed, self.labels = placed, {"host": "gone", "boot": "then", **labels}
        for engine in (placed.fake, placed.two):
            engine._change(self._mark)

    def _mark(self, state: dict[str, Any]) -> None:
        for it in (*state["containers"], *state["networks"], *state.get("services", [])):
            if it["labels"].get("claude-bottle.owner") != "somebody-else":
                it["labels"] |= {f"claude-bottle.{name}": value for name, value in self.labels.items()}

    def bottle_ends(self) -> None:
        """Have its bottle end by itself: nobody has renewed its lease."""

        def change(state: dict[str, Any]) -> None:
            (box,) = (box for box in state["containers"] if box["name"] == PLACED)
            box.update(status="exited", exit_code=75, status_text="Exited (75) 2 minutes ago")

        self.placed.two._change(change)

    def hours_go_by(self, *engines: FakeEngine) -> None:
        """Have engines, both without a word, say a time at which all that there is is old."""
        late = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 7200))
        for engine in engines or (self.placed.fake, self.placed.two):
            engine._change(lambda state: state["info"].update(SystemTime=late))

    def swept(self) -> list[str]:
        """Return what is left when the next start of the same user on this machine has swept."""
        done = self.placed.command("start", "-y", "a")
        assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
        return sorted(
            {"claude-bottle.role" in it["labels"] and it["labels"]["claude-bottle.role"] for it in self.all()}
        )

    def all(self) -> list[dict[str, Any]]:
        return [*self.placed.two.containers(), *self.placed.two.networks(), *self.placed.fake.services()]


ALL = ["agent", "broker", "egress", "internal", "seat", "sidecar"]


def test_what_another_machine_has_left_stays_while_its_bottle_runs_and_goes_when_that_has_lapsed(
    placed: Placed,
) -> None:
    other = Other(placed)
    other.hours_go_by()
    assert other.swept() == ALL  # its bottle runs: nobody here knows that its launcher is gone
    other.bottle_ends()
    assert other.swept() == []


def test_a_seat_of_another_machine_with_nothing_on_its_node_goes_when_it_is_old(placed: Placed) -> None:
    other = Other(placed)
    placed.two._change(lambda state: state.update(containers=[], networks=[]))
    assert other.swept() == ["seat"]  # what it is for may be on its way
    other.hours_go_by()
    assert other.swept() == []


def test_how_old_a_seat_is_is_the_managers_to_say_and_the_rest_the_nodes(placed: Placed) -> None:
    other = Other(placed)
    placed.two._change(lambda state: state.update(containers=[], networks=[]))
    other.hours_go_by(placed.two)
    assert other.swept() == ["seat"]
    other.hours_go_by(placed.fake)
    assert other.swept() == []


def test_a_seat_of_another_machine_stays_while_its_node_is_away(placed: Placed) -> None:
    other = Other(placed)
    other.bottle_ends()
    placed.node("two", state="down")
    assert other.swept() == ALL
    placed.node("two", state="ready")
    assert placed.command("cleanup", "--stale", "--yes").returncode == 0 and other.all() == []


def test_a_seat_of_somebody_else_is_nobodys_to_sweep_and_its_node_is_not_asked(placed: Placed) -> None:
    other = Other(placed, login="somebody-else")
    other.bottle_ends()
    before = len(placed.fake.argvs())
    assert other.swept() == ALL
    assert [argv for argv in placed.fake.argvs()[before:] if argv[0] == "node"] == []


@pytest.fixture
def living(placed: Placed) -> Iterator[Placed]:
    child = placed.in_session()
    yield placed
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)


def test_the_list_has_each_placed_bottle_with_its_node(living: Placed) -> None:
    assert (
        living.command("list", "active", "--place").stdout
        == "claude-bottle-a-2\tclaude-bottle:latest\tUp 2 minutes\ttwo\n"
    )
    data = json.loads(living.command("list", "active", "--place", "--json").stdout)
    schema = json.loads((ROOT / "lib" / "schema" / "active.schema.json").read_text())
    jsonschema.validate(data, schema, jsonschema.Draft202012Validator)
    assert [(one["node"], one["state"], one["agent"]) for one in data] == [("two", "running", "a")]
    living.two.down()
    away = living.command("list", "active", "--place")
    assert away.stdout == "a\t\taway\ttwo\n" and "cannot list what is on node two: cannot reach" in away.stderr
    living.two.up()


@pytest.mark.parametrize("word", ["a", PLACED, f"two/{PLACED}"])
def test_a_placed_bottle_is_found_by_its_agent_and_by_its_name(living: Placed, word: str) -> None:
    (box,) = [box for box in living.two.containers() if box["name"] == PLACED]
    assert living.command("exec", word, "true").returncode == 0
    assert any("--beside" in argv and box["id"] in argv for argv in living.fake.argvs())
    done = living.command("logs", word)
    assert done.returncode == 0 and '"startup"' not in done.stdout, done.stderr
    assert living.command("logs", "--denied", word).returncode == 0
    done = living.command("stop", word)
    assert (done.returncode, living.left()) == (0, []), done.stderr
    assert done.stderr == f"claude-bottle: stopping {PLACED}\nclaude-bottle: stopped {PLACED}\n"


@pytest.mark.parametrize("word", ["b", "claude-bottle-a-x", f"one/{PLACED}", f"three/{PLACED}"])
def test_what_no_seat_is_of_is_not_found_and_no_node_is_asked_for_it(living: Placed, word: str) -> None:
    before = len(living.fake.argvs())
    done = living.command("exec", word, "true")
    assert done.returncode == 1 and f"error: no bottle of '{word}' runs\n" in done.stderr
    assert PLACED in word or ["node", "inspect"] not in [argv[:2] for argv in living.fake.argvs()[before:]]


def test_a_bottle_of_the_engine_itself_is_found_without_a_question_for_seats(living: Placed) -> None:
    before = len(living.fake.argvs())
    assert living.command("exec", "claude-bottle-a", "true").returncode == 0
    assert [argv for argv in living.fake.argvs()[before:] if argv[0] in ("service", "node")] == []


def test_several_placed_ones_are_named_with_their_nodes(living: Placed) -> None:
    second = living.in_session()  # on the manager itself
    done = living.command("stop", "a")
    assert done.returncode == 1 and "error: 2 bottles of 'a' run: name the container\n" in done.stderr
    assert f"hint: {PLACED} (" in done.stderr and f"hint: two/{PLACED} (" in done.stderr
    assert living.command("stop", f"two/{PLACED}").returncode == 0
    assert living.two.containers() == [] and len(living.fake.services()) == 1
    done = living.command("stop", "--all")
    second.communicate(timeout=60)
    assert (done.returncode, living.left()) == (0, []), done.stderr


def test_a_node_that_is_away_is_named_by_whoever_looks_for_its_bottle(living: Placed) -> None:
    living.node("two", state="down")
    done = living.command("exec", "a", "true")
    assert done.returncode == 1 and "error: node 'two' is down\n" in done.stderr
    living.node("two", state="ready")
    living.two.down()
    for words in (["exec", "a", "true"], ["logs", "a"], ["stop", "a"]):
        done = living.command(*words)
        assert done.returncode == 1, done.stderr
        assert "error: cannot reach the engine of node 'two' at context 'two'\n" in done.stderr
    done = living.command("stop", "--all")
    assert done.returncode == 1 and "warning: cannot see what is on node two: cannot reach" in done.stderr
    living.two.up()


def test_stop_removes_all_that_a_dead_placed_launch_has_left(placed: Placed) -> None:
    Dead(placed)
    done = placed.command("stop", "a")
    assert done.returncode == 0, done.stderr
    assert (placed.two.containers(), placed.two.networks(), placed.fake.services()) == ([], [], [])


class Working(Placed):
    """The same, with --cwd of a repository, and a folder that stands for the bottle's workspace."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.words.insert(-1, "--cwd")
        self.inside = folder / "inside"
        begin_work(self, self.inside)

    def works(self) -> list[str]:
        return git(self.cwd, "for-each-ref", "--format=%(refname:short)", "refs/heads/claude-bottle").split()


def test_the_work_of_a_placed_bottle_is_brought_from_its_node(tmp_path: Path) -> None:
    placed = Working(tmp_path)
    child = placed.in_session()
    for number, word in enumerate(("a", PLACED, f"two/{PLACED}"), 1):
        write(placed.inside, a=f"{number + 1}\n")
        done = placed.command("bring", word)
        assert (done.returncode, len(placed.works())) == (0, number), done.stderr
    placed.node("two", state="down")
    done = placed.command("bring", "a")
    assert done.returncode == 1 and "warning: no work comes home from node two: node 'two' is down\n" in done.stderr
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert placed.left() == [], err


def test_work_that_a_node_keeps_is_brought_from_there_when_its_seat_is_gone(tmp_path: Path) -> None:
    placed = Working(tmp_path)
    who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"
    placed.fake.session(f"cd '{placed.inside}'; {who}; echo two >a; {EVIL}")
    placed.fake.fault("agent read#1: no space left on device")
    _, err = placed.end()
    (box,) = placed.two.containers()
    assert placed.fake.services() == [] and box["name"].startswith("claude-bottle-kept.a."), err
    assert "(that container is at context 'two')" in err
    git(placed.inside, "update-ref", "-d", "refs/heads/evil")
    done = placed.command("bring", "a")
    assert (done.returncode, placed.left()) == (0, []), done.stderr


def test_cleanup_offers_what_is_on_nodes_and_removes_it_before_the_seat(living: Placed) -> None:
    with closing(Terminal([*living.program, "cleanup"], living.cwd, living.env)) as asked:
        asked.until("remove all of the above? [y/N] ")
        asked.type("y\n")
        assert asked.wait() == 0, asked.said
    assert (living.two.containers(), living.two.networks(), living.fake.services()) == ([], [], [])


def test_images_are_built_on_every_node_with_the_seats_name(placed: Placed) -> None:
    done = placed.command("build", "--place")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "building on node" in line]
    assert said == ["claude-bottle: building on node one", "claude-bottle: building on node two"]
    for engine in (placed.fake, placed.two):
        assert {"claude-bottle:latest", seat.IMAGE} <= names(engine)
    placed.two.down()
    done = placed.command("build", "--place")
    assert done.returncode == 1 and "warning: nothing is built on node two: cannot reach" in done.stderr


def names(engine: FakeEngine) -> set[str]:
    return {image["name"] for image in engine.images()}


def test_what_the_folder_says_of_places_needs_the_users_word(placed: Placed) -> None:
    placed.manifest({})
    folder = {"bottles": {"b": {"place": True, "placement": ["node.role==manager"]}}}
    (placed.cwd / "claude-bottle.json").write_text(json.dumps(folder))
    done = placed.command("start", "-y", "a")
    assert (done.returncode, placed.left()) == (1, [])
    assert "$.bottles.b.place : whether a Swarm chooses the machine: true\n" in done.stderr
    assert '$.bottles.b.placement : which machines a Swarm may choose: ["node.role==manager"]\n' in done.stderr


@pytest.mark.parametrize(
    ("bottle", "words"),
    [
        ({"place": "yes"}, "place must be true or false"),
        ({"placement": "node.role==manager"}, "placement must be an array"),
        ({"placement": ["gpu"]}, "a constraint of Docker Swarm's, such as node.labels.gpu==1"),
        ({"placement": ["node.labels.gpu==1\n--mode"]}, "a constraint of Docker Swarm's, such as node.labels.gpu==1"),
    ],
)
def test_what_is_no_constraint_is_refused(tmp_path: Path, bottle: dict[str, Any], words: str) -> None:
    placed = Placed(tmp_path, bottle)
    done = placed.command("start", "-y", "a")
    assert (done.returncode, placed.left()) == (1, [])
    assert words in done.stderr


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.2", "192.0.2.2"),
        ("192.0.2.2:2377", "192.0.2.2"),
        ("[2001:db8::2]:2377", "[2001:db8::2]"),
        ("2001:db8::2", "[2001:db8::2]"),
        ("0.0.0.0", ""),
        ("127.0.0.1", ""),
        ("", ""),
    ],
)
def test_an_address_that_leads_nowhere_is_none(address: str, host: str) -> None:
    assert nodes._host(address) == host


def test_a_node_without_a_context_is_reached_over_ssh(tmp_path: Path) -> None:
    manager = Engine("/docker", "unix:///x.sock", "default", str(tmp_path), "/keys", "ID", facts=Facts(node=FIRST))
    far = nodes.node_engine(manager, Node(SECOND, "two", nodes.READY, "192.0.2.2"))
    assert (far.host, far.cert_path, far.identity) == ("ssh://192.0.2.2", "", "")
    assert nodes.node_engine(manager, Node(FIRST, "one", nodes.READY, "192.0.2.1")) is manager
