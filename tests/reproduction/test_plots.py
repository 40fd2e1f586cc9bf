"""Figures: every mark lies where its number says."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from orthomesh.reproduction import plots, scene

NAN = float("nan")


def elements(figure: scene.Scene, kind: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(scene.svg(figure)).findall(f"{{http://www.w3.org/2000/svg}}{kind}")


def test_dots_lie_where_their_values_are() -> None:
    figure = plots.dots("a < b", "s", [plots.Measure("one", 50.0, 10.0, (25.0,)), plots.Measure("two", 0.0, NAN, ())])
    xs = [float(c.attrib["cx"]) for c in elements(figure, "circle")]
    left, right = xs[2], 2 * xs[1] - xs[2]
    assert xs[0] == pytest.approx(left + (right - left) / 4)
    band = next(p for p in elements(figure, "polyline") if p.attrib["stroke-width"] == "2.4")
    ends = [float(spot.split(",")[0]) for spot in band.attrib["points"].split()]
    assert ends == pytest.approx([left + 0.4 * (right - left), left + 0.6 * (right - left)])


def test_curves_on_a_logarithmic_axis() -> None:
    axes = plots.Axes("t", "s", "bytes", "B", log=True)
    figure = plots.curves(axes, [plots.Curve("m", ((10.0, 0.0, NAN), (100.0, 50.0, NAN), (1000.0, NAN, NAN)))])
    circles = elements(figure, "circle")
    assert len(circles) == 2  # what is not finite is left out
    first, second = (float(c.attrib["cx"]) for c in circles)
    assert second - first == pytest.approx((plots.RIGHT - plots.LEFT) / 2, abs=0.1)
    assert "100 B" in scene.svg(figure)


def test_the_frontier_is_a_staircase_under_no_spot() -> None:
    lines = [plots.Curve("m", ((10.0, 20.0, NAN), (1000.0, 10.0, NAN))), plots.Curve("n", ((100.0, 60.0, NAN),))]
    figure = plots.curves(plots.Axes("t", "s", "bytes", "B", log=True, frontier="best"), lines)
    (stairs,) = (p for p in elements(figure, "polyline") if p.attrib["stroke-width"] == "6")
    spots = [tuple(map(float, spot.split(","))) for spot in stairs.attrib["points"].split()]
    first, second, third = (tuple(float(c.attrib[n]) for n in ("cx", "cy")) for c in elements(figure, "circle"))
    assert spots == [first, (third[0], first[1]), third, (plots.RIGHT, third[1])]
    assert second[1] > first[1]  # lower, so no step of it
    assert not elements(plots.curves(plots.Axes("t", "s", "x", frontier="best"), []), "circle")


def test_no_two_of_many_lines_look_alike() -> None:
    lines = [plots.Curve(f"m{n}", ((1.0, float(n), NAN), (2.0, float(n), NAN))) for n in range(36)]
    figure = plots.curves(plots.Axes("t", "s", "x"), lines)
    drawn = [p.attrib for p in elements(figure, "polyline") if p.attrib["stroke-width"] == "2.2"]
    looks = [(a["stroke"], a.get("stroke-dasharray")) for a in drawn]
    assert len(looks) == 72  # each with a stroke beside its name
    assert len(set(looks)) == 36


def test_stacked_bars_add_up() -> None:
    parts = {"given": 40.0, "x": 10.0, "y": 20.0, "z": -5.0, "w": 0.0}
    figure = plots.stacked("t", "s", {"task": parts}, ("x", "y", "z", "w"))
    bars = [p.attrib["points"].split() for p in elements(figure, "polygon")][:3]  # the rest is the legend
    heights = [abs(float(b[0].split(",")[1]) - float(b[2].split(",")[1])) for b in bars]
    assert heights[0] / heights[1] == pytest.approx(40 / 20, rel=0.01)  # given, then y, then x on top
    assert heights[1] / heights[2] == pytest.approx(2.0, rel=0.01)
