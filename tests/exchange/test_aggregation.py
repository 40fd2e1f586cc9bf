"""One step of gossip averaging."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.exchange.aggregation import mix
from orthomesh.topology.mixing import matrix, metropolis


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random graph's Metropolis weights and a vector per device."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    graph = nx.gnp_random_graph(n, 0.5, seed=seed)
    w = matrix(metropolis([(min(e), max(e)) for e in graph.edges], range(n)), range(n))
    return w, rng.standard_normal((n, 5)).astype(np.float32)


def step(w: np.ndarray, x: np.ndarray, lost: tuple[int, int] | None = None) -> np.ndarray:
    """Every device mixes what it hears; `lost` is the (receiver, sender) of a transfer that does not arrive."""
    n = len(w)
    heard = [{j: (float(w[i, j]), x[j]) for j in range(n) if j != i and w[i, j] > 0} for i in range(n)]
    if lost is not None:
        heard[lost[0]].pop(lost[1], None)
    return np.stack([mix(x[i], heard[i]) for i in range(n)])


def test_step_on_paper() -> None:
    own = np.array([0.0, 4.0])
    received = {7: (0.25, np.array([4.0, 4.0])), 2: (0.5, np.array([2.0, 0.0]))}
    assert mix(own, received).tolist() == [2.0, 2.0]
    assert mix(own, {2: received[2]}).tolist() == [1.0, 2.0]  # 7 is missing: its quarter stays with the own vector
    assert mix(own, {}).tolist() == own.tolist()


@given(st.integers(0, 2**32 - 1))
def test_step_is_w_times_x_and_keeps_the_mean(seed: int) -> None:
    w, x = drawn(seed)
    mixed = step(w, x)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, w @ x, atol=2e-6)
    np.testing.assert_allclose(mixed.mean(axis=0), x.mean(axis=0), atol=2e-6)
    assert np.all(mixed.max(axis=0) <= x.max(axis=0) + 2e-6)


@given(st.integers(0, 2**32 - 1), st.data())
def test_weight_of_a_missing_neighbour_stays_at_home(seed: int, data: st.DataObject) -> None:
    w, x = drawn(seed)
    i, j = (data.draw(st.integers(0, len(w) - 1)) for _ in range(2))
    left = w.copy()
    if i != j:
        left[i, i] += left[i, j]
        left[i, j] = 0.0
    np.testing.assert_allclose(step(w, x, lost=(i, j)), left @ x, atol=2e-6)


@given(st.integers(0, 2**32 - 1), st.data())
def test_order_of_arrival_changes_no_bit(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    received = {k: (0.1, rng.standard_normal(3)) for k in range(6)}
    own = rng.standard_normal(3)
    ids = data.draw(st.permutations(range(6)))
    assert mix(own, {k: received[k] for k in ids}).tobytes() == mix(own, received).tobytes()


def test_rounding_of_weights_that_add_up_to_one_is_no_error() -> None:
    assert np.add.accumulate([1 / 9] * 9)[-1] > 1.0
    received = {k: (1 / 9, np.ones(1)) for k in range(9)}
    assert mix(np.zeros(1), received)[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("weights", [(-0.1, 0.2), (0.6, 0.6), (1.1, 0.0), (math.nan, 0.1)])
def test_weights_that_are_no_average_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="non-negative and add up to at most 1"):
        mix(np.zeros(1), {k: (w, np.ones(1)) for k, w in enumerate(weights)})


@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="device 4 sent entries of shape"):
        mix(np.zeros(3), {4: (0.5, np.zeros(shape))})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_vectors_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="device 4 sent values that are not finite"):
        mix(np.zeros(2), {4: (0.5, np.array([0.0, value]))})
