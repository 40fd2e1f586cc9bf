from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import charts

Records = dict[str, list[dict[str, Any]]]


def trace(figure: Any, name: str) -> Any:
    """The trace whose first hover text speaks of `name`."""
    return next(t for t in figure.data if t.hovertext and f"<b>{name}</b>" in t.hovertext[0])


def test_accuracy_over_rounds_is_the_mean_over_tasks(summary: dict[str, Any], records: Records) -> None:
    figure = charts.accuracy_over_rounds(summary, records["accuracy"])
    line = trace(figure, "orthomesh")
    assert list(line.x) == [0, 1, 2]
    assert list(line.y) == pytest.approx([0.0, 42.5, 85.0])
    dashed = {t.name: t.y[0] for t in figure.data if t.line.dash == "dash"}
    assert dashed == {"base": pytest.approx(2.0), "oracle": pytest.approx(88.0)}


def test_accuracy_for_bytes_places_who_sent_and_draws_a_line_for_who_did_not(summary: dict[str, Any]) -> None:
    figure = charts.accuracy_for_bytes(summary)
    assert [(t.x[0], t.y[0]) for t in figure.data] == [
        (800_000, pytest.approx(15.0)),
        (8_000, pytest.approx(85.0)),
    ]
    assert [s.y0 for s in figure.layout.shapes] == pytest.approx([2.0, 32.0, 88.0])
    assert figure.layout.xaxis.type == "log"
    low, high = figure.layout.xaxis.range
    assert 10**low <= 8_000 < 800_000 <= 10**high


def test_bars_stand_per_task_and_references_lie_across(summary: dict[str, Any]) -> None:
    figure = charts.accuracy_per_task(summary)
    bars = {t.name: list(t.y) for t in figure.data if t.type == "bar"}
    assert bars["gossip"] == pytest.approx([10.0, 20.0, 15.0])
    assert set(bars) == {"local", "gossip", "orthomesh"}
    oracle = next(t for t in figure.data if t.name == "oracle")
    assert [y for y in oracle.y if y is not None] == pytest.approx([92, 92, 84, 84, 88, 88])
    assert figure.layout.xaxis.ticktext[1] == "&lt;b&gt;beta&lt;/b&gt; &amp; co"


def test_collision_rates_stand_at_their_layer(summary: dict[str, Any]) -> None:
    figure = charts.collision_rates(summary)
    rings, dots = (t for t in figure.data if t.mode == "markers")
    assert (list(rings.x), list(rings.y)) == ([0, 1], [25.0, 12.5])
    assert (list(dots.x), list(dots.y)) == ([0, 1], [0.0, 6.25])
    assert list(figure.layout.xaxis.ticktext) == ["0.q_proj", "0.v_proj"]


def test_methods_with_different_layers_share_one_axis(summary: dict[str, Any], make_row: Callable[..., Any]) -> None:
    other = {"layers": ["0.v_proj", "1.q_proj"], "expected": [0.5, 0.5], "empirical": [0.5, 0.5]}
    summary["rows"].append(make_row("paper", [0.5] * 3, collision=other))
    figure = charts.collision_rates(summary)
    assert [list(t.x) for t in figure.data if t.mode == "markers"][2:] == [[1, 2], [1, 2]]
    assert len(figure.layout.xaxis.ticktext) == 3


def test_loss_steps_up_where_a_round_begins(summary: dict[str, Any], records: Records) -> None:
    line = trace(charts.loss_over_rounds(summary, records["rounds"]), "gossip")
    assert list(line.x) == [0, 1, 1, 2]
    assert list(line.y) == pytest.approx([5.0, 2.5, 3.0, 1.5])  # mean of 4/t + {0, 1, 2}, then half of it


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(1, 9))
def test_the_mean_of_a_line_lies_between_its_tasks(values: list[float], last: int) -> None:
    table = [{"method": "m", "round": last, "task": str(i), "accuracy": v} for i, v in enumerate(values)]
    rows = [{"label": "m", "kind": "m", "mean": 0.0}]
    line = charts.accuracy_over_rounds({"rows": rows}, table).data[0]
    assert min(values) * 100 - 1e-9 <= line.y[0] <= max(values) * 100 + 1e-9


def test_figures_with_nothing_to_show_are_none(summary: dict[str, Any], make_row: Callable[..., Any]) -> None:
    silent = {**summary, "rows": [make_row("local", [0.1, 0.1, 0.1])]}
    assert charts.accuracy_over_rounds(silent, []) is None
    assert charts.accuracy_for_bytes(silent) is None
    assert charts.collision_rates(silent) is None
    assert charts.loss_over_rounds(silent, []) is None
    assert charts.accuracy_per_task({"tasks": [], "rows": []}) is None


def test_a_method_without_loss_is_left_out(summary: dict[str, Any]) -> None:
    facts = {"method": "local", "round": 1, "device": 0, "steps": 0}
    empty = [
        {**facts, "loss_first": None, "loss_last": None},
        {**facts, "loss_first": float("nan"), "loss_last": 1.0},
    ]
    assert charts.loss_over_rounds(summary, empty) is None


def test_figures_are_valid_json_and_keep_names_harmless(summary: dict[str, Any], records: Records) -> None:
    figures = [
        charts.accuracy_over_rounds(summary, records["accuracy"]),
        charts.accuracy_for_bytes(summary),
        charts.accuracy_per_task(summary),
        charts.collision_rates(summary),
        charts.loss_over_rounds(summary, records["rounds"]),
    ]
    for figure in figures:
        text = figure.to_json()
        json.loads(text, parse_constant=pytest.fail)
        assert "<b>beta" not in text
