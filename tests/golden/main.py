"""scripts/golden: record, check, accept, diff."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.golden import case as cases
from tests.golden import runner
from tests.golden.case import REPO, Case

PORT = REPO / "cli.sh"
WORKERS = 4

T = TypeVar("T")


def shell_launcher(path: str) -> Path:
    """Return the launcher, unless it is not a shell launcher: goldens come from nothing else."""
    launcher = Path(path).resolve()
    if not (launcher.parent / "lib" / "docker.sh").is_file() or list(launcher.parent.glob("lib/*.py")):
        sys.exit(f"golden: {path} is not a shell launcher; only one of those is recorded from")
    if not shutil.which("jq"):
        sys.exit("golden: the shell launcher needs jq, which is not installed (Debian: apt-get install jq)")
    return launcher


def digest(launcher: Path) -> str:
    """Return the digest of the shell launcher's files."""
    whole = hashlib.sha256()
    for path in [launcher, *sorted(launcher.parent.glob("lib/*.sh"))]:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def each(do: Callable[[Case], T], chosen: Sequence[Case]) -> list[T]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(do, chosen))


def record(launcher: Path, chosen: Sequence[Case]) -> None:
    """Write what the shell launcher says to each case."""

    def one(case: Case) -> None:
        said, calls = runner.run(case, launcher)
        for stream, text in said.items():
            cases.write(case.folder / stream, text)
        cases.write(case.folder / "docker.jsonl", "".join(json.dumps(call) + "\n" for call in calls))
        cases.write(case.folder / "launcher", digest(launcher) + "\n")

    each(one, chosen)
    print(f"golden: {len(chosen)} cases recorded")


def verdict(case: Case, launcher: Path = PORT) -> str:
    """Return how the port differs from what it has to say; empty when it does not."""
    try:
        want = cases.expected(case)
        got = cases.without_additions(runner.run(case, launcher)[0])
    except (RuntimeError, ValueError) as error:
        return f"{error}\n"
    if (case.folder / "port").exists():
        if not case.entries:
            return "a port folder without an entry of docs/differences.md\n"
        if got == cases.recording(case):
            return "the port folder explains nothing: the port says what the shell said\n"
    return cases.differences(want, got)


def check(launcher: Path, chosen: Sequence[Case]) -> int:
    """Replay the port over the cases and print what is wrong."""
    wrong = [
        (case, text) for case, text in zip(chosen, each(lambda c: verdict(c, launcher), chosen), strict=True) if text
    ]
    for case, text in wrong:
        print(f"--- {case.name}\n{text}", end="")
    failing = sum(1 for case, _ in wrong if not case.entries)
    fine = [case for case in chosen if case.entries and case not in [w for w, _ in wrong]]
    print(
        f"golden: {len(chosen)} cases, {len(chosen) - len(fine) - len(wrong)} identical, "
        f"{len(fine)} declared differences, {len(wrong)} wrong ({failing} unexplained)"
    )
    return 1 if wrong else 0


def manifest_case(manifest: Path, agent: str, scratch: Path) -> Case:
    """Return a case made of a user's own manifest: a dry run of the agent, with the user's home and variables.

    A dry run only looks whether skills, keys and variables are there. The shell's asks for secrets: any word will do,
    and whatever nobody reads does no harm.
    """
    folder = scratch / "your manifest"
    (folder / "tree" / "project").mkdir(parents=True)
    shutil.copyfile(manifest, folder / "tree" / "project" / "claude-bottle.json")
    own: dict[str, str | None] = {name: value for name, value in os.environ.items() if name not in runner.FIXED}
    answers = [[": ", "x\n"]] * 200
    return Case(folder=folder, args=["start", "--dry-run", "--", agent], env=own, terminal=answers)


def diff(launcher: Path, chosen: Sequence[Case]) -> int:
    """Print how a shell launcher and the port differ."""

    def one(case: Case) -> str:
        return cases.differences(runner.run(case, launcher)[0], cases.without_additions(runner.run(case, PORT)[0]))

    status = 0
    for case, text in zip(chosen, each(one, chosen), strict=True):
        if text:
            print(f"--- {case.name}\n{text}", end="")
            status = 1
    return status


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="golden", description="Golden outputs of the shell launcher, and the port.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "check", "diff"):
        command = commands.add_parser(name)
        command.add_argument("--launcher", required=name != "check", default=str(PORT))
        command.add_argument("--case", nargs="+", default=[])
        if name == "diff":
            command.add_argument("--manifest", type=Path)
            command.add_argument("--agent")
    command = commands.add_parser("accept")
    command.add_argument("case")
    command.add_argument("--entry", type=int, nargs="+", required=True)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run a subcommand and return the exit status."""
    args = parse(words)
    if args.command == "accept":
        (case,) = cases.load_all([args.case])
        cases.accept(case, cases.without_additions(runner.run(case, PORT)[0]), " ".join(map(str, args.entry)))
        return 0
    if args.command == "diff" and args.manifest:
        if not (args.manifest.is_file() and args.agent):
            sys.exit(f"golden: {args.manifest} is no file" if args.agent else "golden: --manifest needs --agent NAME")
        with tempfile.TemporaryDirectory() as scratch:
            return diff(shell_launcher(args.launcher), [manifest_case(args.manifest, args.agent, Path(scratch))])
    chosen = cases.load_all(args.case)
    if args.command == "check":
        return check(Path(args.launcher).resolve(), chosen)
    if args.command == "diff":
        return diff(shell_launcher(args.launcher), chosen)
    record(shell_launcher(args.launcher), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
