"""Task codes and how near prompts are to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from orthomesh.experts.taskcode import similarity, squared_error, task_code, unlikeness


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


# how like two codes are (R11)


def test_unlikeness_on_paper() -> None:
    """Two prompts (0, 0) and (2, 4) of the first input: variances 2 and 8, trace 10, over two prompts 5."""
    prompts = np.array([[0.0, 0.0, 7.0], [2.0, 4.0, 5.0]])
    np.testing.assert_array_equal(squared_error(prompts, (2, 1)), np.array([5.0, 1.0], dtype=np.float32))
    codes = (np.array([1.0, 2.0, 6.0], np.float16), np.array([4.0, 6.0, 8.0], np.float16))
    errors = (np.array([5.0, 1.0], np.float32), np.array([15.0, 1.0], np.float32))
    assert unlikeness(codes, errors, (2, 1)) == pytest.approx((25 / 20 + 4 / 2) / 2)


def test_two_samples_of_one_task_differ_by_about_one() -> None:
    """The ratio's expectation is 1 under any covariance; 400 pairs of codes of 24 prompts tell it to a few percent."""
    rng, widths = np.random.default_rng(0), (3, 5)
    mixing, mean = rng.standard_normal((8, 8)), 10 * rng.standard_normal(8)
    ratios = []
    for _ in range(400):
        one, two = (mean + rng.standard_normal((24, 8)) @ mixing for _ in range(2))
        errors = (squared_error(one, widths), squared_error(two, widths))
        ratios.append(unlikeness((task_code(one), task_code(two)), errors, widths))
    spread = np.std(ratios) / math.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * spread + 2 / 24  # the error is estimated from 24 prompts
    other = mean + 3 + rng.standard_normal((24, 8)) @ mixing
    assert unlikeness((task_code(one), task_code(other)), (errors[0], squared_error(other, widths)), widths) > 5


@given(st.integers(0, 2**32 - 1))
def test_unlikeness_is_symmetric_and_knows_no_scale(seed: int) -> None:
    one, two, widths = drawn(seed)
    errors = (squared_error(one, widths) + np.float32(0.1), squared_error(two, widths) + np.float32(0.1))
    codes = (task_code(one), task_code(two))
    apart = unlikeness(codes, errors, widths)
    assert apart >= 0
    assert unlikeness(codes[::-1], errors[::-1], widths) == pytest.approx(apart)
    scaled = (errors[0] * np.float32(16), errors[1] * np.float32(16))
    assert unlikeness((codes[0] * 4, codes[1] * 4), scaled, widths) == pytest.approx(apart)
    assert unlikeness((codes[0], codes[0]), errors, widths) == 0.0


def test_codes_without_spread_are_the_same_or_not() -> None:
    still = np.zeros(1, dtype=np.float32)
    assert unlikeness((np.zeros(2), np.zeros(2)), (still, still), (2,)) == 0.0
    assert unlikeness((np.zeros(2), np.ones(2)), (still, still), (2,)) == math.inf


def test_a_single_prompt_has_no_error_and_widths_must_fit() -> None:
    with pytest.raises(ValueError, match="at least two prompts, got 1"):
        squared_error(np.zeros((1, 3)), (3,))
    with pytest.raises(ValueError, match=r"widths \(2,\) need 2 numbers, got 3"):
        squared_error(np.zeros((2, 3)), (2,))
