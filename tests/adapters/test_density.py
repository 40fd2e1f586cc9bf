"""Densities: entropy of a spectrum, the budget, and how it is shared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, special, stats

from orthomesh.adapters.density import allocate, entry_budget, spectral_entropy
from orthomesh.wireless.compute import parameter_budget

SPECTRA = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0.0, 1e6)).filter(np.any)


@st.composite
def layers(draw: st.DrawFn, num_entropies: int = 120) -> tuple[np.ndarray, list[int], int, float]:
    """Entropies on a grid of a twentieth of a nat, sizes, a budget that reaches from nearly none to all, tau."""
    sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=8))
    steps = draw(st.lists(st.integers(0, num_entropies), min_size=len(sizes), max_size=len(sizes)))
    budget = draw(st.integers(len(sizes), sum(sizes) + 3))
    return np.array(steps) / 20.0, sizes, budget, draw(st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0]))


def test_entropies_on_paper() -> None:
    assert spectral_entropy(np.array([2.0, 1.0, 1.0])) == pytest.approx(1.5 * math.log(2), rel=1e-15)
    assert spectral_entropy(np.array([0.0, 7.0, 0.0])) == 0.0
    assert spectral_entropy(np.array([5.0])) == 0.0
    assert spectral_entropy(np.full(4, 1e308)) == pytest.approx(math.log(4), rel=1e-15)  # their sum is no number
    assert spectral_entropy(np.full(32, 0.1)) == pytest.approx(math.log(32), rel=1e-14)


@given(SPECTRA)
def test_entropy_is_that_of_scipy(sigma: np.ndarray) -> None:
    assert spectral_entropy(sigma) == pytest.approx(float(stats.entropy(sigma)), rel=1e-11, abs=1e-12)


@given(SPECTRA, st.integers(-300, 300))
def test_entropy_knows_neither_scale_nor_order_nor_zeros(sigma: np.ndarray, power: int) -> None:
    entropy = spectral_entropy(sigma)
    assert 0.0 <= entropy <= math.log(sigma.size) + 1e-12
    assert spectral_entropy(np.concatenate([sigma[::-1], np.zeros(3)])) == pytest.approx(entropy, rel=1e-13, abs=1e-14)
    normal = np.where(sigma >= 1e-6, sigma, 0.0)  # a subnormal number loses digits when it is scaled
    if normal.any():
        scaled = spectral_entropy(normal * 2.0**power)
        assert scaled == pytest.approx(spectral_entropy(normal), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        ([], "above zero, got 0"),
        ([0.0, 0.0], "above zero, got 2"),
        ([1.0, -1e-9], "negative or not finite"),
        ([1.0, math.nan], "negative or not finite"),
        ([1.0, math.inf], "negative or not finite"),
    ],
)
def test_a_spectrum_without_an_entropy_is_refused(sigma: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spectral_entropy(np.array(sigma))


def test_the_tightest_limit_is_the_budget() -> None:
    sizes = (100, 300)
    assert entry_budget(sizes, 0.125, None, None, 16) == 50
    assert entry_budget(sizes, 0.125, 45.9, None, 16) == 45
    assert entry_budget(sizes, 0.125, 45.9, 16 * 31.0 - 1, 16) == 30
    assert entry_budget(sizes, 1.0, math.inf, math.inf, 8) == 400
    assert entry_budget(sizes, 1.0, parameter_budget(5000.0, 320, 32, 5.0), None, 8) == 100
    assert math.floor(0.29 * 100) == 28  # in floats, where 0.29 is a little less than it says
    assert entry_budget((100,), 0.29, None, None, 8) == 29


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((0.003, 900.0, 900.0), "the density limit leaves 1 entries of B for 2 layers"),
        ((0.5, 1.9, 900.0), "the compute limit leaves 1 entries .* a higher cost limit"),
        ((0.5, 900.0, 31.0), "the radio limit leaves 1 entries .* a higher deadline or rate"),
        ((0.5, 900.0, 0.0), "the radio limit leaves 0 entries"),
        ((0.0, None, None), r"density must lie in \(0, 1\]"),
        ((1.1, None, None), r"density must lie in \(0, 1\]"),
        ((0.5, -1.0, None), "the compute limit is >= 0"),
        ((0.5, None, math.nan), "the radio limit is >= 0"),
    ],
)
def test_a_budget_for_less_than_an_entry_a_layer_names_the_limit(
    limits: tuple[float, float | None, float | None], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        entry_budget((100, 300), *limits, 16)


def test_a_value_has_bits_and_a_layer_entries() -> None:
    with pytest.raises(ValueError, match="at least one bit"):
        entry_budget((10,), 0.5, None, None, 0)
    for sizes in ((), (10, 0)):
        with pytest.raises(ValueError, match="layers of at least one entry"):
            entry_budget(sizes, 0.5, None, None, 8)


@pytest.mark.parametrize(
    ("weights", "sizes", "budget", "quota"),
    [
        ([1, 1, 1], (100, 200, 300), 60, [10, 20, 30]),  # equal entropies, equal densities
        ([4, 1], (100, 100), 50, [40, 10]),
        ([4, 1], (100, 200), 60, [40, 20]),  # twice the size at a quarter of the weight
        ([8, 1, 1], (10, 100, 100), 60, [10, 25, 25]),  # the first would get 17 of 10; the others share what is left
        ([100, 10, 1], (10, 10, 100), 30, [10, 10, 10]),  # the second is full only once the first has given back
        ([1, 1000], (100, 100), 20, [1, 19]),  # nobody goes without
        ([1, 1, 1], (10, 10, 10), 10, [4, 3, 3]),  # the odd entry goes to the earlier layer
        ([1, 1], (6, 10), 4, [2, 2]),  # 1.5 and 2.5
        ([1, 1], (9, 11), 10, [5, 5]),  # 4.5 and 5.5
        ([5, 1], (7, 9), 2, [1, 1]),
        ([5, 1], (7, 9), 16, [7, 9]),
        ([5, 1], (7, 9), 99, [7, 9]),
    ],
)
def test_quotas_on_paper(weights: list[int], sizes: tuple[int, ...], budget: int, quota: list[int]) -> None:
    entropies = np.log(np.array(weights, dtype=np.float64))
    assert allocate(entropies, sizes, budget, temperature=1.0).tolist() == quota
    assert allocate(3.0 * entropies, sizes, budget, temperature=3.0).tolist() == quota


def test_the_papers_softmax_on_paper() -> None:
    assert allocate(np.log([1.0, 3.0]), (100, 100), 40, "softmax").tolist() == [10, 30]
    assert allocate(np.log([3.0, 1.0]), (10, 100), 40, "softmax").tolist() == [10, 10]  # twenty are lost
    assert allocate(np.log([1.0, 1000.0]), (100, 100), 20, "softmax").tolist() == [1, 19]
    assert allocate(2.0 * np.log([1.0, 3.0]), (100, 100), 40, "softmax", 2.0).tolist() == [10, 30]


def test_softmax_fills_small_layers_first_and_ours_does_not() -> None:
    """k_proj and gate_proj of Qwen2.5-1.5B at rank 32, a quarter of all entries."""
    sizes, level = (8192, 286720), np.array([5.0, 5.0])
    assert allocate(level, sizes, 73728, "softmax").tolist() == [8192, 36864]
    assert allocate(level, sizes, 73728).tolist() == [2048, 71680]


@given(layers())
def test_softmax_is_that_of_scipy(case: tuple[np.ndarray, list[int], int, float]) -> None:
    entropies, sizes, budget, _ = case
    share = np.minimum(budget * special.softmax(entropies), sizes)
    quota = allocate(entropies, sizes, budget, "softmax")
    assert np.all(quota <= np.maximum(share + 1e-9, 1.0))
    assert np.all(quota > share - 1.0 - 1e-9)
    assert np.all(quota >= 1)


@given(layers())
def test_quotas_meet_the_budget_and_follow_the_water_level(case: tuple[np.ndarray, list[int], int, float]) -> None:
    entropies, sizes, budget, tau = case
    n, total = np.array(sizes), min(budget, sum(sizes))
    quota = allocate(entropies, sizes, budget, temperature=tau)
    assert quota.sum() == total
    assert np.all((quota >= 1) & (quota <= n))

    def filled(level: float) -> np.ndarray:
        return np.clip(n * np.exp(np.minimum(entropies / tau + level, 0.0)), 1.0, n)

    if len(sizes) < total < n.sum():
        low, high = -800.0, 5.0  # all at one entry, all full
        level = optimize.brentq(lambda at: filled(at).sum() - total, low, high, xtol=1e-14, rtol=1e-14)
        assert np.all(np.abs(quota - filled(level)) < 1.0 + 1e-6)  # to the next whole number, one way or the other


@given(layers())
def test_more_entropy_never_means_fewer_entries(case: tuple[np.ndarray, list[int], int, float]) -> None:
    entropies, sizes, budget, tau = case
    quota = allocate(entropies, sizes, budget, temperature=tau)
    for one, size in enumerate(sizes):
        for other in range(len(sizes)):
            if sizes[other] == size and entropies[one] > entropies[other]:
                assert quota[one] >= quota[other]
        raised = entropies.copy()
        raised[one] += 0.25
        assert allocate(raised, sizes, budget, temperature=tau)[one] >= quota[one]


@given(layers(num_entropies=0), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-12, 1e-9]))
def test_equal_entropies_to_an_epsilon_mean_uniform_density(
    case: tuple[np.ndarray, list[int], int, float], seed: int, epsilon: float
) -> None:
    _, sizes, budget, tau = case
    entropies = 4.0 + epsilon * np.random.default_rng(seed).random(len(sizes))
    uniform = min(budget, sum(sizes)) / sum(sizes) * np.array(sizes)
    quota = allocate(entropies, sizes, budget, temperature=tau)
    if uniform.min() >= 1.0:
        assert np.all(np.abs(quota - uniform) < 1.0 + 1e-6)
    else:  # the smallest layers are owed an entry, at the cost of the others
        assert np.all(quota <= np.maximum(uniform + 1.0 + 1e-6, 1.0))


@given(layers(), st.integers(0, 2**32 - 1))
def test_quotas_go_with_their_layers(case: tuple[np.ndarray, list[int], int, float], seed: int) -> None:
    """Entropies without ties: equal remainders go to the earlier layer, wherever it stands."""
    _, sizes, budget, tau = case
    rng = np.random.default_rng(seed)
    entropies, order = 5.0 * rng.random(len(sizes)), rng.permutation(len(sizes))
    for rule in ("entropy", "softmax"):
        quota = allocate(entropies, sizes, budget, rule, tau)
        moved = allocate(entropies[order], [sizes[i] for i in order], budget, rule, tau)
        assert moved.tolist() == quota[order].tolist()


@given(layers(), st.sampled_from([16.0, 1024.0]))
def test_only_differences_of_entropies_count(case: tuple[np.ndarray, list[int], int, float], shift: float) -> None:
    entropies, sizes, budget, tau = case
    entropies = np.round(entropies * 16) / 16  # so that adding loses no digit
    for rule in ("entropy", "softmax"):  # exp(1024) is no number
        quota = allocate(entropies, sizes, budget, rule, tau).tolist()
        assert allocate(entropies + shift, sizes, budget, rule, tau).tolist() == quota


def test_a_cold_budget_fills_layer_by_layer_and_a_hot_one_evenly() -> None:
    entropies, sizes = np.array([1.0, 2.0, 3.0]), (10, 10, 10)
    assert allocate(entropies, sizes, 14, temperature=1e-6).tolist() == [1, 3, 10]
    assert allocate(entropies, sizes, 15, temperature=1e9).tolist() == [5, 5, 5]


def test_a_large_model_is_shared_to_the_entry() -> None:
    """196 matrices of Qwen2.5-7B at rank 64, about ninety million entries."""
    sizes = [side * 64 for side in (3584, 512, 512, 3584, 18944, 18944, 3584)] * 28
    entropies = 8.0 * np.random.default_rng(0).random(196)
    for budget in (196, 197, 12_345_678, sum(sizes) - 1, sum(sizes)):
        quota = allocate(entropies, sizes, budget)
        assert quota.sum() == budget
        assert np.all((quota >= 1) & (quota <= sizes))


@pytest.mark.parametrize(
    ("entropies", "sizes", "budget", "temperature", "said"),
    [
        ([1.0, 1.0], (10, 10), 1, 1.0, "cannot give each of 2 layers one"),
        ([1.0, 1.0], (10, 10), 5, 0.0, "temperature .* at least 1e-6, got 0.0"),
        ([1.0, 1.0], (10, 10), 5, -1.0, "temperature"),
        ([1.0, 1.0], (10, 10), 5, math.nan, "temperature"),
        ([1.0, 1.0], (10, 10), 5, math.inf, "temperature"),
        ([1.0], (10, 10), 5, 1.0, "got 1 for 2 layers"),
        ([1.0, math.nan], (10, 10), 5, 1.0, "negative or not finite"),
        ([1.0, -0.1], (10, 10), 5, 1.0, "negative or not finite"),
        ([1.0, 1.0], (10, 0), 5, 1.0, "at least one entry"),
        ([], (), 5, 1.0, "at least one layer"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    entropies: list[float], sizes: tuple[int, ...], budget: int, temperature: float, said: str
) -> None:
    for rule in ("entropy", "softmax"):
        with pytest.raises(ValueError, match=said):
            allocate(np.array(entropies), sizes, budget, rule, temperature)
