"""Masks by magnitude, and what a cluster makes of its members' bids."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from orthomesh.adapters.lowrank import slices
from orthomesh.adapters.mask import (
    BITS,
    STEPS,
    Level,
    bid,
    bid_bits,
    magnitude_mask,
    merged,
    negotiate,
    pack_bid,
    quotas,
    spans,
    top_mask,
    unpack_bid,
)
from orthomesh.rng import stream

SCORES = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])  # few values: ties
Cluster = tuple[dict[int, np.ndarray], tuple[int, ...], dict[int, np.ndarray]]


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    sizes = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    score = draw(hnp.arrays(np.float32, sum(sizes), elements=SCORES))
    quota = np.array([draw(st.integers(0, n)) for n in sizes])
    return score, sizes, quota


@st.composite
def clusters(draw: st.DrawFn, overloaded: bool = True) -> Cluster:
    """Bids and quotas of a few devices; without `overloaded` the quotas of a layer fit into it."""
    sizes = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))
    bids = {k: draw(hnp.arrays(np.uint8, sum(sizes), elements=st.integers(0, 7))) for k in ids}
    quota = {k: np.zeros(len(sizes), dtype=int) for k in ids}
    for layer, size in enumerate(sizes):
        room = size
        for k in ids:
            quota[k][layer] = draw(st.integers(0, size if overloaded else room))
            room -= int(quota[k][layer])
    return bids, sizes, quota


def by_sorting(score: Sequence[float], keep: int) -> set[int]:
    return set(sorted(range(len(score)), key=lambda n: (-abs(score[n]), n))[:keep])


def greedily(
    bids: Mapping[int, np.ndarray],
    sizes: Sequence[int],
    quota: Mapping[int, np.ndarray],
    closed: Collection[int] = (),
) -> dict[int, set[int]]:
    """All triples from the dearest down: a free position goes to a device that is still owed one."""
    worth = {k: levels + stream(0, "bid", k).random(levels.size) for k, levels in bids.items()}
    held: dict[int, set[int]] = {k: set() for k in bids}
    for layer, cut in enumerate(slices(sizes)):
        owed = {k: int(quota[k][layer]) for k in bids}
        triples = sorted(((worth[k][n], k, n) for k in bids for n in range(cut.start, cut.stop)), reverse=True)
        taken = set(closed)
        for _, k, n in triples:
            if owed[k] and n not in taken:
                held[k].add(n)
                taken.add(n)
                owed[k] -= 1
        for _, k, n in triples:  # nothing free is left for whoever is still owed something
            if owed[k] and n not in held[k]:
                held[k].add(n)
                owed[k] -= 1
    return held


def test_quotas_on_paper() -> None:
    assert quotas((8, 100, 12), 0.25).tolist() == [2, 25, 3]
    assert quotas((3, 1, 1000), 0.1).tolist() == [1, 1, 100]  # at least one
    assert quotas((7,), 1.0).tolist() == [7]


def test_magnitude_mask_on_paper() -> None:
    score = np.array([0.1, -3.0, 2.0, 0.0, 5.0, 5.0, -5.0, 1.0])
    mask = magnitude_mask(score, (4, 4), np.array([2, 1]))
    assert np.flatnonzero(mask).tolist() == [1, 2, 4]  # among equals the earlier position


def test_signed_scores_are_not_magnitudes() -> None:
    score = np.array([0.1, -3.0, 2.0, 0.0])
    assert np.flatnonzero(top_mask(score, (4,), np.array([2]))).tolist() == [0, 2]
    assert np.flatnonzero(magnitude_mask(score, (4,), np.array([2]))).tolist() == [1, 2]


def test_matrices_share_quotas_on_paper() -> None:
    names = ["model.layers.0.q", "model.layers.0.v", "model.layers.1.q", "lm_head", "tail"]
    expected: dict[Level, list[int]] = {"matrix": [1, 1, 1, 1, 1], "layer": [2, 1, 2], "global": [5]}
    for level, groups in expected.items():
        assert spans(names, level).tolist() == groups
    sizes = np.array([3, 5, 7, 2, 1], dtype=np.uint32)
    assert merged(sizes, spans(names, "layer")).tolist() == [8, 7, 3]
    assert merged(sizes, spans(names, "global")).tolist() == [18]


def test_a_coarser_level_lets_matrices_compete() -> None:
    score, sizes, quota = np.array([1.0, 2.0, 9.0, 8.0, 7.0, 6.0]), np.array([2, 4]), np.array([1, 1])
    assert np.flatnonzero(top_mask(score, (2, 4), quota)).tolist() == [1, 2]
    both = spans(["a.0.q", "a.0.v"], "layer")
    together = top_mask(score, tuple(merged(sizes, both).tolist()), merged(quota, both))
    assert np.flatnonzero(together).tolist() == [2, 3]


def test_bid_on_paper() -> None:
    """A quota of 4: 1 in a quarter, 2 in half, 3 in two thirds (rounded up), 4, then 6, 8 and 12."""
    score = np.arange(14.0)[::-1]
    assert bid(score, (14,), np.array([4])).tolist() == [7, 6, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1, 0, 0]
    assert bid(np.array([0.0, 3.0, 2.0, 1.0]), (2, 2), np.array([0, 1])).tolist() == [0, 0, 7, 3]


def test_negotiation_on_paper() -> None:
    bids = {4: np.array([3, 2, 1, 0], dtype=np.uint8), 9: np.array([0, 3, 2, 1], dtype=np.uint8)}
    masks = negotiate(bids, (4,), {k: np.array([2]) for k in bids})
    assert np.flatnonzero(masks[4]).tolist() == [0, 3]  # outbid for 1 and 2, it takes what is left
    assert np.flatnonzero(masks[9]).tolist() == [1, 2]


def test_packed_bid_on_paper() -> None:
    assert pack_bid(np.array([7, 4, 2, 1], dtype=np.uint8)).tolist() == [0b11001010, 0b10010000]
    assert pack_bid(np.array([1], dtype=np.uint8)).tolist() == [0b00100000]


@settings(max_examples=100)
@given(scored())
def test_magnitude_mask_is_a_sort(drawn: tuple[np.ndarray, tuple[int, ...], np.ndarray]) -> None:
    score, sizes, quota = drawn
    mask = magnitude_mask(score, sizes, quota)
    for cut, keep in zip(slices(sizes), quota, strict=True):
        assert set(np.flatnonzero(mask[cut])) == by_sorting(score[cut].tolist(), int(keep))


@given(scored(), st.sampled_from(sorted(STEPS)))
def test_bid_is_a_rank(drawn: tuple[np.ndarray, tuple[int, ...], np.ndarray], num_levels: int) -> None:
    score, sizes, quota = drawn
    score = np.abs(score)
    levels = bid(score, sizes, quota, num_levels)
    if num_levels == 7:
        assert np.array_equal(levels >= 1 + STEPS[7].index((1, 1)), top_mask(score, sizes, quota))
    told = np.bincount(levels, minlength=num_levels + 1) / levels.size
    entropy = -levels.size * sum(p * math.log2(p) for p in told.tolist() if p)
    assert bid_bits(sizes, quota, num_levels) == pytest.approx(entropy, abs=1e-6)
    for cut, keep in zip(slices(sizes), quota.tolist(), strict=True):
        for level, (num, den) in enumerate(STEPS[num_levels], 1):
            end = math.ceil(Fraction(num * keep, den))
            assert set(np.flatnonzero(levels[cut] >= level)) == by_sorting(score[cut].tolist(), end)


@settings(max_examples=200)
@given(clusters())
def test_negotiation_gives_every_position_to_the_highest_bid(cluster: Cluster) -> None:
    bids, sizes, quota = cluster
    masks = negotiate(bids, sizes, quota)
    expected = greedily(bids, sizes, quota)
    assert masks.keys() == bids.keys()
    assert {k: set(np.flatnonzero(mask)) for k, mask in masks.items()} == expected


@given(clusters())
def test_everybody_gets_its_quota_and_overloaded_layers_are_full(cluster: Cluster) -> None:
    bids, sizes, quota = cluster
    masks = negotiate(bids, sizes, quota)
    for layer, cut in enumerate(slices(sizes)):
        owed = [int(quota[k][layer]) for k in bids]
        assert [int(masks[k][cut].sum()) for k in bids] == owed
        held = np.sum([masks[k][cut] for k in bids], axis=0)
        assert np.count_nonzero(held) == min(sum(owed), sizes[layer])  # no position is wasted


@given(clusters(), st.data())
def test_what_is_taken_is_left_alone_while_there_is_room(cluster: Cluster, data: st.DataObject) -> None:
    bids, sizes, quota = cluster
    taken = data.draw(hnp.arrays(np.bool_, sum(sizes)))
    masks = negotiate(bids, sizes, quota, taken)
    expected = greedily(bids, sizes, quota, np.flatnonzero(taken).tolist())
    assert {k: set(np.flatnonzero(mask)) for k, mask in masks.items()} == expected
    for layer, cut in enumerate(slices(sizes)):
        if sum(int(quota[k][layer]) for k in bids) <= np.count_nonzero(~taken[cut]):
            held = np.sum([masks[k][cut] for k in bids], axis=0)
            assert held.max() <= 1
            assert not held[taken[cut]].any()


@given(clusters(overloaded=False))
def test_masks_are_disjoint_where_quotas_fit(cluster: Cluster) -> None:
    bids, sizes, quota = cluster
    masks = negotiate(bids, sizes, quota)
    assert np.sum(list(masks.values()), axis=0).max() <= 1


@given(clusters(), st.data())
def test_negotiation_does_not_depend_on_who_is_named_first(cluster: Cluster, data: st.DataObject) -> None:
    bids, sizes, quota = cluster
    ids = data.draw(st.permutations(list(bids)))
    masks = negotiate(bids, sizes, quota)
    again = negotiate({k: bids[k] for k in ids}, sizes, {k: quota[k] for k in reversed(ids)})
    assert all(np.array_equal(masks[k], again[k]) for k in ids)


def test_a_device_alone_gets_what_it_wants() -> None:
    score = np.random.default_rng(0).standard_normal(60)
    quota = np.array([7, 11])
    levels = bid(score, (20, 40), quota)
    (mask,) = negotiate({5: levels}, (20, 40), {5: quota}).values()
    assert np.array_equal(mask, top_mask(score, (20, 40), quota))


def test_two_that_want_the_same_share_it() -> None:
    levels = bid(np.arange(1000.0), (1000,), np.array([400]))
    masks = negotiate({0: levels, 1: levels}, (1000,), {k: np.array([400]) for k in (0, 1)})
    # 800 positions of which each bids most for the same 100: a fair coin decides, to 4 standard deviations
    most_wanted = levels == 7
    assert not (masks[0] & masks[1]).any()
    assert (masks[0] | masks[1])[levels > 1].all()
    assert abs(int(masks[0][most_wanted].sum()) - 50) < 4 * math.sqrt(100 / 4)


@pytest.mark.parametrize(("devices", "keep", "shared"), [(4, 40, 0.0), (8, 20, 0.0), (4, 40, 0.5)])
def test_bids_keep_nearly_what_the_best_assignment_keeps(devices: int, keep: int, shared: float) -> None:
    """Full cover of 160 positions; magnitudes of normal entries, some of them wanted by all (`shared`)."""
    rng = np.random.default_rng(devices)
    size, draws = devices * keep, rng.standard_normal((devices, devices * keep))
    score = np.abs(math.sqrt(1 - shared) * draws + math.sqrt(shared) * rng.standard_normal(size))
    bids = {k: bid(score[k], (size,), np.array([keep])) for k in range(devices)}
    masks = negotiate(bids, (size,), {k: np.array([keep]) for k in bids})
    slots = np.repeat(score**2, keep, axis=0)  # a row for every entry that a device is owed
    best = slots[linear_sum_assignment(slots, maximize=True)].sum()
    kept = sum((score[k][mask] ** 2).sum() for k, mask in masks.items())
    assert (0.97 if shared == 0.0 else 0.94) * best < kept <= best * (1 + 1e-12)


@given(hnp.arrays(np.uint8, st.integers(0, 40), elements=st.integers(0, 7)))
def test_packed_bids_come_back(levels: np.ndarray) -> None:
    packed = pack_bid(levels)
    assert packed.size == math.ceil(BITS * levels.size / 8)
    assert unpack_bid(packed, levels.size).tolist() == levels.tolist()


def test_a_packed_bid_of_another_length_is_refused() -> None:
    packed = pack_bid(np.zeros(8, dtype=np.uint8))
    for num in (5, 9):
        with pytest.raises(ValueError, match=f"a bid for {num} positions takes .* got 3"):
            unpack_bid(packed, num)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_densities_outside_zero_and_one_are_refused(density: float) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        quotas((10,), density)


def test_an_agreement_that_was_looked_up_is_the_callers_own() -> None:
    left, right = np.array([7, 7, 0, 0], np.uint8), np.array([0, 0, 7, 7], np.uint8)
    quota = {0: np.array([2]), 1: np.array([2])}
    first = negotiate({0: left, 1: right}, (4,), quota)
    first[0][:] = False  # whoever changes theirs changes nobody else's
    assert negotiate({0: left, 1: right}, (4,), quota)[0].tolist() == [True, True, False, False]
    left[:] = [0, 0, 7, 7]  # the same arrays with other bids are another question
    right[:] = [7, 7, 0, 0]
    assert negotiate({0: left, 1: right}, (4,), quota)[0].tolist() == [False, False, True, True]


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=1, max_side=40), elements=st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1.5, -2.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf]
)))  # fmt: skip
def test_the_order_of_float32_is_that_of_float64(scores: np.ndarray) -> None:
    sizes, quota = (scores.size,), np.array([(scores.size + 1) // 2])
    assert np.array_equal(top_mask(scores, sizes, quota), top_mask(scores.astype(np.float64), sizes, quota))
    assert np.array_equal(bid(scores, sizes, quota), bid(scores.astype(np.float64), sizes, quota))
