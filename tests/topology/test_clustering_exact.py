"""Exact solvers against every partition there is; bounds below them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.clustering_exact import allowed_sets, by_covering, by_subsets, lower_bound
from orthomesh.topology.clustering_fit import best_fit
from orthomesh.topology.clustering_instance import Instance, limit, set_rate, total_rate
from orthomesh.topology.clustering_merge import merge_rounds

Partition = tuple[tuple[int, ...], ...]


def bins(load: np.ndarray, pairs: np.ndarray, max_rate: float) -> Instance:
    return Instance(
        leaves=load,
        join=lambda rows, a, b: rows[a] + rows[b],
        rate=lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 1.0),
        max_rate=max_rate,
        pairs=pairs,
        power=np.zeros(len(pairs)),
        size=load,
        least=np.sort(load),
    )


def drawn(m: int, seed: int, max_rate: float) -> Instance:
    rng = np.random.default_rng(seed)
    every = np.array(list(combinations(range(m), 2)), dtype=np.int64).reshape(-1, 2)
    return bins(rng.uniform(0.2, 0.8, m), every[rng.random(len(every)) < 0.7], max_rate)


def partitions(items: list[int]) -> Iterator[Partition]:
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for n in range(len(rest) + 1):
        for mates in combinations(rest, n):
            for others in partitions([i for i in rest if i not in mates]):
                yield ((first, *mates), *others)


def may(asked: Instance, members: tuple[int, ...]) -> bool:
    near = set(map(tuple, asked.pairs.tolist()))
    return all(p in near for p in combinations(members, 2)) and set_rate(asked, members) <= limit(asked)


@settings(max_examples=15)
@given(st.integers(1, 7), st.integers(0, 999), st.sampled_from([0.0, 0.3, 1.0]))
def test_exact_is_the_best_of_all_partitions(m: int, seed: int, max_rate: float) -> None:
    asked = drawn(m, seed, max_rate)
    allowed = {c for n in range(1, m + 1) for c in combinations(range(m), n) if may(asked, c)}
    fit = [p for p in partitions(list(range(m))) if all(c in allowed for c in p)]
    best = min((len(p), total_rate(asked, p)) for p in fit)
    found = by_subsets(asked)
    assert (len(found), total_rate(asked, found)) == best
    assert all(c in allowed for c in by_covering(asked))
    assert len(by_covering(asked)) == best[0]
    assert 1 <= lower_bound(asked)[0] <= best[0]
    assert best[0] <= min(len(merge_rounds(asked).clusters), len(best_fit(asked)))
    listed = {tuple(i for i in row if i >= 0) for row in allowed_sets(asked).members.tolist()}
    assert listed == allowed


def test_bounds_on_paper() -> None:
    every = np.array(list(combinations(range(6), 2)))
    assert lower_bound(bins(np.full(6, 0.5), every, 0.0)) == (3, "size")  # two in each
    apart = np.array([[0, 1], [2, 3]])  # 0, 2, 4, 5 never meet
    assert lower_bound(bins(np.full(6, 0.1), apart, 0.0)) == (4, "conflict")
    ring = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]])  # five in pairs: 2.5 and so 3; two are apart
    assert lower_bound(bins(np.full(5, 0.1), ring, 0.0)) == (3, "linear program")
    assert lower_bound(bins(np.zeros(0), np.zeros((0, 2), dtype=np.int64), 0.0))[0] == 0


def test_a_further_limit_is_kept_to() -> None:
    asked = replace(drawn(8, 3, 1.0), further=lambda c: 0.0 if len(c) <= 2 else None)
    assert max(map(len, by_subsets(asked))) == 2
    assert len(by_covering(asked)) == len(by_subsets(asked))


def test_too_much_to_list_is_refused() -> None:
    with pytest.raises(ValueError, match="all subsets of 17 items are too many, 16 items is the most"):
        by_subsets(drawn(17, 0, 0.0))
    every = np.array(list(combinations(range(30), 2)))
    with pytest.raises(ValueError, match="30 items have more than 1000 allowed clusters"):
        by_covering(bins(np.zeros(30), every, 0.0), most=1000)
    # the bound does without its linear program
    assert lower_bound(bins(np.zeros(30), every, 0.0), most=1000)[0] == 1
    assert by_subsets(drawn(0, 0, 0.0)) == by_covering(drawn(0, 0, 0.0)) == ()
