"""Which expert a prompt goes to, how sure that is, and when it belongs to none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orthomesh.experts.router import Verdict, classes, discriminate, nearest
from orthomesh.experts.sketch import pack, task_sketch, unpack
from orthomesh.types import TaskSketch


def task(mean: list[float], variances: list[float], reach: float = 1.0) -> TaskSketch:
    """A task whose numbers scatter each by itself."""
    return TaskSketch(np.array(mean, np.float32), np.diag(variances).astype(np.float32), reach)


def drawn(seed: int) -> tuple[list[TaskSketch], np.ndarray]:
    """A few tasks of a few numbers, and prompts around them."""
    rng = np.random.default_rng(seed)
    num, size = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    tasks = []
    for _ in range(num):
        points = rng.standard_normal((30, size)) @ rng.standard_normal((size, size)) + 3 * rng.standard_normal(size)
        tasks.append(task_sketch(points))
    return tasks, 4 * rng.standard_normal((20, size))


def covariances(tasks: list[TaskSketch]) -> list[np.ndarray]:
    """0.3 of a task's own and 0.7 of the mean of all, eigenvalues drawn to their mean by 0.03."""
    pooled = np.mean([t.covariance.astype(np.float64) for t in tasks], axis=0)
    mixed = [0.3 * t.covariance.astype(np.float64) + 0.7 * pooled for t in tasks]
    return [0.97 * c + 0.03 * np.trace(c) / len(c) * np.eye(len(c)) for c in mixed]


def naively(prompts: np.ndarray, codes: np.ndarray, widths: tuple[int, ...]) -> list[int]:
    """Best mean of centred cosines, prompt by prompt and layer by layer."""
    centre = codes.mean(axis=0)
    found = []
    for x in prompts:
        votes = []
        for h in codes:
            cosines, start = [], 0
            for width in widths:
                a, b = (v[start : start + width] - centre[start : start + width] for v in (x, h))
                cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                start += width
            votes.append(sum(cosines))
        found.append(votes.index(max(votes)))
    return found


# example


def test_two_equal_tasks_on_paper() -> None:
    # means 0 and 2, variance 1 in both: the border is at 1, and with nu = 3, T = 2 and m = 1 the odds at z are
    # (3 + (z - 2)^2) / (3 + z^2)
    z = np.array([0, 0.9, 1, 1.1, 2, 3, 50])
    known = classes([task([0], [1], reach=9), task([2], [1], reach=9)])
    verdict = discriminate(z[:, None], known)
    assert verdict.best.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert verdict.second.tolist() == [1, 1, 1, 0, 0, 0, 0]
    near, far = np.minimum(z**2, (z - 2) ** 2), np.maximum(z**2, (z - 2) ** 2)
    np.testing.assert_allclose(verdict.probability, (3 + far) / (6 + far + near), rtol=1e-12)
    assert verdict.probability[[0, 5]] == pytest.approx([0.7, 0.75])
    np.testing.assert_allclose(verdict.weight, verdict.probability, rtol=1e-12)  # nobody is sure, so both take part
    np.testing.assert_allclose(verdict.distance[:, 0], z**2 / 11.7)
    assert verdict.strange.tolist() == [False] * 6 + [True]
    # means 0 and 4: at 0 the second has 3 / 22, and a fifth is needed to take part; at 1 it has a quarter
    verdict = discriminate(np.array([[0.0], [1.0]]), classes([task([0], [1]), task([4], [1])]))
    np.testing.assert_allclose(verdict.probability, [19 / 22, 0.75])
    np.testing.assert_allclose(verdict.weight, [1.0, 0.75])


def test_the_second_shares_with_the_best_alone() -> None:
    # three equal tasks at 0, 0.5 and 30: of the first two the odds at 0.25 are even; the third has no part
    known = classes([task([30], [1]), task([0], [1]), task([0.5], [1])])
    verdict = discriminate(np.array([[0.25], [2.0]]), known)
    assert sorted([verdict.best[0], verdict.second[0]]) == [1, 2]
    assert verdict.weight[0] == pytest.approx(0.5)
    # (3 + z^2) / (3 + (z - 0.5)^2) = 7 / 5.25: odds of four to three
    assert (verdict.best[1], verdict.second[1]) == (2, 1)
    assert verdict.weight[1] == pytest.approx(4 / 7)
    same = discriminate(np.zeros((1, 1)), classes([task([0], [1])] * 3))
    assert same.probability[0] == pytest.approx(1 / 3)
    assert same.weight[0] == pytest.approx(1 / 2)


def test_equal_scatter_makes_a_straight_border() -> None:
    # variances 4 and 1, means (0, 0) and (4, 1): C = diag(0.97 x 4 + 0.075, 0.97 + 0.075) = diag(3.955, 1.045);
    # the border is 4 / 3.955 (x - 2) + 1 / 1.045 (y - 1/2) = 0, whatever gamma
    known = classes([task([0, 0], [4, 1], reach=99), task([4, 1], [4, 1], reach=99)])
    y = np.linspace(-20, 20, 9)
    x = 2 - (y - 0.5) / 1.045 / (4 / 3.955)
    at, left, right = (discriminate(np.stack([x + shift, y], axis=1), known) for shift in (0.0, -1e-3, 1e-3))
    np.testing.assert_allclose(at.probability, 0.5, rtol=1e-6)
    assert set(left.best) == {0}
    assert set(right.best) == {1}


def test_a_wide_task_and_a_narrow_one_on_paper() -> None:
    # variances 1 and 11, mean 6: C = 0.3 + 4.2 = 4.5 and 3.3 + 4.2 = 7.5; a single number is its own mean already
    known = classes([task([0], [1], reach=2), task([0], [11], reach=3)])
    verdict = discriminate(np.array([[0.0], [9.0]]), known)
    assert verdict.best.tolist() == [0, 1]  # at the common mean the narrow one is likelier, far out the wide one
    odds = math.sqrt(7.5 / 4.5) ** (1 / 2)
    assert verdict.probability[0] == pytest.approx(odds / (1 + odds))
    gap = math.log(1 + 81 / (3 * 4.5)) - math.log(1 + 81 / (3 * 7.5)) + math.log(4.5 / 7.5) / 4
    assert verdict.probability[1] == pytest.approx(1 / (1 + math.exp(-gap)))
    # on average d^2 is 1 / 4.5 and 11 / 7.5; its own prompts go 2 and 3 times as far, and 1.3 is granted
    inside = 1.3 * np.array([2 / 4.5, 3 * 11 / 7.5])
    np.testing.assert_allclose(verdict.distance[1], np.array([81 / 4.5, 81 / 7.5]) / inside)


def test_a_new_wording_is_not_sent_to_whoever_scatters_most() -> None:
    # eight numbers; the prompt lies 30 off both tasks, ten nearer to the narrow one
    wide, narrow = task([40.0] + [0.0] * 7, [9.0] * 8), task([0.0] * 8, [1.0] * 8)
    point = np.array([[15.0] + [30.0] * 7])
    far = [((point[0] - t.mean) ** 2).sum() / c for t, c in ((wide, 0.3 * 9 + 0.7 * 5), (narrow, 0.3 + 0.7 * 5))]
    assert far[0] < far[1]  # in its own measure the wide one is nearer, by hundreds
    by_gauss = -far[0] - 8 * math.log(6.2) + far[1] + 8 * math.log(3.8)
    by_t = -11 * math.log1p(far[0] / 3) - 8 * math.log(6.2) + 11 * math.log1p(far[1] / 3) + 8 * math.log(3.8)
    assert by_gauss > 300
    assert by_t < 2  # here the odds are nearly even
    verdict = discriminate(point, classes([wide, narrow]))
    assert max(verdict.probability[0], 1 - verdict.probability[0]) < 0.62


def test_strangers_on_paper() -> None:
    # one number, variance 1, means 0 and 100: inside is d^2 <= 1.3 x 2 and <= 1.3 x 10
    known = classes([task([0], [1], reach=2), task([100], [1], reach=10)])
    edges = [math.sqrt(2.6), math.sqrt(13)]
    points = np.array([[f * edges[0]] for f in (0.99, 1.01)] + [[100 + f * edges[1]] for f in (0.99, -1.01)] + [[50.1]])
    verdict = discriminate(points, known)
    assert verdict.best.tolist() == [0, 0, 1, 1, 1]
    assert verdict.strange.tolist() == [False, True, False, True, True]
    np.testing.assert_allclose(verdict.distance[:2, 0], [0.99**2, 1.01**2])
    np.testing.assert_allclose(verdict.distance[2:4, 1], [0.99**2, 1.01**2])


def test_a_task_that_does_not_scatter_has_its_mean_and_little_else() -> None:
    # equal prompts at 0 beside a task of variance 1 at 9: C = 0.35 and 0.65; there is no average to go by, so d^2 <= 1
    known = classes([task([0], [0]), task([9], [1])])
    verdict = discriminate(np.array([[0.0], [0.59], [0.6]]), known)
    assert verdict.best.tolist() == [0, 0, 0]
    np.testing.assert_allclose(verdict.distance[:, 0], np.array([0, 0.59**2, 0.6**2]) / 0.35, rtol=1e-6)
    assert verdict.strange.tolist() == [False, False, True]


def test_a_single_expert_is_certain_but_knows_strangers() -> None:
    verdict = discriminate(np.array([[0.0], [1.0], [-9.0]]), classes([task([0], [1])]))
    assert verdict.best.tolist() == verdict.second.tolist() == [0, 0, 0]
    assert verdict.probability.tolist() == verdict.weight.tolist() == [1, 1, 1]
    assert verdict.strange.tolist() == [False, False, True]


def test_nearest_on_paper() -> None:
    codes = np.array([[10.0, 1.0], [10.0, -1.0], [12.0, 0.0]])
    prompts = np.array([[10.2, 5.0], [10.2, -0.1], [99.0, 1.0]])
    # raw cosines would send the first prompt to 0, the last to 2, and could not tell the middle one
    assert nearest(prompts, codes, (2,)).best.tolist() == [0, 1, 2]


def test_nearest_is_never_strange_and_answers_alone() -> None:
    codes = np.array([[1.0, 0.0], [-1.0, 0.0]])  # cosines 1 and -1, and with (3, 4) 0.6 and -0.6
    verdict = nearest(np.array([[5.0, 0.0], [3.0, 4.0], [0.0, 9.0]]), codes, (2,))
    np.testing.assert_allclose(verdict.distance, [[0, 2], [0.4, 1.6], [1, 1]], atol=1e-15)
    np.testing.assert_allclose(verdict.probability, [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1.2)), 0.5])
    assert verdict.weight.tolist() == [1, 1, 1]
    assert verdict.second.tolist() == [1, 1, 1]
    assert not verdict.strange.any()
    # three layers of one number: each code has one layer for it and two against it, so the best vote is -1/3
    torn = nearest(np.full((1, 3), 2.0), 3 * np.eye(3), (1, 1, 1))
    np.testing.assert_allclose(torn.distance, [[4 / 3] * 3])
    assert not torn.strange.any()


def test_layers_vote() -> None:
    codes = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    assert nearest(np.array([[9.0, -0.1, -0.1], [-0.1, 0.1, 0.1]]), codes, (1, 1, 1)).best.tolist() == [1, 0]


# reference


@given(st.integers(0, 2**32 - 1))
def test_probabilities_are_those_of_t_densities(seed: int) -> None:
    tasks, points = drawn(seed)
    verdict = discriminate(points, classes(tasks))
    pairs = zip(tasks, covariances(tasks), strict=True)
    logs = np.stack([stats.multivariate_t(t.mean, c, df=3).logpdf(points) for t, c in pairs], axis=1) / 2
    likely = np.exp(logs - logs.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    order = np.argsort(-likely, axis=1, kind="stable")
    np.testing.assert_array_equal(verdict.best, order[:, 0])
    np.testing.assert_allclose(verdict.probability, likely.max(axis=1), rtol=1e-7)
    if len(tasks) > 1:
        np.testing.assert_array_equal(verdict.second, order[:, 1])
        second = np.sort(likely, axis=1)[:, -2]
        alone = verdict.probability / (verdict.probability + second)
        np.testing.assert_allclose(verdict.weight, np.where(second >= 0.2, alone, 1.0), rtol=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_plain_inverses(seed: int) -> None:
    tasks, points = drawn(seed)
    verdict = discriminate(points, classes(tasks))
    for n, (t, c) in enumerate(zip(tasks, covariances(tasks), strict=True)):
        inverse = np.linalg.inv(c)
        inside = 1.3 * t.reach * np.trace(inverse @ t.covariance)
        far = [(z - t.mean) @ inverse @ (z - t.mean) / inside for z in points]
        np.testing.assert_allclose(verdict.distance[:, n], far, rtol=1e-6)
    best = verdict.distance[np.arange(len(points)), verdict.best]
    np.testing.assert_array_equal(verdict.strange, best > 1)


def test_own_prompts_are_no_strangers_and_those_of_others_are() -> None:
    rng = np.random.default_rng(0)
    means = 20 * rng.standard_normal((4, 16))
    roots = rng.standard_normal((4, 16, 16))

    def prompts(n: int, num: int) -> np.ndarray:
        return rng.standard_normal((num, 16)) @ roots[n] + means[n]

    known = classes([unpack(pack(task_sketch(prompts(n, 200)))) for n in range(3)])
    for n in range(3):
        verdict = discriminate(prompts(n, 300), known)
        assert (verdict.best == n).all()
        assert verdict.strange.mean() < 0.01  # 1 % lies beyond the reach, and 1.3 times as far is granted
    assert discriminate(prompts(3, 300), known).strange.all()


@given(st.integers(0, 2**32 - 1))
def test_nearest_is_the_best_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = tuple(int(w) for w in rng.integers(2, 6, size=3))
    codes = rng.standard_normal((int(rng.integers(2, 6)), sum(widths)))
    prompts = rng.standard_normal((9, sum(widths)))
    assert nearest(prompts, codes, widths).best.tolist() == naively(prompts, codes, widths)


# law


@given(st.integers(0, 2**32 - 1))
def test_order_of_experts_and_prompts_does_not_matter(seed: int) -> None:
    tasks, points = drawn(seed)
    rng = np.random.default_rng(seed)
    turn, mix = rng.permutation(len(tasks)), rng.permutation(len(points))
    one = discriminate(points, classes(tasks))
    other = discriminate(points[mix], classes([tasks[n] for n in turn]))
    np.testing.assert_array_equal(turn[other.best], one.best[mix])
    np.testing.assert_array_equal(turn[other.second], one.second[mix])
    np.testing.assert_array_equal(other.strange, one.strange[mix])
    np.testing.assert_allclose(other.distance, one.distance[mix][:, turn], rtol=1e-7)
    np.testing.assert_allclose(other.probability, one.probability[mix], rtol=1e-7)
    np.testing.assert_allclose(other.weight, one.weight[mix], rtol=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_a_verdict_stays_in_its_range(seed: int) -> None:
    tasks, points = drawn(seed)
    for verdict in (
        discriminate(100 * points, classes(tasks)),
        nearest(points, np.stack([t.mean for t in tasks]), (points.shape[1],)),
    ):
        assert ((verdict.probability > 0) & (verdict.probability <= 1)).all()
        assert (verdict.probability >= 1 / len(tasks) - 1e-12).all()
        assert ((verdict.weight >= 0.5) & (verdict.weight <= 1)).all()
        assert ((verdict.best == verdict.second) == (len(tasks) == 1)).all()
        assert (verdict.distance > -1e-12).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_a_prompt_that_is_a_code_finds_it(seed: int, num_codes: int) -> None:
    codes = np.random.default_rng(seed).standard_normal((num_codes, 10))
    assert nearest(codes, codes, (4, 6)).best.tolist() == list(range(num_codes))


# edge


def test_the_earlier_expert_wins_a_tie() -> None:
    codes = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert nearest(np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 9.0]]), codes, (2,)).best.tolist() == [1, 0, 0]
    twins = classes([task([1], [1]), task([-1], [1]), task([-1], [1])])
    verdict = discriminate(np.array([[-1.0], [0.0]]), twins)
    assert (verdict.best.tolist(), verdict.second.tolist()) == ([1, 0], [2, 1])


def test_a_point_beyond_all_reason_still_has_an_expert() -> None:
    verdict = discriminate(np.array([[1e150]]), classes([task([0], [1]), task([3], [1])]))
    assert verdict.strange.all()
    assert np.isfinite(verdict.probability).all()


def test_no_prompts() -> None:
    for verdict in (
        nearest(np.zeros((0, 2)), np.eye(2), (2,)),
        discriminate(np.zeros((0, 1)), classes([task([0], [1])])),
    ):
        assert isinstance(verdict, Verdict)
        assert all(len(part) == 0 for part in verdict)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"widths \(3,\)"):
        nearest(np.zeros((1, 2)), np.eye(2), (3,))
    with pytest.raises(ValueError, match="a prompt of 3 numbers meets task sketches of 2"):
        discriminate(np.zeros((1, 3)), classes([task([0, 0], [1, 1])]))
    with pytest.raises(ValueError, match=r"sketches of one size, these have \[1, 2\]"):
        classes([task([0, 0], [1, 1]), task([0], [1]), task([1], [1])])
    with pytest.raises(ValueError, match="sketches of one size, these have none"):
        classes([])
