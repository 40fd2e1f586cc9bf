from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation.costcharts import byte_shares, cost_dots

COLUMNS = ("values", "mask", "codes", "control", "one_off")


def test_dots_stand_at_their_value_on_a_logarithmic_axis(summary: dict[str, Any]) -> None:
    figure = cost_dots(summary, "bytes")
    assert figure.layout.xaxis.type == "log"
    dots = {t.text[0]: t.x[0] for t in figure.data if "markers" in t.mode}
    assert dots == {"800 kB": 800_000, "8.00 kB": 8_000}


def test_who_sent_nothing_says_so_and_has_no_dot(summary: dict[str, Any]) -> None:
    figure = cost_dots(summary, "energy_j")
    assert [t.text[0] for t in figure.data if t.mode == "text"] == ["none"] * 3
    assert [t.text[0] for t in figure.data if "markers" in t.mode] == ["200 mJ", "2.00 mJ"]


def test_shares_are_of_the_method_s_own_bytes(summary: dict[str, Any]) -> None:
    figure = byte_shares(summary)
    shares = {t.name: t.x[3] for t in figure.data}
    assert shares == {"values": 50.0, "mask": 25.0, "codes": 12.5, "control": 12.5, "one-off": 0.0}
    assert len(figure.layout.annotations) == 3


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=5, max_size=5), min_size=1, max_size=4))
def test_shares_add_up(sent: list[list[int]]) -> None:
    rows = [
        {"label": f"m{i}", "kind": "m", "bytes_per_device": dict(zip(COLUMNS, parts, strict=True))}
        for i, parts in enumerate(sent)
    ]
    figure = byte_shares({"rows": rows})
    if not any(map(sum, sent)):
        assert figure is None
        return
    totals = [sum(t.x[i] for t in figure.data) for i in range(len(rows))]
    assert totals == pytest.approx([100.0 if sum(parts) else 0.0 for parts in sent])


@pytest.mark.parametrize("what", ["bytes", "airtime_s", "energy_j"])
def test_nothing_spent_nothing_drawn(make_row: Callable[..., Any], what: str) -> None:
    assert cost_dots({"rows": [make_row("local", [0.1, 0.1, 0.1])]}, what) is None
    assert cost_dots({"rows": []}, what) is None
    assert byte_shares({"rows": []}) is None


def test_an_unknown_cost_is_an_error(summary: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        cost_dots(summary, "money")
