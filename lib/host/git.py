"""The host's git, looking at a repository that may be somebody else's: it reads, and runs nothing that this says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence

from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Call

# Not the user's settings, no question, no lock beside what others do, and no transport, not even for what a repository
# says that it lacks (git before 2.44 knows no switch for that).
_VARIABLES = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}
_SETTINGS = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "gc.auto=0", "maintenance.auto=false")


def git_find(environ: Mapping[str, str]) -> str:
    """Return the path of the host's git, or an empty text; a relative folder of PATH may be the project's.

    Args:
        environ: the caller's environment.
    """
    folders = [folder for folder in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]
    return shutil.which("git", path=os.pathsep.join(folders)) or ""


def git_call(
    folder: str,
    words: Sequence[str],
    *,
    stdin: Iterable[bytes] = (),
    variables: Mapping[str, str] | None = None,
    heard: Callable[[str, bytes], None] | None = None,
) -> Call:
    """Return a call of the host's git on a repository, whoever owns that: it is named, so git looks for none.

    Args:
        folder: the repository's own, with its HEAD.
        words: git's command and its arguments.
        stdin: pieces of what it reads.
        variables: of its environment, beside the fixed ones.
        heard: see ``Call``.

    Raises:
        BottleError: there is no git.
    """
    program = git_find(os.environ)
    if not program:
        raise BottleError("git not found on PATH")
    env = {name: value for name, value in run.child_env().items() if not name.startswith("GIT_")}
    options = [word for setting in _SETTINGS for word in ("-c", setting)]
    every = ["--no-pager", *options, f"--git-dir={folder}", *words]
    env |= _VARIABLES | dict(variables or {})
    return Call(program, every, env, run.SILENT_SECONDS, stdin, run.on_signal, True, heard=heard)
