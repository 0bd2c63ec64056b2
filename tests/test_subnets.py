"""The subnets of a bottle's networks: which are taken, and who gets one that two want."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

import pytest
from claude_bottle.lib import network, plan, subnets
from claude_bottle.lib.engine import engine_find
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import calls
from claude_bottle.lib.teardown.inventory import Owner
from claude_bottle.lib.teardown.journal import Journal

from tests.sweep import POOL, Run

ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t0108A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0
tun0\t00000080\t0108A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0
br-1\t0000D50A\t00000000\t0001\t0\t0\t0\t00C0FFFF\t0\t0\t0
"""


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.213.0.0/16", "172.16.0.0/12", "192.168.4.0/28", "100.64.0.0/10"])
def test_a_private_block_of_a_usable_size_is_taken(text: str) -> None:
    assert str(subnets.subnet_pool(text, ())) == text


@pytest.mark.parametrize(
    "text", ["8.8.8.0/24", "10.0.0.0/29", "10.0.0.0/7", "10.0.0.1/16", "172.0.0.0/8", "fd00::/64", "many", "10.0.0.0"]
)
def test_any_other_block_is_one_error(text: str) -> None:
    with pytest.raises(BottleError, match=rf"^CLAUDE_BOTTLE_SUBNET_POOL must be a block .* not '{text}'$"):
        subnets.subnet_pool(text, ())


def test_a_block_that_cannot_be_used_is_said_before_the_question(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.env["CLAUDE_BOTTLE_SUBNET_POOL"] = "8.8.8.0/24"
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (1, [])
    assert err.startswith("claude-bottle: error: CLAUDE_BOTTLE_SUBNET_POOL must be")


@pytest.mark.parametrize("prefix", [28, 26, 24])
def test_every_subnet_of_a_block_is_tried_once(prefix: int) -> None:
    pool = IPv4Network(f"10.9.0.0/{prefix}")
    tried = list(subnets.subnets(pool, "a-name", ()))
    assert sorted(tried) == list(pool.subnets(new_prefix=29))


def test_of_a_large_block_some_are_tried_all_over_it() -> None:
    pool = IPv4Network("10.0.0.0/8")
    tried = list(subnets.subnets(pool, "a-name", ()))
    assert len(set(tried)) == subnets.MOST_TRIES
    assert {subnet.network_address.packed[1] >> 7 for subnet in tried} == {0, 1}


def test_what_the_host_reaches_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "route").write_text(ROUTES)
    monkeypatch.setattr(subnets, "_ROUTES", tmp_path / "route")
    routes = subnets.host_routes(engine_find({"PATH": f"{Run(tmp_path / 'run').fake.bin}"}))
    assert routes == (IPv4Network("10.213.0.0/18"),)
    tried = list(subnets.subnets(IPv4Network("10.213.0.0/16"), "a-name", routes))
    assert len(tried) == subnets.MOST_TRIES
    assert not any(subnet.overlaps(IPv4Network("10.213.0.0/18")) for subnet in tried)


def test_a_plan_holds_what_the_host_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "route").write_text(ROUTES)
    monkeypatch.setattr(subnets, "_ROUTES", tmp_path / "route")
    run = Run(tmp_path / "run")
    engine, request = engine_find(run.env), plan.Request("a")
    name = plan.look_for_name(engine, request, run.env)
    planned = plan.make_plan(engine, name, request, run.env, str(run.cwd))
    assert planned.host_routes == (IPv4Network("10.213.0.0/18"),)


@pytest.mark.parametrize("route", ["10.213.0.0/16", "10.0.0.0/8"])
def test_a_block_that_the_host_reaches_as_a_whole_is_one_error(route: str) -> None:
    with pytest.raises(BottleError, match=r"^this machine has a route to all of 10\.213\.0\.0/16$"):
        subnets.subnet_pool("10.213.0.0/16", [IPv4Network(route)])


def test_two_starts_that_race_for_a_name_get_a_network_each(tmp_path: Path) -> None:
    run = Run(tmp_path, same_names=True)  # an engine gives two creates of one moment the same name
    fault = run.fake.fault("internal-network create#2", mode="pause")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    wanted = next(argv for argv in reversed(run.fake.argvs()) if argv[:2] == ["network", "create"])
    assert wanted[-1] == "claude-bottle-net-a-2"
    other = [run.fake.bin / "docker", "network", "create", *wanted[wanted.index("--subnet") :]]
    theirs = subprocess.run(other, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    run.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "creating network claude-bottle-net-a-3\n" in err and "net-a-2" not in err
    assert [net["id"] for net in run.fake.networks() if net["name"] == "claude-bottle-net-a-2"] == [theirs]


def create(run: Run, name: str, subnet: IPv4Network) -> None:
    words = [run.fake.bin / "docker", "network", "create", "--subnet", str(subnet), name]
    subprocess.run(words, check=True, capture_output=True, timeout=30)


def made(run: Run, routes: Collection[IPv4Network] = ()) -> network.Network:
    """Return the internal network of agent ``b``, on a machine with some routes."""
    return calls.perform(
        network.network_create_internal(engine_find(run.env), Journal(Owner("one")), "b", POOL, routes)
    )


NAME = "claude-bottle-net-b"
FIRST, SECOND = islice(subnets.subnets(POOL, NAME, ()), 2)


def test_two_starts_that_see_different_routes_do_not_share_a_name(tmp_path: Path) -> None:
    run = Run(tmp_path, same_names=True)
    create(run, NAME, FIRST)
    assert made(run, [FIRST]).name == f"{NAME}-2"
    assert [net["subnet"] for net in run.fake.networks() if net["name"] == NAME] == [str(FIRST)] != [str(SECOND)]


def test_one_who_sees_a_shorter_route_does_not_share_a_name_either(tmp_path: Path) -> None:
    run = Run(tmp_path, same_names=True)
    create(run, NAME, FIRST)
    assert made(run, [FIRST.supernet()]).name == f"{NAME}-2"
    assert [net["subnet"] for net in run.fake.networks() if net["name"] == NAME] == [str(FIRST)]


def test_a_name_whose_network_another_start_is_making_is_left_to_that(tmp_path: Path) -> None:
    run = Run(tmp_path, same_names=True)
    run.fake.fault(f"internal-network create#1: Error response from daemon: {network.OVERLAP}")  # unseen as yet
    assert made(run).name == f"{NAME}-2"
    assert not [net for net in run.fake.networks() if net["name"] == NAME]


def test_a_name_whose_bridge_is_there_before_its_network_is_left_to_that(tmp_path: Path) -> None:
    assert made(Run(tmp_path, same_names=True), [FIRST]).name == f"{NAME}-2"


@pytest.mark.parametrize("routes", [[], [FIRST]], ids=["internal", "bridged"])
def test_a_name_whose_first_subnet_another_network_has_gets_the_next(
    tmp_path: Path, routes: Collection[IPv4Network]
) -> None:
    run = Run(tmp_path, same_names=True)
    create(run, "somebody-elses", FIRST)
    there = made(run, routes)
    assert (there.name, there.subnet) == (NAME, SECOND)


def test_a_list_of_networks_that_does_not_come_ends_the_start(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.fault(f"internal-network create#1: Error response from daemon: {network.OVERLAP}")
    run.fake.fault("network ls: no answer")
    with pytest.raises(BottleError, match="docker network ls failed: no answer"):
        made(run)


def test_a_network_of_somebody_elses_on_the_subnet_costs_the_next_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    order = subnets.subnets(POOL, "claude-bottle-net-a-2", ())
    taken = [next(order) for _ in range(3)]
    for subnet in taken:
        create(run, f"other-{subnet.network_address}", subnet)
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0 and "creating network claude-bottle-net-a-2\n" in err
    creates = [argv for argv in run.fake.argvs() if argv[:2] == ["network", "create"] and argv[-1].endswith("net-a-2")]
    assert [argv[argv.index("--subnet") + 1] for argv in creates[:3]] == [*map(str, taken)] and len(creates) == 4


def test_a_block_without_room_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.env["CLAUDE_BOTTLE_SUBNET_POOL"] = "192.168.77.0/28"
    create(run, "other", IPv4Network("192.168.76.0/23"))
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "no free subnet for network 'claude-bottle-net-a-2': all of the 2 that were tried are in use" in err
    assert "hint: CLAUDE_BOTTLE_SUBNET_POOL" in err
    assert [name for name in run.leftovers() if name != "other"] == []


def test_the_addresses_are_ours(tmp_path: Path) -> None:
    run = Run(tmp_path)
    _, err = run.begin().communicate(timeout=60)
    argvs = run.fake.argvs()
    nets = {argv[-1]: argv[argv.index("--subnet") + 1] for argv in argvs if argv[:2] == ["network", "create"]}
    internal, egress = (IPv4Network(nets[name]) for name in ("claude-bottle-net-a-2", "claude-bottle-egress-a"))
    with_ip = [argv[argv.index("--ip") + 1] for argv in argvs if "--ip" in argv]
    assert sorted(with_ip) == sorted([str(internal[2]), str(egress[2]), str(internal[3])]), err


@pytest.mark.parametrize("who", ["sidecar", "agent"])
def test_a_container_starts_as_soon_as_the_other_network_of_its_name_is_gone(tmp_path: Path, who: str) -> None:
    run = Run(tmp_path)
    for number in (1, 2):
        run.fake.fault(f"{who} start#{number}: network claude-bottle-net-a-2 is ambiguous (2 matches found on name)")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (0, []), err
    assert "ambiguous" not in err


def test_a_network_whose_name_stays_another_ones_too_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fake.fault("sidecar start: network claude-bottle-net-a-2 is ambiguous (2 matches found on name)")
    child = run.begin()
    _, err = child.communicate(timeout=60)
    assert (child.returncode, run.leftovers()) == (1, [])
    assert "error: pipelock: docker start failed: network claude-bottle-net-a-2 is ambiguous" in err
