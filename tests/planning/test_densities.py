"""Densities under a budget: against (22), a linear program, and the objective they climb."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from orthomesh.adapters.collision import collision_rate
from orthomesh.adapters.density import allocate
from orthomesh.planning.densities import choose, fill, one_other, payload_bits
from orthomesh.planning.problem import Demand, Limits, Problem, all_pairs, check
from orthomesh.wireless.link import Radio

SIZES = (100, 200, 400)


def problem(m: int, seed: int, price: float, temperature: float = 1.0) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem(
        radio=Radio(),
        limits=Limits(max_collision=0.1, masks="independent"),
        sizes=SIZES,
        densities=np.full((m, 3), 0.1),
        payload_bits=np.full(m, 1e5),
        links=all_pairs(np.full((m, m), 1e-9)),
        demand=Demand(
            importance=rng.uniform(0, 3, (m, 3)),
            entries=rng.uniform(20, 500, m),
            price=price,
            temperature=temperature,
            entry_bits=16.0,
            overhead_bits=100.0,
        ),
    )


@given(st.lists(st.floats(0, 3), min_size=3, max_size=3), st.integers(3, 700), st.sampled_from([0.5, 1.0, 2.0]))
def test_at_a_temperature_it_is_equation_22_before_rounding(h: list[float], entries: int, tau: float) -> None:
    s = fill(np.array(h), SIZES, float(entries), tau)
    assert s @ np.array(SIZES) == pytest.approx(entries, rel=1e-9)
    rounded = allocate(np.array(h), SIZES, entries, "entropy", tau)
    assert np.abs(s * SIZES - rounded).max() <= 1.0 + 1e-6


@settings(max_examples=20)
@given(st.lists(st.floats(0, 3), min_size=3, max_size=3), st.floats(3, 700))
def test_at_temperature_zero_it_is_a_linear_program(h: list[float], entries: float) -> None:
    n = np.array(SIZES, dtype=float)
    s = fill(np.array(h), SIZES, entries, 0.0)
    best = linprog(-n * h, A_eq=[n], b_eq=[entries], bounds=[(1 / k, 1.0) for k in SIZES])
    assert (n * h) @ s == pytest.approx(-best.fun, rel=1e-9, abs=1e-9)
    assert n @ s == pytest.approx(entries)


def test_one_other_is_the_slope_of_the_rate() -> None:
    s = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    slope = one_other(problem(4, 0, 1.0), s)
    for i in range(4):
        more = s.copy()
        more[i] += 1e-6
        assert (collision_rate(more) - collision_rate(s)) / 1e-6 == pytest.approx(slope[i], rel=1e-6)
    full = replace(problem(2, 0, 1.0), limits=Limits(max_collision=0.1, masks="negotiated"))
    assert one_other(full, np.array([[0.5, 0.6, 0.0], [0.5, 0.5, 1.0]])).tolist() == [[0.0, 1.0, 0.0]] * 2


def objective(asked: Problem, s: np.ndarray) -> float:
    d, n = asked.demand, np.array(SIZES, dtype=float)
    assert d is not None
    worth = n * (d.importance * s - d.temperature * s * (np.log(s) - 1.0))
    return float(worth.sum() - d.price * (n * collision_rate(s)).sum())


@settings(max_examples=10)
@given(st.integers(2, 5), st.integers(0, 999), st.sampled_from([0.5, 2.0, 10.0]))
def test_every_sweep_climbs_and_a_price_lowers_collisions(m: int, seed: int, price: float) -> None:
    asked, free = problem(m, seed, price), problem(m, seed, 0.0)
    assert asked.demand is not None
    assert free.demand is not None
    everybody = [tuple(range(m))]
    start = choose(free, free.demand, everybody, free.densities)
    seen = [start]
    for _ in range(4):
        seen.append(choose(asked, asked.demand, everybody, seen[-1], sweeps=1))
    values = [objective(asked, s) for s in seen]
    assert all(b >= a - 1e-6 for a, b in pairwise(values))
    weights = np.array(SIZES) / sum(SIZES)
    assert collision_rate(seen[-1]) @ weights <= collision_rate(start) @ weights + 1e-9
    assert seen[-1] @ np.array(SIZES) == pytest.approx(asked.demand.entries)


def test_payloads_follow_densities() -> None:
    asked = problem(1, 0, 0.0)
    assert asked.demand is not None
    assert payload_bits(asked, asked.demand, np.array([[0.5, 0.25, 0.0]])).tolist() == [100.0 + 16.0 * 100]
    assert fill(np.zeros(3), SIZES, 1e9, 1.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entries": np.array([5.0, 2.0])}, "no density meets the budget of device 1: 2 entries of B for 3 groups"),
        ({"entries": np.array([np.nan, 5.0])}, "no density meets the budget of device 0"),
        ({"importance": np.full((2, 3), np.inf)}, "importance is a finite number of nats"),
        ({"price": -1.0}, "temperature and price are >= 0"),
        ({"entry_bits": 0.0}, "entry has bits > 0"),
    ],
)
def test_bad_demands_get_a_sentence(change: dict[str, object], words: str) -> None:
    asked = problem(2, 0, 0.0)
    with pytest.raises(ValueError, match=words):
        check(replace(asked, demand=replace(asked.demand, **change)))
