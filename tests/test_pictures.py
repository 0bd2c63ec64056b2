"""The README's pictures: how they are drawn, and that they are there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fixtures.pictures import COLUMNS, rows, svg
from tests.conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(picture).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\r\nb", ["a", "b"]),
        ("waiting: 2 s\r\x1b[Kwaiting: 3 s\r\x1b[Kdone", ["done"]),
        ("12345\rab", ["ab345"]),
        ("\x1b[31;1merror\x1b[0m: <&>", ["error: <&>"]),
        ("\x1b7\x1b[?1049l\x1b[0 q\x1b(B\x0fa\x1b]0;title\x07b", ["ab"]),
        ("x" * (COLUMNS + 1), ["x" * COLUMNS, "x"]),
    ],
)
def test_a_picture_has_what_the_terminal_has(said: str, shown: list[str]) -> None:
    assert texts(svg(rows(said), "title")) == ["title", *shown]


def test_a_colour_is_kept() -> None:
    (span,) = ElementTree.fromstring(svg(rows("a \x1b[33mwarning\x1b[0m"), "")).iter(f"{SVG}tspan")
    assert span.text == "warning" and span.get("fill")


def test_the_readme_shows_pictures_that_are_there_and_name_nothing_of_the_machine_that_drew_them() -> None:
    names = re.findall(r"!\[.+\]\((docs/.+\.svg)\)", (ROOT / "README.md").read_text())
    assert names == ["docs/session.svg", "docs/seal.svg"]
    for name in names:
        picture = Path(ROOT, name).read_text()
        assert ElementTree.fromstring(picture).tag == f"{SVG}svg" and "cb-scenery-" not in picture.replace(
            "cb-scenery-ca", ""
        )
