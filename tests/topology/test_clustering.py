"""Greedy agglomerative clustering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.clustering import Key, Members, agnes


def rate_key(density: Sequence[float], limit: float, far: frozenset[tuple[int, int]] = frozenset()) -> Key:
    """Chance that two of a union collide at one position, forbidden above a limit or between far devices."""

    def key(union: Members) -> tuple[float, float] | None:
        s = [density[i] for i in union]
        none = math.prod(1 - x for x in s)
        one = sum(x * math.prod(1 - y for k, y in enumerate(s) if k != j) for j, x in enumerate(s))
        rate = round(1 - none - one, 12)
        if rate > limit or any(pair in far for pair in combinations(union, 2)):
            return None
        return rate, float(len(union))

    return key


def naive(ids: Sequence[int], key: Key) -> tuple[Members, ...]:
    """The definition: look at every pair, merge the best, start again."""
    clusters: set[Members] = {(i,) for i in ids}
    while True:
        offers = []
        for a, b in combinations(sorted(clusters, key=max), 2):
            union = tuple(sorted(a + b))
            if (value := key(union)) is not None:
                offers.append((value, max(a), max(b), a, b, union))
        if not offers:
            return tuple(sorted(clusters))
        *_, a, b, union = min(offers)
        clusters = clusters - {a, b} | {union}


def test_lowest_rate_merges_first_on_paper() -> None:
    # pairs: (0,1) 0.01, (0,2) 0.05, (1,2) 0.05, (2,3) 0.45; with 0.1, 0.1, 0.5, 0.9 and a limit of 0.2
    # first {0,1}; then {0,1,2} = 1 - .81*.5 - (2*.1*.9*.5 + .5*.81) = 0.1; device 3 fits nowhere
    assert agnes(range(4), rate_key([0.1, 0.1, 0.5, 0.9], 0.2)) == ((0, 1, 2), (3,))
    assert agnes(range(4), rate_key([0.1, 0.1, 0.5, 0.9], 0.09)) == ((0, 1), (2,), (3,))


def test_power_then_id_break_ties() -> None:
    power = {(0, 1): 3.0, (0, 2): 2.0, (1, 2): 2.0}
    assert agnes(range(3), lambda u: (0.0, power[u[0], u[1]]) if len(u) == 2 else None) == ((0, 2), (1,))
    assert agnes(range(5), lambda u: (0.0, 0.0) if len(u) == 2 else None) == ((0, 1), (2, 3), (4,))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), m=st.integers(0, 9), limit=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]))
def test_the_heap_does_what_the_definition_says(data: st.DataObject, m: int, limit: float) -> None:
    few = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5])  # so that ties happen
    density = data.draw(st.lists(few, min_size=m, max_size=m))
    pairs = list(combinations(range(m), 2))
    far = frozenset(data.draw(st.lists(st.sampled_from(pairs), max_size=8)) if pairs else [])
    key = rate_key(density, limit, far)
    order = data.draw(st.permutations(range(m)))
    clusters = agnes(order, key)
    assert clusters == naive(range(m), key)
    assert sorted(i for c in clusters for i in c) == list(range(m))
    assert all(list(c) == sorted(c) for c in clusters)
    assert [c[0] for c in clusters] == sorted(c[0] for c in clusters)
    assert all(len(c) == 1 or key(c) is not None for c in clusters)
    assert all(key(tuple(sorted(a + b))) is None for a, b in combinations(clusters, 2))


def test_relabelling_in_order_relabels_the_clusters() -> None:
    density = np.random.default_rng(3).uniform(0.01, 0.3, 12).tolist()
    names = [3 * i + 7 for i in range(12)]
    key = rate_key(density, 0.1)
    renamed = agnes(reversed(names), lambda union: key(tuple((n - 7) // 3 for n in union)))
    assert renamed == tuple(tuple(names[i] for i in c) for c in agnes(range(12), key))


def test_two_hundred_devices_need_few_evaluations() -> None:
    calls: list[Members] = []

    def key(union: Members) -> tuple[float, float] | None:
        calls.append(union)
        return (sum(union) / 1e4, 0.0) if len(union) <= 8 else None

    clusters = agnes(range(200), key)
    assert max(map(len, clusters)) == 8
    assert len(calls) <= 200 * 199 // 2 + 199 * 199  # all pairs once, and each survivor after each merger
    assert len(set(calls)) == len(calls)


def test_nobody_and_one_alone() -> None:
    def never(union: Members) -> None:
        return None

    assert agnes([], never) == ()
    assert agnes([4], never) == ((4,),)
    assert agnes([4, 2], never) == ((2,), (4,))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="device 1 is given twice"):
        agnes([1, 0, 1], lambda union: None)
    with pytest.raises(ValueError, match=r"key of \(0, 1\) is not a number"):
        agnes([0, 1], lambda union: (math.nan, 0.0))
