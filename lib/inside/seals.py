"""The seals of a bottle: what its own self-test looks at, and what is said of one that is broken."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, cast, get_args

from claude_bottle.lib import log
from claude_bottle.lib.egress import broker_config
from claude_bottle.lib.egress.credentials import MODEL_HOST, Injection
from claude_bottle.lib.egress.inspection import Watched, plain
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.subnets import agent_address, sidecar_address

PROGRAM = "/usr/local/bin/claude-bottle-seals"
QUIET_SECONDS = 0.25  # how long a start waits for a sign of life; an engine that drops what it gets gives none
PATIENT_SECONDS = 5.0  # how long ``verify`` does
METADATA = "169.254.169.254"  # where clouds hand out credentials
DOCKER0 = "172.17.0.1"
MOST_ADDRESSES = 8  # of the host
_SECONDS = re.compile(r"\d{1,9}\.\d\d", re.ASCII)
_LOCAL = Path("/proc/net/fib_trie")
_FIREWALL = "the engine lets an internal network reach others: do its firewall rules work (iptables, nftables)?"
_SIDECAR = "CLAUDE_BOTTLE_PIPELOCK_IMAGE must be a pipelock of 2.3 that heeds its configuration"
_BROKER = "CLAUDE_BOTTLE_BROKER_IMAGE must be a haproxy of 2.6 or later that heeds its configuration"
_IPV6 = "the engine gives an internal network IPv6: look at its daemon.json"
SECRETS = "secrets"  # looked for from outside, by ``verify`` alone
_HELP = {
    "routes": "the engine has put the bottle on another network too: what starts containers on this engine?",
    "gateway": "the engine gives its host an address on an internal network: it must know the option inhibit_ipv4",
    "egress": _FIREWALL,
    "host": _FIREWALL,
    "metadata": _FIREWALL,
    "sibling": _FIREWALL,
    "names": "the engine's resolver answers the bottle: it does not heed --dns",
    "ipv6": _IPV6,
    "capabilities": "the engine or its runtime does not heed --cap-drop and no-new-privileges",
    "sidecar": _SIDECAR,
    "ports": _SIDECAR,
    "ipv6-literal": _IPV6,
    "numeric": _SIDECAR,
    "sni": _SIDECAR,
    "host-names": _FIREWALL,
    "placeholders": "a credential's variable is the launcher's: take it out of the image's ENV",
    "issuer": f"{_SIDECAR}, and the engine must heed --add-host",
    "broker": _BROKER,
    SECRETS: "what has it there is none of claude-bottle's: is there a program of others between it and the engine?",
}
WITNESS = "witness"  # what can be seen from the bottle's network, seen by our own image
_ALWAYS = ("routes", "gateway", "egress", "host", "metadata", "names", "ipv6", "capabilities", "sidecar")
PLACEHOLDERS, PLACEHOLDER = "placeholders", "placeholder="  # the seal, and how what is told of one begins
OF_VALUES = (PLACEHOLDER, "once=", "folder=")  # how what is told of the session's values begins
_TOLD = {PLACEHOLDERS: (PLACEHOLDER,), "issuer": ("minted=", "own=", "opened="), "broker": ("minted=", "own=")}

Outcome = Literal["held", "silent", "broken"]


def placeholder_names(words: Iterable[str]) -> list[str]:
    """Return the variables of which the program is told what stands for them.

    Args:
        words: see ``credential_words``.
    """
    return [word.split("=")[1] for word in words if word.startswith(PLACEHOLDER)]


def at_launch(told: Collection[str]) -> tuple[str, ...]:
    """Return the names of the seals that a start looks at.

    Args:
        told: see ``credential_words``.
    """
    return _ALWAYS + tuple(name for name, begins in _TOLD.items() if any(word.startswith(begins) for word in told))


@dataclass(frozen=True)
class SelfTest:
    """How closely the seals are looked at.

    Attributes:
        quiet: how long a sign of life is waited for, in seconds.
        siblings: the own networks of other bottles.
        allowed: a listed host for the further probes of ``verify``; without one there are none.
    """

    quiet: float = QUIET_SECONDS
    siblings: tuple[IPv4Network, ...] = ()
    allowed: str = ""

    def words(self, engine: Engine, internal: IPv4Network, egress: IPv4Network, told: Iterable[str]) -> list[str]:
        """Return what the program in the bottle is told: how long, the addresses that it must not reach, and the host.

        Args:
            engine: whose host's own addresses are known where it is this machine.
            internal: the bottle's own network.
            egress: its sidecar's way out.
            told: what it is told of credentials and of the values.
        """
        pairs: list[tuple[str, object]] = [("gateway", internal[1]), ("egress", egress[1]), ("egress", egress[2])]
        pairs += [("host", address) for address in dict.fromkeys([DOCKER0, *host_addresses(engine)])]
        pairs.append(("metadata", METADATA))
        for network in self.siblings:
            pairs += [("sibling", sidecar_address(network)), ("sibling", agent_address(network))]
        more = ["--thorough", self.allowed] if self.allowed else []
        return [str(self.quiet), *(f"{seal}={address}" for seal, address in pairs), *told, *more]


AT_START = SelfTest()


def credential_words(
    credentials: Sequence[Injection], watched: Iterable[Watched], has_moved: bool = False
) -> Iterator[str]:
    """Yield what the program in the bottle is told of credentials: what stands for them, and what their hosts show.

    Args:
        credentials: what the broker puts in.
        watched: what becomes of each host's traffic.
        has_moved: whether the manifest says that the model is elsewhere, so that nothing is asked at its usual place.
    """
    opened = {plain(one.host) for one in watched if one.inspected}
    brokered = sorted({host for each in credentials for host in each.hosts})
    for each in credentials:
        yield f"{PLACEHOLDER}{each.variable}={each.placeholder}"
    for host in brokered:
        granted = [path for each in credentials if host in each.hosts for path in each.paths] or ["/"]
        yield f"{'minted' if host in opened else 'own'}={host}{granted[0].removesuffix('*')}"
    has_model = any(each.variable in broker_config.MODEL_KEYS for each in credentials)
    if not has_model and not has_moved and MODEL_HOST in opened - set(brokered):
        yield f"opened={MODEL_HOST}"
    if credentials:
        yield f"refusal={broker_config.REFUSED}"


@dataclass(frozen=True)
class Probe:
    """What came of looking at one seal.

    Attributes:
        name: of the seal.
        outcome: silent where nobody gave any sign in time, which is as good as held where packets are dropped.
        detail: what was seen.
    """

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Proof:
    """What came of looking at all of them.

    Attributes:
        probes: of each.
        seconds: that it took in the bottle.
        wanted: the names of those that must be among them.
    """

    probes: tuple[Probe, ...]
    seconds: float
    wanted: tuple[str, ...]

    @property
    def broken(self) -> list[Probe]:
        return [probe for probe in self.probes if probe.outcome == "broken"]

    @property
    def holds(self) -> bool:
        """Whether all were looked at, and none is broken."""
        return not self.broken and not self.missing

    @property
    def missing(self) -> list[str]:
        return [name for name in self.wanted if name not in {probe.name for probe in self.probes}]

    def witness(self) -> Probe:
        """Return all of it as one that holds."""
        return Probe(WITNESS, "held", f"seen by our own image: {', '.join(probe.name for probe in self.probes)}")

    def with_probe(self, probe: Probe) -> Proof:
        """Return the same with one more."""
        return replace(self, probes=(*self.probes, probe))

    def require(self) -> None:
        """Tell that all hold.

        Raises:
            BottleError: one is broken, or was not looked at.
        """
        if self.missing:
            raise BottleError(f"the bottle is not sealed: its self-test says nothing of {', '.join(self.missing)}")
        if self.broken:
            first, *others = self.broken
            also = [f"{probe.name}: {probe.detail}" for probe in others]
            raise BottleError(f"the bottle is not sealed: {first.name}: {first.detail}", [_HELP[first.name], *also])
        count = len(self.probes)
        log.log_info(f"sealed: {count} of {count} probes ({self.seconds:.1f} s)")


def at_witness(told: Collection[str]) -> tuple[str, ...]:
    """Return the names of the seals that our own image looks at beside a bottle of another.

    Args:
        told: see ``credential_words``.
    """
    return tuple(name for name in at_launch(told) if name != PLACEHOLDERS)


def proof(said: str, wanted: tuple[str, ...]) -> Proof:
    """Return what the program in the bottle has said.

    Args:
        said: its stdout.
        wanted: see ``Proof``.

    Raises:
        BottleError: that is not what the program says.
    """
    rows = [line.split("\t") for line in said.splitlines()]
    probes = [Probe(row[0], cast(Outcome, row[1]), row[2]) for row in rows if len(row) == 3]
    seconds = [row[1] for row in rows if row[0] == "seconds" and _SECONDS.fullmatch(row[-1])]
    if not seconds or any(probe.outcome not in get_args(Outcome) for probe in probes):
        raise BottleError("the bottle is not sealed: its self-test did not come to an end")
    return Proof(tuple(probes), float(seconds[0]), wanted)


def host_addresses(engine: Engine) -> list[str]:
    """Return some of the addresses of the engine's host, none where they cannot be told."""
    if not engine.is_local or sys.platform != "linux":
        return []
    try:
        lines = _LOCAL.read_text().splitlines()
    except OSError:
        return []
    return list(islice(dict.fromkeys(_local(lines)), MOST_ADDRESSES))


def _local(lines: Sequence[str]) -> Iterator[str]:
    """Yield the kernel's own addresses out of its tree of routes, where each is followed by its kind."""
    for above, line in pairwise(lines):
        if line.split() == ["/32", "host", "LOCAL"]:
            address = above.split()[-1]
            if not IPv4Address(address).is_loopback:
                yield address
