"""Base-(k+1) graphs: the mean in finitely many rounds, whatever the number of devices."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from orthomesh.topology.finite import base
from orthomesh.topology.mixing import matrix


def test_three_devices_with_one_peer_on_paper() -> None:
    """3 = 2 + 1: the two average; the third meets one of them at 2/3; then the two average again."""
    third = 1 / 3
    first, meeting, last = (matrix(w, range(3)) for w in base(range(3), 1))
    np.testing.assert_allclose(first, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(meeting, [[third, 0, 2 * third], [0, 1, 0], [2 * third, 0, third]], atol=1e-15)
    np.testing.assert_allclose(last, first)


def test_powers_of_two_with_one_peer_are_a_hypercube() -> None:
    rounds = base(range(8), 1)
    assert [{i ^ j for i, j in w if i != j} for w in rounds] == [{1}, {2}, {4}]


def test_with_enough_peers_one_round_is_enough() -> None:
    (w,) = base([4, 8, 1, 3], 3)
    assert set(w.values()) == {0.25}
    assert base([6], 2) == ({(6, 6): 1.0},)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_product_of_all_rounds_is_the_mean(k: int) -> None:
    for n in range(1, 41):
        product = np.eye(n)
        rounds = base(range(n), k)
        for weights in rounds:
            w = matrix(weights, range(n))
            product = w @ product
            np.testing.assert_array_equal(w, w.T)
            np.testing.assert_allclose(w.sum(axis=0), 1.0, atol=1e-14)
            assert w.min() >= -1e-15
            assert ((w > 0).sum(axis=1) - (np.diag(w) > 0) <= k).all()
        np.testing.assert_allclose(product, 1 / n, atol=1e-14, err_msg=f"n = {n}")
        assert len(rounds) <= max(1.0, 2 * math.log(n, k + 1) + 2)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_in_rational_numbers_the_mean_is_exact(k: int) -> None:
    """Weights are ratios of numbers up to n, so the nearest small fraction is the weight that was meant."""
    for n in (3, 5, 6, 7, 10, 11, 13, 14):
        product = np.array([[Fraction(int(i == j)) for j in range(n)] for i in range(n)], dtype=object)
        for weights in base(range(n), k):
            w = np.array([[Fraction(0)] * n for _ in range(n)], dtype=object)
            for (i, j), weight in weights.items():
                w[i, j] = Fraction(weight).limit_denominator(10 * n)
                assert abs(w[i, j] - Fraction(weight)) < Fraction(1, 10**12)
            product = w @ product
        assert (product == Fraction(1, n)).all(), n


def test_bad_input_is_refused() -> None:
    for ids, k in ((range(3), 0), ([], 1)):
        with pytest.raises(ValueError, match="needs devices and at least one peer"):
            base(ids, k)
