"""The working directory in the bottle: its files, and git's view of what stays out (shell: docker_copy_git)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from claude_bottle.lib import docker, log
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.files import own_git, tarstream
from claude_bottle.lib.files.copying import copy_in
from claude_bottle.lib.files.project import IGNORE, Project, left_out, outside, users_ignores
from claude_bottle.lib.files.repository import GIT, Repository
from claude_bottle.lib.home import record, went_in
from claude_bottle.lib.home.record import Record
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.plan import Plan

# Nothing of the repository's own may run for this, not even to fetch what it says that it lacks.
_GIT_VARIABLES = ("GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ALLOW_PROTOCOL=none")
_GIT = (
    "/usr/bin/git",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    f"--git-dir={GIT}",
    "--work-tree=.",
)


def copy_workspace(engine: Engine, plan: Plan, container: str, name: str, work: Record | None) -> Work[None]:
    """Put the working directory in, if it was asked for, owned by node; into a derived image only what is not in it.

    Args:
        engine: that has the container.
        plan: of the start.
        container: its id.
        name: its name, for the messages.
        work: where its work goes.

    Raises:
        BottleError: a file cannot be read, or docker refused.
        Interrupted: a signal arrived meanwhile.
    """
    project = plan.project
    if project is None:
        return
    if not plan.settings.derived_image:
        log.log_info(f"copying {plan.cwd} into {name}:{plan.project_folder}")
    if project.git or project.repository:
        log.log_info(f"copying {GIT} into {name}:{plan.workspace}/{GIT}")
    if plan.settings.derived_image:
        yield from _mend_dockerignore(engine, plan, container)
        if project.git:
            pieces = chain(_git_alone(plan, project), _ignores(plan))
            yield from copy_in(engine, f"copying {GIT}", container, pieces, run.SILENT_SECONDS)
    elif project.repository:
        yield from _copy_with_own_git(engine, plan, project, project.repository, container)
    else:
        pieces = chain(_noted(_all(plan, project), plan, work), _ignores(plan) if project.git else ())
        yield from copy_in(engine, "copying workspace", container, pieces, run.SILENT_SECONDS)
    yield from _mark_left_out(engine, plan, project, container)


def _copy_with_own_git(
    engine: Engine, plan: Plan, project: Project, repository: Repository, container: str
) -> Work[None]:
    """Put the files in, with a repository of the bottle's own where the host's has its root."""
    source = yield from own_git.read_source(repository)
    root = plan.workspace.lstrip("/")
    above = [root, *(f"{root}/{each}" for each in reversed(_parents(project.prefix)))]
    folders = chain.from_iterable(tarstream.folder(each) for each in above)
    made = own_git.members(repository, source, f"{root}/{GIT}")
    pieces = chain(folders, _all(plan, project), made, _ignores(plan))
    yield from copy_in(engine, "copying workspace", container, pieces, run.SILENT_SECONDS)
    yield from own_git.copy_history(engine, repository, source, container, plan.workspace)


def _ignores(plan: Plan) -> Iterator[bytes]:
    """Yield what the user has git ignore in every repository, for the bottle's user."""
    ignores, folder = users_ignores(os.environ), f"{plan.settings.bottle_home.lstrip('/')}/.config"
    if ignores:
        yield from chain(tarstream.folder(folder), tarstream.folder(f"{folder}/git"))
        yield from tarstream.member(f"{folder}/git/ignore", ignores, 0o644)


def _noted(pieces: Iterator[bytes], plan: Plan, work: Record | None) -> Iterator[bytes]:
    """Have noted what goes in, where work comes home as files."""
    folder = record.place(work.launch) if work and work.kind == record.FOLDER else None
    if folder is None:
        return pieces
    try:
        writer = went_in.Writer(folder / went_in.FILE_NAME)
    except OSError as problem:
        log.log_warn(f"cannot note what goes in: {problem.strerror}: the work will not come home")
        return pieces
    return went_in.noted(pieces, writer, plan.workspace.lstrip("/"))


def _parents(path: str) -> list[str]:
    """Return the folders above a path, the last one first."""
    return [str(each) for each in PurePosixPath(path).parents if str(each) != "."]


def _all(plan: Plan, project: Project) -> Iterator[bytes]:
    """Yield what goes in; a skill that has been copied below the workspace already is not the project's."""
    prefix = f"{plan.project_folder}/"
    targets = (f"{plan.settings.bottle_skills_dir}/{skill}" for skill in plan.skills)
    skills = {target.removeprefix(prefix) for target in targets if target.startswith(prefix)}

    def choose(path: str, is_folder: bool) -> tuple[bool, bool]:
        return (False, False) if path in skills else project.choose(path, is_folder)

    folder = plan.project_folder.lstrip("/")
    return tarstream.tree(plan.cwd, folder, choose=choose, links=project.links, mode=0o755)


def _git_alone(plan: Plan, project: Project) -> Iterator[bytes]:
    folder = plan.workspace.lstrip("/")
    return tarstream.tree(plan.cwd, folder, choose=project.choose_git, links=project.links, mode=0o755)


def _mark_left_out(engine: Engine, plan: Plan, project: Project, container: str) -> Work[None]:
    """Have git in the bottle know that tracked files which stayed out are not deleted."""
    start = f"{project.prefix}/" if project.prefix else ""
    try:
        paths = [*(f"{start}{path}" for path in left_out(project)), *outside(project)]
        marked = b"".join(log.encode(path) + b"\0" for path in paths)
    except ValueError:  # the plan has said so
        return
    if marked:
        git = [*_GIT, "update-index", "-z", "--skip-worktree", "--stdin"]
        flags = ["-i", "-w", plan.workspace]
        words = docker.helper(container, git, user="node", flags=flags, variables=_GIT_VARIABLES)
        yield from docker.docker_step(engine, f"marking files that {IGNORE} leaves out", words, [marked])


def _mend_dockerignore(engine: Engine, plan: Plan, container: str) -> Work[None]:
    """Put the workspace's .dockerignore back: docker's legacy builder adds a line of its own to the image's copy."""
    source = Path(plan.cwd, IGNORE)
    if source.is_symlink() or not source.is_file():
        return
    held = yield engine.question(["cp", f"{container}:{plan.workspace}/{IGNORE}", "-"])
    wanted = source.read_bytes()
    if held.ok and wanted not in tarstream.contents(held.out).values():  # not ok: the file keeps itself out
        path, mode = f"{plan.workspace}/{IGNORE}".lstrip("/"), stat.S_IMODE(source.stat().st_mode)
        yield from copy_in(engine, f"copying {IGNORE}", container, tarstream.member(path, wanted, mode))
