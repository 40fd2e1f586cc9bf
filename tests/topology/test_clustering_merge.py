"""Mergers in parallel are the mergers one at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.topology.clustering import Members, agnes
from orthomesh.topology.clustering_instance import Instance, limit, set_rate
from orthomesh.topology.clustering_merge import merge_rounds


def colliding(densities: np.ndarray, max_rate: float, pairs: np.ndarray, power: np.ndarray | None = None) -> Instance:
    """Independent masks of one layer: rows (p0, p1, p2)."""

    def join(rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (a0, a1, a2), (b0, b1, b2) = rows[a].T, rows[b].T
        return np.stack([a0 * b0, a0 * b1 + a1 * b0, a2 + (a0 + a1) * b2 + a1 * b1], axis=1)

    return Instance(
        leaves=np.stack([1 - densities, densities, 0 * densities], axis=1),
        join=join,
        rate=lambda rows, a, b: join(rows, a, b)[:, 2],
        max_rate=max_rate,
        pairs=pairs,
        power=np.zeros(len(pairs)) if power is None else power,
        size=densities,
    )


def one_at_a_time(instance: Instance) -> tuple[Members, ...]:
    """The heap of `clustering.agnes` under the same keys."""
    power = dict(zip(map(tuple, instance.pairs.tolist()), instance.power.tolist(), strict=True))

    def key(union: Members) -> tuple[float, float] | None:
        inside = list(combinations(union, 2))
        rate = set_rate(instance, union)
        if rate > limit(instance) or any(pair not in power for pair in inside):
            return None
        worst = max(power[pair] for pair in inside)
        if instance.further is not None:
            further = instance.further(union)
            if further is None:
                return None
            worst = further
        return float(rate), worst

    return agnes(range(len(instance.leaves)), key)


def drawn(m: int, seed: int, kind: str, degree: float, max_rate: float) -> Instance:
    rng = np.random.default_rng(seed)
    densities = {
        "spread": rng.uniform(0.01, 0.4, m),
        "few": rng.choice([0.0, 0.05, 0.1, 0.25, 0.5, 1.0], m),  # so that ties happen
        "equal": np.full(m, 0.1),
    }[kind]
    every = np.array(list(combinations(range(m), 2)), dtype=np.int64).reshape(-1, 2)
    pairs = every[rng.random(len(every)) < degree]
    power = rng.choice([0.0, 1.0, 2.0], len(pairs)) if seed % 2 else np.zeros(len(pairs))
    return colliding(densities, max_rate, pairs, power)


def test_best_pairs_merge_first_on_paper() -> None:
    """A line 0 - 1 - 2 - 3: 0.03 for (0, 1) and (2, 3), 0.09 for (1, 2), and no clique of more than two."""
    found = merge_rounds(colliding(np.array([0.1, 0.3, 0.3, 0.1]), 0.2, np.array([[0, 1], [1, 2], [2, 3]])))
    assert found.clusters == ((0, 1), (2, 3))
    assert (found.rounds, found.evaluations) == (1, 3)  # both at once


def test_power_breaks_ties() -> None:
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    asked = colliding(np.full(3, 0.1), 0.01, pairs, np.array([3.0, 2.0, 2.0]))
    assert merge_rounds(asked).clusters == ((0, 2), (1,))


@given(
    m=st.integers(0, 14),
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["spread", "few", "equal"]),
    degree=st.sampled_from([0.3, 0.7, 1.0]),
    max_rate=st.sampled_from([0.0, 0.05, 0.25, 1.0]),
)
def test_in_parallel_or_one_at_a_time_is_the_same(m: int, seed: int, kind: str, degree: float, max_rate: float) -> None:
    asked = drawn(m, seed, kind, degree, max_rate)
    assert merge_rounds(asked).clusters == one_at_a_time(asked)


@pytest.mark.parametrize("kind", ["spread", "equal"])
def test_forty_devices(kind: str) -> None:
    asked = drawn(40, 1, kind, 0.3, 0.1)
    assert merge_rounds(asked).clusters == one_at_a_time(asked)


@given(m=st.integers(2, 10), seed=st.integers(0, 1000))
def test_a_further_limit_is_kept_to(m: int, seed: int) -> None:
    """Nothing with more than 12 in ids, whose sum is the power."""
    asked = replace(drawn(m, seed, "few", 0.8, 0.3), further=lambda s: float(sum(s)) if sum(s) <= 12 else None)
    found = merge_rounds(asked).clusters
    assert found == one_at_a_time(asked)
    assert all(sum(c) <= 12 for c in found if len(c) > 1)


def test_who_knows_nobody_stays_alone() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    assert merge_rounds(colliding(np.full(3, 0.1), 1.0, none)).clusters == ((0,), (1,), (2,))
    assert merge_rounds(colliding(np.zeros(0), 1.0, none)).clusters == ()


def test_everything_or_nothing_may_collide() -> None:
    every = np.array(list(combinations(range(5), 2)))
    assert merge_rounds(colliding(np.full(5, 0.9), 1.0, every)).clusters == (tuple(range(5)),)
    assert len(merge_rounds(colliding(np.full(5, 0.9), 0.0, every)).clusters) == 5
    assert merge_rounds(colliding(np.zeros(5), 0.0, every)).clusters == (tuple(range(5)),)
