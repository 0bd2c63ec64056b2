"""What is looked at on the engine: addresses, images, the ways to more of them, and what is left there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Network, collapse_addresses

from claude_bottle.lib import env, subnets
from claude_bottle.lib.docker import image_context
from claude_bottle.lib.doctor.finding import OK, PROBLEM, WARNING, Finding
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.env import Settings
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.home.record import records
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.teardown import elsewhere, inventory, sweep

SETTING = f"export {env.SUBNET_POOL_VARIABLE}=10.87.0.0/16"
PER_BOTTLE = 2  # subnets
REGISTRY_SECONDS = 10.0
NOWHERE = f"@sha256:{'0' * 64}"  # of an image that nobody has: who answers that is there, and nothing comes
# What a registry says of an image that it does not have, or not for everybody.
_ANSWERS = ("manifest unknown", "not found", "unauthorized", "denied", "no basic auth")


def addresses(engine: Engine, settings: Settings) -> Work[list[Finding]]:
    """Count the free subnets of the block that bottles' networks are cut from."""
    routes = subnets.host_routes(engine)
    try:
        pool = subnets.subnet_pool(settings.subnet_pool, routes)
    except BottleError as problem:
        return [Finding("subnets", PROBLEM, problem.message, SETTING)]
    listed = yield engine.question(["network", "ls", "-q", "--no-trunc"])
    taken = yield from subnets.subnets_of(engine, listed.text.split())
    if not listed.ok:
        return [Finding("subnets", PROBLEM, f"docker network ls failed: {listed.failure}", "docker network ls")]
    total = 1 << (subnets.PREFIX - pool.prefixlen)
    free = total - sum(_share(pool, each) for each in collapse_addresses([*taken, *routes]))
    text = f"{free} of {total} of {pool} are free, for {max(0, free) // PER_BOTTLE} bottles"
    few = PROBLEM if free < PER_BOTTLE else WARNING if free * 10 < total else OK
    return [Finding("subnets", few, text, SETTING if few != OK else "")]


def _share(pool: IPv4Network, taken: IPv4Network) -> int:
    """Return how many subnets of a block a network takes away."""
    if pool.subnet_of(taken):
        return 1 << (subnets.PREFIX - pool.prefixlen)
    return 1 << max(0, subnets.PREFIX - taken.prefixlen) if taken.subnet_of(pool) else 0


def images(engine: Engine, settings: Settings, program: str) -> Work[list[Finding]]:
    """Look for the images that a start needs, and, where one is missing, for the registry that has it."""
    needed = [("base image", _base(), ""), ("bottle's image", settings.image, f"{program} build")]
    needed += [("sidecar's image", settings.pipelock_image, "")]
    own = settings.broker_image != env.DEFAULT_BROKER_IMAGE
    needed += [("broker's image", settings.broker_image, "" if own else f"{program} build")]
    found, missing = list[Finding](), list[str]()
    for check, name, build in needed:
        there = yield engine.question(["image", "inspect", "--format", "{{.Id}}", name])
        if there.ok:
            found.append(Finding(check, OK, name))
        elif build:
            found.append(Finding(check, WARNING, f"{name} is not there: the first start builds it", build))
        else:
            missing.append(name)
            found.append(Finding(check, WARNING, f"{name} is not there: a start pulls it", f"docker pull {name}"))
    return [*found, *(yield from _registries(engine, missing))]


def _base() -> str:
    """Return the image that ours is built on."""
    text = (image_context() / "Dockerfile").read_text("utf-8")
    found = re.search(r"^FROM (\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _registries(engine: Engine, missing: Iterable[str]) -> Work[list[Finding]]:
    """Have the engine ask the registries of images that are not there for one that they do not have."""
    by_host = {registry(name): name for name in missing}
    if not by_host:
        return [Finding("registry", OK, "not asked: all images are there")]
    found = []
    for host, name in by_host.items():
        answer = yield engine.call(
            ["pull", "-q", repository(name) + NOWHERE], seconds=REGISTRY_SECONDS, interruptible=True
        )
        found.append(_answered(host, name, answer.failure or answer.text))
    return found


def _answered(host: str, name: str, said: str) -> Finding:
    line = said.splitlines()[-1].removeprefix("Error response from daemon: ") if said else ""
    if any(word in said for word in _ANSWERS) and "dial tcp" not in said:
        return Finding("registry", OK, f"{host} answers the engine")
    return Finding("registry", PROBLEM, f"{host} does not answer the engine: {line}", f"docker pull {name}")


def registry(image: str) -> str:
    """Return the host of the registry that an image comes from."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def repository(image: str) -> str:
    """Return an image's name without its tag and its digest."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def leftovers(engine: Engine, program: str) -> Work[list[Finding]]:
    """Look for what killed launches have left, on the nodes of a Swarm too."""
    stale = yield from sweep.find_stale(engine, os.environ.get("TMPDIR", ""))
    there = yield from inventory.find(engine, inventory.CONTAINER, [])
    running = sum(item.role == inventory.AGENT for item in there)
    placed = (yield from elsewhere.find_stale(engine)) if engine.facts.manages else []
    every = [*stale, *(item for each in placed for item in (*each.items, each.seat))]
    stale = list({item.identity: item for item in every}.values())  # the manager is a node, too
    if not stale:
        return [Finding("leftovers", OK, f"none; {running} bottle{'s' * (running != 1)} running")]
    away = sorted({f"; on node {each.node} it cannot be seen: {each.problem}" for each in placed if each.problem})
    text = f"{', '.join(_counted(item.kind for item in stale))} of launches that were killed{''.join(away)}"
    return [Finding("leftovers", WARNING, text, f"{program} cleanup --stale")]


def kept_work(program: str) -> list[Finding]:
    """Look for work that could not come home."""
    kept = [record for record in records() if record.kept]
    return [
        Finding(
            "kept work",
            WARNING,
            f"of {each.agent}, from {each.folder}: kept as {each.kept}",
            f"{program} bring {each.agent}",
        )
        for each in kept
    ]


def _counted(kinds: Iterable[str]) -> Iterator[str]:
    every: Collection[str] = list(kinds)
    for kind in sorted(set(every)):
        count = sum(each == kind for each in every)
        yield f"{count} {kind}{'s' * (count > 1)}"
