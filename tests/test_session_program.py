"""What a session's first process gives its words: trust, git's settings, Java's. Run here, below a root of its own."""

from __future__ import annotations

import json
import os
import signal
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from claude_bottle.lib.egress.ca import make_authority
from claude_bottle.lib.egress.credentials import Injection, git_helpers
from claude_bottle.lib.env_resolve import Secrets

from tests.conftest import ROOT

BUNDLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
)
ROOTS = "etc/ssl/certs/ca-certificates.crt"
OTHER_ROOTS = ("etc/ssl/cert.pem", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem")
SHOW = (sys.executable, "-ISc", "import json, os; print(json.dumps(dict(os.environ)))")
IMAGE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "NO_PROXY": "localhost,127.0.0.1", "HTTPS_PROXY": "http://side:8888"}


@pytest.fixture(scope="session")
def certificates() -> list[str]:
    """The bottle's own, and three others."""
    return [make_authority(f"number-{number}", []).certificate.decode() for number in range(4)]


class Bottle:
    """A folder that stands for a bottle's root.

    Args:
        root: an empty folder.
        authority: its certificate, as PEM.
    """

    def __init__(self, root: Path, authority: str) -> None:
        self.root, self.values = root, root / "run" / "environ"
        self.program = self.write(
            "session", (ROOT / "lib" / "inside" / "session.pl").read_text().replace("/etc/", f"{root}/etc/")
        )
        self.program.chmod(0o755)
        self.write("etc/claude-bottle/ca.pem", authority)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def tool(self, name: str) -> dict[str, str]:
        """Return the environment in which a program is on the path."""
        self.write(f"bin/{name}", "").chmod(0o755)
        return {**IMAGE, "PATH": f"{self.root}/bin:{IMAGE['PATH']}"}

    def run(self, image: Mapping[str, str], payload: bytes, words: Sequence[str], stdin: str = "") -> str:
        self.write("run/environ", "")
        self.values.write_bytes(payload)
        done = subprocess.run(
            [self.program, self.values, *words],
            cwd=self.root,
            env={"HOME": str(self.root), **image},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        assert not self.values.exists()
        return done.stdout

    def environ(
        self, values: Mapping[str, str] | None = None, image: Mapping[str, str] = IMAGE, **more: str
    ) -> dict[str, str]:
        """Return the environment of a session with these values, in an image with that environment."""
        payload = "".join(f"{name}={value}\0" for name, value in (values or {}).items()).encode()
        made: dict[str, str] = json.loads(self.run({**image, **more}, payload, SHOW))
        return made


@pytest.fixture
def bottle(tmp_path: Path, certificates: list[str]) -> Bottle:
    return Bottle(tmp_path, certificates[0])


def blocks(file: str) -> list[str]:
    """Return the certificates in a file, each as it was written."""
    text = Path(file).read_text()
    end = "-----END CERTIFICATE-----\n"
    return [f"{block.lstrip()}{end}" for block in text.split(end) if block.strip()]


@pytest.mark.parametrize("place", [ROOTS, *OTHER_ROOTS])
def test_every_client_trusts_the_authority_beside_the_images_roots(
    bottle: Bottle, certificates: list[str], place: str
) -> None:
    bottle.write(place, certificates[1] + certificates[2].rstrip())
    seen = bottle.environ()
    own, *roots = certificates[:3]
    assert {name: blocks(seen[name]) for name in BUNDLES} == {name: [*roots, own] for name in BUNDLES}
    assert blocks(seen["NODE_EXTRA_CA_CERTS"]) == blocks(seen["DENO_CERT"]) == [own]
    assert seen["NODE_USE_ENV_PROXY"] == "1"
    trusting = ssl.create_default_context(cafile=seen["SSL_CERT_FILE"])
    assert trusting.cert_store_stats()["x509_ca"] == 3


def test_an_image_without_roots_leaves_its_clients_their_own(bottle: Bottle, certificates: list[str]) -> None:
    bottle.write(ROOTS, "")
    seen = bottle.environ()
    assert [name for name in BUNDLES if name in seen] == []
    assert blocks(seen["NODE_EXTRA_CA_CERTS"]) == blocks(seen["DENO_CERT"]) == [certificates[0]]


@pytest.mark.parametrize("name", [*BUNDLES, "DENO_CERT"])
@pytest.mark.parametrize("roots", [True, False])
def test_a_file_that_manifest_or_image_name_gets_the_authority_too(
    bottle: Bottle, certificates: list[str], name: str, roots: bool
) -> None:
    if roots:
        bottle.write(ROOTS, certificates[1])
    theirs = str(bottle.write("their own.pem", certificates[2].rstrip()))
    for values, image in (({name: theirs}, IMAGE), ({}, {**IMAGE, name: theirs}), ({name: theirs}, {name: "/none"})):
        assert blocks(bottle.environ(values, {**IMAGE, **image})[name]) == [certificates[2], certificates[0]]


def test_two_files_that_are_named_are_two(bottle: Bottle, certificates: list[str]) -> None:
    one, other = (str(bottle.write(name, certificates[2 + at])) for at, name in enumerate(("a/b.pem", "a_b.pem")))
    seen = bottle.environ({"SSL_CERT_FILE": one, "PIP_CERT": other, "CURL_CA_BUNDLE": one})
    assert seen["SSL_CERT_FILE"] == seen["CURL_CA_BUNDLE"] != seen["PIP_CERT"]
    assert [blocks(seen[name])[0] for name in ("SSL_CERT_FILE", "PIP_CERT")] == certificates[2:4]


@pytest.mark.parametrize("word", ["", "their.pem", "/none/of/them.pem", "/"])
def test_what_names_no_file_stays_as_it_was_said(bottle: Bottle, certificates: list[str], word: str) -> None:
    bottle.write(ROOTS, certificates[1])
    bottle.write("their.pem", certificates[2])
    seen = bottle.environ({"SSL_CERT_FILE": word}, PIP_CERT=word)
    assert seen["SSL_CERT_FILE"] == seen["PIP_CERT"] == word
    assert len(blocks(seen["CURL_CA_BUNDLE"])) == 2


@pytest.mark.parametrize("there", [True, False])
def test_what_node_is_to_trust_is_added_for_everybody(bottle: Bottle, certificates: list[str], there: bool) -> None:
    bottle.write(ROOTS, certificates[1])
    theirs = str(bottle.write("theirs.pem", certificates[2]) if there else bottle.root)
    seen = bottle.environ({"NODE_EXTRA_CA_CERTS": theirs})
    more = certificates[2:3] if there else []
    assert blocks(seen["NODE_EXTRA_CA_CERTS"]) == [certificates[0], *more]
    assert blocks(seen["SSL_CERT_FILE"]) == [certificates[1], certificates[0], *more]


def test_what_is_there_already_is_not_added_again(bottle: Bottle, certificates: list[str]) -> None:
    seen = bottle.environ(NODE_EXTRA_CA_CERTS=str(bottle.write(ROOTS, certificates[1])))
    assert blocks(seen["SSL_CERT_FILE"]) == [certificates[1], certificates[0]]


def settings(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    count = int(environ["GIT_CONFIG_COUNT"])
    return [(environ[f"GIT_CONFIG_KEY_{at}"], environ[f"GIT_CONFIG_VALUE_{at}"]) for at in range(count)]


HTTP = ("http.version", "HTTP/1.1")
THEIRS = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ada"}


def test_git_is_kept_from_http_2_behind_what_it_is_told_in_the_same_way(bottle: Bottle) -> None:
    assert settings(bottle.environ()) == settings(bottle.environ(GIT_CONFIG_COUNT="")) == [HTTP]
    assert settings(bottle.environ(THEIRS)) == [("user.name", "Ada"), HTTP]
    assert settings(bottle.environ(image={**IMAGE, **THEIRS})) == [("user.name", "Ada"), HTTP]
    wrong = bottle.environ({"GIT_CONFIG_COUNT": "many"})
    assert wrong["GIT_CONFIG_COUNT"] == "many" and "GIT_CONFIG_KEY_0" not in wrong


def git(bottle: Bottle, payload: bytes, *words: str, stdin: str = "") -> list[str]:
    image = {**IMAGE, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", **THEIRS}
    return bottle.run(image, payload, ("git", *words), stdin).splitlines()


def payload(*injections: Injection) -> bytes:
    secrets = Secrets()
    for injection in injections:
        secrets.inject(injection, "the-real-value")
    return secrets.payload()


def asked(bottle: Bottle, fed: bytes, url: str) -> list[str]:
    said = git(bottle, fed, "credential", "fill", stdin=f"url={url}\n\n")
    return [line for line in said if line.startswith(("username", "password"))]


def test_git_answers_with_the_placeholder_and_goes_on_with_the_users_own_settings(bottle: Bottle) -> None:
    fed = payload(
        Injection("GITHUB_TOKEN", "ghp_abcdef", ("api.github.com", "github.com")),
        Injection("VAULT", "bottle-placeholder-vault", ("vault.example",), scheme="basic", user="o'neil $x"),
        Injection("FORGE", "bottle-placeholder-forge", ("forge.example",), scheme="token"),
    )
    assert b"the-real-value" not in fed
    bottle.write(
        ".gitconfig", '[user]\n\temail = ada@example.org\n[credential "https://own.example"]\n\thelper = mine\n'
    )
    assert asked(bottle, fed, "https://github.com/a/b.git") == ["username=x-access-token", "password=ghp_abcdef"]
    assert asked(bottle, fed, "https://vault.example/") == ["username=o'neil $x", "password=bottle-placeholder-vault"]
    listed = git(bottle, fed, "config", "--list")
    assert {"user.email=ada@example.org", "user.name=Ada", "http.version=HTTP/1.1"} <= set(listed)
    assert "credential.https://own.example.helper=mine" in listed
    assert [line for line in listed if "forge" in line or "http://" in line] == []
    assert git(bottle, fed, "-c", "http.version=HTTP/2", "config", "http.version") == ["HTTP/2"]
    for verb in ("approve", "reject"):
        entry = "protocol=https\nhost=github.com\nusername=x\npassword=y\n\n"
        assert git(bottle, fed, "credential", verb, stdin=entry) == []


def test_two_credentials_of_a_host_have_their_own_folders(bottle: Bottle) -> None:
    fed = payload(
        Injection("ONE", "placeholder-1", ("forge.example",), ("/one/*", "/one/more/*")),
        Injection("TWO", "placeholder-2", ("forge.example",), ("/two/*",)),
    )
    for folder, number in (("one", 1), ("one/more", 1), ("two", 2)):
        assert asked(bottle, fed, f"https://forge.example/{folder}/x.git")[1] == f"password=placeholder-{number}"


@pytest.mark.parametrize(
    ("paths", "places"),
    [
        ((), ["https://h"]),
        (("/*", "/a/*"), ["https://h", "https://h/a"]),
        (("/a.git/info/refs", "/a.git/git-upload-pack", "/b*"), ["https://h"]),
    ],
)
def test_where_git_gets_the_placeholder(paths: tuple[str, ...], places: list[str]) -> None:
    names = [name for name, _ in git_helpers(Injection("A", "p", ("h",), paths))]
    assert names == [f"credential.{place}.helper" for place in places]
    assert not list(git_helpers(Injection("A", "p", ("h",), paths, header="x-api-key")))


def stored(file: str) -> Iterator[bytes]:
    """Yield the certificates of a Java key store of the kind JKS, reading it as Java does."""
    data, at = Path(file).read_bytes(), 12
    magic, version, count = struct.unpack_from(">III", data)
    assert (magic, version) == (0xFEEDFEED, 2)
    names = set()
    for _ in range(count):
        tag, length = struct.unpack_from(">IH", data, at)
        assert tag == 2  # a certificate that is trusted
        names.add(data[at + 6 : at + 6 + length])
        at += 6 + length + 8  # and when it was made
        (length,) = struct.unpack_from(">H", data, at)
        assert data[at + 2 : at + 2 + length] == b"X.509"
        at += 2 + length
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length
    assert len(names) == count and at + 20 == len(data)


def test_java_trusts_the_same_and_goes_by_the_sidecar(bottle: Bottle, certificates: list[str]) -> None:
    odd = certificates[2].replace("\n", "\r\n") + "".join(
        f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("MAMCAQ==", "MII=", "")
    )
    bottle.write(
        ROOTS, f"# a remark\n{certificates[1]}{odd}{certificates[3].replace('CERTIFICATE', 'TRUSTED CERTIFICATE')}"
    )
    seen = bottle.environ({"JAVA_TOOL_OPTIONS": "-Xmx1g"}, bottle.tool("java"))
    first, *options = seen["JAVA_TOOL_OPTIONS"].split(" ")
    given = dict(option.removeprefix("-D").split("=", 1) for option in options)
    assert first == "-Xmx1g"
    assert list(stored(given.pop("javax.net.ssl.trustStore"))) == [
        ssl.PEM_cert_to_DER_cert(certificates[number]) for number in (1, 2, 0)
    ]
    direct = given.pop("http.nonProxyHosts").split("|")
    assert {"localhost", "127.0.0.1", "127.*", "[::1]", os.uname().nodename} <= set(direct)
    assert given == {f"{kind}.proxy{part}": value for kind in ("http", "https") for part, value in PROXY.items()}


PROXY = {"Host": "side", "Port": "8888"}


def test_what_java_is_told_by_others_is_not_told_otherwise(bottle: Bottle, certificates: list[str]) -> None:
    bottle.write(ROOTS, certificates[1])
    own = "-Dhttps.proxyHost=other -Djavax.net.ssl.trustStore=/their.jks"
    options = bottle.environ(image={**bottle.tool("java"), "JAVA_TOOL_OPTIONS": own})["JAVA_TOOL_OPTIONS"]
    assert options.startswith(f"{own} -Dhttp.proxyHost=side ")
    assert options.count("https.proxyHost") == options.count("trustStore") == 1
    assert not (bottle.root / "run/roots.jks").exists()


def test_java_keeps_its_own_roots_where_the_image_has_none(bottle: Bottle) -> None:
    options = bottle.environ(image=bottle.tool("java"))["JAVA_TOOL_OPTIONS"]
    assert "trustStore" not in options and "-Dhttps.proxyPort=8888" in options


def test_without_java_nothing_is_said_of_it(bottle: Bottle, certificates: list[str]) -> None:
    bottle.write(ROOTS, certificates[1])
    assert "JAVA_TOOL_OPTIONS" not in bottle.environ(PATH=f"{bottle.root}/bin")


def beside(bottle: Bottle, payload: bytes, *words: str, image: Mapping[str, str] = IMAGE) -> subprocess.Popen[str]:
    """Begin a command beside the session, whose mark is ``m``."""
    bottle.write("run/environ", "").write_bytes(payload)
    return subprocess.Popen(
        [bottle.program, "--beside", "m", bottle.values, *words],
        env={"HOME": str(bottle.root), **image},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tell(bottle: Bottle, number: int) -> int:
    return subprocess.run([bottle.program, "--tell", str(number), "m", bottle.values], timeout=30).returncode


def test_a_command_beside_the_session_finds_its_values_again_and_its_folder(bottle: Bottle) -> None:
    own = bottle.write("own tools/tool", f'#!/bin/sh\nexec {sys.executable} -ISc "$1"\n')
    own.chmod(0o755)
    payload = f".={bottle.root}/own tools\0PATH={own.parent}:/usr/bin:/bin\0A=b c\0=user.name\nAda\0".encode()
    show = "import json, os; print(json.dumps([os.getcwd(), dict(os.environ)]))"
    for _ in range(2):
        out, err = beside(bottle, payload, "tool", show).communicate(timeout=30)
        assert err == ""
        folder, seen = json.loads(out)
        assert (folder, seen["A"], seen["GIT_CONFIG_VALUE_1"]) == (str(own.parent), "b c", "Ada")
        assert "." not in seen and bottle.values.exists()
        assert len(blocks(seen["NODE_EXTRA_CA_CERTS"])) == 1
    assert sorted(path.name for path in bottle.values.parent.iterdir()) == ["ca.pem", "environ"]


def test_a_command_in_a_bottle_that_is_not_ready_is_said(bottle: Bottle) -> None:
    child = subprocess.run([bottle.program, "--beside", "m", bottle.values, "true"], capture_output=True, text=True)
    assert child.returncode == 127
    assert child.stderr == "claude-bottle: error: the bottle is not ready: its seals are not proved yet\n"


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("exit 7", 7, ""),
        ("kill -KILL $$", 128 + signal.SIGKILL, ""),
        ("no-such-thing", 127, ""),
        ("trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.1; done", 9, "told\n"),
        ("echo ready; sleep 60 & wait", 128 + signal.SIGTERM, ""),
    ],
)
def test_a_command_beside_ends_as_it_ends_and_hears_signals(
    bottle: Bottle, script: str, status: int, said: str
) -> None:
    with beside(bottle, b"", "/bin/sh", "-c", script) as child:
        assert child.stdout
        if "ready" in script:
            assert child.stdout.readline() == "ready\n"
            assert tell(bottle, signal.SIGTERM) == 0
        assert child.communicate(timeout=30)[0] == said
    assert child.returncode == status
    assert not (bottle.values.parent / "m").exists() and tell(bottle, signal.SIGTERM) == 1


NOTE = "# Your box\n- one line\n"


@pytest.mark.parametrize(
    ("image", "wanted"),
    [(None, NOTE), ("", f"\n{NOTE}"), ("theirs", f"theirs\n\n{NOTE}"), ("theirs\n", f"theirs\n\n{NOTE}")],
)
def test_the_client_reads_what_its_box_is_behind_what_an_image_has(
    bottle: Bottle, image: str | None, wanted: str
) -> None:
    note, folder = bottle.write("etc/claude-bottle/CLAUDE.md", NOTE), bottle.root / ".claude"
    folder.mkdir()
    own = folder / "CLAUDE.md"
    if image is not None:
        own.write_text(image)
    for _ in range(2):
        bottle.environ()
        assert own.read_text() == wanted and note.read_text() == NOTE
    assert own.is_symlink() == (image is None)


def test_it_goes_where_the_session_has_its_configuration_and_not_where_none_is_wanted(bottle: Bottle) -> None:
    (bottle.root / ".claude").mkdir()
    bottle.environ()
    note, other = bottle.write("etc/claude-bottle/CLAUDE.md", NOTE), bottle.root / "other"
    other.mkdir()
    bottle.environ({"CLAUDE_CONFIG_DIR": str(other)})
    assert (other / "CLAUDE.md").readlink() == note and list((bottle.root / ".claude").iterdir()) == []
    bottle.environ({"HOME": str(bottle.root / "absent")})  # a session that has no such folder begins all the same
    assert not (bottle.root / "absent").exists()
    (bottle.root / ".claude" / "CLAUDE.md").mkdir()
    bottle.environ()
    with beside(bottle, b"", "true") as child:
        assert child.communicate(timeout=30) == ("", "")
