"""The program that proves a bottle's seals, in a sealed container: what it says, and what becomes of the values."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from claude_bottle.lib import seals
from claude_bottle.lib.agent import NO_DNS, NO_IPV6, TMPFS, VALUES_FILE
from claude_bottle.lib.docker import HARDENING
from claude_bottle.lib.network import SEALED

from .conftest import ROOT, docker

FILE = VALUES_FILE
STRICT = '{"status":"healthy","mode":"strict"}'
UNLISTED = "it answered a name that is not listed with: status 403"
REFUSAL = "CONNECT blocked: domain not in allowlist: %s\\n"
# Answers each look at its health in turn, the last one again and again, and a tunnel with a text that gets its name.
SIDECAR = r"""
use strict; use warnings; use Socket;
my ($port, $refusal, @answers) = @ARGV;
alarm 120;
socket my $server, PF_INET, SOCK_STREAM, 0;
setsockopt $server, SOL_SOCKET, SO_REUSEADDR, 1;
bind $server, sockaddr_in($port, INADDR_LOOPBACK) or die $!;
listen $server, SOMAXCONN;
my @held;
while (accept my $client, $server) {
    sysread $client, my $asked, 4096;
    if (my ($name) = $asked =~ /^CONNECT (.*):443 /) {
        my $said = sprintf $refusal =~ s/\\n/\n/gr, $name;
        syswrite $client, "HTTP/1.1 403 Forbidden\r\nContent-Length: " . length($said) . "\r\n\r\n$said";
        next;
    }
    my $answer = @answers > 1 ? shift @answers : $answers[0];
    if ($answer eq '') { push @held, $client; next }
    my ($status, $body) = split / /, $answer, 2;
    syswrite $client, "HTTP/1.1 $status X\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
}
"""
ports = itertools.count(20000)
network_numbers = itertools.count(1)


class Box:
    """A sealed container with the program in it.

    Args:
        identity: its id.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def run(self, *words: str, fed: bytes = b"", user: str = "node") -> tuple[int, str, str]:
        command = ["docker", "exec", "-i", "-u", user, self.identity, *words]
        done = subprocess.run(command, input=fed, capture_output=True, timeout=120)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def sidecar(self, *answers: str, refusal: str = REFUSAL) -> str:
        """Start one; return its port."""
        port = str(next(ports))
        docker("exec", "-d", self.identity, "perl", "-e", SIDECAR, port, refusal, *answers)
        return port

    def prove(
        self, port: str, *targets: str, host: str = "127.0.0.1", seconds: int = 20, fed: bytes = b"", file: str = FILE
    ) -> tuple[int, dict[str, list[str]], str]:
        """Run the program; return its status, what it says of each seal, and its stderr."""
        words = [seals.PROGRAM, file, host, port, str(seconds), "0.2", *targets]
        status, out, err = self.run("/usr/bin/env", "-i", "PATH=/usr/bin:/bin", *words, fed=fed)
        return status, {name: rest for name, *rest in (line.split("\t") for line in out.splitlines())}, err


@pytest.fixture(scope="module")
def sealed() -> Iterator[str]:
    network = docker("network", "create", "--label", "cb-seals-test", *SEALED, f"cb-seals-{next(network_numbers)}")
    words = ["--network", network, *NO_DNS, *NO_IPV6, *HARDENING, "--init", "--tmpfs", TMPFS]
    made = docker("run", "-d", *words, "claude-bottle:latest", "sleep", "infinity")
    try:
        docker("cp", str(ROOT / "lib" / "seals.pl"), f"{made}:{seals.PROGRAM}")
        docker("exec", "-u", "root", made, "chmod", "755", seals.PROGRAM)
        yield made
    finally:
        docker("rm", "-f", "-v", made)
        docker("network", "rm", network)


@pytest.fixture
def box(sealed: str) -> Iterator[Box]:
    yield Box(sealed)
    docker("exec", sealed, "rm", "-f", VALUES_FILE)


def kept(box: Box) -> tuple[str, str]:
    """Return what the session would find: the file's mode and owner, and what is in it."""
    _, out, _ = box.run("sh", "-c", f"stat -c '%a %U' {VALUES_FILE} && cat {VALUES_FILE}")
    head, _, rest = out.partition("\n")
    return head, rest


def test_it_waits_for_the_sidecar_and_keeps_the_values_where_all_seals_hold(box: Box) -> None:
    port = box.sidecar("503 x", "503 x", "", f"200 {STRICT}")
    status, found, err = box.prove(port, fed=b"A=1\0B=two\nlines\0")
    assert (status, err) == (0, "")
    assert list(found) == ["routes", "names", "ipv6", "capabilities", "sidecar", "seconds"]
    assert not [rest for rest in found.values() if rest[0] == "broken"], found
    assert kept(box) == ("600 node", "A=1\0B=two\nlines\0")


def test_no_values_make_no_file(box: Box) -> None:
    assert box.prove(box.sidecar(f"200 {STRICT}"))[0] == 0
    assert kept(box) == ("", "")


@pytest.mark.parametrize(
    ("answer", "refusal", "said"),
    [
        ('200 {"status":"healthy","mode":"balanced"}', REFUSAL, "its mode is balanced"),
        ('200 {"status":"healthy"}', REFUSAL, "its mode is unknown"),
        ('200 {"status":"degraded","mode":"strict"}', REFUSAL, "it says that it is degraded"),
        ("200 ok", REFUSAL, "it says that it is nothing"),
        (
            f"200 {STRICT}",
            "CONNECT blocked: DNS failure: %s\\n",
            "it answered a name that is not listed with: status 403",
        ),
        (f"200 {STRICT}", "domain not in allowlist: %s, CONNECT blocked", "it answered a name that is not listed with"),
    ],
)
def test_a_sidecar_that_is_not_what_it_should_be_gets_no_values(box: Box, answer: str, refusal: str, said: str) -> None:
    status, found, _ = box.prove(box.sidecar(answer, refusal=refusal), fed=b"A=secret\0")
    assert status == 0 and found["sidecar"][0] == "broken" and found["sidecar"][1].startswith(said), found
    assert kept(box) == ("", "")


def test_any_sign_of_life_means_reached_and_silence_does_not(box: Box) -> None:
    port = box.sidecar(f"200 {STRICT}")
    targets = ["gateway=127.0.0.1", "metadata=240.0.0.1", "host=203.0.113.1"]  # loopback refuses; no route; nobody
    status, found, _ = box.prove(port, *targets, fed=b"A=secret\0")
    assert (status, found["gateway"]) == (0, ["broken", "tcp 127.0.0.1:22 was refused"])
    assert found["metadata"][0] in ("held", "silent") and found["host"][0] in ("held", "silent")
    assert kept(box) == ("", "") and float(found["seconds"][0]) < 1.5


@pytest.mark.parametrize(
    ("answers", "reason"), [(["503 x"], "status 503"), (["x"], "no HTTP answer"), ([""], "no answer within a second")]
)
def test_a_sidecar_that_is_not_healthy_in_time_is_said(box: Box, answers: Sequence[str], reason: str) -> None:
    port = box.sidecar(*answers)
    said = f"the sidecar does not answer at 127.0.0.1:{port}: {reason}\n"
    assert box.prove(port, seconds=2) == (1, {}, said)


def test_a_sidecar_that_is_not_there_is_said(box: Box) -> None:
    port = str(next(ports))
    said = f"the sidecar does not answer at 127.0.0.1:{port}: Connection refused\n"
    assert box.prove(port, seconds=0) == (1, {}, said)
    status, found, err = box.prove("8888", host="no.name.invalid", seconds=0)
    assert (status, found) == (1, {}) and err.startswith("the sidecar does not answer at no.name.invalid:8888: no ")


@pytest.mark.parametrize("what", ["file", "link", "no folder"])
def test_values_that_cannot_be_kept_are_said_and_overwrite_nothing(box: Box, what: str) -> None:
    values, other = f"/tmp/{what.replace(' ', '-')}", "/tmp/other"
    if what == "file":
        box.run("sh", "-c", f"echo kept >{values}")
    elif what == "link":
        box.run("ln", "-s", other, values)
    else:
        values = "/tmp/nowhere/values"
    status, _, err = box.prove(box.sidecar(f"200 {STRICT}"), fed=b"A=secret\0", file=values)
    reason = "No such file or directory" if what == "no folder" else "File exists"
    assert (status, err) == (1, f"cannot keep the session's values in the bottle: {reason}\n")
    assert box.run("test", "-e", other)[0] == 1 and (what != "file" or box.run("cat", values)[1] == "kept\n")
