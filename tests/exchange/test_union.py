"""Joining sparse expansions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orthomesh.exchange.union import join, support

Cluster = tuple[dict[int, np.ndarray], dict[int, np.ndarray]]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))
    n = draw(st.integers(1, 8))
    entries = st.floats(-1e3, 1e3, width=32)
    parts = {k: draw(hnp.arrays(np.float32, n, elements=entries)) for k in ids}
    return parts, {k: draw(hnp.arrays(np.bool_, n)) for k in ids}


def test_union_and_mean_on_paper() -> None:
    parts = {3: np.array([4.0, 2.0, 8.0, 1.0]), 1: np.array([5.0, 6.0, 2.0, 1.0])}
    masks = {3: np.array([True, True, False, False]), 1: np.array([False, True, True, False])}
    assert join(parts, masks).tolist() == [[4.0, 4.0, 2.0, 0.0]]
    assert join(parts, masks, "mean").tolist() == [[2.0, 4.0, 1.0, 0.0]]
    assert support(masks).tolist() == [True, True, True, False]


@given(clusters())
def test_join_is_a_masked_sum_over_a_count(cluster: Cluster) -> None:
    parts, masks = cluster
    values = np.array(list(parts.values()), dtype=np.float64)
    active = np.array(list(masks.values()))
    total = (values * active).sum(axis=0)
    scale = np.abs(values).sum(axis=0).max() + 1e-30
    for rule, count in (("union", np.maximum(active.sum(axis=0), 1)), ("mean", len(parts))):
        (joined,) = join(parts, masks, rule)
        assert joined.dtype == np.float32
        np.testing.assert_allclose(joined, total / count, rtol=1e-6, atol=1e-6 * scale)
    assert np.array_equal(support(masks), active.any(axis=0))


@given(clusters())
def test_entries_held_by_one_keep_their_value(cluster: Cluster) -> None:
    parts, masks = cluster
    (joined,) = join(parts, masks)
    held = np.sum(list(masks.values()), axis=0)
    assert not joined[held == 0].any()
    for k, mask in masks.items():
        own = mask & (held == 1)
        assert joined[own].tolist() == parts[k][own].tolist()


@given(clusters(), st.data())
def test_order_of_naming_changes_no_bit(cluster: Cluster, data: st.DataObject) -> None:
    parts, masks = cluster
    ids = data.draw(st.permutations(list(parts)))
    for rule in ("union", "mean", "stack"):
        again = join({k: parts[k] for k in ids}, {k: masks[k] for k in reversed(ids)}, rule)
        assert again.tobytes() == join(parts, masks, rule).tobytes()
    assert np.array_equal(support({k: masks[k] for k in ids}), support(masks))


@given(clusters())
def test_what_lies_off_a_mask_does_not_matter_not_even_nan(cluster: Cluster) -> None:
    parts, masks = cluster
    spoilt = {k: np.where(masks[k], part, np.float32("nan")) for k, part in parts.items()}
    assert join(spoilt, masks).tobytes() == join(parts, masks).tobytes()
    assert join(spoilt, masks, "stack").tobytes() == join(parts, masks, "stack").tobytes()


@given(clusters())
def test_a_stack_keeps_every_member_whole(cluster: Cluster) -> None:
    parts, masks = cluster
    rows = join(parts, masks, "stack")
    assert rows.dtype == np.float32
    expected = [np.where(masks[k], parts[k], 0).tolist() for k in sorted(parts)]
    assert rows.tolist() == expected


def test_parts_without_their_masks_are_refused() -> None:
    part, mask = np.zeros(2, dtype=np.float32), np.ones(2, dtype=bool)
    with pytest.raises(ValueError, match=r"of \[1, 2\] cannot be joined under masks of \[1\]"):
        join({2: part, 1: part}, {1: mask})
    with pytest.raises(ValueError, match=r"of \[\] cannot"):
        join({}, {})
