"""What a broker swaps, refuses and passes on: the configuration of the project's own, in a real haproxy."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from claude_bottle.lib.egress import broker, broker_config, ca
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER, Injection, model_injection, placeholder
from claude_bottle.lib.egress.refused import Refused
from claude_bottle.lib.files import tarstream

from .conftest import ROOT, docker, until

MODEL = "api.anthropic.com"
VALUES = {
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-real",
    "GITHUB_TOKEN": "real = of: github \\ %[x]",
    "GITLAB_TOKEN": "real-gitlab",
    "REGISTRY": "real:registry" + "." * 4000,
    "API_KEY": "real-api",
    "APP_KEY": "real-app",
}
GITHUB, GITLAB, REGISTRY, API, APP = (placeholder(name) for name in list(VALUES)[1:])
ROBOT = "ro'b,o)t\"#\\@x"
TUNNELS = {"git.test": [22]}
NAME = f"cb-broker-{os.getpid()}"
IMAGE = f"{NAME}:latest"


def injections() -> list[Injection]:
    token = model_injection()
    assert token
    return [
        token,
        Injection("GITHUB_TOKEN", GITHUB, ("api.git.test", "git.test")),
        Injection("GITLAB_TOKEN", GITLAB, ("gitlab.test",), ("/api/v4/*",), header="private-token"),
        Injection("REGISTRY", REGISTRY, ("registry.test",), scheme="basic", user=ROBOT),
        Injection("API_KEY", API, ("metrics.test",), header="api-key"),
        Injection("APP_KEY", APP, ("metrics.test",), header="application-key"),
    ]


HOSTS = sorted({host for each in injections() for host in each.hosts})


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def stream(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            archive.addfile(info, io.BytesIO(text))
    return data.getvalue()


def certificate(folder: Path) -> dict[str, bytes]:
    """Return the upstream's key and certificate: one that the broker is told to trust, for all hosts."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=upstream", "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    return {"key.pem": key.read_bytes(), "cert.pem": cert.read_bytes()}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Yield what asks a broker that runs: by host, path and headers."""
    upstream = certificate(tmp_path_factory.mktemp("upstream"))
    docker("build", "-q", "-t", IMAGE, "-f", str(ROOT / "Dockerfile.broker"), str(ROOT))
    docker("network", "create", "--internal", NAME)
    try:
        aliases = [word for host in HOSTS for word in ("--network-alias", host)]
        up = docker(
            "create", "--network", NAME, *aliases, "--user", "0", "node:22-slim", "node", "/upstream/upstream.js"
        )
        upstream["upstream.js"] = (ROOT / "fixtures/broker/upstream.js").read_bytes()
        files = {f"upstream/{name}": data for name, data in upstream.items()}
        subprocess.run(["docker", "cp", "-", f"{up}:/"], input=stream(files), check=True)
        docker("start", up)
        made = docker("create", "--network", NAME, *broker.CONFINEMENT, *broker.LIMITS, IMAGE, *broker.COMMAND)
        text = broker_config.config(injections(), HOSTS, TUNNELS)
        text = text.replace(broker_config.ROOTS, f"{broker_config.FOLDER}/cert.pem")
        feed = list(
            broker.broker_feed(text, ca.make_authority("test", HOSTS), broker_config.values(injections(), VALUES))
        )
        root = b"".join(tarstream.member("cert.pem", upstream["cert.pem"], owner=broker.USER))
        words = ["docker", "start", "-ai", made]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
            assert client.stdin
            client.stdin.write(root + b"".join(feed))
            client.stdin.close()
            until(lambda: broker.READY in docker("logs", made, check=False).encode())
            yield Asked(made)
            client.kill()
    finally:
        docker("rm", "-fv", *docker("ps", "-aq", "--filter", f"network={NAME}").split())
        docker("network", "rm", NAME)
        docker("image", "rm", IMAGE)


class Asked:
    """Asks a broker that runs, and tells what that says of it."""

    def __init__(self, broker: str) -> None:
        self._broker = broker

    def __call__(self, *requests: tuple[str, str, dict[str, Any]]) -> list[Any]:
        return ask(self._broker, *requests)

    def checked(self, text: str) -> subprocess.CompletedProcess[str]:
        """Have its program look at a configuration that it does not run."""
        words = ["docker", "exec", "-i", self._broker, "haproxy", "-c", "-f", "/dev/stdin"]
        return subprocess.run(words, input=text, capture_output=True, text=True, timeout=120)

    def refused(self) -> Counter[tuple[str, str]]:
        """Return how often its log tells of a refusal, by host and reason."""
        found = Refused()
        for line in docker("logs", self._broker).splitlines():
            found.count(line.encode())
        return Counter({(host, reason): times for host, reason, times in found.rows()})


def ask(container: str, *requests: tuple[str, str, dict[str, Any]]) -> list[Any]:
    places = broker_config.addresses(HOSTS)
    lines = [
        json.dumps({"address": places.get(host, "127.0.0.2"), "host": host, "path": path, "headers": headers})
        for host, path, headers in requests
    ]
    words = ["docker", "exec", "-i", container, "node", "-e", (ROOT / "fixtures/broker/ask.js").read_text()]
    done = subprocess.run(words, input="\n".join(lines), capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_placeholder_becomes_the_value_where_it_is_granted(asked: Asked) -> None:
    bearer, real = f"Bearer {TOKEN_PLACEHOLDER}", VALUES["GITHUB_TOKEN"]
    found = asked(
        (MODEL, "/v1/messages?beta=true", {"authorization": bearer}),
        ("api.git.test", "/any", {"authorization": f"Bearer {GITHUB}"}),
        ("api.git.test", "/any", {"authorization": f"token {GITHUB}"}),
        ("git.test", "/any", {"authorization": basic("x-access-token", GITHUB)}),
        ("gitlab.test", "/api/v4/projects/group%2Fproject", {"private-token": GITLAB}),
        ("registry.test", "/", {"authorization": basic("me", REGISTRY)}),
        ("metrics.test", "/", {"api-key": API, "application-key": APP}),
        ("metrics.test", "/", {"application-key": APP}),
    )
    assert [(status, json.loads(text)) for status, text in found] == [
        (200, {"authorization": f"Bearer {VALUES['CLAUDE_CODE_OAUTH_TOKEN']}"}),
        (200, {"authorization": f"Bearer {real}"}),
        (200, {"authorization": f"token {real}"}),
        (200, {"authorization": basic("x-access-token", real)}),
        (200, {"private-token": VALUES["GITLAB_TOKEN"]}),
        (200, {"authorization": basic(ROBOT, VALUES["REGISTRY"])}),
        (200, {"api-key": "real-api", "application-key": "real-app"}),
        (200, {"application-key": "real-app"}),
    ]


def test_whatever_else_carries_a_credential_is_refused_and_told_in_the_log(asked: Asked) -> None:
    before, bearer = asked.refused(), {"authorization": f"Bearer {TOKEN_PLACEHOLDER}"}
    found = asked(
        (MODEL, "/v1/files", bearer),
        (MODEL, "/v1/messages", {"authorization": "Bearer sk-ant-stolen"}),
        (MODEL, "/v1/messages", {"authorization": [bearer["authorization"], "Bearer sk-ant-stolen"]}),
        (MODEL, "/v1/messages", {**bearer, "x-api-key": "stolen"}),
        (MODEL, "/v1/messages", {"x-api-key": "stolen"}),
        (MODEL, "/v1/messages", {"authorization": basic("x", TOKEN_PLACEHOLDER)}),
        (MODEL, "/v1/messages", {}),
        ("git.test", "/", bearer),
        ("gitlab.test", "/other", {"private-token": GITLAB}),
        ("gitlab.test", "/api/v4/../other", {"private-token": GITLAB}),
        ("gitlab.test", "/api/v4/..%2fother", {"private-token": GITLAB}),
        ("gitlab.test", "/api/v4/%2e%2e/other", {"private-token": GITLAB}),
        ("gitlab.test", "/api/v4//other", {"private-token": GITLAB}),
        ("registry.test", "/", {"authorization": f"Bearer {REGISTRY}"}),
        ("metrics.test", "/", {"api-key": API, "application-key": "stolen"}),
        ("metrics.test", "/", {"api-key": API, "x-vault-token": "stolen"}),
        ("metrics.test", "/", {"api-key": APP}),
    )
    assert found == [[403, broker_config.REFUSED]] * 17
    told = {MODEL: 7, "git.test": 1, "gitlab.test": 5, "registry.test": 1, "metrics.test": 3}
    assert asked.refused() - before == {(host, "credential"): times for host, times in told.items()}


def test_a_path_that_may_lead_out_of_the_granted_one_gets_nothing(asked: Asked) -> None:
    ways = ("..", "%2f..%2fother", "a%2F..%2f..%2Fother", "a%2f../other", "..;/other", ".%2fother")
    coded = ("%252e%252e/other", "a%252f..%252fother", "a%5c..%5cother")
    empty = ("/other", "a//other", "%2fother", "a%2f%2fother", "a/%2fother")
    paths = [f"/api/v4/{path}" for path in (*ways, *coded, *empty)] + ["/api/../api/v4/x"]
    found = asked(*[("gitlab.test", path, {"private-token": GITLAB}) for path in paths])
    assert dict(zip(paths, found, strict=True)) == {path: [403, broker_config.REFUSED] for path in paths}
    plain = ["/api/v4/.hidden", "/api/v4/a..b/c", "/api/v4/group%2Fproject/x%20y;v=1"]
    assert [status for status, _ in asked(*[("gitlab.test", path, {"private-token": GITLAB}) for path in plain])] == (
        [200] * len(plain)
    )


def test_as_many_hosts_as_there_may_be_are_no_more_than_the_broker_takes(asked: Asked) -> None:
    hosts = [f"host-{number}.{'x' * 60}.test" for number in range(broker_config.MOST_HOSTS)]
    text = broker_config.config([Injection("API_KEY", API, tuple(hosts))], hosts, {})
    done = asked.checked(text)
    assert done.returncode == 0, done.stderr


def test_a_refusal_is_told_whatever_its_path_and_the_self_tests_own_is_not(asked: Asked) -> None:
    before, odd = asked.refused(), '/"}é%22\\' + "x" * 9000
    asked(*[(MODEL, path, {"x-api-key": "stolen"}) for path in (quote(odd), "/")])
    asked((MODEL, "/", {"authorization": broker_config.FOREIGN}))
    assert asked.refused() - before == {(MODEL, "credential"): 2}


def test_what_carries_none_passes_but_to_the_model(asked: Asked) -> None:
    assert asked(("git.test", "/", {}), ("gitlab.test", "/other", {})) == [[200, "{}"]] * 2


def test_a_host_that_is_not_brokered_is_misdirected(asked: Asked) -> None:
    assert asked(("other.test", "/", {}))[0][0] == 421
    assert asked.refused()["other.test", "another host"] == 1
