"""What a session is told beside its values, by the clients that read it."""

from __future__ import annotations

import json

from claude_bottle.lib.egress.credentials import placeholder

from fixtures.scenery import Scenery

from .conftest import AGENT, PROMPT, Desk, end, leftovers, until

GIT = """
git config --global user.email ada@example.org
git config http.version
git config user.name
git config user.email
printf 'url=https://forge.test/a.git\\n\\n' | git credential fill
"""
KEY = "sk-ant-api03-not-a-real-key-7Yq2"


def test_git_in_a_bottle_has_the_placeholder_for_a_password(shell: Desk) -> None:
    shell.env["FORGE"] = "the-real-one-of-the-forge"
    theirs = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ada"}
    shell.manifest({"env": theirs, "credentials": {"GH_TOKEN": {"value": "${FORGE}", "hosts": ["forge.test"]}}})
    done = shell.run("start", "-y", AGENT, stdin=GIT)
    said = done.stdout.splitlines()
    assert said[:3] == ["HTTP/1.1", "Ada", "ada@example.org"], done
    assert {"username=x-access-token", f"password={placeholder('GH_TOKEN')}"} <= set(said[3:])
    assert leftovers(shell) == []


def test_the_client_asks_nothing_about_a_key_that_is_a_credential(scene: Desk, scenery: Scenery) -> None:
    manifest = scenery.manifest(AGENT, PROMPT)
    key = {"value": "${A_KEY}", "hosts": ["api.anthropic.com"], "header": "x-api-key"}
    (bottle,) = manifest["bottles"].values()
    bottle["credentials"] = {"ANTHROPIC_API_KEY": key}
    scene.write(json.dumps(manifest))
    del scene.env["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    scene.env["A_KEY"] = KEY
    child = scene.terminal("start", "-y", AGENT)
    child.expect("bypass permissions", timeout=90)
    assert "API key" not in str(child.before)
    child.send("okapi")
    child.expect("okapi")  # echoed, so the key that follows is no part of a paste
    child.send("\r")
    until(lambda: any("okapi" in request["said"] for request in scenery.requests()))
    keys = {request["headers"].get("x-api-key") for request in scenery.requests() if "okapi" in request["said"]}
    assert keys == {KEY}
    assert any("# Your box" in request["said"] for request in scenery.requests())  # the note is what the client reads
    end(child)
    assert leftovers(scene) == []
