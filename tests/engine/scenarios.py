"""What users have in their folders and type, for both launchers to start from."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .conftest import Desk

RUN = f"fx-{os.getpid()}"  # in every name on the engine: other runs of these tests may use it too
IMAGE = f"{RUN}-session:latest"
HOME, OTHER_HOME = "/home/node", "/srv/den"
TOKEN_NAME = "CLAUDE_CODE_OAUTH_TOKEN"
FLAG = "--dangerously-skip-permissions"
ANSWER = "täglich $x 'y'"

Entries = tuple[dict[str, object], dict[str, object]]


@dataclass(frozen=True)
class Scenario:
    """A user's folders and what the user types.

    Args:
        name: part of the agent's name.
        furnish: fills the desk and returns the bottle and the agent of its manifest.
        flags: of ``start``.
        env: settings; ``{slug}`` in a value is the slug.
        answers: what is typed at which question, before the last one.
        home: of the bottle.
    """

    name: str
    furnish: Callable[[Desk], Entries]
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    answers: tuple[tuple[str, str], ...] = ()
    home: str = HOME

    @property
    def slug(self) -> str:
        return f"{RUN}-{self.name}"

    @property
    def settings(self) -> dict[str, str]:
        return {name: value.format(slug=self.slug) for name, value in self.env.items()}

    @property
    def container(self) -> str:
        return self.settings.get("CLAUDE_BOTTLE_CONTAINER", f"claude-bottle-{self.slug}")

    def desk(self, folder: Path) -> Desk:
        """Return the user's folders, filled."""
        desk = Desk(folder, self.slug)
        desk.manifest(*self.furnish(desk))
        state = folder.with_name(f"{folder.name}.state")
        desk.env.update(CLAUDE_BOTTLE_IMAGE=IMAGE, XDG_STATE_HOME=str(state), **self.settings)
        return desk


def write(path: Path, text: str = "text\n", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def plain(desk: Desk) -> Entries:
    del desk.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    return {}, {"prompt": "Say hello."}


def skills(desk: Desk) -> list[str]:
    folder = desk.home / ".claude" / "skills"
    write(folder / "review" / "SKILL.md", "# Rückblick\n", 0o600)
    write(folder / "review" / "tools" / "deep er" / "run.sh", "#!/bin/sh\n", 0o755)
    write(folder / "review" / "a file with *?[globs] and 'quotes'", "", 0o444)
    (folder / "review" / "empty").mkdir(mode=0o700)
    (folder / "review" / "link").symlink_to("tools/deep er")
    (folder / "review" / "dangling").symlink_to("not there yet")
    (folder / "review").chmod(0o750)
    write(folder / "held" / "new", "new\n")  # the image has a skill of this name
    write(desk.home / "elsewhere" / "SKILL.md")
    (folder / "linked").symlink_to(desk.home / "elsewhere")
    return ["review", "held", "linked"]


def full(desk: Desk) -> Entries:
    desk.env |= {"TWO_LINES": "one\n two ", "EMPTY": "", "CLAUDE_CODE_EXTRA": "host"}
    env = {
        "LITERAL": """a "b" 'c' $HOME `d` \\ # e = é  """,
        "LINES": "${TWO_LINES}",
        "NOTHING": "${EMPTY}",
        "ASKED": "?what is it",
        "NO_LITERAL": "",
        "DISABLE_AUTOUPDATER": "0",
        "TERM": "vt100",
        "http_proxy": "http://elsewhere.test:1",
        "DOCKER_HOST": "tcp://nowhere.test:1",
    }
    bottle = {"env": env, "egress": {"allowlist": ["*.example.org", "github.com"]}}
    return bottle, {"prompt": "Du bist ein Tester. 🐟\n\n  two\n\n\n", "skills": skills(desk)}


def workspace(desk: Desk) -> None:
    write(desk.cwd / "a file", mode=0o600)
    write(desk.cwd / "größe [1]*?.txt")
    write(desk.cwd / "bin" / "run", "#!/bin/sh\n", 0o755)
    write(desk.cwd / "left out.log")
    write(desk.cwd / "kept.log")
    (desk.cwd / "empty").mkdir(mode=0o700)
    (desk.cwd / "link").symlink_to("bin/run")
    (desk.cwd / "out").symlink_to("/etc/hostname")


def cwd(desk: Desk) -> Entries:
    workspace(desk)
    write(desk.cwd / ".dockerignore", "*.log\n!kept.log\n.git\n")
    git = desk.cwd / ".git"
    subprocess.run(["git", "init", "-q", str(desk.cwd)], check=True, env=desk.env)
    write(git / "objects" / "pack" / "pack-1.pack", "PACK", 0o444)
    write(git / "hooks" / "pre-commit", "#!/bin/sh\n", 0o755)
    (git / "link").symlink_to("HEAD")
    with socket.socket(socket.AF_UNIX) as listener:  # git's own file watcher has one there
        listener.bind(str(git / "ipc"))
    return {}, {}


def git_file(desk: Desk) -> Entries:
    write(desk.cwd / ".git", "gitdir: /nowhere/at/all\n")
    return {}, {}


def key(path: Path, *words: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-N", "", *words, "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def ssh(desk: Desk) -> Entries:
    pinned = key(desk.home / "keys" / "id one", "-t", "ed25519", "-C", "a comment")
    key(desk.cwd / "id", "-t", "ecdsa", "-m", "PEM")
    entries = [
        {"Host": "forge", "IdentityFile": "~/keys/id one", "Hostname": "git.example.org", "User": "git", "Port": 2222},
        {"Host": "plain", "IdentityFile": "id", "Hostname": "100.64.0.7", "User": "me", "Port": "22"},
    ]
    return {"ssh": [{**entries[0], "KnownHostKey": pinned}, entries[1]]}, {}


def settings(desk: Desk) -> Entries:
    write(desk.cwd / "a file")
    return {}, {"skills": skills(desk)[:1]}


SCENARIOS = [
    Scenario("plain", plain),
    Scenario("full", full, answers=(("what is it: ", ANSWER),)),
    Scenario("cwd", cwd, ("--cwd",)),
    Scenario("gitfile", git_file, ("--cwd",)),
    Scenario("ssh", ssh),
    Scenario("empty", lambda desk: ({}, {"prompt": ""}), ("--remote-control",)),
    Scenario(
        "settings",
        settings,
        ("--cwd",),
        {
            "CLAUDE_BOTTLE_CONTAINER": "pinned-{slug}",
            "CLAUDE_BOTTLE_DERIVED_IMAGE": "named-{slug}:mine",
            "CLAUDE_BOTTLE_CONTAINER_HOME": OTHER_HOME,
            "CLAUDE_BOTTLE_CONTAINER_SKILLS_DIR": f"{OTHER_HOME}/a/b/talents",
            "CLAUDE_BOTTLE_PIPELOCK_PORT": "9091",
        },
        home=OTHER_HOME,
    ),
]
