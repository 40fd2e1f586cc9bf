"""Task sketches: the same signs everywhere, distances kept, moments those of NumPy, and what packing refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial import distance

from orthomesh.experts.sketch import SHRINK, mean_distance, metric, pack, sketch, squared_distance, task_sketch, unpack
from orthomesh.rng import key
from orthomesh.types import TaskSketch

# Stored output, here alone: devices never send the signs, so every version on every machine must give these.
SIGNS = (
    "+--+-+++--++---+--+--++--+--+---+++++++-++--++-+-+-+++--+-+--+--",
    "---+-++--+--+--+---++++---+--++++-++------+++---++-+-+++++++----",
)


def signs(rows: int, columns: int) -> np.ndarray:
    """The matrix R, read off the points of prompts that are unit vectors."""
    return sketch(np.eye(columns), (columns,), rows).T


def philox(count: int) -> list[int]:
    """Words of Philox4x64-10 as published (Salmon et al., 2011), counting from one."""
    word, found = 2**64, []
    for block in range(1, -(-count // 4) + 1):
        c, k = [block, 0, 0, 0], [key(0, "sketch"), 0]
        for _ in range(10):
            high, low = divmod(0xD2E7470EE14C6C93 * c[0], word)
            high2, low2 = divmod(0xCA5A826395121157 * c[2], word)
            c = [high2 ^ c[1] ^ k[0], low2, high ^ c[3] ^ k[1], low]
            k = [(k[0] + 0x9E3779B97F4A7C15) % word, (k[1] + 0xBB67AE8584CAA73B) % word]
        found += c
    return found[:count]


def told(seed: int, size: int, num: int = 50) -> TaskSketch:
    rng = np.random.default_rng(seed)
    return task_sketch(rng.standard_normal((num, size)) * rng.uniform(0.1, 3, size) + rng.standard_normal(size))


# example


def test_sketch_on_paper() -> None:
    row = signs(2, 3)
    # inputs (3, 4) and (-2): of length one they are (0.6, 0.8) and (-1)
    expected = [0.6 * a + 0.8 * b - c for a, b, c in row]
    np.testing.assert_allclose(sketch(np.array([[3.0, 4.0, -2.0]]), (2, 1), 2), [expected], rtol=1e-14)
    assert sketch(np.array([[0.0, 0.0, -2.0]]), (2, 1), 2).tolist() == (-row[:, 2:]).T.tolist()
    assert sketch(np.zeros((1, 3)), (2, 1), 2).tolist() == [[0.0, 0.0]]
    assert sketch(np.zeros((0, 3)), (2, 1), 2).shape == (0, 2)


def test_task_sketch_on_paper() -> None:
    points = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [2.0, 3.0]])
    mean, covariance, reach = task_sketch(points)
    assert mean.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(covariance, np.eye(2) * 4 / 3, rtol=1e-6)
    # (0, 1), (0, 3) against (2, 1), (2, 3): each half scatters along the second number alone, variances 2 and 0, which
    # become 0.97 x 2 + 0.03 = 1.97 and 0.03; the other half lies (2, +-1) from its mean: all four are equally far
    assert reach == pytest.approx(1.0)
    lone = task_sketch(np.array([[0.0], [0.0], [0.0], [0.0], [0.0], [0.0], [0.0], [1.0]]))
    # (0, 0, 0, 0) and (0, 0, 0, 1): d^2 under the first, which does not scatter, is 0, 0, 0, 1; under the second, of
    # mean 1/4 and variance 1/4, it is 1/4 for each; the mean is 1/4, and the 99th percentile 0.93 of the way from the
    # second largest of eight, 1/4, to the largest, 1
    assert lone.reach == pytest.approx((0.25 + 0.93 * 0.75) / 0.25)


def test_metric_on_paper() -> None:
    # variances 3 and 1, mean 2: 0.97 x 3 + 0.06 = 2.97 and 0.97 + 0.06 = 1.03
    scatter = metric(np.array([[2.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(scatter.variances, [1.03, 2.97], rtol=1e-12)
    along, across = np.array([[1.0, 1.0]]), np.array([[1.0, -1.0]])
    assert squared_distance(along, np.zeros(2), scatter)[0] == pytest.approx(2 / 2.97)
    assert squared_distance(across, np.zeros(2), scatter)[0] == pytest.approx(2 / 1.03)
    assert mean_distance(np.array([[2.0, 1.0], [1.0, 2.0]]), scatter) == pytest.approx(3 / 2.97 + 1 / 1.03)
    # 4 and -1 have the mean 3/2: the negative one is lifted to 0.03 x 3/2
    np.testing.assert_allclose(metric(np.diag([4.0, -1.0])).variances, [0.045, 3.925], rtol=1e-12)
    for nothing in (np.zeros((2, 2)), -np.eye(2)):  # as from 16 bit, where nothing scatters
        assert metric(nothing).variances.tolist() == [1.0, 1.0]


def test_packing_on_paper() -> None:
    one = TaskSketch(np.array([1.0, 2.0], np.float32), np.array([[3.0, -1.0], [-1.0, 4.0]], np.float32), 1.5)
    assert pack(one).tolist() == [1, 2, 3, -1, 4, 1.5]
    assert pack(one).dtype == np.float16
    back = unpack(np.array([1, 2, 3, -1, 4, 1.5]))
    assert (back.mean.tolist(), back.covariance.tolist(), back.reach) == ([1, 2], [[3, -1], [-1, 4]], 1.5)


# reference


def test_signs_are_bits_of_philox() -> None:
    drawn = signs(5, 40)
    bits = [word >> n & 1 for word in philox(4) for n in range(64)]  # 200 of 256, lowest bit first
    assert drawn.ravel().tolist() == [2.0 * bit - 1.0 for bit in bits[:200]]
    assert tuple("".join("-+"[int(s > 0)] for s in row) for row in signs(2, 64)) == SIGNS
    assert signs(3, 21).ravel().tolist() == [2.0 * bit - 1.0 for bit in bits[:63]]  # one bit of the word is left over


def test_signs_are_fair_and_rows_nearly_orthogonal() -> None:
    rows = signs(64, 1000)
    assert abs(rows.mean()) < 4 / math.sqrt(rows.size)
    products = (rows @ rows.T / 1000)[np.triu_indices(64, 1)]
    assert abs(products.std() * math.sqrt(1000) - 1) < 4 / math.sqrt(2 * products.size)


@pytest.mark.parametrize("size", [64, 256])
def test_distances_are_kept(size: int) -> None:
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((40, 3000))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ratio = distance.pdist(sketch(unit, (3000,), size), "sqeuclidean") / size / distance.pdist(unit, "sqeuclidean")
    # a squared distance under m signs is off by sqrt(2 / m) of itself; 780 of them, not quite independent
    deviation = math.sqrt(2 / size)
    assert abs(ratio.mean() - 1) < 4 * deviation / math.sqrt(40)
    assert ratio.std() == pytest.approx(deviation, rel=0.15)
    assert np.abs(ratio - 1).max() < 4.5 * deviation  # of one in 150 000 beyond, five times in a thousand such tests


def test_moments_are_those_of_numpy() -> None:
    points = np.random.default_rng(1).standard_normal((70, 9)) @ np.random.default_rng(2).standard_normal((9, 9)) + 30
    mean, covariance, _ = task_sketch(points)
    np.testing.assert_allclose(mean, points.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(points.T), rtol=1e-5, atol=1e-6)
    assert mean.dtype == covariance.dtype == np.float32


@pytest.mark.parametrize("size", [8, 64])
def test_reach_of_gaussian_prompts_is_that_of_an_f_distribution(size: int) -> None:
    num = 100 * size
    reach = task_sketch(np.random.default_rng(size).standard_normal((num, size))).reach
    # under mean and covariance of n others, n (n - m) / (m (n^2 - 1)) d^2 has F(m, n - m); nothing but its shape
    # counts, and drawing equal variances to their mean changes none
    law = stats.f(size, num / 2 - size)
    expected = law.ppf(0.99) / law.mean()
    assert expected == pytest.approx(stats.chi2(size).ppf(0.99) / size, rel=0.03)  # what it is for many others
    error = math.sqrt(0.99 * 0.01 / num) / law.pdf(law.ppf(0.99)) / law.ppf(0.99)
    assert reach == pytest.approx(expected, rel=4 * error)
    assert size == 8 or 1 < reach < 2


def test_few_prompts_reach_farther() -> None:
    few = np.random.default_rng(3).standard_normal((20, 10))
    wide = np.concatenate([few, np.zeros((20, 30))], axis=1)  # numbers that never change say nothing
    assert task_sketch(few[:18]).reach == pytest.approx(20 / 18 * _plain_reach(few[:18]))
    assert task_sketch(few).reach == pytest.approx(_plain_reach(few))  # two for each number
    assert task_sketch(wide).reach == pytest.approx(4 * _plain_reach(wide))


def _plain_reach(points: np.ndarray) -> float:
    """The ratio alone, by loops and an explicit inverse."""
    far = []
    for first in (0, 1):
        seen, kept = points[first::2], points[1 - first :: 2]
        values, vectors = np.linalg.eigh(np.cov(seen.T))
        drawn = (1 - SHRINK) * values.clip(0) + SHRINK * values.mean()
        inverse = np.linalg.inv(vectors @ np.diag(drawn) @ vectors.T)
        far += [float((z - seen.mean(0)) @ inverse @ (z - seen.mean(0))) for z in kept]
    return float(np.quantile(far, 0.99) / np.mean(far))


@given(st.integers(0, 2**32 - 1))
def test_distance_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 8))
    root = rng.standard_normal((size, size + 2))
    covariance = root @ root.T
    drawn = (1 - SHRINK) * covariance + SHRINK * np.trace(covariance) / size * np.eye(size)
    points, mean = rng.standard_normal((5, size)), rng.standard_normal(size)
    expected = [distance.mahalanobis(z, mean, np.linalg.inv(drawn)) ** 2 for z in points]
    np.testing.assert_allclose(squared_distance(points, mean, metric(covariance)), expected, rtol=1e-7)
    other = np.diag(rng.uniform(0, 2, size))
    trace = np.trace(np.linalg.solve(drawn, other))
    assert mean_distance(other, metric(covariance)) == pytest.approx(trace, rel=1e-7)


# law


@given(st.integers(0, 2**32 - 1), st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_only_directions_count(seed: int, first: float, second: float) -> None:
    means = np.random.default_rng(seed).standard_normal((4, 7))
    scales = np.repeat([first, second], [3, 4])
    np.testing.assert_allclose(sketch(means * scales, (3, 4), 6), sketch(means, (3, 4), 6), rtol=1e-9, atol=1e-12)


symmetric = st.integers(1, 6).flatmap(
    lambda m: arrays.arrays(np.float32, (m, m), elements=st.floats(-(2.0**60), 2.0**60, width=32))
)


@given(symmetric)
def test_any_symmetric_matrix_gives_positive_distances(half: np.ndarray) -> None:
    covariance = np.triu(half) + np.triu(half, 1).T
    scatter = metric(covariance)
    assert (scatter.variances > 0).all()
    np.testing.assert_allclose(scatter.directions @ scatter.directions.T, np.eye(len(half)), atol=1e-12)
    far = squared_distance(np.eye(len(half)), np.zeros(len(half)), scatter)
    assert (far > 0).all()
    assert np.isfinite(far).all()
    assert mean_distance(covariance, scatter) >= 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 40))
def test_a_packed_sketch_comes_back(seed: int, size: int, num: int) -> None:
    one = told(seed, size, num)
    packed = pack(one)
    assert packed.shape == (size + size * (size + 1) // 2 + 1,)
    back = unpack(packed)
    for was, is_ in zip(one[:2], back[:2], strict=True):
        np.testing.assert_allclose(is_, was, rtol=2**-11, atol=2**-25)  # half a unit in the last of 11 bits
        assert is_.dtype == np.float32
    assert back.reach == pytest.approx(one.reach, rel=2**-11)
    np.testing.assert_array_equal(back.covariance, back.covariance.T)
    np.testing.assert_array_equal(pack(back), packed)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(4, 30), st.floats(0.01, 100))
def test_reach_does_not_depend_on_place_or_size(seed: int, size: int, num: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((num, size))
    moved = scale * points + rng.standard_normal(size)
    assert task_sketch(moved).reach == pytest.approx(task_sketch(points).reach, rel=1e-6)
    assert task_sketch(points).reach > 0


# edge


@given(arrays.arrays(np.float64, (3,), elements=st.floats(-1e3, 1e3)), st.integers(1, 40))
def test_equal_prompts_do_not_scatter(point: np.ndarray, num: int) -> None:
    mean, covariance, reach = task_sketch(np.tile(point, (num, 1)))
    np.testing.assert_array_equal(mean, point.astype(np.float32))
    assert not covariance.any()
    assert reach == 1.0


def test_one_prompt_or_few() -> None:
    point = np.array([[0.1, -0.3, 7.7]])
    assert task_sketch(point).covariance.tolist() == np.zeros((3, 3)).tolist()
    assert task_sketch(np.concatenate([point, -point])).reach == 1.0
    two = task_sketch(np.concatenate([point, -point, 2 * point]))
    assert two.reach == 1.0
    np.testing.assert_allclose(two.covariance, np.cov(np.array([1, -1, 2]), ddof=1) * point.T @ point, rtol=1e-6)
    with pytest.raises(ValueError, match="needs at least one prompt, there are none"):
        task_sketch(np.zeros((0, 3)))


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"inputs of widths \(2, 2\) need 4 numbers a prompt, got 3"):
        sketch(np.zeros((1, 3)), (2, 2), 4)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="the base model overflowed"):
            sketch(np.array([[1.0, bad]]), (2,), 4)
    huge = np.full((1, 2), 3e38, dtype=np.float32)  # its length is beyond float32
    np.testing.assert_allclose(sketch(huge, (2,), 4), sketch(np.ones((1, 2)), (2,), 4), rtol=1e-6)


def test_packing_refuses_what_16_bit_cannot_hold() -> None:
    one = told(0, 3)
    for other in (
        one._replace(mean=one.mean + 7e4),
        one._replace(reach=1e9),
        one._replace(covariance=one.covariance * 1e6),
    ):
        with pytest.raises(ValueError, match="beyond 65504"):
            pack(other)


@pytest.mark.parametrize("length", [0, 1, 2, 4, 5, 7, 2144, 2146])
def test_lengths_that_no_sketch_has(length: int) -> None:
    with pytest.raises(ValueError, match=rf"shape \({length},\) are no task sketch; one of m = 64 has 2145"):
        unpack(np.zeros(length, dtype=np.float16))


@given(st.integers(0, 3000))
def test_a_length_is_a_sketch_s_or_refused(length: int) -> None:
    assume(length > 0)
    sizes = [m for m in range(1, 80) if m + m * (m + 1) // 2 + 1 == length]
    if sizes:
        assert unpack(np.zeros(length)).mean.shape == (sizes[0],)
    else:
        with pytest.raises(ValueError, match="no task sketch"):
            unpack(np.zeros(length))


def test_unpacking_refuses_nonsense() -> None:
    packed = pack(told(0, 3)).astype(np.float64)  # mean 0-2, variances at 3, 6 and 8, reach 9
    with pytest.raises(ValueError, match=r"shape \(1, 10\) are no task sketch"):
        unpack(packed[None])
    for place, value, words in (
        (0, math.nan, "not finite"),
        (4, math.inf, "not finite"),
        (3, -1e-3, "variance or a reach below zero"),
        (8, -1.0, "variance or a reach below zero"),
        (9, -1.0, "variance or a reach below zero"),
    ):
        spoilt = packed.copy()
        spoilt[place] = value
        with pytest.raises(ValueError, match=words):
            unpack(spoilt)
    packed[4] = -9.0  # a covariance may be what it likes
    assert unpack(packed).covariance[0, 1] == -9.0
