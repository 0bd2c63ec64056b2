"""The sidecar: the only way out of a bottle (shell: lib/pipelock.sh)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from claude_bottle.lib import docker, log
from claude_bottle.lib.egress import pipelock_hosts, pipelock_traffic
from claude_bottle.lib.egress.ca import Authority
from claude_bottle.lib.egress.credentials import MODEL_HOST
from claude_bottle.lib.egress.inspection import Watched
from claude_bottle.lib.egress.pipelock_traffic import MIB, MOST_RECEIVED, MOST_SENT, items
from claude_bottle.lib.egress.refused import Refused
from claude_bottle.lib.egress.watch import Watch, state_words
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.files.copying import copy_in
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import OUT, Work, attach, catch_up
from claude_bottle.lib.network import Network
from claude_bottle.lib.subnets import sidecar_address
from claude_bottle.lib.teardown.inventory import SIDECAR, owner_label
from claude_bottle.lib.teardown.journal import Journal

# Nobody can write its configuration into it, it can write nothing itself, and what a bottle asks of it has its bounds.
CONFIG = "/dev/stdin"
CONFINEMENT = ("-i", "--read-only", "--user", "65534:65534")
# A volume without a name: the one place in it that a file can be put into, and gone with the container. Its label
# finds it where somebody else has removed that.
AUTHORITY_FOLDER = "/run/claude-bottle"
AUTHORITY = f"type=volume,destination={AUTHORITY_FOLDER}"
AUTHORITY_SETTING = ("-e", f"SSL_CERT_DIR=/etc/ssl/certs:{AUTHORITY_FOLDER}")
USER = 65534
# The image's own look at its health is by loopback, where this one does not listen.
LIMITS = ("--pids-limit", "256", "--no-healthcheck")
LOG = ("--log-driver", "json-file", "--log-opt", "max-size=5m", "--log-opt", "max-file=2")
MEMORY, MEMORY_THAT_OPENS = 512 * MIB, 2048 * MIB  # what is looked into is held there, several times over
HEALTHY_SECONDS = 30.0
METRICS_PORTS = ("9091", "9092")
ALIAS = "claude-bottle-pipelock"
SHOWN = 40  # characters of a value that is none
UNHEALTHY = "the sidecar does not answer"  # in the words of the program that proves the seals
LONGEST_HOST = 63  # a label of a host name; nothing resolves a longer one

# Each key beyond the contract's is in docs/differences.md with its reason.
_LIMITS = """\
forward_proxy:
  enabled: true
  max_tunnel_seconds: 14400
  idle_timeout_seconds: 14400
  sni_verification: true
dlp:
  include_defaults: true
  scan_env: true
{patterns}fetch_proxy:
  listen: "0.0.0.0:{port}"
  timeout_seconds: {seconds}
  max_response_mb: 50
  monitoring:
    max_url_length: 4096
    entropy_threshold: 4.5
    subdomain_entropy_threshold: 4.0
{exclusions}    max_requests_per_minute: 1200
    max_data_per_minute: 0
response_scanning:
  enabled: true
  action: warn
  sse_streaming:
    enabled: true
    action: warn
{sse}logging:
  format: json
  output: stdout
sentry:
  enabled: false
metrics_listen: "127.0.0.1:{metrics}"
"""


def pipelock_check_port(port: str) -> None:
    """Fail unless the sidecar can listen there.

    Raises:
        BottleError: not a port number.
    """
    # The length first: thousands of digits are no number to the interpreter, and nothing to print.
    if not (len(port) <= 5 and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        shown = port if len(port) <= SHOWN else f"{port[:SHOWN]}..."
        raise BottleError(f"CLAUDE_BOTTLE_PIPELOCK_PORT must be a port number from 1 to 65535, not '{shown}'")


def pipelock_memory(opens: bool) -> int:
    """Return the bytes that a sidecar may use.

    Args:
        opens: whether it looks into traffic.
    """
    return MEMORY_THAT_OPENS if opens else MEMORY


def pipelock_container_name(slug: str) -> str:
    """Return the sidecar's name (shell: pipelock_container_name)."""
    return f"claude-bottle-pipelock-{slug}"


def pipelock_host(sidecar: str) -> str:
    """Return the host name of a sidecar in its bottle: its own, or its alias where that is too long for one."""
    return sidecar if len(sidecar) <= LONGEST_HOST else ALIAS


def pipelock_proxy_url(sidecar: str, port: str) -> str:
    """Return the proxy's address inside the bottle (shell: pipelock_proxy_url)."""
    return f"http://{pipelock_host(sidecar)}:{port}"


def pipelock_answered(done: run.Result, watch: Watch, what: str) -> str:
    """Return what a self-test says that has asked the sidecar.

    Args:
        done: how it ended.
        watch: notices the sidecar's end.
        what: begins the error line.

    Raises:
        BottleError: docker refused, or the sidecar does not answer.
    """
    if done.ok:
        return done.text
    if watch.is_alone:
        raise watch.stopped()
    if UNHEALTHY in done.failure:
        raise watch.not_healthy(HEALTHY_SECONDS)
    raise DockerError(f"{what} failed: {done.failure}")


def pipelock_yaml(
    hosts: Sequence[str],
    ssh_hosts: Sequence[str],
    port: str,
    listed: Sequence[str] = (),
    watched: Sequence[Watched] = (),
    brokered: Sequence[str] = (),
    dlp: str = "warn",
    models: Collection[str] = (MODEL_HOST,),
) -> str:
    """Return the sidecar's configuration (shell: pipelock_write_yaml; contract section 8).

    Args:
        hosts: the effective allowlist, sorted.
        ssh_hosts: the ``Hostname`` of each ssh entry.
        port: where it listens.
        listed: the hosts of the bottle's own allowlist.
        watched: what becomes of each host's traffic.
        brokered: the hosts that lead to the broker, on loopback.
        dlp: what becomes of a secret in it: ``warn`` or ``block``.
        models: the hosts that the model answers at.
    """
    names = sorted({*pipelock_hosts.trusted_names(listed, ssh_hosts), *brokered})
    addresses = pipelock_hosts.trusted_addresses(listed, ssh_hosts)
    text = "mode: strict\nenforce: true\napi_allowlist:\n" + items(hosts, "  ")
    if names:
        text += "trusted_domains:\n" + items(names, "  ")
    if addresses:
        text += "ssrf:\n  ip_allowlist:\n" + items(addresses, "    ")
    metrics = next(other for other in METRICS_PORTS if other != str(int(port)))
    opened = any(each.inspected for each in watched)
    seconds, sse = (600, "    max_event_bytes: 1048576\n") if opened else (120, "")
    patterns, exclusions = pipelock_traffic.patterns(dlp) if opened else "", _exclusions(hosts)
    text += _LIMITS.format(
        port=port, metrics=metrics, exclusions=exclusions, patterns=patterns, seconds=seconds, sse=sse
    )
    return text + (pipelock_traffic.opened(watched, dlp, AUTHORITY_FOLDER, models) if opened else "")


def _exclusions(hosts: Sequence[str]) -> str:
    excluded = pipelock_hosts.random_looking(hosts)
    return "    subdomain_entropy_exclusions:\n" + items(excluded, "      ") if excluded else ""


def pipelock_create(
    engine: Engine,
    journal: Journal,
    slug: str,
    network: Network,
    image: str,
    port: str,
    brokered: Mapping[str, str],
    opens: bool,
) -> Work[tuple[str, str]]:
    """Create the sidecar under the first free name; it comes to its name and its id.

    Args:
        engine: to ask.
        journal: of the launch.
        slug: of the agent.
        network: the bottle's own; it listens there alone, so that no name that leads to loopback leads to it.
        image: that it runs.
        port: where it listens.
        brokered: the addresses of hosts that lead to the broker.
        opens: it looks into some host's traffic, which takes memory.

    Raises:
        BottleError: docker refused, the image cannot be had, or every name is taken.
        Interrupted: a signal stopped the fetching of the image.
    """
    address, memory = sidecar_address(network.subnet), str(pipelock_memory(opens))
    words = ["--network", network.identity, "--ip", address, "--network-alias", ALIAS]
    volume = f"{AUTHORITY},volume-label={owner_label(journal.owner.launch)}"
    words += [
        "--mount",
        volume,
        *AUTHORITY_SETTING,
        *(word for host, at in brokered.items() for word in ("--add-host", f"{host}:{at}")),
    ]
    words += [*CONFINEMENT, *LIMITS, "--memory", memory, "--memory-swap", memory, *LOG, "--pull", "never"]
    words += [image, "run", "--config", CONFIG, "--listen", f"{address}:{port}"]
    for name in docker.container_names(pipelock_container_name(slug)):
        made = yield from docker.create_container(engine, journal, slug, SIDECAR, name, words)
        if docker.has_no_image(made):
            yield from _pull(engine, image)
            made = yield from docker.create_container(engine, journal, slug, SIDECAR, name, words)
        if docker.is_name_conflict(made):
            continue
        log.log_info(f"starting pipelock {name}")
        if made.ok:
            return name, made.text.strip()
        raise DockerError(f"pipelock: docker create failed: {made.failure}")
    raise AssertionError("container_names ends with an error")


def pipelock_give_authority(engine: Engine, sidecar: str, authority: Authority) -> Work[None]:
    """Put the bottle's authority into the sidecar, its key for it alone.

    Args:
        engine: to ask.
        sidecar: its id; it does not run yet.
        authority: the bottle's.

    Raises:
        BottleError: docker refused.
    """
    files = {"ca.pem": authority.certificate, "ca-key.pem": authority.key}
    pieces = chain(*(tarstream.member(name, data, 0o400, USER) for name, data in files.items()))
    yield from copy_in(engine, "pipelock: docker cp", sidecar, pieces, folder=AUTHORITY_FOLDER)


def _pull(engine: Engine, image: str) -> Work[None]:
    """Fetch the sidecar's image; docker shows its progress."""
    log.log_info(f"pulling image {image}")
    result = yield engine.call(["pull", image], shown=(OUT,))
    if not result.ok:
        raise DockerError(f"pipelock: docker create failed: {result.failure}")


def pipelock_start(engine: Engine, sidecar: str, egress: Network, yaml: str) -> Work[Watch]:
    """Connect and start the sidecar, with its configuration on stdin; it comes to who notices its end.

    The client stays attached. The sidecar's first word says that it runs, not that it listens already.

    Args:
        engine: to ask.
        sidecar: its id.
        egress: the egress network.
        yaml: its configuration.

    Raises:
        DockerError: docker refused.
    """
    connect = ["network", "connect", "--ip", sidecar_address(egress.subnet), egress.identity, sidecar]
    yield from docker.docker_step(engine, "pipelock: docker network connect", connect)
    words = ["start", "-ai", sidecar]
    fed, refused = [log.encode(yaml)], Refused({"sent": MOST_SENT // MIB, "received": MOST_RECEIVED // MIB})
    call = engine.call(words, stdin=fed, interruptible=True, heard=refused.hear)
    talk, started = yield from docker.start(lambda: attach(call))
    watch = Watch(engine, sidecar, talk, "pipelock: the sidecar", "nothing gets out of the bottle any more", refused)
    if not started.ok:
        state = yield engine.question(state_words(sidecar))
        raise (
            watch.stopped()
            if state.text == "exited"
            else DockerError(f"pipelock: docker start failed: {started.failure}")
        )
    return watch


def say_refused(watch: Watch, bottle: str) -> None:
    """Tell what was denied, and what was refused for its size.

    Args:
        watch: the sidecar's.
        bottle: the manifest's name of the agent's, empty where it has none.
    """
    catch_up()
    for line in (*watch.refused.denied(bottle), *watch.refused.lines()):
        log.log_info(line)
