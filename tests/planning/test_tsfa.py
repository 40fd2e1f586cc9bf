"""TSFA's control: bands against the rate formula, ranks against every choice there is, and a thousand rounds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.planning.tsfa import (
    Uplinks,
    band_needed_hz,
    control,
    least_latency,
    next_queue,
    offline_rank,
    tail_energy,
)
from orthomesh.rng import stream


def links(rng: np.random.Generator, count: int) -> Uplinks:
    return Uplinks(snr_hz=1e6 * 10 ** rng.uniform(-0.5, 2.0, count), compute_s=rng.uniform(0, 0.2, count), band_hz=1e6)


def tails(rng: np.random.Generator, count: int, rank: int) -> np.ndarray:
    return np.stack([tail_energy(rng.exponential(size=(2, rank)) ** 2) for _ in range(count)])


# reference


@settings(max_examples=50)
@given(st.floats(1e3, 1e7), st.floats(1e5, 1e9))
def test_the_band_carries_the_rate(band: float, snr: float) -> None:
    rate = band * np.log2(1 + snr / band)
    found = float(band_needed_hz(np.array(rate), np.array(snr)))
    if rate * np.log(2) / snr < 0.99:  # nearer to what no band reaches, digits are lost
        assert found == pytest.approx(band, rel=1e-6)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_no_other_split_is_faster(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    made, bits = links(rng, count), rng.uniform(1e4, 1e6, (1, count))
    (latency,), (bands,) = least_latency(bits, made)

    def slowest(w: np.ndarray) -> float:
        return float((made.compute_s + bits[0] / (w * np.log2(1 + made.snr_hz / w))).max())

    assert bands.sum() == pytest.approx(made.band_hz, rel=1e-6)
    sending = bands > 0
    assert slowest(np.where(sending, bands, 1.0)) == pytest.approx(latency, rel=1e-6)
    for _ in range(50):
        assert slowest(made.band_hz * rng.dirichlet(np.ones(count))) >= latency * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_ranks_are_the_best_of_all(seed: int) -> None:
    """Every choice of ranks of three devices, 4^3, with its best bands."""
    rng = np.random.default_rng(seed)
    made, curve = links(rng, 3), tails(rng, 3, 4)
    bits, queue, tradeoff = 10 ** rng.uniform(4.5, 5.5), rng.uniform(0, 2), 10 ** rng.uniform(-1, 1)
    cases = np.array(list(product(range(1, 5), repeat=3)))
    lost = np.array([np.mean([curve[k, m - 1] for k, m in enumerate(case)]) for case in cases])
    costs = tradeoff * lost + queue * least_latency(bits * cases, made)[0]
    found = control(curve, bits, made, queue, tradeoff)
    value = tradeoff * np.mean([curve[k, m - 1] for k, m in enumerate(found.kept)]) + queue * found.latency_s
    assert value == pytest.approx(costs.min(), rel=1e-8)


# law


def test_a_thousand_rounds_meet_the_limit_and_the_queue_stays_bounded() -> None:
    """Rayleigh draws by round and device, no fade below a tenth; all ranks would take longer than the limit."""
    mean_snr, bits, limit, tradeoff = np.array([1e7, 4e6]), 2e5, 0.45, 0.5
    curve, compute = tails(np.random.default_rng(1), 2, 3), np.full(2, 0.05)
    queue, taken, kept, queues, most = 0.0, [], [], [], []
    for n in range(1000):
        fading = stream(5, "fading", n).exponential(size=2)
        made = Uplinks(snr_hz=mean_snr * np.maximum(fading, 0.1), compute_s=compute, band_hz=1e6)
        found = control(curve, bits, made, queue, tradeoff)
        most.append(least_latency(np.full((1, 2), 3 * bits), made)[0][0])
        queue = next_queue(queue, found.latency_s, limit)
        taken.append(found.latency_s)
        kept.append(found.kept)
        queues.append(queue)
    assert np.mean(most) > 1.2 * limit
    assert np.mean(taken) <= limit + queue / 1000
    assert np.mean(taken[400:]) <= 1.01 * limit
    assert max(queues[500:]) < 2 * max(queues[:500])  # bounded: it does not grow
    assert queue < 10 * limit
    assert 1.2 < np.mean(kept) < 2.8


def test_a_longer_queue_means_fewer_ranks_and_a_shorter_round() -> None:
    rng = np.random.default_rng(3)
    made, curve = links(rng, 4), tails(rng, 4, 6)
    found = [control(curve, 1e5, made, queue, 1.0) for queue in (0.0, 0.1, 1.0, 100.0)]
    latencies = [d.latency_s for d in found]
    assert latencies == sorted(latencies, reverse=True)
    assert found[0].kept.tolist() == [6] * 4
    assert found[-1].kept.sum() < 8


def test_tails_fall_to_nothing() -> None:
    rng = np.random.default_rng(0)
    A, _ = np.linalg.qr(rng.standard_normal((9, 3)))
    B = rng.standard_normal((5, 3))
    g = np.linalg.norm(B, axis=0) * np.linalg.norm(A, axis=0)
    order = np.argsort(-g)
    for m, lost in enumerate(tail_energy(g[None]), 1):
        kept = B[:, order[:m]] @ A[:, order[:m]].T
        assert lost == pytest.approx(np.sum((B @ A.T - kept) ** 2) / np.sum((B @ A.T) ** 2), abs=1e-12)
    assert tail_energy(np.zeros((2, 3))).tolist() == [0.0] * 3


# edge


def test_bad_input_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Uplinks(snr_hz=np.array([0.0]), compute_s=np.zeros(1), band_hz=1e6)
    with pytest.raises(ValueError, match="one for every link"):
        Uplinks(snr_hz=np.ones(2), compute_s=np.zeros(1), band_hz=1e6)
    made = Uplinks(snr_hz=np.ones(1), compute_s=np.zeros(1), band_hz=1e6)
    with pytest.raises(ValueError, match="Z >= 0"):
        control(np.zeros((1, 2)), 1.0, made, -1.0, 1.0)
    with pytest.raises(ValueError, match="no rank"):
        offline_rank([4, 8], [1.0, 0.5], [2.0, 3.0], 1.0, 0.1)
