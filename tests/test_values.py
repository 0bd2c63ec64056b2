"""Which values a start feeds to its session, and that they are nowhere else, on the fake engine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from claude_bottle.lib.egress.credentials import TOKEN_PLACEHOLDER

from tests.sweep import TOKEN, Run
from tests.terminal import Terminal

ENV = {
    "LITERAL": "a literal with blanks, '\" and \u00fc",
    "EMPTY": "",
    "FROM_HOST": "${SOME_VALUE}",
    "ALMOST": "${SOME_VALUE} ",
    "PERL5OPT": "-Mnothing",
    "HTTPS_PROXY": "http://of.the.manifest",
    "ASKED": "?what is it",
    "CLAUDE_CODE_OAUTH_TOKEN": "the manifest's",
}
FED = {
    "LITERAL": ENV["LITERAL"],
    "EMPTY": "",
    "FROM_HOST": "host value\nof two lines",
    "ALMOST": ENV["ALMOST"],
    "PERL5OPT": "-Mnothing",
    "ASKED": "an answer",
    "CLAUDE_CODE_OAUTH_TOKEN": TOKEN_PLACEHOLDER,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    manifest = {"bottles": {"b": {"env": ENV}}, "agents": {"a": {"bottle": "b"}}}
    (made.home / "claude-bottle.json").write_text(json.dumps(manifest))
    made.env["SOME_VALUE"] = FED["FROM_HOST"]
    return made


def test_each_value_is_fed_once_in_the_manifests_order_but_for_the_launchers_own(run: Run) -> None:
    terminal = Terminal(run.words, run.cwd, run.env)
    terminal.until("what is it: ")
    terminal.type("an answer\n")
    assert terminal.wait() == 0, terminal.said
    terminal.close()
    payload = "".join(f"{name}={value}\0" for name, value in FED.items()).encode()
    fed = [call["argv"] for call in run.fake.calls() if call.get("stdin") == hashlib.sha256(payload).hexdigest()]
    assert len(fed) == 1 and fed[0][:4] == ["exec", "-i", "-u", "node"], [call["argv"] for call in run.fake.calls()]
    words = "\0".join(word for argv in run.fake.argvs() for word in argv)
    assert not [value for value in (*FED.values(), TOKEN) if value and value != TOKEN_PLACEHOLDER and value in words]
    assert "of.the.manifest" not in words


@pytest.mark.parametrize("answer", ["\n", "\x04"])
def test_no_answer_is_no_value_and_makes_nothing(run: Run, answer: str) -> None:
    terminal = Terminal(run.words, run.cwd, run.env)
    terminal.until("what is it: ")
    terminal.type(answer)
    assert terminal.wait() == 1, terminal.said
    assert "no value entered for 'ASKED'" in terminal.said
    terminal.close()
    assert run.leftovers() == [] and not [argv for argv in run.fake.argvs() if "create" in argv or argv[0] == "build"]


def test_a_value_that_cannot_be_had_is_said_before_any_question(run: Run) -> None:
    del run.env["SOME_VALUE"]
    terminal = Terminal(run.words, run.cwd, run.env)
    assert terminal.wait() == 1, terminal.said
    assert "host variable 'SOME_VALUE' (for 'FROM_HOST') is not set" in terminal.said
    assert "what is it" not in terminal.said
    terminal.close()
