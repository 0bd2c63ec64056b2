"""The sidecar: the only way out of a bottle (shell: lib/pipelock.sh)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from claude_bottle.lib import docker, log, pipelock_hosts
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import ERR, OUT, Talk, Work, attach, one, perform
from claude_bottle.lib.network import Network
from claude_bottle.lib.subnets import sidecar_address
from claude_bottle.lib.teardown.inventory import SIDECAR
from claude_bottle.lib.teardown.journal import Journal

# Nobody can write its configuration into it, it can write nothing itself, and what a bottle asks of it has its bounds.
CONFIG = "/dev/stdin"
CONFINEMENT = ("-i", "--read-only", "--user", "65534:65534")
LIMITS = ("--memory", "512m", "--memory-swap", "512m", "--pids-limit", "256")
HEALTHY_SECONDS = 30.0
LOG_LINES = 8
METRICS_PORTS = ("9091", "9092")
ALIAS = "claude-bottle-pipelock"
SHOWN = 40  # characters of a value that is none
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
fetch_proxy:
  listen: "0.0.0.0:{port}"
  timeout_seconds: 120
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
logging:
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


def pipelock_container_name(slug: str) -> str:
    """Return the sidecar's name (shell: pipelock_container_name)."""
    return f"claude-bottle-pipelock-{slug}"


def pipelock_host(sidecar: str) -> str:
    """Return the host name of a sidecar in its bottle: its own, or its alias where that is too long for one."""
    return sidecar if len(sidecar) <= LONGEST_HOST else ALIAS


def pipelock_proxy_url(sidecar: str, port: str) -> str:
    """Return the proxy's address inside the bottle (shell: pipelock_proxy_url)."""
    return f"http://{pipelock_host(sidecar)}:{port}"


def _items(values: Iterable[str], indent: str) -> str:
    return "".join(f"{indent}- {json.dumps(value, ensure_ascii=False)}\n" for value in values)


def pipelock_yaml(hosts: Sequence[str], ssh_hosts: Sequence[str], port: str, listed: Sequence[str] = ()) -> str:
    """Return the sidecar's configuration (shell: pipelock_write_yaml; contract section 8).

    Args:
        hosts: the effective allowlist, sorted.
        ssh_hosts: the ``Hostname`` of each ssh entry.
        port: where it listens.
        listed: the hosts of the bottle's own allowlist.
    """
    names = pipelock_hosts.trusted_names(listed, ssh_hosts)
    addresses = pipelock_hosts.trusted_addresses(listed, ssh_hosts)
    text = "mode: strict\nenforce: true\napi_allowlist:\n" + _items(hosts, "  ")
    if names:
        text += "trusted_domains:\n" + _items(names, "  ")
    if addresses:
        text += "ssrf:\n  ip_allowlist:\n" + _items(addresses, "    ")
    metrics = next(other for other in METRICS_PORTS if other != str(int(port)))
    return text + _LIMITS.format(port=port, metrics=metrics, exclusions=_exclusions(hosts))


def _exclusions(hosts: Sequence[str]) -> str:
    excluded = pipelock_hosts.random_looking(hosts)
    return "    subdomain_entropy_exclusions:\n" + _items(excluded, "      ") if excluded else ""


def pipelock_create(
    engine: Engine, journal: Journal, slug: str, network: Network, image: str, port: str
) -> Work[tuple[str, str]]:
    """Create the sidecar under the first free name; it comes to its name and its id.

    Raises:
        BottleError: docker refused, the image cannot be had, or every name is taken.
        Interrupted: a signal stopped the fetching of the image.
    """
    words = ["--network", network.identity, "--ip", sidecar_address(network.subnet), "--network-alias", ALIAS]
    words += [*CONFINEMENT, *LIMITS, "--pull", "never", image, "run", "--config", CONFIG, "--listen", f"0.0.0.0:{port}"]
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
    call = engine.call(words, stdin=[log.encode(yaml)], interruptible=True)
    talk, started = yield from docker.start(lambda: attach(call))
    watch = Watch(engine, sidecar, talk)
    if not started.ok:
        state = yield engine.question(_state(sidecar))
        raise (
            watch.stopped()
            if state.text == "exited"
            else DockerError(f"pipelock: docker start failed: {started.failure}")
        )
    return watch


def _state(sidecar: str) -> list[str]:
    return ["container", "inspect", "--format", "{{.State.Status}}", sidecar]


class Watch:
    """Notices the end of the sidecar, by the client that is attached to it.

    Args:
        engine: to ask.
        sidecar: its id.
        talk: with the client.
    """

    def __init__(self, engine: Engine, sidecar: str, talk: Talk) -> None:
        self._engine, self._sidecar, self._talk = engine, sidecar, talk
        self._ended: bool | None = None

    @property
    def is_alone(self) -> bool:
        """Whether its client has ended, for whatever reason."""
        return self._talk.ended

    def stopped(self) -> DockerError:
        """Return the error for a sidecar that has ended before there was a session, with its last words."""
        return DockerError("pipelock: the sidecar stopped right after its start", self._last_words())

    def not_healthy(self) -> DockerError:
        """Return the error for a sidecar that runs and does not answer."""
        reason = f"pipelock: the sidecar is not healthy after {HEALTHY_SECONDS:.0f} s"
        return DockerError(reason, self._last_words())

    def _last_words(self) -> list[str]:
        said = self._talk.said(OUT) + b"\n" + self._talk.said(ERR)
        return run.decode(said).strip().splitlines()[-LOG_LINES:]

    def has_ended(self) -> bool:
        """Say whether the sidecar runs no more; an engine that gives no answer is no proof."""
        if self._ended is None and self.is_alone:
            look = perform(one(self._engine.call(_state(self._sidecar), seconds=run.QUERY_SECONDS)))
            self._ended = look.text in ("exited", "dead", "removing") if look.ok else "No such" in look.failure
        return bool(self._ended)

    def look_again(self) -> bool:
        """Say the same after a look of now, whatever an earlier one said."""
        self._ended = self._ended or None
        return self.has_ended()
