"""An image is built only where a build could make another one, on a fake engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from claude_bottle.lib import images

from tests.checkout import clone
from tests.conftest import ROOT
from tests.sweep import Run
from tests.test_bottle import ended, image_word, make_image, plain

BASE, BOTTLE, BROKER = "node:22-slim", "claude-bottle:latest", "claude-bottle-broker:latest"


def start(run: Run) -> list[str]:
    """Start a bottle, and return the images that were built for it."""
    before = len(run.fake.argvs())
    status, err = ended(run)
    assert (status, run.leftovers()) == (0, []), err
    return sorted(argv[2] for argv in run.fake.argvs()[before:] if argv[:2] == ["build", "-t"])


def record(run: Run) -> Path:
    (found,) = run.home.rglob("claude-bottle/images")
    return found


def age(run: Run, seconds: int) -> None:
    """Have everything been built so much earlier."""
    text = record(run).read_text()
    record(run).write_text(re.sub(r"\d+$", lambda match: str(int(match[0]) - seconds), text, flags=re.MULTILINE))


def other_platform(run: Run) -> None:
    run.env["DOCKER_DEFAULT_PLATFORM"] = "linux/arm64"


WITH, WITHOUT = True, False  # a base that the engine has by its name


@pytest.mark.parametrize(
    "base, since, again",
    [
        (WITH, lambda run: None, []),
        (WITH, lambda run: make_image(run, BASE), [BOTTLE, BROKER]),
        (WITH, lambda run: make_image(run, BOTTLE), [BOTTLE]),
        (WITH, lambda run: make_image(run, BROKER), [BROKER]),
        (WITH, lambda run: record(run).write_bytes(b"\xff\0"), [BOTTLE, BROKER]),
        (WITH, lambda run: record(run).write_text("1 2 3\n"), [BOTTLE, BROKER]),
        (WITH, lambda run: record(run).unlink(), [BOTTLE, BROKER]),
        (WITH, lambda run: age(run, 86000), []),
        (WITH, lambda run: age(run, 86401), [BOTTLE, BROKER]),
        (WITH, lambda run: age(run, -60), [BOTTLE, BROKER]),
        (WITH, other_platform, [BOTTLE, BROKER]),
        (WITHOUT, lambda run: None, []),
        (WITHOUT, lambda run: make_image(run, BASE), [BOTTLE, BROKER]),
        (WITHOUT, lambda run: age(run, 86401), [BOTTLE, BROKER]),
    ],
)
def test_an_image_is_built_anew_where_something_has_changed_since(
    tmp_path: Path, base: bool, since: Callable[[Run], object], again: list[str]
) -> None:
    run = plain(tmp_path)
    if base:
        make_image(run, BASE)
    assert start(run) == [BROKER, BOTTLE]
    first = image_word(run)
    since(run)
    assert start(run) == sorted(again)
    assert (image_word(run) == first) == (BOTTLE not in again)
    assert start(run) == []


def test_a_file_that_changes_while_it_is_built_is_built_again(tmp_path: Path) -> None:
    run, other = plain(tmp_path), clone(tmp_path / "checkout")
    (other / ".venv-run").symlink_to(ROOT / ".venv-run")
    run.words[0] = str(other / "cli.sh")
    run.fake.during_build(f"echo '# changed' >>'{other}/Dockerfile'")
    assert start(run) == [BROKER, BOTTLE]
    run.fake.during_build("true")
    assert [start(run), start(run)] == [[BOTTLE], []]


def test_what_a_builder_keeps_to_itself_is_not_taken_for_what_the_engine_has_by_that_name(tmp_path: Path) -> None:
    run = plain(tmp_path, images=[{"name": "my/own:tag", "labels": {}}], loads_nothing=True)
    run.env |= {"CLAUDE_BOTTLE_IMAGE": "my/own:tag", "CLAUDE_BOTTLE_TOKEN_IN_BOTTLE": "1"}
    assert [start(run), start(run)] == [["my/own:tag"], ["my/own:tag"]]


@pytest.mark.parametrize(
    "recipe, base",
    [
        ("FROM a:1\nRUN b\n", "a:1"),
        ("FROM a:1\nCOPY c d\n", ""),
        ("FROM a:1\n  add c d\n", ""),
        ("FROM a:1\nRUN --mount=type=bind,target=/c b\n", ""),
        ("ARG of=a:1\nFROM $of\n", ""),
        ("FROM a:1 AS b\nFROM b\n", ""),
        ("FROM a:1\nFROM c:1\n", ""),
    ],
)
def test_a_file_of_which_more_than_its_text_and_base_decides_is_always_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, base: str
) -> None:
    (tmp_path / "Dockerfile").write_text(recipe)
    monkeypatch.setattr(images, "image_context", lambda: tmp_path)
    assert images.image_wanted("t:1").base == base
