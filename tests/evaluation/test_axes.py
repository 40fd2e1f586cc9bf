from __future__ import annotations

import html
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import axes


def test_labels_that_would_touch_move_apart() -> None:
    figure = axes.figure_of(360)  # 300 px for 100 units: a label needs 16 / 3 units
    axes.label_ends(figure, [(50.0, "b", "#000000"), (49.0, "a", "#000000")], x=5.0, low=0.0, high=100.0)
    heights = {note.text: note.y for note in figure.layout.annotations}
    assert heights == {"a": pytest.approx(49.0), "b": pytest.approx(49.0 + 16 / 3)}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.floats(0.1, 12))
def test_spread_keeps_order_gap_and_bounds(heights: list[float], gap: float) -> None:
    moved = axes.spread(sorted(heights), gap, 0.0, 100.0)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(moved))
    assert moved[-1] <= 100.0
    assert moved[0] >= -1e-9 or (len(heights) - 1) * gap > 100.0  # too many to fit
    if all(b - a >= gap for a, b in pairwise(sorted(heights))):
        assert moved == pytest.approx(sorted(heights), abs=1e-9)


@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=5))
def test_decades_hold_all_values(values: list[float]) -> None:
    low, high = axes.decades(values)
    assert high > low
    assert 10.0**low <= min(values) * (1 + 1e-6)
    assert max(values) <= 10.0**high * (1 + 1e-6)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=22))
def test_a_short_name_survives_cleaning_literally(name: str) -> None:
    cleaned = axes.clean(name)
    assert "<" not in cleaned
    if name.isprintable():
        assert html.unescape(cleaned) == name or "&" in name  # unescaping may read more into an ampersand


def test_names_lose_what_nobody_sees() -> None:
    assert axes.clean("a\x1bb\nc") == "a?b?c"
    assert axes.clean("x" * 30, 5) == "xxxx…"


def test_ticks_of_a_logarithmic_axis_name_their_prefix() -> None:
    ticks = axes.log_ticks(2.0, 6.0, "B")
    assert ticks["ticktext"] == ["100 B", "1 kB", "10 kB", "100 kB", "1 MB"]
    assert len(axes.log_ticks(-6.0, 12.0, "J")["tickvals"]) <= 7


@pytest.mark.parametrize("last", [0, 1, 5, 12, 100])
def test_rounds_have_whole_ticks_and_a_range(last: int) -> None:
    figure = axes.figure_of(100)
    axes.round_axis(figure, "round", last)
    low, high = figure.layout.xaxis.range
    assert low < 0 < last + 1e-9 < high or (last == 0 and low < 0 < high)
    assert len(figure.layout.xaxis.tickvals) <= 13
    assert all(isinstance(v, int) for v in figure.layout.xaxis.tickvals)
