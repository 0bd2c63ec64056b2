"""The commands: their options and arguments, and the one function that each calls."""

from __future__ import annotations

import os

import click
from claude_bottle.cli.words import ShellCommand
from claude_bottle.lib import env
from claude_bottle.lib.errors import BottleError, UsageError
from claude_bottle.lib.host.report import report

COMPLETION_USAGE = "completion bash|fish|zsh"
APPROVE_USAGE = "approve [--yes|--json]"
EXEC_USAGE = "exec <agent> [--] <command> [args...]"
CLEANUP_USAGE = "cleanup [--all|--stale|--images [--yes]]"
BUILD_USAGE = "build [--place]"
LIST_USAGE = "list [agents|active [--all] [--json] [--place]]"
START_OPTIONS = (
    "[--dry-run] [--cwd] [--remote-control] [--yes] [--quiet] [--receipt <file>] [--json] [--no-bring] [--place]"
)
START_USAGE = f"start {START_OPTIONS} <agent> [-- <claude args>]"
STOP_USAGE = "stop <agent>|--all"
LINK_LOST = "the way to an engine elsewhere was lost"


def agent_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the manifests' agents that begin with a word; none where they cannot be read."""
    from claude_bottle.cli.completion import offered
    from claude_bottle.lib.manifest import manifest_load

    try:
        return offered(manifest_load(logical_cwd(), os.environ.get("HOME", "")).agents, incomplete)
    except (BottleError, OSError):
        return []


@click.group(invoke_without_command=True, add_help_option=False)
def commands() -> None:
    """Boots Claude Code agents in isolated containers."""


@commands.command(
    "approve",
    cls=ShellCommand,
    usage=APPROVE_USAGE,
    example="approve",
    examples=(
        "approve --yes   # in CI, once for the folder",
        "approve --json   # has the digest that CI pins",
    ),
)
@click.option("--yes", "-y", "yes", is_flag=True, help="do not ask")
@click.option("--json", "as_json", is_flag=True, help="print the list and its digest as JSON; ask and remember nothing")
def approve(yes: bool, as_json: bool) -> int:
    """Lists what this folder's claude-bottle.json adds to your own, for all its agents, and remembers your word.

    `start --yes` takes only what is approved.
    """
    from claude_bottle.lib.commands.approve import approve as run_approve

    if yes and as_json:
        raise UsageError("--yes does not go with --json", APPROVE_USAGE)
    return run_approve(os.environ, logical_cwd(), yes, as_json)


@commands.command(
    "bring",
    cls=ShellCommand,
    usage="bring <agent>",
    example="bring implementer",
    statuses={"1": "an error, which is named; or some of the work could not come", "69": LINK_LOST},
)
@click.argument("agent", shell_complete=agent_names)
def bring(agent: str) -> int:
    """Brings the work of an agent's bottles home, as the end of a session does; what runs goes on.

    So does what could not come at an end, and was kept. In place of the agent's name a container's will do. A bottle
    that a Swarm has placed is found on its node.
    """
    from claude_bottle.lib.commands.bring import bring_home

    return bring_home(agent)


@commands.command(
    "build",
    cls=ShellCommand,
    usage=BUILD_USAGE,
    example="build",
    examples=("build --place   # on every node of the Swarm, and what a placed start needs there",),
    statuses={"1": "an error, which is named; or docker's own status where a build fails"},
)
@click.option("--place", "place", is_flag=True, help="on every node of the Docker Swarm that the engine manages")
def build(place: bool) -> int:
    """Builds the images of the bottle and of the broker. A start does that too; this shows more of it."""
    from claude_bottle.lib.docker import docker_build_plain
    from claude_bottle.lib.engine import docker_require

    settings = env.read_settings(os.environ)
    if place:
        from claude_bottle.lib.far.seat import build_everywhere

        return build_everywhere(docker_require(os.environ), settings.image, settings.broker_image)
    return docker_build_plain(docker_require(os.environ), settings.image, settings.broker_image)


@commands.command(
    "cleanup",
    cls=ShellCommand,
    usage=CLEANUP_USAGE,
    example="cleanup",
    examples=(
        "cleanup --stale --yes   # harmless beside running bottles",
        "cleanup --images   # what manifests' Dockerfiles have made and no container has",
    ),
    statuses={"1": "an error, which is named; or something could not be removed"},
)
@click.option("--all", "everybodys", is_flag=True, help="those of other users and machines too")
@click.option("--stale", "stale", is_flag=True, help="only what launches that are provably dead have left")
@click.option("--images", "images", is_flag=True, help="the images of manifests' Dockerfiles that no container has")
@click.option("--yes", "-y", "yes", is_flag=True, help="do not ask; goes with --stale or --images only")
def cleanup(everybodys: bool, stale: bool, images: bool, yes: bool) -> int:
    """Lists your containers and networks of bottles, running ones too, asks, and removes them.

    Yours are those that you have started on this machine, and those of the shell launcher.
    """
    from claude_bottle.lib.commands import cleanup as cleanup_command

    if stale and images:
        raise UsageError("--stale and --images do not go together", CLEANUP_USAGE)
    if everybodys and (stale or images):
        raise UsageError(f"--all and {'--stale' if stale else '--images'} do not go together", CLEANUP_USAGE)
    if stale:
        return cleanup_command.cleanup_stale(yes)
    if images:
        return cleanup_command.cleanup_images(yes)
    if yes:
        raise UsageError("--yes goes with --stale or --images only", CLEANUP_USAGE)
    return cleanup_command.cleanup(everybodys)


@commands.command(
    "completion",
    cls=ShellCommand,
    usage=COMPLETION_USAGE,
    example='completion bash   # in ~/.bashrc: eval "$(.../cli.sh completion bash)"',
    examples=(
        'completion zsh   # in ~/.zshrc, behind compinit: eval "$(.../cli.sh completion zsh)"',
        "completion fish   # in ~/.config/fish/config.fish: .../cli.sh completion fish | source",
    ),
)
@click.argument("shell", type=click.Choice(("bash", "fish", "zsh")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Prints a script that has your shell complete commands, options, and the names of agents, with the TAB key."""
    from claude_bottle.cli.completion import SHELLS, source

    if shell not in SHELLS:
        raise UsageError(f"unexpected argument: {shell}", COMPLETION_USAGE)
    source(commands, str(ctx.obj), shell)
    return 0


@commands.command(
    "doctor",
    cls=ShellCommand,
    usage="doctor [--json]",
    example="doctor",
    statuses={"0": "no problem; there may be warnings", "1": "a problem, which is named with what mends it"},
)
@click.option("--json", "as_json", is_flag=True, help="print all of it as one JSON object")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> int:
    """Looks at all that a start depends on: engine, images, addresses, disk, token, manifests and what is left behind.

    It prints a line for each: ok, warning or problem, and what mends it. It changes nothing.
    """
    from claude_bottle.lib.doctor.command import doctor as run_doctor

    return run_doctor(os.environ, logical_cwd(), str(ctx.obj), as_json)


@commands.command("edit", cls=ShellCommand, usage="edit <agent>", example="edit implementer")
@click.argument("agent", shell_complete=agent_names)
def edit(agent: str) -> int:
    """Opens an agent's entry of claude-bottle.json in $VISUAL, $EDITOR or vim, and puts what you saved in its place."""
    from claude_bottle.lib.commands.manifest_edit import edit as run_edit

    return run_edit(agent, os.environ, logical_cwd())


@commands.command(
    "exec",
    cls=ShellCommand,
    usage=EXEC_USAGE,
    example="exec implementer git status",
    examples=("exec implementer bash   # on a terminal", "exec implementer -- npm test >out.txt"),
    statuses={
        "0": "the command's own, as every other",
        "1": "an error, which is named",
        "69": LINK_LOST,
        "127": "the bottle is not ready, or has no such command",
    },
)
@click.argument("agent", shell_complete=agent_names)
@click.argument("command", nargs=-1)
def exec_command(agent: str, command: tuple[str, ...]) -> int:
    """Runs a command in a running bottle as the session does: as its user, in its folder, with its literals.

    The values of `?` and `${NAME}` are the session's alone. Where several bottles of one agent run, name the container,
    as NODE/CONTAINER if it is another node's; a bottle that a Swarm has placed is found there by its agent's name too.
    """
    from claude_bottle.lib.commands.exec import exec_command as run_exec

    return run_exec(agent, command)


@commands.command("info", cls=ShellCommand, usage="info <agent>", example="info implementer")
@click.argument("agent", shell_complete=agent_names)
def info(agent: str) -> int:
    """Prints what an agent is granted, names of variables only: env, skills, prompt, bottle, hosts, credentials."""
    from claude_bottle.lib.commands.info import info as run_info

    return run_info(agent, os.environ, logical_cwd())


@commands.command("init", cls=ShellCommand, usage="init", example="init")
def init() -> int:
    """Asks for an agent's name, bottle, skills and prompt, and adds it to this folder's claude-bottle.json."""
    from claude_bottle.lib.commands.manifest_edit import init as run_init

    return run_init(os.environ, logical_cwd())


@commands.command(
    "list",
    cls=ShellCommand,
    usage=LIST_USAGE,
    example="list",
    examples=("list active   # your bottles that there are", "list active --all --json   # everybody's"),
)
@click.option("--all", "everybodys", is_flag=True, help="the bottles of other users and machines too")
@click.option("--json", "as_data", is_flag=True, help="print all that is known of the bottles as JSON")
@click.option("--place", "place", is_flag=True, help="the bottles that a Docker Swarm has placed, with their nodes")
@click.argument("what", required=False, type=click.Choice(("agents", "active")))
def list_command(everybodys: bool, as_data: bool, place: bool, what: str | None) -> int:
    """Prints the agents of the manifests with their bottles, or your bottles that run with image and status.

    On a terminal `active` prints a table of all bottles that there are, with what each takes and was denied.
    """
    from claude_bottle.lib.commands import listing

    if what == "active":
        return listing.list_active(as_data, everybodys, place)
    if what not in (None, "agents"):
        raise UsageError(f"unexpected argument: {what}", LIST_USAGE)
    for given, option in ((as_data, "--json"), (everybodys, "--all"), (place, "--place")):
        if given:
            raise UsageError(f"{option} goes with active only", LIST_USAGE)
    settings = env.read_settings(os.environ)
    env.env_require_home(settings)
    return listing.list_agents(logical_cwd(), settings.host_home)


@commands.command(
    "logs",
    cls=ShellCommand,
    usage="logs [--denied] [--follow] [--json] <agent>",
    example="logs implementer",
    examples=(
        "logs --denied implementer   # each host that was refused, how often, and what would allow it",
        "logs --denied -f implementer   # each refusal as it comes",
    ),
    statuses={"69": LINK_LOST},
)
@click.option("--denied", "denied", is_flag=True, help="only what was refused, counted by host")
@click.option("--follow", "-f", "follow", is_flag=True, help="go on until the bottle ends; with --denied each refusal")
@click.option("--json", "as_data", is_flag=True, help="print each line as JSON")
@click.argument("agent", shell_complete=agent_names)
def logs(denied: bool, follow: bool, as_data: bool, agent: str) -> int:
    """Prints what a running bottle's sidecar says, a line each: time, event, method, host, and a reason or an amount.

    What its broker has refused stands among them. A container's name is taken too, which tells several bottles of one
    agent apart. A bottle that a Swarm has placed is found on its node.
    """
    from claude_bottle.lib.commands.logs import logs as run_logs

    return run_logs(agent, denied=denied, follow=follow, as_data=as_data)


@commands.command(
    "start",
    cls=ShellCommand,
    usage=START_USAGE,
    example="start implementer",
    examples=(
        "start --cwd implementer   # with this folder's files",
        'start -y implementer -- -p "fix the tests" >out.txt   # in a pipe or in CI',
    ),
    statuses={
        "0": "the session ended well, or the answer was no",
        "1": "an error, which is named; or something could not be removed",
        "69": f"the sidecar or the broker ended before the session did, or {LINK_LOST}",
        "other": "the session's own",
    },
)
@click.option("--dry-run", "dry_run", is_flag=True, help="print the plan, and make nothing")
@click.option("--cwd", "with_cwd", is_flag=True, help="put a copy of this folder into the bottle")
@click.option("--remote-control", "remote_control", is_flag=True, help="have Claude begin with its remote control")
@click.option("--yes", "-y", "yes", is_flag=True, help="do not ask; what the folder's manifest adds must be approved")
@click.option("--quiet", "quiet", is_flag=True, help="do not tell how long each step took")
@click.option(
    "--receipt",
    "receipt",
    metavar="file",
    type=click.Path(),
    help="write down what was granted and how it ended",
)
@click.option("--json", "as_json", is_flag=True, help="print the plan as JSON; goes with --dry-run only")
@click.option("--no-bring", "no_bring", is_flag=True, help="let the work go with the bottle")
@click.option(
    "--place", "place", is_flag=True, help="have a Docker Swarm choose the machine, and boot the bottle there"
)
@click.argument("agent", shell_complete=agent_names)
@click.argument("rest", nargs=-1)
@click.pass_context
def start(
    ctx: click.Context,
    agent: str,
    dry_run: bool,
    with_cwd: bool,
    remote_control: bool,
    yes: bool,
    quiet: bool,
    receipt: str,
    as_json: bool,
    no_bring: bool,
    place: bool,
    rest: tuple[str, ...],
) -> int:
    """Shows what an agent is granted, asks, boots its bottle, and hands over the terminal; then removes everything.

    What stands behind `--` goes to claude.
    """
    from claude_bottle.lib.engine import Asking

    if as_json and not (dry_run or env.read_settings(os.environ).dry_run):
        raise UsageError("--json goes with --dry-run only", START_USAGE)
    cwd = logical_cwd()
    asking = Asking(os.environ)  # the engine answers while the rest is imported
    from claude_bottle.lib.plan import Request
    from claude_bottle.lib.start import start as run_start

    request = Request(agent, dry_run, with_cwd, remote_control, yes, quiet, receipt, rest, as_json, no_bring, place)
    return run_start(asking, request, cwd, lambda problem: report(problem, str(ctx.obj)))


@commands.command("top", cls=ShellCommand, usage="top", example="top")
def top() -> int:
    """Shows the bottles that there are, live, as `list active` does, with keys to stop one and to see its denials.

    It has Python packages of its own, which `cli.sh top` installs on first use.
    """
    try:
        from claude_bottle.lib.commands.top import top as run_top
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        checkout = "'./cli.sh top' in a checkout has it; else, in one: pip install '.[top]'"
        raise BottleError("top needs the Python package textual", [checkout]) from None
    return run_top()


@commands.command(
    "stop",
    cls=ShellCommand,
    usage=STOP_USAGE,
    example="stop implementer",
    examples=("stop claude-bottle-implementer-2   # one of several, by its container", "stop --all"),
    statuses={"1": "an error, which is named; or something is still there"},
)
@click.option("--all", "everybody", is_flag=True, help="every bottle that you have started from this machine")
@click.argument("agent", required=False, shell_complete=agent_names)
def stop(everybody: bool, agent: str | None) -> int:
    """Ends a running bottle as the end of its session would, and waits until it is gone.

    A bottle that a Swarm has placed is found on its node.
    """
    from claude_bottle.lib.commands.stop import stop as run_stop

    if everybody and agent:
        raise UsageError(f"unexpected argument: {agent}", STOP_USAGE)
    if not everybody and not agent:
        raise UsageError("missing agent name", STOP_USAGE)
    return run_stop(agent or "")


@commands.command(
    "verify",
    cls=ShellCommand,
    usage="verify <agent>",
    example="verify implementer",
    statuses={"1": "an error, which is named; or a seal is broken", "69": LINK_LOST},
)
@click.argument("agent", shell_complete=agent_names)
@click.pass_context
def verify(ctx: click.Context, agent: str) -> int:
    """Boots an agent's bottle without a session, looks at each of its seals closely, and removes it again."""
    from claude_bottle.lib.engine import Asking

    cwd = logical_cwd()
    asking = Asking(os.environ)
    from claude_bottle.lib.commands.verify import verify as run_verify

    return run_verify(asking, agent, cwd, lambda problem: report(problem, str(ctx.obj)))


def logical_cwd() -> str:
    """Return the caller's working directory with symlinks kept, as ``$PWD`` in the shell.

    Raises:
        BottleError: it has been deleted.
    """
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
        return os.getcwd()
    except OSError:
        raise BottleError("the current directory does not exist") from None
