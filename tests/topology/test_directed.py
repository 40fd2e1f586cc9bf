"""Exponential graphs and epidemic learning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import circulant

from orthomesh.rng import stream
from orthomesh.topology.directed import epidemic, exponential, one_peer
from orthomesh.topology.mixing import matrix, slem


def rounds(n: int, start: int = 0) -> list[np.ndarray]:
    """One period of the one-peer graph."""
    return [matrix(one_peer(range(n), start + t), range(n)) for t in range(max(1, (n - 1).bit_length()))]


def test_exponential_on_paper() -> None:
    heard = {i: {j for a, j in exponential([0, 1, 2, 3, 4, 9]) if a == i} for i in (0, 9)}
    assert heard == {0: {0, 9, 4, 2}, 9: {9, 4, 3, 1}}  # places 1, 2 and 4 before
    assert exponential([5]) == {(5, 5): 1.0}
    assert exponential([]) == {}


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11, 16])
def test_exponential_is_the_circulant_matrix_of_scipy(n: int) -> None:
    column = np.zeros(n)
    column[[0, *(2**d for d in range((n - 1).bit_length()))]] = 1.0
    np.testing.assert_allclose(matrix(exponential(range(n)), range(n)), circulant(column) / column.sum())


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_closed_form_of_the_exponential_graph(k: int) -> None:
    assert slem(matrix(exponential(range(2**k)), range(2**k))) == pytest.approx(1 - 2 / (1 + k), abs=1e-12)


@pytest.mark.parametrize("n", [6, 10, 12])
def test_closed_form_for_even_numbers(n: int) -> None:  # Ying et al., theorem 1
    steps = (n - 1).bit_length()
    assert slem(matrix(exponential(range(n)), range(n))) == pytest.approx(1 - 2 / (1 + steps), abs=1e-12)


@pytest.mark.parametrize("n", range(1, 34))
def test_one_period_is_the_exact_mean_if_and_only_if_n_is_a_power_of_two(n: int) -> None:
    product = np.linalg.multi_dot([np.eye(n), *rounds(n, start=3), np.eye(n)])  # wherever it starts
    assert np.allclose(product, 1 / n, atol=1e-14) == (n & (n - 1) == 0)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 20])
def test_both_exponential_graphs_are_doubly_stochastic(n: int) -> None:
    for w in [*rounds(n), matrix(exponential(range(n)), range(n))]:
        np.testing.assert_allclose(w.sum(axis=0), 1.0)
        np.testing.assert_allclose(w.sum(axis=1), 1.0)
        assert w.min() >= 0.0


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 99), data=st.data())
def test_in_epidemic_learning_each_sends_to_as_many_and_averages_what_it_gets(
    n: int, seed: int, data: st.DataObject
) -> None:
    sent = data.draw(st.integers(0, n - 1))
    w = matrix(epidemic(range(n), sent, stream(seed, "el")), range(n))
    np.testing.assert_allclose(w.sum(axis=1), 1.0)
    assert ((w > 0).sum(axis=0) == sent + 1).all()
    for row in w:
        assert set(row[row > 0]) == {1 / (row > 0).sum()}


def test_whom_a_device_sends_to_is_uniform() -> None:
    n = 1000
    times = sum(matrix(epidemic(range(5), 2, stream(0, "el", k)), range(5)) > 0 for k in range(n))
    share = times[~np.eye(5, dtype=bool)] / n  # 20 shares of 2 out of 4
    assert np.abs(share - 0.5).max() < 4.5 * (0.25 / n) ** 0.5


def test_bad_input_is_refused() -> None:
    for sent in (-1, 3):
        with pytest.raises(ValueError, match="3 devices cannot send"):
            epidemic(range(3), sent, stream(0, "el"))
