"""A private key of the host's, looked at before the question: in the bottle ssh-add has one answer to all faults."""

from __future__ import annotations

import binascii
import re
import struct
from pathlib import Path

from claude_bottle.lib.errors import reason
from claude_bottle.lib.problems import UnseenByShell

MAX_BYTES = 1024 * 1024
_BEGIN = re.compile(rb"^-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----$", re.MULTILINE)
_PUBLIC = re.compile(rb"(ssh|ecdsa|sk)-[a-z0-9@.-]+ |-+ ?BEGIN ([A-Z0-9 ]+ )?PUBLIC KEY", re.ASCII)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OPENSSH = b"openssh-key-v1\0"
_PASSPHRASE = "ssh key for host '{}' could not be added (passphrase-protected keys are not supported)"


def ssh_read_key(host: str, path: str) -> bytes:
    """Return a private key as ssh-add takes it: line ends of Unix and no blanks before them, the last line ended too.

    What looks like no kind of key at all is left to ssh-add.

    Args:
        host: of the entry, for the messages.
        path: of the file.

    Raises:
        BottleError: it cannot be read, or ssh-add could not take it; with the cause and the fix, never with the key.
    """
    try:
        with Path(path).open("rb") as file:
            key = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise UnseenByShell(f"ssh key for host '{host}' cannot be read: {path}", [reason(problem)]) from None
    key = b"".join(line.rstrip() + b"\n" for line in key.removeprefix(_BYTE_ORDER_MARK).splitlines())
    _check(host, path, key)
    return key


def _check(host: str, path: str, key: bytes) -> None:
    if problem := _other_kind(key) or _damage(key):
        what, fix = problem
        raise UnseenByShell(f"ssh key for host '{host}' {what}: {path}", [fix])
    if _has_passphrase(key):
        fix = f"{path} has a passphrase; a copy without one is made by: ssh-keygen -p -f COPY"
        raise UnseenByShell(_PASSPHRASE.format(host), [fix])


def _other_kind(key: bytes) -> tuple[str, str] | None:
    """Return what it is instead of a private key of OpenSSH's or OpenSSL's, if that can be told, and what to do."""
    if not key.strip():
        return "is empty", "IdentityFile has to name a private key"
    if len(key) > MAX_BYTES:
        return "is larger than 1 MiB", "IdentityFile has to name a private key"
    if _PUBLIC.match(key.lstrip()):
        return "is a public key", "IdentityFile has to name the private one, which mostly has no .pub at its end"
    if key.startswith(b"PuTTY-User-Key-File"):
        return "is one of PuTTY's", "make a copy with: puttygen KEY -O private-openssh -o COPY"
    return None


def _damage(key: bytes) -> tuple[str, str] | None:
    kind, body = _parts(key)
    if body is None or (not kind and _is_cut(key)):
        return "is cut off", "its first or its last line is missing; copy the file again, whole"
    if kind and not _says_encrypted(kind, body) and not _is_whole(_decoded(body)):
        return "is cut off or damaged", "something is missing between its first and its last line"
    return None


def _has_passphrase(key: bytes) -> bool:
    """Say whether a key that is whole has one."""
    kind, body = _parts(key)
    said = _says_encrypted(kind, body or b"")
    return said or (kind == b"OPENSSH PRIVATE KEY" and _strings(_decoded(body or b""))[:1] != [b"none"])


def _says_encrypted(kind: bytes, body: bytes) -> bool:
    """Say whether it can be read without decoding it that a key is encrypted."""
    return kind == b"ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in body


def _parts(key: bytes) -> tuple[bytes, bytes | None]:
    """Return what the first line of a private key calls it and what it holds; empty without such a line."""
    begin = _BEGIN.search(key)
    return (begin[1], _body(key, begin)) if begin else (b"", b"")


def _is_cut(key: bytes) -> bool:
    """Say whether what has no first line of a private key was one."""
    return key.startswith(b"-----BEGIN ") != (b"PRIVATE KEY-----" in key and b"-----END " in key)


def _body(key: bytes, begin: re.Match[bytes]) -> bytes | None:
    """Return what stands between the first and the last line, None without the last."""
    end = key.find(b"\n-----END " + begin[1] + b"-----", begin.end())
    return None if end < 0 else key[begin.end() : end]


def _decoded(body: bytes) -> bytes:
    """Return what the lines stand for, nothing where they are no base64; header lines have a colon."""
    lines = b" ".join(line for line in body.split(b"\n") if b":" not in line)
    try:
        return binascii.a2b_base64(b"".join(lines.split()), strict_mode=True)
    except binascii.Error:
        return b""


def _is_whole(content: bytes) -> bool:
    """Say whether a key is as long as it says itself; more behind it does no harm."""
    if content.startswith(_OPENSSH):
        return len(_strings(content)) == 5
    if len(content) < 2 or content[0] != 0x30:  # a sequence, in DER
        return False
    size, start = content[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(content[2:start], "big")
    return len(content) >= start + size


def _strings(content: bytes) -> list[bytes]:
    """Return the strings of OpenSSH's own form: cipher, kdf, its options, public key, private keys; those there are."""
    found, at = [], len(_OPENSSH)
    for number in range(5):
        at += 4 if number == 3 else 0  # the count of keys
        if at + 4 > len(content):
            break
        (size,) = struct.unpack_from(">I", content, at)
        if at + 4 + size > len(content):
            break
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found
