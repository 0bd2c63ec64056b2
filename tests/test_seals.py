"""What the launcher makes of what the program in the bottle has seen."""

from __future__ import annotations

import re

import pytest
from claude_bottle.lib import seals
from claude_bottle.lib.errors import BottleError

from tests.conftest import ROOT

HELD = "".join(f"{seal}\theld\t\n" for seal in seals.AT_LAUNCH)
# Every seal that the program knows, those that only verify looks at among them.
PROGRAM = (ROOT / "lib" / "seals.pl").read_text()
NAMES = sorted({*seals.AT_LAUNCH, "sibling", *re.findall(r"say_seal\('([\w-]+)'", PROGRAM)})


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_broken_is_named_first_with_what_to_do_then_the_rest(name: str) -> None:
    found = seals.proof(f"{name}\tbroken\tthis was seen\n{HELD}sni\tbroken\tthat too\nseconds\t0.20\n")
    with pytest.raises(BottleError) as raised:
        found.require()
    assert raised.value.message == f"the bottle is not sealed: {name}: this was seen"
    what_to_do, *others = raised.value.hints
    assert what_to_do and others == ["sni: that too"]


@pytest.mark.parametrize("said", ["", HELD, f"{HELD}seconds\tsoon\n", f"routes\tunsure\t\n{HELD}seconds\t0.20\n"])
def test_a_self_test_that_does_not_say_all_is_no_proof(said: str) -> None:
    with pytest.raises(BottleError, match="its self-test did not come to an end"):
        seals.proof(said)


def test_a_seal_that_was_not_looked_at_is_no_proof() -> None:
    with pytest.raises(BottleError, match=r"its self-test says nothing of sidecar$"):
        seals.proof(HELD.replace("sidecar\theld\t\n", "") + "seconds\t0.20\n").require()
