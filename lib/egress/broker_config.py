"""What the broker is told: where it listens, and what it swaps for whom. Values are in a file beside that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from claude_bottle.lib.egress.credentials import AUTHORIZATION, MODEL_HOST, Injection
from claude_bottle.lib.env import TOKEN_NAME

FOLDER = "/run/broker"
CONFIG = f"{FOLDER}/haproxy.cfg"
CHAIN = f"{FOLDER}/chain.pem"
VALUES = f"{FOLDER}/values"
ROOTS = "/etc/ssl/certs/ca-certificates.crt"
REFUSED = "broker: this credential is not put in here"
FOREIGN = "Bearer claude-bottle-foreign"  # what the self-test tries; nobody is told that this was refused
MODEL_KEYS = (TOKEN_NAME, "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")  # nobody asks the model without one
# Where a request says who sends it: there a foreign one would make a mailbox of the host.
CARRIERS = (
    AUTHORIZATION,
    "api-key",
    "deploy-token",
    "job-token",
    "private-token",
    "x-access-token",
    "x-api-key",
    "x-auth-key",
    "x-auth-token",
    "x-goog-api-key",
    "x-vault-token",
)
# Paths that a server may read as others than the granted one: steps up, empty steps, and what becomes either when it is
# decoded, once more than here too. One encoded slash inside is a name's own.
_WALKS = r"(/|%2f)(\.\.?(/|%2f|;|$)|/|%2f)|%(25)*(2e|5c)|%(25)+2f|[\\]"
MOST_HOSTS = 250
_RESOLVER = 11  # the engine's own is at 127.0.0.11, in every container of a network

# One thread: a bottle's own traffic. No name is looked up in /etc/hosts, where the brokered ones lead back here.
_HEAD = """\
global
  maxconn 256
  nbthread 1
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-server-options ssl-min-ver TLSv1.2
  tune.ssl.cachesize 64
  tune.bufsize 32768
  tune.maxrewrite 16384
  log stdout len 4096 format raw local0
defaults
  mode http
  log global
  log-format '{"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","host":"%[var(txn.host),bytes(0,255),json(utf8s)]",\
"method":"%[var(txn.method),json(utf8s)]","path":"%[var(txn.path),json(utf8s)]",\
"status":%ST,"end":"%ts","in":%U,"out":%B,"ms":%Ta}'
  option http-keep-alive
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  timeout http-request 30s
  timeout tunnel 600s
resolvers engine
  nameserver dns 127.0.0.11:53
  accepted_payload_size 1232
  resolve_retries 3
  timeout resolve 1s
  timeout retry 1s
  hold valid 30s
"""
_RESOLVED = "resolvers engine resolve-prefer ipv4 init-addr none"  # the networks of a bottle have no IPv6


def model_hosts(credentials: Iterable[Injection]) -> set[str]:
    """Return the hosts that the model answers at: the usual one, and where a manifest has moved it.

    Args:
        credentials: what the broker puts in.
    """
    return {MODEL_HOST}.union(*(each.hosts for each in credentials if each.variable in MODEL_KEYS))


def addresses(brokered: Sequence[str]) -> dict[str, str]:
    """Return the loopback address of each brokered host: its own, so that what is not HTTP can be told apart too.

    Not 127.0.0.1: there a brokered name would open what the sidecar listens on. Nor where the engine's resolver
    listens: it would answer any name.

    Args:
        brokered: the hosts, at most MOST_HOSTS.
    """
    free = (number for number in range(2, 255) if number != _RESOLVER)
    return {host: f"127.0.0.{number}" for host, number in zip(brokered, free, strict=False)}


def config(injections: Sequence[Injection], brokered: Sequence[str], tunnels: Mapping[str, Collection[int]]) -> str:
    """Return the broker's configuration.

    Args:
        injections: what is put in.
        brokered: the hosts it is put in for, sorted.
        tunnels: the ports, by brokered host, that are passed through as they are: ssh.
    """
    places = addresses(brokered)
    lines = [*_frontend(injections, places)]
    for number, host in enumerate(brokered):
        lines += _backend(number, host)
        for port in sorted(tunnels.get(host, ())):
            lines += _tunnel(number, host, places[host], port)
    return _HEAD + "\n".join(lines) + "\n"


def values(injections: Sequence[Injection], injected: Mapping[str, str]) -> str:
    """Return the file of values, and of the user names that go with them: the configuration would read into these.

    Args:
        injections: what is put in.
        injected: the real values, by variable.
    """
    users = {_user(each): each.user for each in injections if each.user}
    return "".join(f"{key} {value}\n" for key, value in {**injected, **users}.items())


def _user(injection: Injection) -> str:
    return f"user:{injection.variable}"


def _frontend(injections: Sequence[Injection], places: Mapping[str, str]) -> Iterator[str]:
    yield "frontend bottle"
    for address in places.values():
        yield f"  bind {address}:443 ssl crt {CHAIN} alpn http/1.1"  # h2 makes git's pushes hang
    yield f"  http-request set-log-level silent if {{ req.fhdr(authorization) -m str '{FOREIGN}' }}"
    yield "  http-request set-var(txn.method) method,bytes(0,16)"
    yield "  http-request set-var(txn.path) path,bytes(0,256)"
    yield "  http-request set-var(txn.host) req.fhdr(host),field(1,:),lower"
    yield from _names("known", places)
    yield "  http-request deny deny_status 421 unless known"
    marks = _marks(injections)
    yield from _seen(marks)
    for number, injection in enumerate(injections):
        yield from _swap(number, injection, marks[injection.header])
    for mark in marks.values():
        yield f"  http-request deny deny_status 403 {_said()} if {mark} !{{ var(txn.{mark}) -m found }}"
    for host in sorted({host for each in injections if each.variable in MODEL_KEYS for host in each.hosts}):
        yield (
            f"  http-request deny deny_status 403 {_said()} "
            f"if {{ var(txn.host) -m str {host} }} !{{ var(txn.swap) -m found }}"
        )
    for number, host in enumerate(places):
        yield f"  use_backend host{number} if {{ var(txn.host) -m str {host} }}"


def _said() -> str:
    return f'content-type text/plain string "{REFUSED}"'


def _names(acl: str, hosts: Iterable[str]) -> Iterator[str]:
    """Yield what tells hosts from others, a line for each: haproxy takes 64 words of one."""
    for host in hosts:
        yield f"  acl {acl} var(txn.host) -m str {host}"


def _marks(injections: Sequence[Injection]) -> dict[str, str]:
    """Return, by header that carries a credential, the word for one that does; a variable of it marks it as swapped."""
    headers = sorted({*CARRIERS, *(injection.header for injection in injections)})
    return {header: f"carries{number}" for number, header in enumerate(headers)}


def _seen(marks: Mapping[str, str]) -> Iterator[str]:
    """Yield what is taken down of a request before anything in it is changed."""
    for header, mark in marks.items():
        yield f"  acl {mark} req.fhdr({header}) -m found"
        yield f"  http-request deny deny_status 403 {_said()} if {{ req.fhdr_cnt({header}) gt 1 }}"
    yield f"  acl walks path -m reg -i '{_WALKS}'"
    yield "  http-request set-var(txn.word) req.fhdr(authorization),word(1,' ')"
    yield "  http-request set-var(txn.scheme) var(txn.word),lower"
    yield "  http-request set-var(txn.sent) req.fhdr(authorization),word(2,' ') unless { var(txn.scheme) -m str basic }"
    yield "  http-request set-var(txn.sent) http_auth_pass if { var(txn.scheme) -m str basic }"
    yield "  http-request set-var(txn.user) http_auth_user if { var(txn.scheme) -m str basic }"


def _swap(number: int, injection: Injection, mark: str) -> Iterator[str]:
    """Yield how one credential is put in; its header is marked as swapped, and none is swapped twice."""
    yield from _names(f"host{number}", injection.hosts)
    granted = f"host{number} !{{ var(txn.{mark}) -m found }}"
    if injection.paths:
        for path in injection.paths:
            yield f"  acl path{number} path -m {f'beg {path[:-1]}' if path.endswith('*') else f'str {path}'}"
        granted += f" path{number} !walks"
    sent = "var(txn.sent)" if injection.header == AUTHORIZATION else f"req.fhdr({injection.header})"
    yield f"  acl sent{number} {sent} -m str {injection.placeholder}"
    granted += f" sent{number}"
    if injection.scheme:
        granted += f" {{ var(txn.scheme) -m str {injection.scheme} }}"
    yield f"  http-request set-var(txn.swap) str({injection.variable}) if {granted}"
    mine = f"if {{ var(txn.swap) -m str {injection.variable} }}"
    yield f"  http-request set-var(txn.{mark}) bool(true) {mine}"
    yield f"  http-request set-var(txn.real) str({injection.variable}),map_str({VALUES}) {mine}"
    if injection.header != AUTHORIZATION:
        yield f'  http-request set-header {injection.header} "%[var(txn.real)]" {mine}'
        return
    if injection.user:
        yield f"  http-request set-var(txn.user) str({_user(injection)}),map_str({VALUES}) {mine}"
    basic = "{ var(txn.scheme) -m str basic }"
    yield f"  http-request set-var(txn.pair) var(txn.user),concat(:,txn.real,),base64 {mine} {basic}"
    yield f'  http-request set-header authorization "%[var(txn.word)] %[var(txn.pair)]" {mine} {basic}'
    yield f'  http-request set-header authorization "%[var(txn.word)] %[var(txn.real)]" {mine} !{basic}'


def _backend(number: int, host: str) -> Iterator[str]:
    yield f"backend host{number}"
    yield "  http-reuse safe"
    yield (
        f"  server upstream {host}:443 ssl verify required ca-file {ROOTS} sni str({host}) verifyhost {host} "
        f"alpn h2,http/1.1 {_RESOLVED}"
    )


def _tunnel(number: int, host: str, address: str, port: int) -> Iterator[str]:
    yield f"listen tunnel{number}-{port}"
    yield "  mode tcp"
    yield "  option tcplog"
    yield f"  bind {address}:{port}"
    yield f"  server upstream {host}:{port} {_RESOLVED}"
