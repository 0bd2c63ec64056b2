"""scripts/reliability git: git over https out of a bottle, with a credential that is put in and without one."""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fixtures.scenery import Scenery, compose, sigterm_raises
from tests.engine.conftest import CLIENTS_IMAGE, TRUSTING_BOTTLE, build_images, checkout, client_desk, docker
from tests.engine.inside import Inside, Ran, inside
from tests.reliability import kept
from tests.sidecar import SIDECAR

HUNG_SECONDS = 300.0
SIZES = (1, 12, 50)  # MiB
FETCHED = 12
# By what a host is: its name, and where its repository lies.
HOSTS = {"credential put in": ("git.test", "private/own"), "passed through": ("closed.test", "public/own")}
MAKE = r"""
git config --global user.name tester && git config --global user.email tester@test
for size in $SIZES; do
    git init -q -b main "/tmp/of-$size" && cd "/tmp/of-$size"
    head -c "${size}M" /dev/urandom >octets && git add octets && git commit -qm octets
done
git init -q -b main /tmp/haves && cd /tmp/haves
for ((n = 1; n <= 3000; n++)); do
    printf 'commit refs/heads/main\ncommitter t <t@test> %d +0000\ndata 1\nx\n' "$n"
done | git fast-import --quiet
"""
CLONE = 'git clone -q "$URL" here'
FETCH = 'cp -r /tmp/haves here && git -C here fetch -q "$URL" main'
PUSH = 'git -C "/tmp/of-$SIZE" push -q "$URL" HEAD:refs/heads/pushed'
WORK = {
    f"clone of {FETCHED} MiB": CLONE,
    "fetch with 3,000 haves": FETCH,
    **{f"push of {size} MiB": PUSH for size in SIZES},
}


def say(text: str) -> None:
    print(f"git: {text}", file=sys.stderr, flush=True)


@contextmanager
def place(folder: Path) -> Iterator[tuple[Inside, Scenery]]:
    """A session that reaches both hosts, and the scenery with them."""
    build_images()
    name = f"git-{os.getpid()}"
    launcher = checkout(folder / "clone", CLIENTS_IMAGE, base=TRUSTING_BOTTLE)
    desk = client_desk(folder / "desk", launcher, name)
    desk.env["GIT_VALUE"] = secret = secrets.token_hex(12)
    desk.manifest(
        {
            "egress": {"allowlist": ["closed.test"], "inspect": {"closed.test": False}},
            "credentials": {"GIT_TOKEN": {"value": "${GIT_VALUE}", "hosts": ["git.test"]}},
        }
    )
    try:
        with compose(f"cb-scenery-{name}"), Scenery(f"cb-scenery-{name}", [name]).watching() as scenery:
            scenery.demand(secret)
            with inside(desk) as bottle:
                yield bottle, scenery
    finally:
        docker("rmi", "-f", CLIENTS_IMAGE)


def one(bottle: Inside, scenery: Scenery, host: str, what: str) -> Ran:
    """Do one thing at one kind of host, in a repository that is new."""
    name, repository = HOSTS[host]
    scenery.repository(repository)
    variables = {"GIT_TERMINAL_PROMPT": "0", "URL": f"https://{name}/git/{repository}.git"}
    if WORK[what] == CLONE:
        filled = bottle.run(PUSH.replace("pushed", "more"), SIZE=str(FETCHED), **variables)
        assert filled.status == 0, filled.err
    return bottle.run(WORK[what], seconds=HUNG_SECONDS, SIZE=what.removeprefix("push of ").split()[0], **variables)


def rows(bottle: Inside, scenery: Scenery, runs: int) -> Iterator[list[Any]]:
    """Yield how each kind of transfer went."""
    for host in HOSTS:
        for what in WORK:
            done = [one(bottle, scenery, host, what) for _ in range(runs)]
            hung = sum(each.status is None for each in done)
            failed = [each.err for each in done if each.status]
            took = [round(each.seconds, 1) for each in done]
            say(f"{host}: {what}: {took}" + (f" {hung} hung, {failed}" if hung or failed else ""))
            yield [host, what, runs, hung, len(failed), statistics.median(took), max(took)]


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/reliability git", description="Git over https out of a bottle.")
    parser.add_argument("--runs", type=int, default=20, help="of each kind of transfer")
    parser.add_argument("--write", action="store_true", help="keep the outcomes in docs/reliability, write the page")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run the transfers, print the table, and keep it if asked to; return the status."""
    args = parse(words)
    with (
        sigterm_raises(),
        tempfile.TemporaryDirectory(prefix="git-", ignore_cleanup_errors=True) as folder,
        place(Path(folder)) as (bottle, scenery),
    ):
        made = bottle.run(MAKE, seconds=900, SIZES=" ".join(map(str, SIZES)))
        assert made.status == 0, made
        found = list(rows(bottle, scenery, args.runs))
    print(kept.git_table(found), end="")
    if args.write:
        kept.keep("git", {"sidecar": SIDECAR, "rows": found})
    return 1 if any(hung or failed for _, _, _, hung, failed, _, _ in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
