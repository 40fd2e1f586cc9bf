"""A partition that is changed in place knows what a fresh look would say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.clustering_instance import Instance, limit, set_rate
from orthomesh.topology.clustering_parts import NOWHERE, Parts


def drawn(m: int, seed: int) -> Instance:
    rng = np.random.default_rng(seed)
    every = np.array(list(combinations(range(m), 2)), dtype=np.int64).reshape(-1, 2)
    pairs = every[rng.random(len(every)) < 0.7]
    load = rng.choice([0.125, 0.25, 0.5], m)
    return Instance(
        leaves=load,
        join=lambda rows, a, b: rows[a] + rows[b],
        rate=lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 0.5),
        max_rate=0.5,
        pairs=pairs,
        power=np.zeros(len(pairs)),
        size=load,
    )


@settings(max_examples=15)
@given(st.integers(2, 9), st.integers(0, 999))
def test_after_any_moves_it_knows_what_a_fresh_look_would_say(m: int, seed: int) -> None:
    asked, rng = drawn(m, seed), np.random.default_rng(seed)
    near = {frozenset(p) for p in asked.pairs.tolist()}
    parts = Parts(asked)
    for item in range(m):
        parts.open(item)
    for _ in range(12):
        item = int(rng.integers(m))
        labels, rates = parts.options(item, {int(parts.label[item])})
        wanted = {
            c: set_rate(asked, tuple(sorted([*parts.members[c], item])))
            for c in range(m)
            if parts.members[c]
            and c != parts.label[item]
            and all(frozenset((item, j)) in near for j in parts.members[c])
        }
        assert dict(zip(labels.tolist(), rates.tolist(), strict=True)) == {
            c: r for c, r in wanted.items() if r <= limit(asked)
        }
        for c, leaver, rate in zip(*(x.tolist() for x in parts.swaps(item, {int(parts.label[item])})), strict=True):
            instead = tuple(sorted([*(j for j in parts.members[c] if j != leaver), item]))
            assert rate == set_rate(asked, instead) <= limit(asked)
            assert all(frozenset(p) in near for p in combinations(instead, 2) if item in p)
        if len(labels):
            parts.take(item)
            assert parts.label[item] == NOWHERE
            parts.put(item, int(labels[0]))
        for c, members in enumerate(parts.members):
            assert parts.count[c] == len(members)
            if members:
                assert parts.rate[c] == set_rate(asked, tuple(sorted(members)))
    assert sorted(i for c in parts.clusters() for i in c) == list(range(m))


def test_loading_gives_back_what_was_loaded() -> None:
    asked = drawn(6, 0)
    parts = Parts(asked)
    parts.load([(0, 3), (1,), (2, 4, 5)])
    assert parts.clusters() == ((0, 3), (1,), (2, 4, 5))
