from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import wording
from orthomesh.methods import METHODS

Rows = list[dict[str, Any]]
SCALES = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def of(rows: Rows, devices: int = 3) -> dict[str, Any]:
    return {"devices": [{}] * devices, "tasks": ["a", "b"], "rounds": 5, "rows": rows}


def short(label: str, mean: float, sent: int) -> dict[str, Any]:
    return {"label": label, "kind": label, "mean": mean, "bytes_per_device": {"values": sent}}


def value(text: str) -> float:
    number, unit = text.split(" ")
    return float(number.replace(",", "")) * SCALES[unit[:-1]]


def test_the_headline_when_we_win() -> None:
    rows = [short("gossip", 0.181, 3_100_000), short("orthomesh", 0.92, 31_000), short("oracle", 0.925, 0)]
    assert wording.headline(of(rows, 10)) == (
        "10 devices, 5 rounds: with orthomesh every device answers every task, and 92.0 % of the answers are "
        "right (99.5 % of the oracle), for 31.0 kB sent per device; gossip reaches 18.1 %, for 3.10 MB."
    )


def test_the_headline_when_we_lose_to_everybody() -> None:
    rows = [short("orthomesh", 0.2, 10), short("gossip", 0.3, 20), short("local", 0.4, 0)]
    ending = "for 10 B sent per device; gossip is ahead with 30.0 %, for 20 B; local is ahead with 40.0 %, "
    assert wording.headline(of(rows)).endswith(ending + "without a byte sent.")


def test_the_headline_when_it_is_a_draw() -> None:
    rows = [short("orthomesh", 0.5, 10), short("gossip", 0.50001, 20)]
    assert "gossip reaches the same, for 20 B" in wording.headline(of(rows))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "3 devices, 5 rounds: no method was run."),
        ([short("base", 0.1, 0)], "with base every device answers every task, and 10.0 %"),
        (
            [short("orthomesh", 0.1, 0), short("oracle", 0.0, 0)],
            "10.0 % of the answers are right, without a byte",
        ),
        ([short("gossip", 0.1, 5)], "with gossip every device"),
    ],
)
def test_the_headline_of_a_run_with_hardly_anything(rows: Rows, said: str) -> None:
    assert said in wording.headline(of(rows))


def test_an_oracle_is_nobody_s_rival_and_never_speaks_for_a_run() -> None:
    rows = [short("hard_moe", 0.9, 0), short("centralised", 0.8, 0), short("full", 0.3, 40), short("ffa", 0.4, 20)]
    said = wording.headline(of(rows))
    assert said.endswith(
        "with ffa every device answers every task, and 40.0 % of the answers are right, for 20 B sent per device."
    )


@pytest.mark.parametrize("kind", [k for k in METHODS if k not in ("gossip_lora", "sparse_orthogonal")])
def test_every_method_has_a_meaning(kind: str) -> None:
    assert wording.meaning(short(kind, 0.5, 0)) != kind


def test_one_device_does_not_answer_for_every_device() -> None:
    assert "1 device, 5 rounds: with local the devices answer" in wording.headline(of([short("local", 0.5, 0)], 1))


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3))
def test_somebody_is_ahead_exactly_if_somebody_is(means: list[int]) -> None:
    labels = ("orthomesh", "gossip", "paper")
    rows = [short(label, m / 1000, 10) for label, m in zip(labels, means, strict=True)]
    assert ("ahead" in wording.headline(of(rows))) == (max(means) > means[0])


@given(st.floats(1e-8, 1e13))
def test_a_quantity_keeps_three_digits(x: float) -> None:
    text = wording.quantity(x, "J")
    assert math.isclose(value(text), x, rel_tol=0.00501)
    assert 1 <= float(text.split(" ")[0].replace(",", "")) < 1000


@given(st.lists(st.one_of(st.just(0.0), st.floats(1.0, 1e10)), min_size=1, max_size=8))
def test_a_column_shares_unit_and_decimals_and_hides_nothing(values: list[float]) -> None:
    cells, unit = wording.column(values, "B")
    decimals = {len(c.partition(".")[2]) for c in cells if c != "0" and not c.startswith("<")}
    assert len(decimals) <= 1
    step = 10.0 ** -max(decimals, default=0) * SCALES[unit[:-1]]
    for cell, x in zip(cells, values, strict=True):
        assert (cell == "0") == (x == 0)
        if cell.startswith("<"):
            assert x < value(f"{cell[1:]} {unit}")
        else:
            assert abs(value(f"{cell} {unit}") - x) <= 0.501 * step


def test_known_methods_keep_their_colour_whatever_stands_beside_them(make_row: Callable[..., Any]) -> None:
    one = wording.colours({"rows": [make_row("orthomesh", [0, 0, 0])]})
    rows = [make_row(name, [0, 0, 0]) for name in ("mine", "gossip", "orthomesh", "yours")]
    many = wording.colours({"rows": rows})
    assert one["orthomesh"] == many["orthomesh"]
    assert len(set(many.values())) == 4


def test_a_second_row_of_a_known_kind_gets_a_colour_of_its_own(make_row: Callable[..., Any]) -> None:
    rows = [make_row("orthomesh", [0, 0, 0]), make_row("denser", [0, 0, 0], kind="orthomesh")]
    assert len(set(wording.colours({"rows": rows}).values())) == 2


@pytest.mark.parametrize(("seconds", "said"), [(59.4, "59.4 s"), (119.7, "2 min 0 s"), (3600.0, "1 h 0 min")])
def test_waiting_times(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said
