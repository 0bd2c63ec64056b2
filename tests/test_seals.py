"""What the launcher makes of what the program in the bottle has seen."""

from __future__ import annotations

import re

import pytest
from claude_bottle.lib.egress.broker_config import REFUSED
from claude_bottle.lib.egress.credentials import Injection, model_injection
from claude_bottle.lib.egress.inspection import watched
from claude_bottle.lib.errors import BottleError
from claude_bottle.lib.inside import seals

from tests.conftest import ROOT

OWN = Injection("OWN", "stands-for-own", ("git.test", "api.test"), ("/api/v4/*", "/other"))
WANTED = seals.at_launch(list(seals.credential_words([OWN], [])))
HELD = "".join(f"{seal}\theld\t\n" for seal in WANTED)
# Every seal that the program knows, those that only verify looks at among them.
PROGRAM = (ROOT / "lib" / "inside" / "seals.pl").read_text()
NAMES = sorted({*WANTED, "sibling", seals.SECRETS, *re.findall(r"say_seal\('([\w-]+)'", PROGRAM)})


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_broken_is_named_first_with_what_to_do_then_the_rest(name: str) -> None:
    found = seals.proof(f"{name}\tbroken\tthis was seen\n{HELD}sni\tbroken\tthat too\nseconds\t0.20\n", WANTED)
    with pytest.raises(BottleError) as raised:
        found.require()
    assert raised.value.message == f"the bottle is not sealed: {name}: this was seen"
    what_to_do, *others = raised.value.hints
    assert what_to_do and others == ["sni: that too"]


@pytest.mark.parametrize("said", ["", HELD, f"{HELD}seconds\tsoon\n", f"routes\tunsure\t\n{HELD}seconds\t0.20\n"])
def test_a_self_test_that_does_not_say_all_is_no_proof(said: str) -> None:
    with pytest.raises(BottleError, match="its self-test did not come to an end"):
        seals.proof(said, WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_a_seal_that_was_not_looked_at_is_no_proof(name: str) -> None:
    with pytest.raises(BottleError, match=rf"its self-test says nothing of {name}$"):
        seals.proof(HELD.replace(f"{name}\theld\t\n", "") + "seconds\t0.20\n", WANTED).require()


def test_three_seals_are_about_credentials_and_the_models_issuer_is_looked_at_without_any() -> None:
    assert len(WANTED) == 12 and set(WANTED) - set(seals.at_launch([])) == {"placeholders", "issuer", "broker"}
    assert set(WANTED) - set(seals.at_launch(told())) == {"placeholders", "broker"}


def told(*credentials: Injection, **wishes: bool) -> list[str]:
    hosts = ["api.anthropic.com", *(host for each in credentials for host in each.hosts)]
    names = {name.replace("_", "."): wish for name, wish in wishes.items()}
    return list(seals.credential_words(credentials, watched(hosts, [], names)))


def test_the_program_is_told_what_stands_for_a_credential_and_what_its_hosts_show() -> None:
    token = model_injection()
    assert token
    refusal = f"refusal={REFUSED}"
    assert told(token, OWN) == [
        "placeholder=CLAUDE_CODE_OAUTH_TOKEN=bottle-placeholder-claude",
        "placeholder=OWN=stands-for-own",
        "minted=api.anthropic.com/v1/messages",
        "minted=api.test/api/v4/",
        "own=git.test/api/v4/",
        refusal,
    ]
    assert told(token, api_anthropic_com=False)[1:] == ["own=api.anthropic.com/v1/messages", refusal]
    assert told(Injection("X", "x", ("x.test",)))[1:] == ["minted=x.test/", "opened=api.anthropic.com", refusal]
    assert told(Injection("X", "x", ("x.test",)), api_anthropic_com=False)[1:] == ["minted=x.test/", refusal]
    assert told() == ["opened=api.anthropic.com"] and told(api_anthropic_com=False) == []
    assert not list(seals.credential_words([], watched(["api.anthropic.com"], [], {}), has_moved=True))
