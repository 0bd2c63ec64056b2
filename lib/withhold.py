"""What is kept from every child: the variables that a manifest takes credentials from, and the token.

It is settled before any process starts, so the manifests are looked through here, loosely: what is wrong in them is
said by the command that needs them. And what is kept from every container but the broker: the values.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from claude_bottle.lib import env
from claude_bottle.lib.errors import BottleError

FILE_NAME = "claude-bottle.json"
MAX_BYTES = 16 * 1024 * 1024
SHORTEST = 8  # of a value that is looked for: a shorter one is in anything


def withhold(environ: Mapping[str, str]) -> None:
    """Take from every child the variables that a credential comes from, in any bottle of both manifests.

    Args:
        environ: the caller's environment.
    """
    for folder in (".", environ.get("HOME") or "."):
        with suppress(OSError, ValueError, RecursionError):
            env.withheld.update(name for name in _variables(_read(f"{folder}/{FILE_NAME}")) if not env.is_needed(name))


def _read(path: str) -> Any:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
        raise OSError
    with open(path, "rb") as file:
        return json.loads(file.read(MAX_BYTES))


def _variables(manifest: Any) -> Iterator[str]:
    for bottle in _values(_get(manifest, "bottles")):
        for credential in _values(_get(bottle, "credentials")):
            value = _get(credential, "value")
            found = env.HOST_VARIABLE.fullmatch(value) if isinstance(value, str) else None
            if found:
                yield found[1]


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


@dataclass(frozen=True, repr=False)
class Without:
    """Passes on what goes into a container, as long as none of some values is in it; again for each reader.

    Attributes:
        values: by the variable that each stands in for.
        chunks: of the stream.
    """

    values: Mapping[str, str]
    chunks: Iterable[bytes]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks.

        Raises:
            BottleError: a value is in them; never with the value.
        """
        each = ((name, value) for name, value in self.values.items() if len(value) >= SHORTEST)
        wanted = {name: value.encode("utf-8", "surrogateescape") for name, value in each}
        longest, before, file = max(map(len, wanted.values()), default=1), b"", ""
        for chunk in self.chunks:
            seen = before + chunk
            for name, value in wanted.items():
                at = seen.find(value)
                if at >= 0:
                    where = f": {found}" if (found := _file(seen[:at]) or file) else ""
                    raise BottleError(f"the value of {name} is in what would go into a container{where}", [_OUT_OF_IT])
            before, file = seen[max(0, len(seen) - longest + 1) :], _file(chunk) or file
            yield chunk


def _file(stream: bytes) -> str:
    """Return the path of the last file that begins in a piece of a tar, an empty text where none is seen to."""
    header = stream.rfind(_MAGIC) - _MAGIC_AT
    name = stream[header : header + _MOST_NAME].partition(b"\0")[0] if header >= 0 else b""
    return f"/{name.decode('utf-8', 'surrogateescape')}" if name else ""


_MAGIC, _MAGIC_AT, _MOST_NAME = b"ustar  \0", 257, 100  # of a member's header
_OUT_OF_IT = "take it out of the prompt, the skills, the project, the ssh keys or the env: a placeholder stands for it"
