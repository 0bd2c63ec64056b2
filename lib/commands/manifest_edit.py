"""``init`` and ``edit``: what changes a manifest on the host (shell: cmd_init, cmd_edit, manifest_rewrite)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from claude_bottle.lib import env, log
from claude_bottle.lib.errors import BottleError, reason
from claude_bottle.lib.files.replace import replace
from claude_bottle.lib.host import calls, process, run, terminal, wait
from claude_bottle.lib.manifest import (
    FILE_NAME,
    Manifest,
    manifest_exists,
    manifest_find,
    manifest_load,
    manifest_read,
    manifest_require_agent,
)
from claude_bottle.lib.schema import strict_json

DEFAULT_BOTTLE = "default"


def _new_bottle() -> dict[str, Any]:
    return {"env": {}, "ssh": [], "egress": {"allowlist": []}}


def init(environ: Mapping[str, str], cwd: str) -> int:
    """Ask for an agent and write it into the working directory's manifest (shell: cmd_init).

    Args:
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.

    Returns:
        0.

    Raises:
        BottleError: a manifest is at fault, the agent exists, or the file cannot be written.
        Interrupted: a signal arrived; nothing has been written.
    """
    home = _home(environ)
    found = manifest_find(cwd, home)
    path = f"{cwd.rstrip('/')}/{FILE_NAME}"
    terminal.tty_require("cannot ask for the new agent: no terminal")
    agent = _ask_for_name(path)
    bottle = terminal.ask_line("bottle [default]: ") or DEFAULT_BOTTLE
    skills = terminal.ask_line("skills (space separated): ")
    prompt = terminal.ask_line("prompt: ")
    manifest_add_agent(path, found, agent, bottle, skills, prompt)
    log.log_info(f"added agent '{agent}' to {path}")
    return 0


def _ask_for_name(path: str) -> str:
    agent = terminal.ask_line("agent name: ")
    if not agent:
        raise BottleError("agent name is required")
    if manifest_file_has_agent(path, agent):
        raise agent_exists(agent, path)
    return agent


def _home(environ: Mapping[str, str]) -> str:
    settings = env.read_settings(environ)
    env.env_require_home(settings)
    return settings.host_home


def manifest_file_has_agent(path: str, agent: str) -> bool:
    """Say whether a file defines an agent (shell: manifest_file_has_agent).

    Raises:
        BottleError: the file cannot be read, or is no manifest any more.
    """
    return manifest_exists(path) and agent in _part(manifest_read(path), "agents")


def manifest_file_of_agent(found: Manifest, agent: str) -> str:
    """Return the file that defines an agent, the working directory's first (shell: manifest_file_of_agent).

    Raises:
        BottleError: no file does any more.
    """
    for path in found.files:
        if manifest_file_has_agent(path, agent):
            return path
    raise BottleError(f"agent '{agent}' is no longer in {' or '.join(found.files)}")


def manifest_add_agent(path: str, found: Manifest, agent: str, bottle: str, skills: str, prompt: str) -> None:
    """Write a new agent, and its bottle if the merged manifest has none of that name (shell: manifest_add_agent).

    The file may have changed while the user was asked: what it says by then is kept.

    Raises:
        BottleError: the file cannot be written, is no manifest any more, or has the agent by now.
    """

    def change(whole: dict[str, Any]) -> None:
        if bottle not in found.bottles:
            _part(whole, "bottles").setdefault(bottle, _new_bottle())
        agents = _part(whole, "agents")
        if agent in agents:
            raise agent_exists(agent, path)
        agents[agent] = {"bottle": bottle, "skills": [word for word in skills.split(" ") if word], "prompt": prompt}

    manifest_rewrite(path, change)


def agent_exists(agent: str, path: str) -> BottleError:
    """Return what is said of a new agent that there is already."""
    return BottleError(f"agent '{agent}' already exists in {path}")


def _part(whole: dict[str, Any], name: str) -> dict[str, Any]:
    if whole.get(name) is None:
        whole[name] = {}
    part = whole[name]
    if not isinstance(part, dict):
        raise BottleError(f"'{name}' in {FILE_NAME} must be an object")
    return part


def manifest_rewrite(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest file in one rename (shell: manifest_rewrite).

    A symbolic link stays one, a file keeps its mode, and the numbers of keys that are not touched stay as written.

    Args:
        path: of the file, which need not exist.
        change: changes the whole manifest.

    Raises:
        BottleError: the file cannot be read or written, or is no manifest any more.
    """
    target = os.path.realpath(path)
    try:
        old = Path(target).read_bytes() if manifest_exists(target) else b"{}"
        text = strict_json.rewrite(old, change)
        replace(target, text)
    except OSError as problem:
        raise BottleError(f"cannot write {path}", [reason(problem)]) from None
    except strict_json.NotJson as problem:
        raise BottleError(f"{FILE_NAME} at {path} is not valid JSON", [str(problem)]) from None


def edit(agent: str, environ: Mapping[str, str], cwd: str) -> int:
    """Open an agent in the user's editor and write it back (shell: cmd_edit).

    Args:
        agent: its name.
        environ: the caller's environment.
        cwd: the caller's working directory, symlinks kept.

    Returns:
        0.

    Raises:
        BottleError: the manifest, the editor or its result is at fault; the manifest is as it was.
    """
    found = manifest_load(cwd, _home(environ))
    manifest_require_agent(found, agent)
    _edit_in(manifest_file_of_agent(found, agent), agent, environ)
    return 0


def _edit_in(path: str, agent: str, environ: Mapping[str, str]) -> None:
    """Let the user edit a copy; his text is kept where it cannot be taken back."""
    before = strict_json.part_text(Path(path).read_bytes(), ("agents", agent))
    copy = _edit_file(environ.get("TMPDIR") or "/tmp", before)
    try:
        _run_editor(environ, copy, path)
        _take_back(copy, before, path, agent)
    except BaseException as problem:
        _keep_text(copy, before, problem)
        raise
    Path(copy).unlink(missing_ok=True)


def _keep_text(copy: str, before: bytes, problem: BaseException) -> None:
    """Say where the user's text is, unless it is as it was."""
    with suppress(FileNotFoundError):
        if _is_same(Path(copy).read_bytes(), before):
            os.unlink(copy)
            return
        said = f"your text is kept in {copy}"
        if isinstance(problem, BottleError):
            problem.hints += (said,)
        else:
            log.log_hint(said)


def _is_same(after: bytes, before: bytes) -> bool:
    return after.rstrip(b"\n") == before.rstrip(b"\n")


def _edit_file(folder: str, text: bytes) -> str:
    try:
        fd, name = tempfile.mkstemp(prefix="claude-bottle-edit.", suffix=".json", dir=folder)
        with open(fd, "wb") as file:
            file.write(text)
    except OSError as problem:
        raise BottleError(f"cannot create a temporary file in {folder}", [reason(problem)]) from None
    return name


def _editor(environ: Mapping[str, str]) -> list[str]:
    """Return the editor's command line, split at blanks, as in the shell."""
    return (environ.get("VISUAL") or environ.get("EDITOR") or "vim").split("\n")[0].split()


def _run_editor(environ: Mapping[str, str], copy: str, path: str) -> None:
    """Give the terminal to the editor."""
    command = _editor(environ)
    shown = " ".join(command)
    failure = f"editor '{shown}' failed; {path} left unchanged"
    name = command[0] if command else ""
    program = shutil.which(name)
    if program is None:
        raise BottleError(failure, [f"'{name}' was not found; set VISUAL or EDITOR to your editor"])
    words = [*command[1:], copy]
    how: dict[str, Any] = {"stdin": None, "stdout": None, "stderr": None, "preexec_fn": process.give_cores_back}
    with wait.interrupts_ignored():  # Ctrl-C belongs to the editor
        status = terminal.tty_hand_over(lambda: calls.finish(run.spawn(program, words, **how)))
    if status:
        raise BottleError(failure)


def _take_back(copy: str, before: bytes, path: str, agent: str) -> None:
    """Write the edited agent into its file.

    Raises:
        BottleError: it is no JSON object, the file's agent is not what it was, or the file cannot be written.
    """
    after = _edited(copy, before, path)
    if _is_same(after, before):
        log.log_info("no changes")
        return
    if _agent_text(path, agent) != before:
        raise BottleError(f"agent '{agent}' was changed meanwhile in {path}; it is left as it is now")

    def change(whole: dict[str, Any]) -> None:
        _part(whole, "agents")[agent] = strict_json.Raw(after)

    manifest_rewrite(path, change)
    log.log_info(f"updated agent '{agent}' in {path}")


def _edited(copy: str, before: bytes, path: str) -> bytes:
    """Return the text as the user left it; it is an agent's, if it has changed."""
    try:
        after = Path(copy).read_bytes()
        if not (_is_same(after, before) or isinstance(strict_json.parse(after), dict)):
            raise strict_json.NotJson("an agent is an object: {...}")
        return after
    except (OSError, strict_json.NotJson) as problem:
        message = f"edited agent is not a valid JSON object; {path} left unchanged"
        raise BottleError(message, [reason(problem)]) from None


def _agent_text(path: str, agent: str) -> bytes:
    """Return the agent as its file has it now, nothing where it has it no more."""
    try:
        return strict_json.part_text(Path(path).read_bytes(), ("agents", agent))
    except (OSError, strict_json.NotJson, KeyError, TypeError):
        return b""
