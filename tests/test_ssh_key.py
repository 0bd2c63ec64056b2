"""A private key before the question: what ssh-add would refuse is named, with its cause and the fix."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from claude_bottle.lib import ssh, ssh_key
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.manifest import Manifest

from tests.conftest import ROOT
from tests.fake_docker import FakeDocker

PASSPHRASE = "could not be added (passphrase-protected keys are not supported)"
KINDS = {
    "ed25519": ["ssh-keygen", "-q", "-t", "ed25519"],
    "rsa-pem": ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-m", "PEM"],
    "ecdsa-pem": ["ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM"],
    "ecdsa-pkcs8": ["ssh-keygen", "-q", "-t", "ecdsa", "-m", "PKCS8"],
}


def make(folder: Path, kind: str, passphrase: str = "") -> Path:
    path = folder / "id"
    subprocess.run([*KINDS[kind], "-N", passphrase, "-f", str(path)], check=True)
    return path


def read_back(folder: Path, key: bytes) -> str:
    """Return the public key that OpenSSH itself finds in what ssh-add would be given."""
    path = folder / "fed"
    path.write_bytes(key)
    path.chmod(0o600)
    done = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", str(path)], capture_output=True, text=True)
    return " ".join(done.stdout.split()[:2])


def refusal(path: Path) -> BottleError:
    with pytest.raises(BottleError) as caught:
        ssh_key.ssh_read_key("forge", str(path))
    assert all("\n" not in text for text in (caught.value.message, *caught.value.hints))
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_taken_whatever_its_line_ends(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind)
    public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
    key = path.read_bytes()
    windows = key.replace(b"\n", b"\r\n")
    for written in (key, windows, key.rstrip(b"\n"), b"\xef\xbb\xbf" + windows, key.replace(b"\n", b" \n") + b"\n\n"):
        path.write_bytes(written)
        assert read_back(tmp_path, ssh_key.ssh_read_key("forge", str(path))) == public


@pytest.mark.parametrize("kind", KINDS)
def test_a_passphrase_is_named_in_the_shells_words_and_with_the_fix(tmp_path: Path, kind: str) -> None:
    found = refusal(make(tmp_path, kind, "a passphrase"))
    assert found.message == f"ssh key for host 'forge' {PASSPHRASE}"
    assert "ssh-keygen -p" in found.hints[0] and str(tmp_path) in found.hints[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_was_cut_is_named(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind)
    lines = path.read_bytes().splitlines(True)
    for left in (lines[:-1], lines[1:], lines[:2], [*lines[:1], *lines[2:]], [lines[0][:17]]):
        path.write_bytes(b"".join(left))
        assert "is cut off" in refusal(path).message


def test_what_is_no_private_key_is_named(tmp_path: Path) -> None:
    path = make(tmp_path, "ed25519")
    public = path.with_suffix(".pub")
    assert refusal(public).message == f"ssh key for host 'forge' is a public key: {public}"
    pem = subprocess.run(["ssh-keygen", "-e", "-f", public], capture_output=True, check=True).stdout
    for text, what in (
        (pem, "is a public key"),
        (b"\n", "is empty"),
        (b"PuTTY-User-Key-File-3: x\n", "is one of PuTTY's"),
    ):
        path.write_bytes(text)
        assert what in refusal(path).message
    path.write_bytes(b"x" * (ssh_key.MAX_BYTES + 1))
    assert "is larger than 1 MiB" in refusal(path).message


def test_a_key_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object) -> None:  # root, who may run the tests, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    found = refusal(tmp_path / "id")
    assert (found.message, found.hints) == (
        f"ssh key for host 'forge' cannot be read: {tmp_path}/id",
        ("Permission denied",),
    )


def test_all_keys_at_fault_are_named_before_the_question_and_nothing_is_made(tmp_path: Path) -> None:
    for name in ("project", "home", "tmp"):
        (tmp_path / name).mkdir()
    make(tmp_path / "project", "ed25519", "a passphrase")
    entry = {"Host": "one", "IdentityFile": "id", "Hostname": "git.example.org", "User": "git", "Port": 22}
    entries = [
        entry,
        {**entry, "Host": "two", "IdentityFile": "id.pub"},
        {**entry, "Host": "three", "IdentityFile": "no"},
    ]
    manifest = {"bottles": {"b": {"ssh": entries}}, "agents": {"a": {"bottle": "b"}}}
    (tmp_path / "project" / "claude-bottle.json").write_text(json.dumps(manifest))
    fake = FakeDocker(tmp_path / "engine")
    env = {"PATH": fake.path(), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [ROOT / "cli.sh", "start", "a"], cwd=tmp_path / "project", env=env, capture_output=True, text=True, timeout=60
    )
    first, *hints = done.stderr.splitlines()
    assert first == f"claude-bottle: error: ssh key file not found for host 'three': {tmp_path}/project/no"
    assert f"claude-bottle: hint: also: ssh key for host 'one' {PASSPHRASE}" in hints
    assert f"claude-bottle: hint: also: ssh key for host 'two' is a public key: {tmp_path}/project/id.pub" in hints
    assert done.returncode == 1 and not any("create" in words or "build" in words for words in fake.argvs())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_looks_like_no_key_is_left_to_ssh_add(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("k")
    entry = {"Host": "h", "IdentityFile": "id", "Hostname": "git.example.org", "User": "git", "Port": 22}
    entries = ssh.ssh_load(Manifest({"bottles": {"b": {"ssh": [entry]}}}), "b")
    ssh.ssh_check_keys(str(tmp_path), "/nowhere", entries)
    assert ssh_key.ssh_read_key("h", str(tmp_path / "id")) == b"k\n"
