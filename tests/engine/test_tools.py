"""A bottle's own image on the engine: one that would steer the launcher and lie about the seals; and the examples."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, SHELL_IMAGE, Desk, container, docker, leftovers
from .test_seals import ALONE, BREAKS, desk, metadata, refused, shim

__all__ = ["desk", "metadata"]  # fixtures

# In perl's place: whatever is asked, the image is fit, its first process lives, all seals hold, the session is a shell.
LIAR = r"""#!/bin/sh
case "$*" in
    *claude-bottle-seals*) cat >/dev/null
        for seal in routes gateway egress host metadata names ipv6 capabilities sidecar placeholders issuer broker; do
            printf '%s\theld\t\n' "$seal"
        done
        printf 'seconds\t0.01\n' ;;
    *claude-bottle-session*) exec /bin/sh ;;
    *claude-bottle-guard*) exec sleep infinity ;;
    *) printf '1000\t/usr/local/bin/claude\tfree' ;;
esac
"""


def dockerfile(perl: str) -> str:
    """Return what builds an image with a program of its own in perl's place."""
    return f"""ARG CLAUDE_BOTTLE_BASE
FROM ${{CLAUDE_BOTTLE_BASE}}
USER root
RUN rm /usr/bin/perl && echo {base64.b64encode(perl.encode()).decode()} | base64 -d >/usr/bin/perl \\
    && chmod 755 /usr/bin/perl
ENV PATH=/tmp:/usr/local/bin:/usr/bin:/bin LD_PRELOAD=/nonexistent PERL5OPT=-Mnone
HEALTHCHECK CMD false
ENTRYPOINT ["/bin/false"]
WORKDIR /tmp
USER node
"""


WITHOUT_PERL = f"{SHELL_IMAGE}-broker"
EXAMPLES = ROOT / "fixtures" / "tools"
PROGRAMS = {
    "python": "uv venv -q v && v/bin/python -c 'print(\"zebra\")'",
    "go": "printf 'module x\\n' >go.mod && printf 'package main\\nfunc main() { println(\"zebra\") }\\n' >x.go"
    " && go run . 2>&1",
    "rust": "cargo init -q --name x . && printf 'fn main() { println!(\"zebra\"); }\\n' >src/main.rs && cargo run -q",
    "java": "printf 'class X { public static void main(String[] a) { System.out.println(\"zebra\"); } }' >X.java"
    " && javac X.java 2>&1 && java X && mvn -v",
}


def tools(desk: Desk) -> list[str]:
    """Return the tags of the images that Dockerfiles have made; of runs on the engine beside this one too."""
    return docker(
        "image", "ls", "--filter", "label=claude-bottle.tools", "--format", "{{.Repository}}:{{.Tag}}"
    ).split()


def own(desk: Desk, text: str) -> None:
    """Give the desk's bottle a Dockerfile, in the home where its manifest is."""
    (desk.home / "tools.Dockerfile").write_text(text)
    desk.manifest({"dockerfile": "tools.Dockerfile"})


def test_a_dockerfiles_image_steers_nothing_and_fakes_no_seal(desk: Desk, tmp_path: Path) -> None:
    own(desk, dockerfile(LIAR))
    before = set(tools(desk))
    path = desk.env["PATH"]
    change, said = BREAKS["gateway"]
    shim(desk, tmp_path / "bin", change)
    refused(desk, "gateway", said)  # by the usual image, since its own says that all holds
    desk.env["PATH"] = path
    done = desk.run("start", "-y", ALONE, stdin="pwd; exit 7\n")
    assert (done.returncode, done.stdout) == (7, "/home/node\n"), done.stderr
    assert "sealed: 13 of 13 probes" in done.stderr
    assert "building image claude-bottle-tools" not in done.stderr  # that was done before
    with subprocess.Popen(
        [desk.launcher, "start", "-y", ALONE], cwd=desk.cwd, env=desk.env, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        assert child.stdin and child.stdout
        child.stdin.write("echo here\n")
        child.stdin.flush()
        assert child.stdout.readline() == "here\n"
        (held,) = json.loads(docker("inspect", container("agent", ALONE)))
        assert (held["Config"]["Entrypoint"], held["Config"]["Cmd"][0]) == (["/usr/bin/env"], "-i")
        assert held["Config"]["Healthcheck"] == {"Test": ["NONE"]} and "Health" not in held["State"]
        assert held["Config"]["Image"] not in desk.run("cleanup", "--images", "--yes").stderr
    mine = {tag for tag in tools(desk) if tag not in before}
    assert len({tag.removesuffix("-unchecked") for tag in mine}) == 1 and len(mine) == 2
    gone = desk.run("cleanup", "--images", "--yes")
    assert gone.returncode == 0 and all(f"  image {tag} (" in gone.stderr for tag in mine), gone.stderr
    assert not mine & set(tools(desk))


def test_what_cannot_run_a_guard_is_said_and_leaves_nothing(desk: Desk) -> None:
    own(desk, dockerfile(LIAR.replace("exec sleep infinity", "echo not today >&2; exit 3")))
    done = desk.run("start", "-y", ALONE)
    assert done.returncode == 1 and "the bottle's first process, its guard, has ended with status 3" in done.stderr
    assert "hint: not today" in done.stderr and f"of {desk.home}/tools.Dockerfile must be a perl" in done.stderr
    assert leftovers(desk) == [] and desk.run("cleanup", "--images", "--yes").returncode == 0
    desk.manifest({})
    without = "FROM claude-bottle-broker\nUSER root\nRUN rm /usr/bin/perl\n"
    subprocess.run(["docker", "build", "-q", "-t", WITHOUT_PERL, "-"], input=without, text=True, check=True)
    try:
        done = desk.run("start", "-y", ALONE, CLAUDE_BOTTLE_BROKER_IMAGE=WITHOUT_PERL)
    finally:
        docker("rmi", WITHOUT_PERL)
    assert done.returncode == 1 and "broker: its image has no /usr/bin/perl" in done.stderr, done.stderr
    assert leftovers(desk) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM node:22-slim\nUSER node\n", "its image is not built on the bottle's"),
        ("RUN exit 9\n", "docker build failed"),  # the legacy builder would leave the container that it ran in
        ("USER root\nRUN usermod -u 0 -o node\nUSER node\n", "the user 'node' of its image has the number 0, not 1000"),
    ],
)
def test_what_is_no_image_for_a_bottle_ends_before_there_is_a_network(desk: Desk, text: str, says: str) -> None:
    begin = "ARG CLAUDE_BOTTLE_BASE\n" + ("" if text.startswith("FROM") else "FROM ${CLAUDE_BOTTLE_BASE}\n")
    own(desk, begin + text)
    done = desk.run("start", "-y", ALONE)
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert "creating network" not in done.stderr and "starting pipelock" not in done.stderr
    assert desk.run("cleanup", "--images", "--yes").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("language", PROGRAMS)
def test_an_example_builds_and_a_session_runs_a_program_with_it(shell: Desk, language: str) -> None:
    shutil.copytree(EXAMPLES / language, shell.home / language)
    shell.manifest({"dockerfile": f"{language}/tools.Dockerfile"})
    script = f"mkdir x && cd x && {PROGRAMS[language]}\n"
    done = shell.run("start", "-y", shell.agent, stdin=script, CLAUDE_BOTTLE_TOKEN_IN_BOTTLE="1")
    assert done.returncode == 0 and "zebra\n" in done.stdout, done.stdout + done.stderr
    assert shell.run("cleanup", "--images", "--yes").returncode == 0
