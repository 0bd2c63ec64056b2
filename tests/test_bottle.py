"""What goes into a bottle and what it runs, on a fake engine."""

from __future__ import annotations

import hashlib
import json
import marshal
import subprocess
from pathlib import Path

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER, placeholder

from tests.conftest import ROOT
from tests.sweep import TOKEN, Run, gone

FORBIDDEN = "open /proc/sys/net/ipv6/conf/all/disable_ipv6: permission denied"
MISSING = "open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory"
READ_ONLY = "write /proc/sys/net/ipv6/conf/all/disable_ipv6: read-only file system"


def plain(folder: Path, **engine: object) -> Run:
    """Return a start without ``--cwd``."""
    run = Run(folder, **engine)
    run.words.remove("--cwd")
    return run


def ended(run: Run) -> tuple[int, str]:
    child = run.begin()
    _, err = child.communicate(timeout=60)
    return child.returncode, err


def created(run: Run, role: str) -> list[str]:
    """Return docker's words of the last create of a role."""
    return [argv for argv in run.fake.argvs() if argv[0] == "create" and f"claude-bottle.role={role}" in argv][-1]


def make_image(run: Run, tag: str) -> None:
    words = [str(run.fake.bin / "docker"), "build", "-q", "-t", tag, str(run.tmp)]
    subprocess.run(words, env=run.env, check=True, capture_output=True)


def image_word(run: Run) -> str:
    words = created(run, "agent")
    return words[words.index("-i", words.index("--pull")) - 1]


def test_values_are_fed_to_the_session_and_are_in_no_call(tmp_path: Path) -> None:
    run = plain(tmp_path)
    env = {"LITERAL": "a=b \r", "PERL5OPT": "-Mnone", "LONG": "x" * 70_000, "FROM_HOST": "${HOST}"}
    manifest = {"bottles": {"b": {"env": env}}, "agents": {"a": {"bottle": "b"}}}
    (run.home / "claude-bottle.json").write_text(json.dumps(manifest))
    run.env["HOST"] = "of the host"
    status, err = ended(run)
    assert (status, run.leftovers()) == (0, []), err
    pairs = {**env, "FROM_HOST": "of the host", "CLAUDE_CODE_OAUTH_TOKEN": TOKEN_PLACEHOLDER}
    fed = "".join(f"{name}={value}\0" for name, value in pairs.items()).encode()
    assert hashlib.sha256(fed).hexdigest() in {call.get("stdin") for call in run.fake.calls()}
    words = [word for argv in run.fake.argvs() for word in argv]
    known = [value for value in (*pairs.values(), TOKEN) if value != TOKEN_PLACEHOLDER]  # that is no secret
    assert [word for word in words if any(value in word for value in known) or "env-file" in word] == []
    stage = str(run.tmp)
    assert [word for word in words if stage in word and not word.endswith(("/image-id", "/broker-id"))] == []


def test_every_container_sets_all_proxy_variables(tmp_path: Path) -> None:
    run = plain(tmp_path)
    assert ended(run)[0] == 0
    upper = {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "FTP", "NO", "ALL")}
    names = upper | {name.lower() for name in upper}
    for role in ("agent", "sidecar"):
        words = created(run, role)
        pairs = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-e")
        assert names <= set(pairs)
        through = {name for name in names if pairs[name]}
        assert through == (
            {name for name in names if name.upper()[:4] in ("HTTP", "NO_P")} if role == "agent" else set()
        )


def test_two_checkouts_at_one_moment_run_their_own_images(tmp_path: Path) -> None:
    run = plain(tmp_path / "run")
    fault = run.fake.fault("image build#1", mode="pause", when="after")
    child = run.begin()
    run.fake.wait_for_pause(fault)
    other = tmp_path / "other checkout"
    other.mkdir()
    words = [run.fake.bin / "docker", "build", "-t", "claude-bottle:latest", str(other)]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    run.fake.release(fault)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    ran = [image for image in run.fake.images() if image["id"] == image_word(run)]
    assert [image["context"] for image in ran] == [str(ROOT)]


@pytest.mark.parametrize(
    ("engine", "builds"),
    [
        ({}, 1),
        ({"cannot_see": "the stage dir", "words": "legacy"}, 2),
        ({"id_file": "empty", "words": "legacy"}, 1),
        ({"id_file": "none", "words": "buildkit"}, 1),
        ({"id_file": "none"}, 2),
    ],
    ids=str,
)
def test_the_image_runs_by_the_id_that_its_build_gave(tmp_path: Path, engine: dict[str, str], builds: int) -> None:
    if "cannot_see" in engine:
        engine = {**engine, "cannot_see": f"{tmp_path}/tmp"}
    run = plain(tmp_path, **engine)
    status, err = ended(run)
    assert status == 0, err
    (image,) = [image for image in run.fake.images() if image["name"] == "claude-bottle:latest"]
    word = image_word(run).removeprefix("sha256:")
    assert len(word) >= 12 and image["id"].removeprefix("sha256:").startswith(word)
    own = [argv for argv in run.fake.argvs() if argv[0] == "build" and "claude-bottle:latest" in argv]
    assert len(own) == builds


def test_a_build_that_gives_no_id_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    run = plain(tmp_path, id_file="none")
    run.fake.fault("image ls: boom")
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, [])
    assert "error: docker build gave no id of the image it made (claude-bottle:latest)" in err
    (hint,) = (line for line in err.splitlines() if "TMPDIR" in line)
    assert f"{run.tmp}/claude-bottle-stage." in hint
    assert "creating network" not in err


def test_the_users_own_tag_runs_where_its_build_gives_no_id(tmp_path: Path) -> None:
    run = plain(tmp_path, id_file="none")
    run.env["CLAUDE_BOTTLE_IMAGE"] = "my/own:tag"
    status, err = ended(run)
    assert status == 0, err
    assert image_word(run) == "my/own:tag"


def test_an_image_that_the_engine_does_not_have_is_never_pulled(tmp_path: Path) -> None:
    run = plain(tmp_path, loads_nothing=True)
    status, err = ended(run)
    assert (status, run.leftovers()) == (1, [])
    assert "error: docker build made an image that the engine does not have (claude-bottle" in err
    assert "claude-bottle:latest" not in {argv[-1] for argv in run.fake.argvs() if argv[0] == "pull"}


@pytest.mark.parametrize(("failure", "tries"), [(MISSING, 2), (FORBIDDEN, 1), (READ_ONLY, 1)])
def test_only_a_kernel_without_ipv6_is_a_reason_to_leave_it_on(tmp_path: Path, failure: str, tries: int) -> None:
    run = plain(tmp_path)
    run.fake.fault(f"agent start#1: {failure}")
    status, err = ended(run)
    assert (status, run.leftovers()) == (0 if tries == 2 else 1, [])
    assert tries == 2 or failure in err
    agents = [argv for argv in run.fake.argvs() if argv[0] == "create" and "claude-bottle.role=agent" in argv]
    assert ["--sysctl" in argv for argv in agents] == [True, False][:tries]
    nets = [argv for argv in run.fake.argvs() if argv[:2] == ["network", "create"]]
    # A sibling has the internal network's first name.
    assert {argv[-1] for argv in nets} == {"claude-bottle-net-a", "claude-bottle-net-a-2", "claude-bottle-egress-a"}
    assert all("--ipv6=false" in argv for argv in nets)


def test_the_end_of_the_sidecar_ends_the_session_and_is_said_once(tmp_path: Path) -> None:
    run = plain(tmp_path)
    until_stage_gone = f"while ls {run.tmp}/claude-bottle-stage.* >/dev/null 2>&1; do sleep 0.1; done"
    run.fake.session(f"docker rm -f claude-bottle-pipelock-a\n{until_stage_gone}\n")
    status, err = ended(run)
    assert (status, run.leftovers()) == (69, []), err
    assert [line for line in err.splitlines() if "sidecar has stopped" in line] == [
        "claude-bottle: error: pipelock: the sidecar has stopped, so nothing gets out of the bottle any more"
    ]


def test_a_watch_that_fails_while_the_sidecar_runs_says_nothing(tmp_path: Path) -> None:
    run = plain(tmp_path)
    inspected = f"grep -qa State.Status {run.fake.folder}/calls"
    broken = "pkill -KILL -P $(ps -o ppid= -p $PPID) -f 'start -ai'"
    run.fake.session(f"{broken}; until {inspected}; do sleep 0.1; done; exit 7")
    status, err = ended(run)
    assert (status, run.leftovers()) == (7, []), err
    assert "sidecar has stopped" not in err


def test_the_watch_ends_with_the_session(tmp_path: Path) -> None:
    run = plain(tmp_path)
    assert ended(run)[0] == 0
    watch = next(pid for pid, words in run.fake.begun() if words[:2] == ["start", "-ai"])
    assert gone(watch)


def test_the_sidecar_gets_its_configuration_on_stdin(tmp_path: Path) -> None:
    run = plain(tmp_path)
    shown, state = tmp_path / "shown", tmp_path / "state"
    run.fake.session(f"cp {run.tmp}/claude-bottle-stage.*/pipelock.yaml {shown}; cp {run.fake.folder}/state {state}")
    assert ended(run)[0] == 0
    words = created(run, "sidecar")
    assert words[words.index("--config") + 1] == "/dev/stdin"
    assert {"-i", "--read-only"} <= set(words) and words[words.index("--user") + 1] == "65534:65534"
    configured = [box["config"] for box in marshal.loads(state.read_bytes())["containers"] if "config" in box]
    assert shown.read_text() in configured
    assert [argv for argv in run.fake.argvs() if argv[0] == "cp" and argv[-1].endswith("/etc")] == []


def test_what_a_bottle_begins_with_comes_in_one_stream(tmp_path: Path) -> None:
    run = plain(tmp_path)
    assert ended(run)[0] == 0
    (copy,) = [call for call in run.fake.calls() if call["argv"][:2] == ["cp", "-"] and call["argv"][2].endswith(":/")]
    names = {member["name"] for member in copy["tar"]}
    assert {"home/node/.claude-bottle-prompt.txt", "usr/local/bin/claude-bottle-session"} <= names
    assert any(name.startswith("home/node/.claude/skills/s") for name in names)


@pytest.mark.parametrize(("header", "kind"), [("x-api-key", "credentials"), ("", "env")])
def test_a_key_that_the_broker_puts_in_is_agreed_to_beforehand(tmp_path: Path, header: str, kind: str) -> None:
    run = plain(tmp_path)
    made: object = {"value": "${A_KEY}", "hosts": ["api.anthropic.com"], "header": header} if header else "${A_KEY}"
    manifest = {"bottles": {"b": {kind: {"ANTHROPIC_API_KEY": made}}}, "agents": {"a": {"bottle": "b"}}}
    (run.home / "claude-bottle.json").write_text(json.dumps(manifest))
    run.env["A_KEY"] = "sk-ant-a-real-key-8812"
    del run.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    assert ended(run)[0] == 0
    seed: dict[str, object] = {
        "hasCompletedOnboarding": True,
        "projects": {"/home/node": {"hasTrustDialogAccepted": True}},
    }
    if kind == "credentials":
        seed["customApiKeyResponses"] = {"approved": [placeholder("ANTHROPIC_API_KEY")], "rejected": []}
    copied = [member for call in run.fake.calls() if call["argv"][:2] == ["cp", "-"] for member in call["tar"]]
    (member,) = [member for member in copied if member["name"] == "home/node/.claude.json"]
    assert member["sha256"] == hashlib.sha256(f"{json.dumps(seed)}\n".encode()).hexdigest()


@pytest.mark.parametrize("brokered, calls", [(False, 18), (True, 20)])
def test_a_plain_start_makes_eighteen_calls_and_two_for_a_broker(tmp_path: Path, brokered: bool, calls: int) -> None:
    run = plain(tmp_path, networks=[], containers=[])
    manifest = {"bottles": {"b": {}}, "agents": {"a": {"bottle": "b", "prompt": "x"}}}
    (run.home / "claude-bottle.json").write_text(json.dumps(manifest))
    if not brokered:
        del run.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    assert ended(run)[0] == 0  # which builds
    before = len(run.fake.argvs())
    assert ended(run)[0] == 0
    assert len(run.fake.argvs()[before:]) == calls, run.fake.argvs()


def test_a_bottle_made_from_an_id_is_listed_with_its_tag(tmp_path: Path) -> None:
    run = plain(tmp_path)
    run.fake.session(f"{ROOT}/cli.sh list active >{tmp_path}/listed 2>&1")
    run.env["CLAUDE_BOTTLE_IMAGE"] = "my/own:tag"
    assert ended(run)[0] == 0
    assert "\tmy/own:tag\t" in (tmp_path / "listed").read_text()


def test_what_is_built_on_the_image_names_it_by_its_tag(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.env["CLAUDE_BOTTLE_DERIVED_IMAGE"] = "mine:1"
    status, err = ended(run)
    assert status == 0, err
    (derived,) = [image for image in run.fake.images() if image["name"] == "mine:1"]
    assert derived["from"].startswith("FROM claude-bottle:latest\n")
