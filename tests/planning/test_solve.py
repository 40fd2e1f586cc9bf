"""Solvers of problem (11)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.planning.problem import Demand, Limits, Masks, Problem, Solution, Solver, all_pairs, power_limits_w
from orthomesh.planning.solve import solve
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import Cast

SOLVERS: tuple[Solver, ...] = get_args(Solver)


def drawn(m: int, seed: int, cast: Cast = "broadcast", masks: Masks = "independent") -> Problem:
    """Devices in a disk that half of the links cross."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 600, (m, 2))
    d = np.maximum(np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)), 1.0)
    gains = 10**-3.8 * d**-3 * rng.exponential(size=(m, m))
    return Problem(
        radio=Radio(),
        limits=Limits(max_collision=0.1, cast=cast, masks=masks),
        sizes=(100, 300),
        densities=rng.uniform(0.05, 0.4, (m, 2)),
        payload_bits=np.full(m, 1e6),
        links=all_pairs(gains),
        positions_m=xy,
    )


def within_limits(problem: Problem, found: Solution) -> None:
    assert sorted(i for c in found.clusters for i in c) == list(range(len(problem.densities)))
    assert found.rates.max() <= problem.limits.max_collision + 1e-11
    assert (found.sent_w <= power_limits_w(problem) * (1 + 1e-12)).all()
    assert (found.delay_s <= problem.radio.deadline_s * (1 + 1e-12)).all()
    assert 1 <= found.bound <= found.num_clusters


def test_quarters_fill_clusters_of_four() -> None:
    everybody = replace(
        drawn(6, 0),
        limits=Limits(max_collision=0.0),
        densities=np.full((6, 2), 0.25),
        links=all_pairs(np.full((6, 6), 1e-6)),
    )
    for solver in SOLVERS:
        found = solve(everybody, solver)
        assert found.num_clusters == 2
        assert max(map(len, found.clusters)) <= 4
        assert found.mean_rate == 0.0
        assert (found.bound, found.gap) == (2, 0.0)


@settings(max_examples=8)
@given(
    m=st.integers(1, 7),
    seed=st.integers(0, 999),
    cast=st.sampled_from(["broadcast", "unicast"]),
    masks=st.sampled_from(["independent", "negotiated"]),
)
def test_all_keep_to_the_limits_and_exact_is_best(m: int, seed: int, cast: Cast, masks: Masks) -> None:
    problem = drawn(m, seed, cast, masks)
    found = {solver: solve(problem, solver) for solver in SOLVERS}
    for solution in found.values():
        within_limits(problem, solution)
    best = found["exact"]
    for solution in found.values():
        assert (best.num_clusters, best.mean_rate - 1e-11) <= (solution.num_clusters, solution.mean_rate)
        assert solution.bound <= best.num_clusters


def test_more_than_sixteen_are_covered() -> None:
    problem = drawn(18, 3)
    exact, greedy = solve(problem, "exact"), solve(problem, "agnes")
    within_limits(problem, exact)
    assert exact.gap == 0.0
    assert greedy.bound <= exact.num_clusters <= greedy.num_clusters


def test_a_price_of_collisions_lowers_them_at_the_same_budget() -> None:
    rng = np.random.default_rng(0)
    demand = Demand(importance=rng.uniform(0, 3, (8, 2)), entries=rng.uniform(40, 120, 8), overhead_bits=9e5)
    free = replace(drawn(8, 1), demand=demand)
    dear = replace(free, demand=replace(demand, price=3.0))
    before, after = solve(free, "exact"), solve(dear, "exact")
    for problem, found in ((free, before), (dear, after)):
        within_limits(problem, found)
        assert found.densities @ np.array(problem.sizes) == pytest.approx(demand.entries)
        assert found.sent_bytes.max() <= np.ceil((9e5 + 16 * demand.entries.max()) / 8)
    assert (after.num_clusters, after.mean_rate) < (before.num_clusters, before.mean_rate)


@pytest.mark.parametrize("solver", SOLVERS)
def test_edges(solver: Solver) -> None:
    crowd = replace(drawn(7, 0), links=all_pairs(np.full((7, 7), 1e-6)))
    nothing = replace(crowd, limits=Limits(max_collision=0.0, masks="independent"))
    assert solve(nothing, solver).num_clusters == 7
    anything = replace(crowd, limits=Limits(max_collision=1.0, masks="independent"))
    assert solve(anything, solver).clusters == (tuple(range(7)),)
    silent = replace(crowd, power_limit_w=np.array([0.0] + [0.2] * 6), limits=Limits(max_collision=1.0))
    assert solve(silent, solver).clusters == ((0,), tuple(range(1, 7)))  # p_max = 0: in nobody's cluster
    gains = np.full((7, 7), 1e-6)
    gains[3] = gains[:, 3] = 1e-20
    away = replace(anything, links=all_pairs(gains))
    found = solve(away, solver)
    assert found.clusters == ((0, 1, 2, 4, 5, 6), (3,))  # out of everybody's reach
    assert found.sent_bytes[3] == 0.0
    assert all(3 not in pair for pair in map(set, found.pairs.tolist()))
    with pytest.raises(ValueError, match="density lies in"):
        solve(replace(crowd, densities=np.full((7, 2), np.nan)), solver)


def test_more_pairs_than_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthomesh.planning.solve.MOST_PAIRS", 3)
    crowd = replace(drawn(4, 0), links=all_pairs(np.full((4, 4), 1e-6)))
    with pytest.raises(ValueError, match="6 pairs of devices within reach of each other are more than best-fit takes"):
        solve(crowd, "best-fit")
    assert solve(crowd, "agnes").num_clusters >= 1


def test_worst_group_is_stricter_than_the_mean() -> None:
    problem = drawn(8, 2)
    strict = replace(problem, limits=replace(problem.limits, over="max"))
    found = solve(strict, "exact")
    assert found.num_clusters >= solve(problem, "exact").num_clusters
    for members in found.clusters:
        if len(members) > 1:
            s = problem.densities[list(members)]
            none = np.prod(1 - s, axis=0)
            one = sum(s[i] * np.prod(np.delete(1 - s, i, axis=0), axis=0) for i in range(len(members)))
            assert (1 - none - one).max() <= 0.1 + 1e-11
            assert list(combinations(members, 2))
