"""Task codes and how near prompts are to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from orthomesh.experts.taskcode import similarity, task_code


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Prompts, codes and widths as layers have them: a large common mean, small differences."""
    rng = np.random.default_rng(seed)
    widths = tuple(int(w) for w in rng.integers(1, 6, size=rng.integers(1, 4)))
    mean = 5 * rng.standard_normal(sum(widths))
    prompts = (mean + rng.standard_normal((4, sum(widths)))).astype(np.float32)
    codes = (mean + rng.standard_normal((int(rng.integers(2, 6)), sum(widths)))).astype(np.float32)
    return prompts, codes, widths


def test_code_on_paper() -> None:
    code = task_code(np.array([[1.0, 0.0, 5.0], [3.0, -2.0, 5.0]]))
    assert code.dtype == np.float32
    assert code.tolist() == [2.0, -1.0, 5.0]


def test_similarity_on_paper() -> None:
    codes = np.array([[3.0, 0.0, 7.0], [1.0, 0.0, 5.0]])  # centre (2, 0), 6: one lies to the right, one to the left
    prompts = np.array([[3.0, 1.0, 8.0], [2.0, 9.0, 6.0]])
    votes = similarity(prompts, codes, (2, 1))
    right = (1 / math.sqrt(2) + 1) / 2
    np.testing.assert_allclose(votes, [[right, -right], [0.0, 0.0]], atol=1e-15)


@given(st.integers(0, 2**32 - 1))
def test_similarity_is_a_mean_of_centred_cosines(seed: int) -> None:
    prompts, codes, widths = drawn(seed)
    votes = similarity(prompts, codes, widths)
    centre = codes.astype(np.float64).mean(axis=0)
    cuts = [slice(sum(widths[:n]), sum(widths[: n + 1])) for n in range(len(widths))]
    for n, x in enumerate(prompts):
        for m, h in enumerate(codes):
            cosines = [1 - cosine((x - centre)[cut], (h - centre)[cut]) for cut in cuts]
            assert votes[n, m] == pytest.approx(np.mean(cosines), abs=1e-3)  # differences of float32 numbers near 5
    assert np.all(np.abs(votes) <= 1 + 1e-12)


@given(st.integers(0, 2**32 - 1), st.data())
def test_codes_are_told_apart_by_what_they_do_not_share(seed: int, data: st.DataObject) -> None:
    prompts, codes, widths = (x if isinstance(x, tuple) else x.astype(np.float64) for x in drawn(seed))
    votes = similarity(prompts, codes, widths)
    shift = np.random.default_rng(seed + 1).standard_normal(codes.shape[1])
    np.testing.assert_allclose(similarity(prompts + shift, codes + shift, widths), votes, atol=1e-9)
    np.testing.assert_allclose(similarity(3 * prompts, 3 * codes, widths), votes, atol=1e-9)
    order = data.draw(st.permutations(range(len(codes))))
    np.testing.assert_allclose(similarity(prompts, codes[order], widths), votes[:, order], atol=1e-9)


def test_a_single_code_is_similar_to_everything() -> None:
    assert similarity(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[-1.0, 5.0]]), (2,)).tolist() == [[1.0], [1.0]]


def test_a_layer_that_tells_nothing_votes_for_nobody() -> None:
    codes = np.array([[1.0, 0.0, 4.0, 4.0], [-1.0, 0.0, 4.0, 4.0]])
    votes = similarity(np.array([[2.0, 0.0, 9.0, 1.0]]), codes, (2, 2))
    assert votes.tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize("widths", [(), (2,), (2, 2), (1, 1, 2)])
def test_widths_that_do_not_add_up_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need codes of .* got 3"):
        similarity(np.zeros((1, 3)), np.zeros((1, 3)), widths)
