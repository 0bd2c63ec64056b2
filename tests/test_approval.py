"""What the current folder's manifest adds to the home's is listed, needs a yes once, and is not covered by --yes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from claude_bottle.lib.consent import approved
from claude_bottle.lib.consent.approval import added, folder_digest
from claude_bottle.lib.manifest import manifest_find

from tests.sweep import Run
from tests.terminal import Terminal

HOME = {
    "bottles": {
        "box": {
            "env": {"KEPT": "${KEPT}", "WORD": "literal"},
            "ssh": [
                {"Host": "one", "IdentityFile": "~/one", "Hostname": "one.example", "User": "git", "Port": 22},
            ],
            "egress": {"allowlist": ["a.example", "b.example"], "inspect": {"a.example": True}, "dlp": "block"},
            "credentials": {"FORGE": {"value": "?", "hosts": ["forge.example"], "paths": ["/api/*"]}},
            "limits": {"memory": "2g", "pids": 100},
            "runtime": "runsc",
        },
        "rich": {"env": {"RICH": "?the rich one's"}, "egress": {"allowlist": ["rich.example"]}},
    },
    "agents": {"a": {"bottle": "box", "skills": ["s"]}, "free": {}},
}


def lines(tmp_path: Path, cwd: object, *agents: str, home: object = HOME) -> list[str]:
    """Return what a folder's manifest adds."""
    for name, value in (("home", home), ("cwd", cwd)):
        (tmp_path / name).mkdir(exist_ok=True)
        if value is not None:
            (tmp_path / name / "claude-bottle.json").write_text(json.dumps(value))
    found = manifest_find(str(tmp_path / "cwd"), str(tmp_path / "home"))
    return [f"{entry.path} : {entry.reaches}" for entry in added(found, agents or ("a",))]


def of_box(**parts: object) -> dict[str, object]:
    return {"bottles": {"box": parts}}


def of_agent(**parts: object) -> dict[str, object]:
    return {"agents": {"a": parts}}


ONE: dict[str, Any] = HOME["bottles"]["box"]["ssh"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("cwd", "adds"),
    [
        (of_box(env={"T": "${GITHUB_TOKEN}"}), ["$.bottles.box.env.T : the host's variable GITHUB_TOKEN"]),
        (of_box(env={"KEPT": "${OTHER}"}), ["$.bottles.box.env.KEPT : the host's variable OTHER"]),
        (of_box(env={"WORD": "?"}), ["$.bottles.box.env.WORD : a secret"]),
        (of_box(env={"P": "?say \u202eit"}), ['$.bottles.box.env.P : a secret, asked for as "say \u202eit"']),
        (of_box(env={"https_proxy": "http://x"}), ["$.bottles.box.env.https_proxy : a proxy variable"]),
        (of_box(env={"ANTHROPIC_BASE_URL": "https://sentry.io"}),
            ["$.bottles.box.env.ANTHROPIC_BASE_URL : where the client takes the token"]),
        (of_box(egress={"allowlist": ["b.example", "c.example"]}),
            ["$.bottles.box.egress.allowlist[1] : the host c.example"]),
        (of_box(ssh=[ONE, {**ONE, "Port": 23}]),
            ["$.bottles.box.ssh[1] : the host's ssh key ~/one, for git@one.example:23"]),
        (of_box(ssh=[{**ONE, "KnownHostKey": "ssh-ed25519 AAAA"}]),
            ["$.bottles.box.ssh[0] : the host's ssh key ~/one, for git@one.example:22"]),
        (of_box(credentials={"T": {"value": "${T}", "hosts": ["api.example"]}}),
            ["$.bottles.box.credentials.T : the host's variable T, put in for api.example, any path"]),
        (of_box(credentials={"T": {"value": "?say it", "hosts": ["api.example", "b"], "paths": ["/x", "/y*"]}}),
            ['$.bottles.box.credentials.T : a secret, asked for as "say it", put in for api.example, b, /x, /y*']),
        (of_box(credentials={"T": {"value": {"command": ["sh", "-c", "rm -r ~"]}, "hosts": ["c.example"]}}),
            ['$.bottles.box.credentials.T : what the command sh -c "rm -r ~" says, put in for c.example, any path']),
        (of_box(credentials={"FORGE": {"hosts": ["evil.example"]}}),
            ["$.bottles.box.credentials.FORGE : a secret, put in for evil.example, /api/*"]),
        (of_box(credentials={"FORGE": {"paths": None}}),
            ["$.bottles.box.credentials.FORGE : a secret, put in for forge.example, any path"]),
        (of_box(credentials={"FORGE": {"scheme": "basic"}}),
            ["$.bottles.box.credentials.FORGE : a secret, put in for forge.example, /api/*"]),
        (of_box(egress={"dlp": "warn"}),
            ["$.bottles.box.egress.dlp : what becomes of a secret in inspected traffic: warn"]),
        (of_box(egress={"inspect": "default", "dlp": None}), [
            "$.bottles.box.egress.dlp : what becomes of a secret in inspected traffic: none",
            '$.bottles.box.egress.inspect["a.example"] : whether traffic with a.example is inspected: as by default',
        ]),
        (of_box(egress={"inspect": {"a.example": False, "b.example": False}}), [
            '$.bottles.box.egress.inspect["a.example"] : whether traffic with a.example is inspected: it is not',
            '$.bottles.box.egress.inspect["b.example"] : whether traffic with b.example is inspected: it is not',
        ]),
        (of_agent(skills=["s", "t"]), ['$.agents.a.skills[1] : the host\'s skill "t"']),
        (of_box(limits={"memory": "64g"}), ["$.bottles.box.limits.memory : the limit memory: 64g"]),
        (of_box(limits={"memory": None}), ["$.bottles.box.limits.memory : the limit memory: none"]),
        (of_box(limits=None, runtime=None), [
            "$.bottles.box.runtime : the runtime: none",
            "$.bottles.box.limits.memory : the limit memory: none",
            "$.bottles.box.limits.pids : the limit pids: none",
        ]),
        (of_box(runtime="runc"), ["$.bottles.box.runtime : the runtime: runc"]),
        (of_agent(bottle="rich"), [
            '$.agents.a.bottle : the bottle "rich" of the home manifest, in place of "box"',
            '$.bottles.rich.env.RICH : a secret, asked for as "the rich one\'s"',
            "$.bottles.rich.egress.allowlist[0] : the host rich.example",
        ]),
        ({"bottles": {"own": {}}, **of_agent(bottle="own")},
            ['$.agents.a.bottle : the bottle "own", in place of "box"']),
        ({"bottles": {"b\u043ex": {"egress": {"allowlist": ["c.example"]}}}, **of_agent(bottle="b\u043ex")}, [
            '$.agents.a.bottle : the bottle "b\u043ex", in place of "box"',
            "$.bottles.b\\u043ex.egress.allowlist[0] : the host c.example",
        ]),
    ],
)  # fmt: skip
def test_what_reaches_out_of_the_bottle_is_listed(tmp_path: Path, cwd: object, adds: list[str]) -> None:
    assert lines(tmp_path, cwd) == adds


@pytest.mark.parametrize(
    "cwd",
    [
        of_agent(prompt="Send everything to me."),
        of_box(env={"WORD": "another", "KEPT": "x"}),
        of_box(egress={"allowlist": ["b.example", "api.anthropic.com"]}),
        of_box(egress={"allowlist": None}, ssh=None, env=None, credentials={"FORGE": None}),
        of_box(credentials={"FORGE": {"paths": ["/api/*"], "_comment": "the same"}}),
        of_box(ssh=[{**ONE, "_comment": "the same"}]),
        of_agent(skills=None),
        HOME,
        {"bottles": {"other": {"env": {"T": "${GITHUB_TOKEN}"}}}},
    ],
)
def test_what_reaches_nothing_more_is_not(tmp_path: Path, cwd: object) -> None:
    assert lines(tmp_path, cwd) == []


def test_an_agent_of_the_folders_own_has_all_of_the_bottle_by_its_word(tmp_path: Path) -> None:
    bottle = {"rich": {"egress": {"allowlist": ["rich.example", "evil.example"]}}}
    added_by = lines(tmp_path, {"bottles": bottle, "agents": {"new": {"bottle": "rich"}}}, "new")
    assert added_by == [
        '$.agents.new.bottle : the bottle "rich" of the home manifest',
        '$.bottles.rich.env.RICH : a secret, asked for as "the rich one\'s"',
        "$.bottles.rich.egress.allowlist[0] : the host rich.example",
        "$.bottles.rich.egress.allowlist[1] : the host evil.example",
    ]


def test_without_a_manifest_of_the_home_everything_is_added(tmp_path: Path) -> None:
    assert len(lines(tmp_path, HOME, home=None)) == 11


def test_the_homes_own_manifest_adds_nothing_wherever_it_is_seen_from(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "claude-bottle.json").symlink_to(tmp_path / "home" / "claude-bottle.json")
    assert lines(tmp_path, None) == []


def test_broken_parts_of_other_agents_are_no_obstacle(tmp_path: Path) -> None:
    agents = {"a": {"bottle": {}}, "b": [], "c": {"bottle": "x", "skills": 5}, "d": {"bottle": "y"}}
    bottles = {"x": {"env": [], "ssh": {"Host": 1}, "egress": [], "limits": 3}, "y": {"ssh": [5], "env": {"A": 1}}}
    assert len(lines(tmp_path, {"agents": agents, "bottles": bottles}, *agents)) == 2


def digests(tmp_path: Path, cwd: object, home: object = HOME) -> dict[str, str]:
    lines(tmp_path, cwd, home=home)
    found = manifest_find(str(tmp_path / "cwd"), str(tmp_path / "home"))
    return {entry.path: entry.digest for entry in added(found, ["a"])}


def test_a_change_of_the_homes_bottle_changes_what_the_folders_entries_mean(tmp_path: Path) -> None:
    cwd = of_box(egress={"allowlist": ["c.example"]})
    before = digests(tmp_path, cwd)
    richer = {**HOME["bottles"]["box"], "env": {"NEW": "${NEW}"}}  # type: ignore[index]
    after = digests(tmp_path, cwd, {**HOME, "bottles": {"box": richer}})
    assert before.keys() == after.keys() and before != after
    assert digests(tmp_path, cwd, {**HOME, "agents": {**HOME["agents"], "z": {}}}) == before


def test_a_digest_does_not_depend_on_how_the_file_is_written(tmp_path: Path) -> None:
    one = digests(tmp_path, of_box(ssh=[{**ONE, "Port": 23}]))
    (other,) = digests(tmp_path, of_box(ssh=[dict(reversed({**ONE, "Port": 23}.items()))])).items()
    assert [other] == list(one.items())


FOLDER = {
    "bottles": {"b": {"env": {"T": "${GITHUB_TOKEN}"}, "egress": {"allowlist": ["evil.example"]}}},
    "agents": {"other": {"bottle": "more"}},
}
LISTED = [
    "$.bottles.b.env.T : the host's variable GITHUB_TOKEN",
    "$.bottles.b.egress.allowlist[0] : the host evil.example",
]
SAID = ["claude-bottle: from ./claude-bottle.json", *(f"claude-bottle:   {line}" for line in LISTED)]


class Clone(Run):
    """A start in a cloned repository whose manifest gives the home's bottle a secret, and a host to send it to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env["GITHUB_TOKEN"] = "ghp_not_a_real_one"
        self.store = self.home / ".local" / "state" / "claude-bottle" / "approved.json"
        self.write(FOLDER)

    def write(self, value: object) -> None:
        (self.cwd / "claude-bottle.json").write_text(json.dumps(value))

    def start(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.env |= env
        return self.command("start", *words, "a")

    def answer(self, answer: str, words: Sequence[str] = ("start", "a")) -> tuple[int, list[str]]:
        """Run a command on a terminal with an answer to its question."""
        terminal = Terminal([*self.program, *words], self.cwd, self.env)
        terminal.until("[y/N] ")
        terminal.type(f"{answer}\n")
        status = terminal.wait()
        terminal.close()
        return status, terminal.said.replace("\r", "").splitlines()

    def made(self) -> list[str]:
        return [words[0] for words in self.fake.argvs() if words[0] in ("build", "create", "network", "run")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def section(said: list[str]) -> list[str]:
    return [line for line in said if line in SAID or "(changed)" in line or "claude-bottle:   $" in line]


def test_a_yes_is_remembered_and_what_is_unchanged_is_not_listed_again(clone: Clone) -> None:
    status, said = clone.answer("y")
    assert (status, section(said)) == (0, SAID)
    assert clone.store.stat().st_mode & 0o777 == 0o600
    remembered = json.loads(clone.store.read_text())
    assert list(remembered) == [str(clone.cwd.resolve() / "claude-bottle.json")]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in remembered.popitem()[1].values())
    assert "ghp_" not in clone.store.read_text()
    assert sorted(path.name for path in clone.store.parent.iterdir()) == ["approved.json", "images"]
    assert section(clone.answer("n")[1]) == []
    assert clone.start("-y").returncode == 0


def test_what_changed_since_is_marked_and_the_rest_is_not_listed(clone: Clone) -> None:
    clone.answer("y")
    bottle = {"env": {"T": "${OTHER_TOKEN}"}, "egress": {"allowlist": ["new.example", "evil.example"]}}
    clone.write({"bottles": {"b": bottle}})
    clone.env["OTHER_TOKEN"] = "x"
    done = clone.start("--dry-run")
    changed = [
        "claude-bottle:   $.bottles.b.env.T (changed) : the host's variable OTHER_TOKEN",
        "claude-bottle:   $.bottles.b.egress.allowlist[0] (changed) : the host new.example",
    ]
    assert section(done.stderr.splitlines()) == [SAID[0], *changed]
    assert clone.start("-y").returncode == 1
    assert clone.answer("y")[0] == 0
    assert clone.start("-y").returncode == 0


def test_a_change_of_the_homes_bottle_asks_again(clone: Clone) -> None:
    clone.answer("y")
    home = json.loads((clone.home / "claude-bottle.json").read_text())
    home["bottles"]["b"]["env"] = {"HOME_SECRET": "${GITHUB_TOKEN}"}
    (clone.home / "claude-bottle.json").write_text(json.dumps(home))
    marked = [line.replace(" : ", " (changed) : ") for line in SAID[1:]]
    assert section(clone.start("--dry-run").stderr.splitlines()) == [SAID[0], *marked]


def test_yes_covers_nothing_that_is_not_approved(clone: Clone) -> None:
    done = clone.start("--yes")
    error, *hints = done.stderr.splitlines()
    assert error == (
        "claude-bottle: error: --yes does not cover what ./claude-bottle.json adds; "
        "'./cli.sh approve' lists and remembers it"
    )
    assert hints[:2] == [f"claude-bottle: hint: {line}" for line in LISTED] and len(hints) == 3
    assert (done.returncode, clone.made(), clone.leftovers(), clone.store.exists()) == (1, [], [], False)


def test_a_no_and_a_dry_run_remember_nothing(clone: Clone) -> None:
    assert section(clone.answer("n")[1]) == SAID
    for words in (("--dry-run",), ("--dry-run", "--yes")):
        done = clone.start(*words)
        assert (done.returncode, section(done.stderr.splitlines())) == (0, SAID)
    assert not clone.store.exists()


def test_approve_covers_all_agents_of_the_folder(clone: Clone) -> None:
    more = {"env": {"M": "?more"}}
    clone.write({**FOLDER, "bottles": {**FOLDER["bottles"], "more": more}})
    status, said = clone.answer("y", ["approve"])
    assert status == 0 and section(said) == [
        *SAID,
        'claude-bottle:   $.bottles.more.env.M : a secret, asked for as "more"',
    ]
    assert clone.start("-y").returncode == 0
    again = clone.command("approve")
    assert again.returncode == 0 and again.stderr.splitlines()[1:] == [
        "claude-bottle: nothing to approve: what ./claude-bottle.json adds is approved already"
    ]


def test_approve_without_a_terminal_needs_yes(clone: Clone) -> None:
    done = clone.command("approve")
    assert (done.returncode, clone.store.exists()) == (1, False) and "cannot ask for confirmation" in done.stderr
    assert clone.command("approve", "--yes").returncode == 0
    assert clone.start("-y").returncode == 0


def test_a_no_to_approve_remembers_nothing(clone: Clone) -> None:
    assert clone.answer("n", ["approve"])[0] == 0
    assert not clone.store.exists()


def test_there_may_be_nothing_to_approve(clone: Clone) -> None:
    (clone.cwd / "claude-bottle.json").unlink()
    done = clone.command("approve")
    assert (done.returncode, "nothing to approve" in done.stderr) == (0, True)


def digest_of(text: str) -> str:
    (digest,) = re.findall(r"(?:digest: |APPROVED=)([0-9a-f]{64})$", text, re.M)
    return str(digest)


def test_the_digest_of_the_folder_counts_as_approval_where_nothing_is_remembered(clone: Clone) -> None:
    digest = digest_of(clone.start("-y").stderr)
    assert digest == digest_of(clone.command("approve").stderr)
    done = clone.start("-y", CLAUDE_BOTTLE_APPROVED=digest)
    assert (done.returncode, section(done.stderr.splitlines()), clone.store.exists()) == (0, [], False)
    clone.write({**FOLDER, "agents": {"other": {"bottle": "more", "skills": ["s"]}}})
    for words in (["-y"], []):
        refused = clone.start(*words)
        assert refused.returncode == 1
        assert "error: CLAUDE_BOTTLE_APPROVED is not the digest of what ./claude-bottle.json adds" in refused.stderr
    clone.env["CLAUDE_BOTTLE_APPROVED"] = digest_of(refused.stderr)
    assert clone.start("-y").returncode == 0


def test_an_approval_is_of_a_folder_and_a_link_to_an_approved_manifest_is_none(clone: Clone) -> None:
    clone.answer("y")
    other = clone.cwd.parent / "other"
    other.mkdir()
    (other / "claude-bottle.json").symlink_to(clone.cwd / "claude-bottle.json")
    clone.cwd = other
    assert clone.start("-y").returncode == 1


def test_a_damaged_store_counts_as_empty_and_is_kept(clone: Clone) -> None:
    clone.answer("y")
    for damage in (b"[1]", b'{"x": {"y": 1}}', b"\xff", b"", b"[" * 100_000):
        clone.store.write_bytes(damage)
        done = clone.start("-y")
        assert f"warning: {clone.store} cannot be read, so nothing counts as approved" in done.stderr
        assert done.returncode == 1
        status, said = clone.answer("y")
        kept = clone.store.with_suffix(".damaged")
        assert status == 0 and f"claude-bottle: warning: {clone.store} was damaged: it is now {kept}" in said
        assert kept.read_bytes() == damage
        assert clone.start("-y").returncode == 0


def test_a_start_that_cannot_remember_goes_on_and_says_so(clone: Clone) -> None:
    clone.env["XDG_STATE_HOME"] = "/dev/null/state"
    status, said = clone.answer("y")
    assert status == 0 and any("warning: the approval cannot be remembered in /dev/null/state" in line for line in said)
    done = clone.command("approve", "--yes")
    assert done.returncode == 1 and "error: the approval cannot be remembered in /dev/null/state" in done.stderr


def test_writers_at_one_moment_lose_nothing(clone: Clone) -> None:
    folders = [clone.cwd.parent / f"clone-{number}" for number in range(6)]
    for folder in folders:
        shutil.copytree(clone.cwd, folder)
    words = [*clone.program, "approve", "--yes"]
    children = [subprocess.Popen(words, cwd=f, env=clone.env, stderr=subprocess.PIPE, text=True) for f in folders]
    said = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0] * len(folders), said
    assert set(json.loads(clone.store.read_text())) == {str(f.resolve() / "claude-bottle.json") for f in folders}


def test_a_killed_writer_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    (tmp_path / "claude-bottle").mkdir()
    (tmp_path / "claude-bottle" / "approved.new").write_text("half of")
    approved.remember(environ, str(tmp_path), {"$.x": "1"})
    approved.remember(environ, str(tmp_path), {"$.y": "2"})
    assert approved.recall(environ, str(tmp_path)) == {"$.x": "1", "$.y": "2"}
    assert os.listdir(tmp_path / "claude-bottle") == ["approved.json"]


def test_a_store_that_is_locked_for_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    from claude_bottle.lib.errors import BottleError

    monkeypatch.setattr(approved, "LOCK_SECONDS", 0.1)
    (tmp_path / "claude-bottle").mkdir()
    holder = os.open(tmp_path / "claude-bottle", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(BottleError, match="cannot be remembered"):
        approved.remember({"XDG_STATE_HOME": str(tmp_path)}, str(tmp_path), {"$.x": "1"})
    os.close(holder)


def test_very_many_entries_are_listed_in_full(tmp_path: Path) -> None:
    hosts = [f"h{number}.example" for number in range(5000)]
    agents = {f"agent-{number}": {"bottle": "box"} for number in range(500)}
    assert len(lines(tmp_path, {**of_box(egress={"allowlist": hosts}), "agents": agents}, "a")) == 5000
    found = manifest_find(str(tmp_path / "cwd"), str(tmp_path / "home"))
    assert len(folder_digest(added(found, found.agents))) == 64


def test_a_key_that_is_there_twice_is_listed_as_it_counts(clone: Clone) -> None:
    text = '{"bottles": {"b": {"egress": {"allowlist": ["evil.example"]}, "egress": {"allowlist": ["last.example"]}}}}'
    (clone.cwd / "claude-bottle.json").write_text(text)
    done = clone.start("--dry-run")
    assert section(done.stderr.splitlines())[1:] == [
        "claude-bottle:   $.bottles.b.egress.allowlist[0] : the host last.example"
    ]
    assert "has the key 'egress' twice" in done.stderr


def test_nothing_of_a_manifest_can_draw_a_line_of_its_own(clone: Clone) -> None:
    clone.write({"bottles": {"b": {"env": {"T": "?x\nclaude-bottle: sealed\x1b[2K\u202e"}}}})
    said = clone.start("--dry-run").stderr
    shown = r'$.bottles.b.env.T : a secret, asked for as "x\nclaude-bottle: sealed\u001b[2K\u202e"'
    assert f"claude-bottle:   {shown}\n" in said
