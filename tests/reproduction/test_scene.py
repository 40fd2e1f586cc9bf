"""Marks as SVG that parses and PNG of the size it should have."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orthomesh.reproduction import scene


def test_words_stay_words() -> None:
    """Markup and control characters in a name change nothing."""
    text = scene.svg(scene.Scene(width=9, height=9, marks=(scene.Words(at=(1, 2), text="<b>\x1b&"),)))
    assert ElementTree.fromstring(text)[-1].text == "<b>&"


def test_png_is_twice_the_size_and_svg_is_alone_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = scene.Scene(
        width=40,
        height=30,
        marks=(
            scene.bar(0, 0, 20, 30, "#0072B2"),
            scene.Dot(at=(30, 15), radius=4, colour="#D55E00", hollow=True),
            scene.Line(spots=((0, 0), (40, 0)), dashes=(3, 2)),
            scene.Words(at=(2, 20), text="a & b"),
        ),
    )
    made, note = scene.write(figure, tmp_path / "figure")
    from PIL import Image

    with Image.open(made[1]) as image:
        assert image.size == (80, 60)
        assert image.getpixel((4, 56)) == (0, 114, 178)
    assert note == ""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    made, note = scene.write(figure, tmp_path / "other")
    assert [p.name for p in made] == ["other.svg"]
    assert "orthomesh[figures]" in note


def test_dashes_cover_their_share() -> None:
    pieces = scene._strokes(((0.0, 0.0), (100.0, 0.0)), (3.0, 2.0))
    assert sum(math.dist(*p) for p in pieces) == pytest.approx(60.0)
