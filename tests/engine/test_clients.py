"""What people use in a bottle, against a host that is looked into and one that is not, with a credential and without.

One session for each host runs every client; each test looks at what one of them came to. What a client needs beyond the
bottle's own environment is in its script.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.scenery import Scenery

from .conftest import AGENT, AMID_SCENERY, SHELL_IMAGE, TRUSTING_BOTTLE, Desk, checkout, docker

IMAGE = f"{SHELL_IMAGE}-clients"
OPEN, CLOSED, VAULT, GIT = "open.test", "closed.test", "vault.test", "git.test"
WORD = "from the scenery"
# Node's own fetch heeds the proxy from 22.21 on: before that a tunnel has to be opened by hand.
FETCH = r"""
const [major, minor] = process.versions.node.split('.').map(Number);
const url = `https://${process.env.HOST}/word`;
const show = (status) => console.log(status);
if (major > 22 || minor >= 21) fetch(url).then((answer) => show(answer.status));
else {
  const proxy = new URL(process.env.HTTPS_PROXY), path = `${process.env.HOST}:443`;
  const asked = require('http').request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path });
  asked.on('connect', (reply, socket) => {
    const createConnection = () => require('tls').connect({ socket, servername: process.env.HOST });
    require('https').get(url, { createConnection, defaultPort: 443 },
      (answer) => { show(answer.statusCode); process.exit(0); });
  });
  asked.end();
}
"""
CARGO = """
cargo init -q --name user . && mkdir .cargo
printf '[source.crates-io]\\nreplace-with = "scenery"\\n[source.scenery]\\nregistry = "sparse+https://%s/cargo/"\\n' \
    "$HOST" >.cargo/config.toml
printf 'scenery-crate = "1"\\n' >>Cargo.toml
printf 'fn main() { println!("{}", scenery_crate::WORD); }\\n' >src/main.rs
CARGO_HOME=$PWD/home cargo run -q
"""
GIT_ROUND = """
git clone -q "https://$HOST/git/public/$REPOSITORY.git" there && cd there
git config user.name tester && git config user.email tester@test
echo more >more && git add more && git commit -qm more && git push -q origin HEAD:main && git fetch -q && git status -sb
"""
SCRIPTS = {
    "curl": 'curl -sS --fail "https://$HOST/word"',
    "git": GIT_ROUND,
    "npm": """npm install -s --no-audit --no-fund --cache "$PWD/cache" --registry "https://$HOST/npm/" scenery-package
        node -p 'require("scenery-package")'""",
    "pip": """python3 -m venv v && v/bin/pip install -q --no-cache-dir -i "https://$HOST/simple/" scenery-package
        v/bin/python -c 'import scenery_package as s; print(s.WORD)'""",
    "uv": """uv venv -q v && uv pip install -q --no-cache -p v/bin/python -i "https://$HOST/simple/" scenery-package
        v/bin/python -c 'import scenery_package as s; print(s.WORD)'""",
    "cargo": CARGO,
    "fetch": f"cat >f.js <<'END'\n{FETCH}END\nnode f.js",
    "requests": """python3 -c 'import os, requests
print(requests.get("https://" + os.environ["HOST"] + "/word").status_code)'""",
    "urllib": """python3 -c 'import os, urllib.request
print(urllib.request.urlopen("https://" + os.environ["HOST"] + "/word").status)'""",
}
SAYS = {
    "curl": '"path":"/word"',
    "git": "## main...origin/main",
    **dict.fromkeys(("npm", "pip", "uv", "cargo"), WORD),
    **dict.fromkeys(("fetch", "requests", "urllib"), "200"),
}
# Runs each script in a folder of its own, and says what each came to in one line.
DRIVER = r"""
import json, os, subprocess, sys, tempfile
for name, script in json.loads(sys.argv[1]).items():
    with tempfile.TemporaryDirectory() as folder:
        words = ["bash", "-euo", "pipefail", "-c", script]
        env = {**os.environ, "HOST": sys.argv[2], "REPOSITORY": sys.argv[3]}
        try:
            done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
            print(json.dumps([name, done.returncode, done.stdout, done.stderr[-2000:]]), flush=True)
        except subprocess.TimeoutExpired as late:
            print(json.dumps([name, -1, "", repr(late)]), flush=True)
"""

Results = dict[str, tuple[int, str, str]]


def session_script(scripts: dict[str, str], host: str, repository: str) -> str:
    """Return what a shell is to read to run scripts in a bottle."""
    run = f"exec python3 /tmp/driver.py {quoted(scripts)} {host} {repository}"
    return f"cat >/tmp/driver.py <<'END'\n{DRIVER}END\n{run}\n"


def quoted(scripts: dict[str, str]) -> str:
    """Return scripts as one word that the shell passes on as it is."""
    encoded = base64.b64encode(json.dumps(scripts).encode()).decode()
    return f'"$(echo {encoded} | base64 -d)"'


def results(desk: Desk, scripts: dict[str, str], host: str, repository: str) -> Results:
    """Run scripts in one session, and return the status, the output and the complaints of each."""
    done = desk.run("start", "-y", AGENT, stdin=session_script(scripts, host, repository))
    if done.returncode:  # every test of this host says so, and none starts another session
        return dict.fromkeys(scripts, (done.returncode, "", done.stderr))
    return {name: (status, out, err) for name, status, out, err in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A launcher of bottles with every client, and a shell in Claude Code's place."""
    yield checkout(tmp_path_factory.mktemp("clients") / "clone", IMAGE, base=TRUSTING_BOTTLE)
    docker("rmi", "-f", IMAGE)


class Bottles:
    """Sessions of the clients' bottle, and what each host has heard.

    Args:
        folder: an empty one.
        launcher: of such bottles.
        scenery: what they reach.
    """

    def __init__(self, folder: Path, launcher: Path, scenery: Scenery) -> None:
        self.scenery, self.secret = scenery, secrets.token_hex(12)
        self.desk = Desk(folder)
        self.desk.launcher = launcher
        self.desk.env.update(AMID_SCENERY, CLAUDE_BOTTLE_IMAGE=IMAGE, SCENERY_SECRET=self.secret)
        self.desk.manifest(
            {
                "egress": {"allowlist": [OPEN, CLOSED], "inspect": {CLOSED: False}},
                "credentials": {
                    "VAULT_TOKEN": {"value": "${SCENERY_SECRET}", "hosts": [VAULT]},
                    "GIT_TOKEN": {"value": "${SCENERY_SECRET}", "hosts": [GIT]},
                },
            }
        )
        scenery.demand(self.secret)
        self._found: dict[str, Results] = {}

    def on(self, host: str) -> Results:
        """Return what every client came to, run once."""
        if host not in self._found:
            self.scenery.repository(f"public/{host}")
            self._found[host] = results(self.desk, SCRIPTS, host, host)
        return self._found[host]


@pytest.fixture(scope="module")
def bottles(tmp_path_factory: pytest.TempPathFactory, clients: Path, running_scenery: Scenery) -> Bottles:
    running_scenery.forget()
    return Bottles(tmp_path_factory.mktemp("desk") / "desk", clients, running_scenery)


@pytest.mark.parametrize("client", SCRIPTS)
@pytest.mark.parametrize("host", [OPEN, CLOSED, VAULT, GIT])
def test_a_client_works(bottles: Bottles, host: str, client: str) -> None:
    status, out, err = bottles.on(host)[client]
    assert status == 0 and SAYS[client] in out, err
