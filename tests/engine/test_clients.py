"""What people use in a bottle, against a host that is looked into and one that is not, with a credential and without.

What a client needs beyond the bottle's own environment is in its script.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.scenery import Scenery

from .conftest import client_desk
from .inside import Inside, inside

OPEN, CLOSED, VAULT, GIT = HOSTS = ("open.test", "closed.test", "vault.test", "git.test")
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
git clone -q "https://$HOST/git/$REPOSITORY.git" there && cd there
git config user.name tester && git config user.email tester@test
echo more >more && git add more && git commit -qm more && git push -q origin HEAD:main && git fetch -q && git status -sb
"""
GO = """
printf 'module user\\n\\nrequire scenery.test/module v1.0.0\\n' >go.mod
printf 'package main\\n\\nimport "scenery.test/module"\\n\\nfunc main() { println(module.Word) }\\n' >main.go
export GOPATH=$PWD/path GOCACHE=$PWD/cache GOFLAGS="-mod=mod -modcacherw" GOPROXY="https://$HOST/go" GONOSUMDB="*"
go run . 2>&1
"""
# It sends a token whatever it asks: where a credential is for the host, what stands for that.
GH = """
name=$(printf '%s_TOKEN' "${HOST%%.*}" | tr a-z A-Z)
GH_HOST=$HOST GH_ENTERPRISE_TOKEN=${!name:-none} gh api word
"""
SCRIPTS = {
    "curl": 'curl -sS --fail "https://$HOST/word"',
    "git": GIT_ROUND,
    "npm": """npm install -s --no-audit --no-fund --cache "$PWD/cache" --registry "https://$HOST/npm/" scenery-package
        node -p 'require("scenery-package")'""",
    "pip": """/opt/uv/bin/pip install -q --no-cache-dir -t . -i "https://$HOST/simple/" scenery-package
        python3 -c 'import scenery_package as s; print(s.WORD)'""",
    "uv": """uv venv -q v && uv pip install -q --no-cache -p v/bin/python -i "https://$HOST/simple/" scenery-package
        v/bin/python -c 'import scenery_package as s; print(s.WORD)'""",
    "cargo": CARGO,
    "go": GO,
    "gh": GH,
    "fetch": f"cat >f.js <<'END'\n{FETCH}END\nnode f.js",
    "requests": """python3 -c 'import os, requests
print(requests.get("https://" + os.environ["HOST"] + "/word").status_code)'""",
    "urllib": """python3 -c 'import os, urllib.request
print(urllib.request.urlopen("https://" + os.environ["HOST"] + "/word").status)'""",
}
SAYS = {
    "curl": '"path":"/word"',
    "git": "## main...origin/main",
    "gh": '"path":"/api/v3/word"',
    **dict.fromkeys(("npm", "pip", "uv", "cargo", "go"), WORD),
    **dict.fromkeys(("fetch", "requests", "urllib"), "200"),
}


@pytest.fixture(scope="module")
def bottle(tmp_path_factory: pytest.TempPathFactory, clients: Path, running_scenery: Scenery) -> Iterator[Inside]:
    """A session that reaches each kind of host, with a credential for two of them."""
    secret = secrets.token_hex(12)
    desk = client_desk(tmp_path_factory.mktemp("clients") / "desk", clients)
    desk.env["SCENERY_SECRET"] = secret
    granted = {"VAULT_TOKEN": VAULT, "GIT_TOKEN": GIT}
    desk.manifest(
        {
            "egress": {"allowlist": [OPEN, CLOSED], "inspect": {CLOSED: False}},
            "credentials": {name: {"value": "${SCENERY_SECRET}", "hosts": [host]} for name, host in granted.items()},
        }
    )
    running_scenery.forget()
    running_scenery.demand(secret)
    for host in HOSTS:
        running_scenery.repository(f"public/{host}")
    running_scenery.repository("private/own")
    with inside(desk) as session:
        yield session


@pytest.mark.parametrize("client", SCRIPTS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_client_works(bottle: Inside, host: str, client: str) -> None:
    done = bottle.run(SCRIPTS[client], HOST=host, REPOSITORY=f"public/{host}")
    assert done.status == 0 and SAYS[client] in done.out, done


def test_git_is_let_in_by_a_credential_that_the_bottle_does_not_have(bottle: Inside) -> None:
    done = bottle.run(SCRIPTS["git"], HOST=GIT, REPOSITORY="private/own")
    assert done.status == 0 and SAYS["git"] in done.out, done


def test_git_is_not_let_in_without(bottle: Inside) -> None:
    done = bottle.run('git clone -q "https://$HOST/git/private/own.git"', HOST=CLOSED, GIT_TERMINAL_PROMPT="0")
    assert done.status and "could not read Username" in done.err, done
