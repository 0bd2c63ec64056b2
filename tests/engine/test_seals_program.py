"""The program that proves a bottle's seals, in a sealed container: what it says, and what becomes of the values."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from claude_bottle.lib.agent import LASTING_FILE, NO_DNS, NO_IPV6, TMPFS, TRUST_DIR, VALUES_FILE
from claude_bottle.lib.docker import HARDENING
from claude_bottle.lib.egress import ca
from claude_bottle.lib.egress.broker_config import REFUSED
from claude_bottle.lib.inside import seals
from claude_bottle.lib.network import SEALED
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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

    def tunnels(self, **hosts: dict[str, object]) -> str:
        """Start one that opens tunnels to hosts of its own, ``.test`` behind each name; return its port."""
        port = str(next(ports))
        there = json.dumps({f"{name}.test": host for name, host in hosts.items()})
        program = (ROOT / "fixtures/broker/sidecar.js").read_text()
        docker("exec", "-d", self.identity, "node", "-e", program, port, there)
        return port

    def prove(
        self,
        port: str,
        *targets: str,
        host: str = "127.0.0.1",
        seconds: int = 20,
        quiet: float = 0.2,
        fed: bytes = b"",
        file: str = FILE,
        variables: tuple[str, ...] = ("IMAGE_TOKEN=",),
    ) -> tuple[int, dict[str, list[str]], str]:
        """Run the program; return its status, what it says of each seal, and its stderr."""
        words = [seals.PROGRAM, file, host, port, str(seconds), str(quiet), *targets]
        status, out, err = self.run("/usr/bin/env", "-i", "PATH=/usr/bin:/bin", *variables, *words, fed=fed)
        return status, {name: rest for name, *rest in (line.split("\t") for line in out.splitlines())}, err


@pytest.fixture(scope="module")
def sealed() -> Iterator[str]:
    # A run that was killed leaves one.
    network = docker("network", "create", "--label", "cb-seals-test", *SEALED, f"cb-seals-{os.getpid()}")
    words = ["--network", network, *NO_DNS, *NO_IPV6, *HARDENING, "--init", "--tmpfs", TMPFS]
    made = docker("run", "-d", *words, "claude-bottle:latest", "sleep", "infinity")
    try:
        docker("cp", str(ROOT / "lib" / "inside" / "seals.pl"), f"{made}:{seals.PROGRAM}")
        docker("exec", "-u", "root", made, "chmod", "755", seals.PROGRAM)
        yield made
    finally:
        docker("rm", "-f", "-v", made)
        docker("network", "rm", network)


@pytest.fixture
def box(sealed: str) -> Iterator[Box]:
    yield Box(sealed)
    docker("exec", sealed, "rm", "-rf", VALUES_FILE, os.path.dirname(LASTING_FILE))


def kept(box: Box, file: str = VALUES_FILE) -> tuple[str, str]:
    """Return what the session, or a command beside it, would find: the file's mode and owner, and what is in it."""
    _, out, _ = box.run("sh", "-c", f"stat -c '%a %U' {file} && cat {file}")
    head, _, rest = out.partition("\n")
    return head, rest


def test_it_waits_for_the_sidecar_and_keeps_the_values_where_all_seals_hold(box: Box) -> None:
    port = box.sidecar("503 x", "503 x", "", f"200 {STRICT}")
    status, found, err = box.prove(port, fed=b"A=1\0B=two\nlines\0")
    assert (status, err) == (0, "")
    assert list(found) == ["routes", "names", "ipv6", "capabilities", "sidecar", "seconds"]
    assert not [rest for rest in found.values() if rest[0] == "broken"], found
    assert kept(box) == ("600 node", "A=1\0B=two\nlines\0")


def test_what_is_not_the_sessions_alone_stays_for_commands_beside_it(box: Box) -> None:
    fed = b"A=1\0B=two\nlines\0=user.name\nAda\0"
    assert box.prove(box.sidecar(f"200 {STRICT}"), "once=B", "folder=/a place", fed=fed)[0] == 0
    assert kept(box, LASTING_FILE) == ("600 node", ".=/a place\0A=1\0=user.name\nAda\0")
    assert kept(box) == ("600 node", fed.decode())


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


FED = b"A=1\0TOKEN=stands-for-it\0"
REFUSES, PASSES, BLOCKS = (
    f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    for status, text in (("403 Forbidden", REFUSED), ("200 OK", "hi"), ("403 Forbidden", "blocked"))
)


def leaf(authority: ca.Authority, *names: str) -> str:
    """Return a certificate for some names, as a sidecar makes one, and its key."""
    signer, key = serialization.load_pem_private_key(authority.key, None), ec.generate_private_key(ec.SECP256R1())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now, pem = datetime.datetime.now(datetime.UTC), serialization.Encoding.PEM
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
        .issuer_name(x509.load_pem_x509_certificate(authority.certificate).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - ca.SKEW)
        .not_valid_after(now + ca.VALID)
        .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
        .sign(signer, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (made.public_bytes(pem) + key.private_bytes(pem, *plain)).decode()


@pytest.fixture(scope="module")
def shown(sealed: str) -> dict[str, str]:
    """What hosts may show to the bottle, whose authority is in the container from now on."""
    own, others = ca.make_authority("own", ["x.test"]), ca.make_authority("others", ["x.test"])
    words = ["sh", "-c", f"mkdir -p {TRUST_DIR} && cat >{TRUST_DIR}/ca.pem"]
    subprocess.run(["docker", "exec", "-i", "-u", "root", sealed, *words], input=own.certificate, check=True)
    return {
        "minted": leaf(own, "x.test", "y.test"),
        "own": own.chain.decode(),
        "others": others.chain.decode(),
        "another name": leaf(own, "z.test"),
        "no TLS": "",
    }


def prove_credentials(
    box: Box, hosts: dict[str, dict[str, object]], *words: str, fed: bytes = FED
) -> dict[str, list[str]]:
    told = ["placeholder=TOKEN=stands-for-it", f"refusal={REFUSED}", *words]
    quiet = 5 if any(word.startswith("opened=") for word in words) else 0.2
    status, found, err = box.prove(box.tunnels(**hosts), *told, quiet=quiet, fed=fed)
    assert (status, err) == (0, ""), err
    return {name: rest for name, rest in found.items() if name in ("placeholders", "issuer", "broker")}


@pytest.mark.parametrize(("word", "shows"), [("minted=x.test/a", "minted"), ("own=x.test/", "own")])
def test_a_host_shows_what_it_must_and_refuses_a_foreign_credential(
    box: Box, shown: dict[str, str], word: str, shows: str
) -> None:
    found = prove_credentials(box, {"x": {"pem": shown[shows], "answer": REFUSES}}, word)
    assert found == {"placeholders": ["held", "of TOKEN"], "issuer": ["held", "x.test"], "broker": ["held", "x.test"]}
    assert kept(box)[1] == FED.decode()


@pytest.mark.parametrize(
    ("word", "shows", "said"),
    [
        ("minted=x.test/", "own", "x.test is not opened: it shows the broker's certificate"),
        ("own=x.test/", "minted", "x.test is opened"),
        ("minted=x.test/", "others", "x.test shows a certificate of others: unable to get local issuer certificate"),
        ("own=x.test/", "others", "x.test shows a certificate of others: unable to get local issuer certificate"),
        ("minted=x.test/", "another name", "x.test shows a certificate of others: hostname mismatch"),
        ("minted=x.test/", "no TLS", "no way to x.test: no TLS"),
        ("own=y.test/", "own", "no way to y.test: 403 Forbidden"),
        ("opened=x.test", "own", "x.test is not opened: it shows the broker's certificate"),
        ("opened=x.test", "others", "x.test shows a certificate of others: unable to get local issuer certificate"),
    ],
)
def test_a_host_that_shows_something_else_gets_no_values(
    box: Box, shown: dict[str, str], word: str, shows: str, said: str
) -> None:
    found = prove_credentials(box, {"x": {"pem": shown[shows], "answer": REFUSES}}, word)
    assert found["issuer"] == ["broken", said]
    assert kept(box) == ("", "")


@pytest.mark.parametrize(
    ("answer", "said"), [(PASSES, "status 200"), (BLOCKS, "status 403"), ("x\r\n\r\n", "nothing"), ("", "nothing")]
)
def test_a_host_that_lets_a_foreign_credential_pass_gets_no_values(
    box: Box, shown: dict[str, str], answer: str, said: str
) -> None:
    found = prove_credentials(box, {"x": {"pem": shown["minted"], "answer": answer}}, "minted=x.test/")
    assert (found["issuer"][0], found["broker"]) == (
        "held",
        ["broken", f"x.test answers a foreign credential with {said}"],
    )
    assert kept(box) == ("", "")


@pytest.mark.parametrize("hosts", [{}, {"y": {"hangs": True}}])
def test_a_host_that_nobody_answers_for_may_be_silent(
    box: Box, shown: dict[str, str], hosts: dict[str, dict[str, object]]
) -> None:
    there = {"x": {"pem": shown["minted"], "answer": REFUSES}, **hosts}
    found = prove_credentials(box, there, "minted=x.test/", "opened=y.test")
    assert (found["issuer"], found["broker"]) == (["silent", "not tried: no way to y.test"], ["held", "x.test"])
    assert kept(box)[1] == FED.decode()


@pytest.mark.parametrize("fed", [b"A=1\0", b"TOKEN=real\0", b"TOKEN=stands-for-it\0TOKEN=real\0", b"TOKEN=\0"])
def test_a_session_that_would_have_another_value_does_not_begin(box: Box, fed: bytes) -> None:
    found = prove_credentials(box, {}, fed=fed)
    assert found["placeholders"] == ["broken", "TOKEN has another value in the session"]
    assert kept(box) == ("", "")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        (("IMAGE_TOKEN==stands-for-it",), ["held", "of TOKEN"]),
        (("IMAGE_TOKEN==real",), ["broken", "TOKEN has another value in the container"]),
        (("IMAGE_TOKEN==",), ["broken", "TOKEN has another value in the container"]),
        ((), ["broken", "nobody says which value TOKEN has in the container"]),
    ],
)
def test_what_the_image_brings_under_a_credentials_name_is_what_stands_for_it(
    box: Box, variables: tuple[str, ...], found: list[str]
) -> None:
    told = ["placeholder=TOKEN=stands-for-it", f"refusal={REFUSED}"]
    assert box.prove(box.tunnels(), *told, fed=FED, variables=variables)[1]["placeholders"] == found


def test_very_many_hosts_are_asked_some_at_a_time(box: Box, shown: dict[str, str]) -> None:
    names = [f"minted=x.test/{number}" for number in range(50)]
    found = prove_credentials(box, {"x": {"pem": shown["minted"], "answer": REFUSES}}, *names, "minted=y.test/")
    assert found["issuer"][0] == "broken" and found["issuer"][1].startswith("no way to y.test")


def test_an_image_without_openssl_says_so(box: Box, shown: dict[str, str]) -> None:
    assert box.run("mv", "/usr/bin/openssl", "/usr/bin/away", user="root")[0] == 0
    try:
        found = prove_credentials(box, {"x": {"pem": shown["own"], "answer": PASSES}}, "minted=x.test/")
    finally:
        box.run("mv", "/usr/bin/away", "/usr/bin/openssl", user="root")
    assert found["issuer"] == found["broker"] == ["silent", "not tried: no openssl in the image"]
