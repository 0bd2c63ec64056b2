"""What ``verify`` finds from outside of a value that only the broker may have."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from urllib.parse import quote, quote_plus

import pytest
from claude_bottle.lib.commands.search import Search, look_at
from claude_bottle.lib.egress.credential_values import credentials_at_hand
from claude_bottle.lib.egress.credentials import Injection
from claude_bottle.lib.engine import Engine
from claude_bottle.lib.env_resolve import Secrets
from claude_bottle.lib.errors import DockerError
from claude_bottle.lib.host.calls import Call
from claude_bottle.lib.host.run import Result
from claude_bottle.lib.schema.manifest_parse import Credential

VALUE = 'a value/+&<"ü of 4711'


def spelt(value: str) -> dict[str, bytes]:
    raw = value.encode()
    return {
        "as it is": raw,
        "JSON": json.dumps(value).encode(),
        "docker's JSON": json.dumps(value, ensure_ascii=False).replace("&", r"\u0026").replace("<", r"\u003c").encode(),
        "address": quote(value, safe="").encode(),
        "path": quote(value).encode(),
        "form": quote_plus(value).encode(),
        "lower": quote(value, safe="").lower().encode(),
        **{f"base64, {n} before": b64encode(b"u:xyz"[:n] + raw) for n in range(6)},
        **{f"base64, {n} behind": urlsafe_b64encode(raw + b"xyz"[:n]) for n in range(4)},
    }


@pytest.mark.parametrize("how", spelt(VALUE))
def test_a_value_is_found_however_it_is_spelt_and_wherever_a_piece_ends(how: str) -> None:
    text = b"before " + spelt(VALUE)[how] + b" behind"
    for at in range(len(text)):
        search = Search({"OTHER": "another-value", "MINE": VALUE})
        hear = search.place("somewhere")
        hear("out", text[:at])
        hear("err", b"what another stream says")
        hear("out", text[at:])
        assert search.leaks == [("MINE", "somewhere")]
    assert search.detail == "the value of MINE is in somewhere" and VALUE not in repr(search)


def test_what_is_not_there_is_not_found() -> None:
    search = Search({"MINE": VALUE})
    for name in ("here", "there"):
        search.place(name)("out", b"a value/+ of 4711" * 10000)
    assert (search.leaks, search.detail) == ([], "in none of 2 places")


def described(memory: Sequence[str] = (), **volumes: str) -> Result:
    tmpfs = dict.fromkeys(memory, "rw")
    mounts = [{"Type": kind, "Destination": path} for path, kind in volumes.items()]
    return Result(0, json.dumps([{"HostConfig": {"Tmpfs": tmpfs or None}, "Mounts": mounts}]).encode())


def look(**answers: Result) -> tuple[Search, list[str]]:
    """Look at a container of an engine that gives some answers, by docker's command; return what was asked too."""
    search, asked = Search({"MINE": VALUE}), []
    work = look_at(Engine("docker", "", "default", "", ""), search, "agent", "1")
    answer = None
    try:
        while True:
            call = work.send(answer) if answer else next(work)
            assert isinstance(call, Call)
            asked.append(" ".join(call.words))
            command = next(word for word in call.words if word != "container")
            answer = answers.get(command, Result(0))
            if call.heard:
                call.heard("out", answer.out)
    except StopIteration:
        return search, asked


def test_all_that_the_engine_has_of_a_container_is_looked_through() -> None:
    changed = b"""C /home
C /home/node
A /home/node/.claude
A /home/node/.claude/settings.json
A /home/node/two words
C /etc
C /etc/passwd
D /etc/gone
A /run/broker
A /run/kept
A /run/kept/file
"""
    mounts, memory = {"/vol": "volume", "/else": "bind"}, ["/run/broker", "/run/kept"]
    search, asked = look(inspect=described(**mounts, memory=memory), diff=Result(0, changed))
    paths = ["/home/node/.claude", "/home/node/two words", "/etc/passwd", "/run/kept", "/vol"]
    first = ["container inspect 1", "top 1 axeww", "logs 1", "diff 1"]
    assert asked == [*first, *(f"cp 1:{path} -" for path in paths)]
    assert search.detail == "in none of 8 places"


@pytest.mark.parametrize(
    ("command", "place"),
    [("top", "a process of the agent"), ("logs", "docker logs of the agent"), ("cp", "/a of the agent")],
)
def test_a_place_that_has_it_is_named(command: str, place: str) -> None:
    answers = {"inspect": described(), "diff": Result(0, b"A /a"), command: Result(0, b"x" + VALUE.encode())}
    assert look(**answers)[0].leaks == [("MINE", place)]


def test_processes_are_looked_at_without_their_environment_where_ps_cannot_show_it() -> None:
    def answer(words: str) -> Result:
        return Result(1, err=b"ps: unknown option") if "axeww" in words else Result(0, VALUE.encode())

    search = Search({"MINE": VALUE})
    work = look_at(Engine("docker", "", "default", "", ""), search, "agent", "1")
    next(work)
    assert isinstance(call := work.send(described()), Call) and call.words[-1] == "axeww"
    assert isinstance(call := work.send(answer("axeww")), Call) and call.words == ["top", "1"]
    work.send(answer(""))
    assert search.leaks == [("MINE", "a process of the agent")]


def test_a_file_that_has_gone_is_no_error_and_an_engine_that_fails_is() -> None:
    gone = Result(1, err=b"Error response from daemon: Could not find the file /a in container 1")
    assert look(inspect=described(), diff=Result(0, b"A /a"), cp=gone)[0].leaks == []
    with pytest.raises(DockerError, match="docker cp failed: no space left"):
        look(inspect=described(), diff=Result(0, b"A /a"), cp=Result(1, err=b"no space left"))
    with pytest.raises(DockerError, match="docker diff failed: not now"):
        look(inspect=described(), diff=Result(1, err=b"not now"))


def test_values_that_are_at_hand_are_taken_and_others_are_random() -> None:
    names = ["TOKEN", "SET", "UNSET", "SHORT", "ODD", "ASKED", "SAID"]
    environ = {"CLAUDE_BOTTLE_OAUTH_TOKEN": "the-real-token", "HOST_SET": "the-real-value", "HOST_SHORT": "short"}
    environ |= {"HOST_ODD": "with\na line break", "HOST_ASKED": "of-no-matter"}
    injections = [Injection({"TOKEN": "CLAUDE_CODE_OAUTH_TOKEN"}.get(name, name), f"for-{name}", ()) for name in names]
    modes = {"ASKED": "secret", "SAID": "command"}
    sources = [Credential(one, modes.get(one.variable, "host"), f"HOST_{one.variable}") for one in injections[1:]]
    taken = [Secrets(), Secrets()]
    for each in taken:
        credentials_at_hand(each, injections, sources, environ)
    first, second = (dict(each.injected) for each in taken)
    same = {name: value for name, value in first.items() if second[name] == value}
    assert same == {"CLAUDE_CODE_OAUTH_TOKEN": "the-real-token", "SET": "the-real-value"}
    assert len(first) == len(names) and min(map(len, first.values())) >= 14
    assert b"SAID=for-SAID\0" in taken[0].payload()
