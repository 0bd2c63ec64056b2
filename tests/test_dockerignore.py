"""What a .dockerignore leaves out. ``tests/engine/test_dockerignore.py`` asks docker itself."""

from __future__ import annotations

import pytest
from claude_bottle.lib.files import dockerignore

CASES = [
    ("*.md", "a.md", True),
    ("*.md", "sub/a.md", False),
    ("**/*.md", "sub/a.md", True),
    ("**/*.md", "a.md", True),
    ("*/*.md", "sub/a.md", True),
    ("sub", "sub/deep/a.md", True),
    ("sub/", "sub/a.md", True),
    ("/sub", "sub/a.md", True),
    ("./sub//deep/../deep", "sub/deep/a.md", True),
    ("sub/**", "sub", False),
    ("sub/**", "sub/a.md", True),
    ("**/deep", "sub/x/deep/a", True),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("[a-c]x", "bx", True),
    ("[^a-c]x", "bx", False),
    (r"\*", "*", True),
    (r"\*", "a", False),
    ("**b", "sub/ab", True),
    ("a.c", "abc", False),
    ("*\n!keep", "keep", False),
    ("!keep\n*", "keep", True),
    ("*\n!sub/keep", "sub/keep", False),
    ("*\n!sub/keep", "sub/other", True),
    ("sub\n!sub/keep\nsub/keep", "sub/keep", True),
    ("# sub", "# sub", False),
    (" sub \r\n\r\n", "sub", True),
    ("\ufeffsub", "sub", True),
    ("! sub", "sub", False),
    ("sub\n! sub", "sub", False),
    ("Dockerfile\n.dockerignore", ".dockerignore", True),
    ("Dockerfile\n.dockerignore", "Dockerfile", True),
    ("gr?n", "grün", True),
    ("a*", "a\udcff", True),
    ("", "a", False),
]


@pytest.mark.parametrize(("text", "path", "out"), CASES)
def test_a_name_stays_out_by_dockers_rules(text: str, path: str, out: bool) -> None:
    assert dockerignore.parse(text).excludes(path) is out


@pytest.mark.parametrize("line", ["[", "[]", "[a", "a[^]", "[a-]", "[-a]", "!", "! ", "a\\"])
def test_a_line_that_docker_refuses_is_named_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"^2$"):
        dockerignore.parse(f"a\n{line}\nb")


def test_names_in_any_order_are_judged_alike() -> None:
    rules = dockerignore.parse("a\n!a/b\n**/c")
    paths = ["a/x", "a/b/y", "a/b/c", "d", "a", "a/b", "c/d", "ab/x"]
    wanted = {path: dockerignore.parse("a\n!a/b\n**/c").excludes(path) for path in paths}
    assert {path: rules.excludes(path) for path in [*paths, *reversed(paths)]} == wanted


@pytest.mark.parametrize(
    ("text", "folder", "may"),
    [("*\n!a/b", "a", True), ("*\n!a/b", "c", False), ("*\n!**/x", "c", True), ("*", "a", False)],
)
def test_a_folder_that_stays_out_is_looked_into_only_for_an_exception(text: str, folder: str, may: bool) -> None:
    assert dockerignore.parse(text).may_take_in_below(folder) is may


def test_a_pattern_made_to_take_for_ever_takes_as_long_as_the_name() -> None:
    rules = dockerignore.parse("*a" * 40 + "b\n" + "**/a" * 40 + "b")
    assert not rules.excludes("a" * 255) and not rules.excludes("/".join("a" * 200))
