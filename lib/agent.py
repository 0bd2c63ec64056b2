"""The agent's container: how it is made, and what goes into it (shell: docker_run_agent and the copies)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from claude_bottle.lib import docker, log, skills
from claude_bottle.lib.egress.credentials import API_KEY
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.errors import BottleError, DockerError
from claude_bottle.lib.files import tarstream
from claude_bottle.lib.files.copying import copy_in
from claude_bottle.lib.home.record import NONE
from claude_bottle.lib.host import run
from claude_bottle.lib.host.calls import Work
from claude_bottle.lib.inside import guard, seals
from claude_bottle.lib.inside.policy import note, policy, policy_text
from claude_bottle.lib.pipelock import LONGEST_HOST
from claude_bottle.lib.plan import Plan
from claude_bottle.lib.teardown.inventory import AGENT, IMAGE_LABEL, WORKSPACE_LABEL
from claude_bottle.lib.teardown.journal import Journal

SESSION_PROGRAM = "/usr/local/bin/claude-bottle-session"
VALUES_DIR = "/run/claude-bottle"  # must not be in the image: a tmpfs takes over the mode of a folder that is
VALUES_FILE = f"{VALUES_DIR}/environ"
LASTING_FILE = f"{VALUES_FILE}-beside/environ"  # what commands beside the session get
TRUST_DIR = "/etc/claude-bottle"
POLICY_FILE = f"{TRUST_DIR}/policy.json"
NOTE_FILE = f"{TRUST_DIR}/CLAUDE.md"  # the session's first process has the client read it
NO_IPV6 = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
_NO_SYSCTL = re.compile(r"/disable_ipv6\W{1,3}no such file", re.IGNORECASE)
# A dead resolver that fails at once: names are the sidecar's business, and a look-up is a way out.
NO_DNS = ("--dns", "127.0.0.1", "--dns-opt", "timeout:1", "--dns-opt", "attempts:1")
_KEY_END = 20  # characters
Say = Callable[[str], None]  # takes a message
TMPFS = f"{VALUES_DIR}:rw,noexec,nosuid,nodev,size=4m,uid={tarstream.NODE_ID},gid={tarstream.NODE_ID},mode=0700"


def agent_options(plan: Plan, network: str, tag: str) -> list[str]:
    """Return the options of the agent's container, without its name.

    Args:
        plan: of the start.
        network: id of the internal network.
        tag: of its image, for lists.
    """
    words = ["--network", network, *NO_DNS, "--tmpfs", TMPFS, *plan.confinement]
    words += ["--label", f"{IMAGE_LABEL}={tag}"]
    if plan.project and plan.homing.kind != NONE:  # known where there is no record too: under another home folder
        words += ["--label", f"{WORKSPACE_LABEL}={plan.workspace}"]
    # The guard is root's, so that nobody in there may touch it; whatever else the image would have run as root is not.
    words += ["--user", guard.ROOT, "--entrypoint", guard.guard_words(plan.settings.patience)[0], "--no-healthcheck"]
    if plan.tools:  # what a Dockerfile of others' sets is not heeded
        words += ["--workdir", plan.settings.bottle_home]
    for name in plan.switches:
        words += ["-e", f"{name}=1"]
    return words


def agent_create(
    engine: Engine, journal: Journal, plan: Plan, options: list[str], image: docker.Image, proxy: str, say: Say
) -> Work[tuple[str, str]]:
    """Create the agent's container, under a later suffix when the name is gone by now (shell: docker_run_agent).

    It comes to its name and its id.

    Args:
        engine: to ask.
        journal: of the launch.
        plan: of the start.
        options: of the container.
        image: that it runs.
        proxy: the sidecar's address.
        say: tells the user.

    Raises:
        BottleError: docker refused, or every name is taken.
    """
    names = iter([plan.settings.pinned_container] if plan.settings.pinned_container else _names_from(plan))
    answers = iter(image.answers)
    name, answer = next(names), next(answers)
    say(f"starting container {name}")
    while True:
        host = ["--hostname", name] if len(name) <= LONGEST_HOST else []
        words = [*options, *host, "--pull", "never", answer, *guard.guard_words(plan.settings.patience)[1:]]
        made = yield from docker.create_container(engine, journal, plan.slug, AGENT, name, words, proxy)
        if made.ok:
            return name, made.text.strip()
        if docker.has_no_image(made):
            answer = next(answers, "")
            if not answer:
                raise image.unknown(made.failure)
        elif not docker.is_name_conflict(made):
            raise DockerError(f"docker run failed: {made.failure}")
        elif plan.settings.pinned_container:
            raise docker.pinned_taken(name)
        else:
            name = next(names)
            log.log_info(f"name conflict; retrying as {name}")


def _names_from(plan: Plan) -> Iterator[str]:
    """Yield the planned name and those after it."""
    started = False
    for name in docker.container_names(plan.base_name):
        started = started or name == plan.container
        if started:
            yield name


def copy_files(
    engine: Engine, plan: Plan, container: str, name: str, say: Say, with_skills: bool, certificate: bytes
) -> Work[None]:
    """Put in, in one stream, what the bottle begins with (shell: docker_copy_prompt, skills_copy).

    Args:
        engine: to ask.
        plan: of the start.
        container: the agent's id; it does not run yet.
        name: its name, for the messages.
        say: tells the user.
        with_skills: whether nothing has to go before the skills come.
        certificate: of the bottle's authority.

    Raises:
        BottleError: a skill is gone, or docker refused.
        Interrupted: a signal arrived meanwhile.
    """
    say(f"copying prompt into {name}:{plan.prompt_path}")
    trees = _skills(plan, name, say) if with_skills else []
    what = "copying prompt and skills" if trees else "copying prompt"
    ours = {seals.PROGRAM: "seals.pl", SESSION_PROGRAM: "session.pl", guard.PROGRAM: guard.FILE}
    programs = chain(*(program(target, file) for target, file in ours.items()))
    pieces = chain(_seed(plan), programs, trust(certificate), _told(plan), *trees)
    yield from copy_in(engine, what, container, pieces)


def _seed(plan: Plan) -> Iterator[bytes]:
    """Yield the prompt, and what brings the client straight to its own prompt."""
    home = plan.settings.bottle_home.lstrip("/")
    yield from tarstream.member(f"{home}/.claude-bottle-prompt.txt", log.encode(plan.prompt))
    yield from tarstream.member(f"{home}/.claude.json", _onboarding(plan))
    yield from tarstream.folder(f"{home}/.claude")
    yield from tarstream.member(f"{home}/.claude/settings.json", b'{"skipDangerousModePermissionPrompt":true}\n')


def program(target: str, name: str) -> Iterator[bytes]:
    """Yield a program of ours, as it lies in a bottle.

    Args:
        target: its path there.
        name: of its file.
    """
    yield from tarstream.member(target[1:], Path(guard.__file__).with_name(name).read_bytes(), mode=0o755, owner=0)


def trust(certificate: bytes) -> Iterator[bytes]:
    """Yield the authority's certificate, which the session's first process has every client trust."""
    yield from tarstream.folder(TRUST_DIR[1:], owner=0)
    yield from tarstream.member(f"{TRUST_DIR[1:]}/ca.pem", certificate, mode=0o644, owner=0)


def _told(plan: Plan) -> Iterator[bytes]:
    """Yield what the agent is told of its box; nothing in the bottle can change it."""
    if not plan.settings.no_note:
        told = policy(plan, plan.workdir if plan.request.with_cwd else "", plan.work)
        yield from tarstream.member(POLICY_FILE[1:], policy_text(told), mode=0o644, owner=0)
        yield from tarstream.member(NOTE_FILE[1:], note(told, POLICY_FILE), mode=0o644, owner=0)


def _onboarding(plan: Plan) -> bytes:
    """Return what the client then does not ask; of a key it knows the end only, and a real one's is not written."""
    seed: dict[str, object] = {
        "hasCompletedOnboarding": True,
        "projects": {plan.workdir: {"hasTrustDialogAccepted": True}},
    }
    keys = [each.placeholder[-_KEY_END:] for each in plan.credentials if each.variable == API_KEY]
    if keys:
        seed["customApiKeyResponses"] = {"approved": keys, "rejected": []}
    return json.dumps(seed).encode() + b"\n"


def skills_in_image(engine: Engine, plan: Plan, container: str) -> Work[bool]:
    """Say whether the image brings skills along, so that one of the agent's may have a namesake there."""
    if not plan.skills:
        return False
    held = yield engine.question(["cp", f"{container}:{plan.settings.bottle_skills_dir}", "-"])
    return held.ok and len(tarstream.contents(held.out)) > 1  # one is the folder itself


def remove_skills(engine: Engine, plan: Plan, container: str) -> Work[None]:
    """Remove the agent's skills from a running bottle, before they are copied: each replaces its namesake whole.

    Root has no capabilities there: it can remove what is root's, and node what is node's.

    Raises:
        DockerError: docker refused.
    """
    targets = [f"{plan.settings.bottle_skills_dir}/{skill}" for skill in plan.skills]
    words = ["/bin/rm", "-rf", "--", *targets]
    yield engine.call(docker.helper(container, words, user="root"))
    yield from docker.docker_step(engine, "copying skill", docker.helper(container, words, user="node"))


def copy_skills(engine: Engine, plan: Plan, container: str, name: str, say: Say) -> Work[None]:
    """Put the skills into a running bottle, where those that the image brought had to go before (shell: skills_copy).

    Raises:
        BottleError: a skill is gone, or docker refused.
        Interrupted: a signal arrived meanwhile.
    """
    yield from copy_in(engine, "copying skill", container, chain(*_skills(plan, name, say)))


def _skills(plan: Plan, name: str, say: Say) -> list[Iterator[bytes]]:
    """Return what each skill is in the stream, owned by node."""
    target, trees = plan.settings.bottle_skills_dir, []
    for skill in plan.skills:
        source = skills.skills_host_path(plan.settings.host_home, skill)
        if not os.path.isdir(source):
            raise BottleError(f"skill '{skill}' disappeared from host between validation and copy at {source}.")
        say(f"copying skill {skill} into {name}:{target}/{skill}")
        folder = target.lstrip("/")
        tree = tarstream.tree(os.path.realpath(source), f"{folder}/{skill}", files=plan.followed[skill])
        trees += [tarstream.folder(folder), tree]
    return trees


def agent_start(engine: Engine, journal: Journal, plan: Plan, container: str) -> Work[run.Result]:
    """Start the agent's container, with somebody to renew its lease."""
    journal.leased(guard.renewal_words(container, plan.settings.patience))
    _, started = yield from docker.start(lambda: engine.call(["start", container]))
    return started


def lacks_ipv6(result: run.Result) -> bool:
    """Say whether a start failed because the kernel has no IPv6 to be switched off: nothing else is a reason."""
    return not result.ok and bool(_NO_SYSCTL.search(result.failure))
