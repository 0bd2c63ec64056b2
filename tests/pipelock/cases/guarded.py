"""The action block as the launcher writes it: keys are taken out of JSON, and what is everywhere only logs."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tests.pipelock.checks import (
    ANTHROPIC,
    GITHUB,
    TEXT,
    body_block,
    event,
    interception,
    plain_error,
    same,
    strict,
)
from tests.pipelock.lab import Lab, Sidecar
from tests.pipelock.table import CORE, add, case, group
from tests.pipelock.wire import Reply

MODEL, API = "https://inspect.test", "https://other.test"
AWS = "AKIA" + "Q7ZM3XW5RT2LPD4K"
HEADER = "-----BEGIN " + "PRIVATE KEY-----"
OLD_HEADER = "-----BEGIN RSA " + "PRIVATE KEY-----"
JSON = ("Content-Type: application/json",)
CLASSES = ["aws-access-key", "google-api-key", "github-token", "slack-token", "jwt", "ssh-private-key"]
MOST = 4000


def warns(name: str, regex: str, **more: str) -> dict[str, str]:
    return {"name": name, "regex": regex, "severity": "low", **more, "action": "warn"}


@group("guarded", 10)
def _(lab: Lab) -> SimpleNamespace:
    block, how = interception(lab, max_response_bytes=2000)
    config = strict(
        "inspect.test",
        "other.test",
        tls_interception=block,
        request_body_scanning=body_block(max_body_bytes=MOST),
        seed_phrase_detection={"enabled": False},
        redaction={
            "enabled": True,
            "default_profile": "bottle",
            "profiles": {"bottle": {"classes": CLASSES, "dictionaries": ["header"]}},
            "dictionaries": {"header": {"class": "key-header", "entries": [HEADER], "case_insensitive": True}},
            "limits": {"max_body_bytes": MOST},
            "allowlist_unparseable": ["other.test"],
        },
    )
    config["dlp"]["patterns"] = [
        warns("Environment Variable Secret", r"(?-i:[A-Z]+_TOKEN)=\S{8,}"),
        warns("Social Security Number", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"),
        warns("Credential in URL", r"[?&;]password=[^\s&]{4,}"),
        warns("Credit Card Number", r"\b[0-9]{4}(?:[ -]?[0-9]){10,15}\b", validator="luhn"),
        warns("IBAN", r"\b[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\b", validator="mod97"),
    ]
    return SimpleNamespace(lab=lab, box=lab.sidecar(config, **how), ca=lab.pki.mitm_ca[1])


def post(c: SimpleNamespace, url: str, body: str, headers: tuple[str, ...] = JSON) -> Reply:
    box: Sidecar = c.box
    return box.https(url + "/echo", c.ca, headers, "POST", body.encode())


@case("guarded", "json", CORE, "keys in JSON are replaced, one placeholder for each")
def _(c):
    said = [f"aws {AWS}", f"{HEADER}\nMIIE\n", {"again": AWS, "gh": GITHUB}, OLD_HEADER]
    reply = post(c, MODEL, json.dumps(said))
    same("status", reply.status, 200)
    same(
        "upstream's body",
        json.loads(reply.json()["body"]),
        [
            "aws <pl:aws-access-key:1>",
            "<pl:key-header:1>\nMIIE\n",
            {"again": "<pl:aws-access-key:1>", "gh": "<pl:github-token:1>"},
            "<pl:ssh-private-key:1>",
        ],
    )


@case("guarded", "json-clean", CORE, "JSON without one arrives as it means")
def _(c):
    said = {"b": [1, 2.5, True, None, "ä 🐟 <&>\n"], "a": {"deep": "er"}}
    reply = post(c, MODEL, json.dumps(said))
    same("upstream's body", json.loads(reply.json()["body"].encode("latin1")), said)


@case("guarded", "no-class", CORE, "a key that no class is for is refused, JSON or not")
def _(c):
    text = "blocked: request body contains secret: Anthropic API Key\n"
    plain_error(post(c, MODEL, json.dumps({"k": ANTHROPIC})), 403, text)
    plain_error(post(c, API, ANTHROPIC, TEXT), 403, text)


@case("guarded", "opaque", CORE, "what is no JSON passes to the hosts that may have it, looked through")
def _(c):
    same("plain text", post(c, API, "nothing in it", TEXT).status, 200)
    plain_error(post(c, API, f"x {GITHUB}", TEXT), 403, "blocked: request body contains secret: GitHub Token\n")


@case("guarded", "opaque-elsewhere", CORE, "and is refused to the others")
def _(c):
    plain_error(post(c, MODEL, "nothing in it", TEXT), 403, "blocked: redaction blocked request: non_json_body\n")
    reason = "redaction blocked request: non_json_body"
    event(c.box, {"event": "blocked", "scanner": "redaction"}, {"reason": reason, "method": "POST"})


for _slug, _body, _word in (
    ("broken", "{", "body_unparseable"),
    ("twice", '{"a": 1, "a": 2}', "duplicate_object_key"),
    ("deep", "[" * 66 + "]" * 66, "json_depth_exceeded"),
):
    add(
        "guarded",
        f"json-{_slug}",
        CORE,
        f"JSON in which nothing can be replaced is refused: {_word}",
        lambda c, body=_body, word=_word: plain_error(
            post(c, API, body), 403, f"blocked: redaction blocked request: {word}\n"
        ),
    )

for _name, _text in (
    ("Environment Variable Secret", "DEPLOY_TOKEN=abcdefghijkl"),
    ("Social Security Number", "078-05-1120"),
    ("Credential in URL", "see http://a.test/?password=correct-horse"),
    ("Credit Card Number", "4111 1111 1111 1111"),
    ("IBAN", "DE89370400440532013000"),
):

    def _passes(c: SimpleNamespace, name: str = _name, text: str = _text) -> None:
        same("status", post(c, API, text, TEXT).status, 200)
        event(c.box, {"event": "dlp_warn", "pattern": name}, {"transport": "intercept", "level": "warn"})

    add("guarded", _name.lower().replace(" ", "-"), CORE, f"a pattern of its name that warns: {_name}", _passes)


@case("guarded", "size", CORE, "a request over the limit says so in the log, without its path")
def _(c):
    reason = f"request body exceeds max_body_bytes ({MOST})"
    plain_error(post(c, API, "x" * (MOST + 1), TEXT), 403, f"blocked: {reason}\n")
    event(
        c.box,
        {"event": "blocked", "scanner": "body_dlp", "reason": reason},
        {"url": "https://other.test:443/[redacted]", "method": "POST"},
    )


@case("guarded", "response-size", CORE, "and so does an answer")
def _(c):
    reason = "response too large for scanning"
    plain_error(c.box.https(API + "/big?bytes=2001", c.ca), 403, f"blocked: {reason}\n")
    event(
        c.box,
        {"event": "blocked", "scanner": "tls_response_blocked"},
        {"url": "https://other.test:443/big?bytes=2001", "reason": reason, "mitre_technique": "T1659"},
    )
