"""Two-stage control of a wireless server's uplinks: a rank offline, then ranks kept and bands round by round (TSFA).

Reconstruction: of arXiv 2505.00333 (the paper's [24]) only the abstract could be read. It says that the rank is chosen
offline, and sparsification and bandwidth online by Lyapunov optimisation under a long-term limit of latency; the closed
forms are ours. The devices of one server share its band and send at full power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from ..types import Array

HALVINGS, NEWTON, NEAR = 12, 12, 4.0
"""Steps that find a latency: bisections until the bands asked for are at most so many times what there is, then
Newton's from below, which never goes too far on a convex curve."""


@dataclass(frozen=True, kw_only=True)
class Uplinks:
    """What the devices of a server have to send with.

    snr_hz: p h / N0, the band at which a link would have an SNR of one. [N]  compute_s: before it can send. [N]
    band_hz: W, of all together.
    """

    snr_hz: Array
    compute_s: Array
    band_hz: float

    def __post_init__(self) -> None:
        if not (len(self.snr_hz) and np.all(self.snr_hz > 0) and np.isfinite(self.snr_hz).all() and self.band_hz > 0):
            raise ValueError("uplinks need a band > 0 and links of finite p h / N0 > 0, at least one")
        if len(self.compute_s) != len(self.snr_hz) or not np.all(self.compute_s >= 0):
            raise ValueError("uplinks need seconds of computing >= 0, one for every link")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a round is to be. kept: ranks each device sends. [N]  bands_hz: [N]  latency_s: of the slowest."""

    kept: Array
    bands_hz: Array
    latency_s: float


def band_needed_hz(
    rate_bps: Num[np.ndarray, "*shape"], snr_hz: Num[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    r"""Least band that carries a rate at full power.

    .. math::  R = w \log_2(1 + g / w) \iff w = g / x, \quad x = -1 - W_{-1}(-c e^{-c}) / c, \quad c = R \ln 2 / g

    Args:
        rate_bps: R >= 0.
        snr_hz: g = p h / N0 > 0.

    Returns:
        w in Hz; 0 for no rate, infinite from g / ln 2 on, which no band reaches.

    >>> float(band_needed_hz(np.array(2e6), np.array(3e6)).round(3))  # an SNR of 3 in 1 MHz: 2 bit/s/Hz
    1000000.0
    """
    return _bands(np.asarray(rate_bps, dtype=np.float64), snr_hz)


def _bands(rate: Array, snr: Array) -> Array:
    from scipy.special import lambertw

    c = rate * (math.log(2.0) / snr)
    inside = np.minimum(np.maximum(c, 1e-15), 1.0 - 1e-12)
    x = -1.0 - lambertw(-inside * np.exp(-inside), -1).real / inside
    return np.where(c <= 1e-15, 0.0, np.where(c >= 1.0 - 1e-12, math.inf, snr / x))


def least_latency(
    bits: Num[np.ndarray, "M N"], links: Uplinks
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, "M N"]]:
    r"""The best split of the band: all devices end together.

    .. math::  \tau^* = \min \{\tau : \sum_k w_k(b_k / (\tau - c_k)) \le W\}

    Args:
        bits: payloads b > 0, M cases at once.
        links: of the N devices.

    Returns:
        tau in s, and the bands in Hz, which add up to W.
    """
    snr, wait = links.snr_hz, links.compute_s
    even = links.band_hz / bits.shape[1]
    low = (wait + bits * (math.log(2.0) / snr)).max(axis=1)
    high = (wait + bits / (even * np.log2(1.0 + snr / even))).max(axis=1)
    asked = np.full(len(bits), math.inf)  # at `low`
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        total = _bands(bits / (middle[:, None] - wait), snr).sum(axis=1)
        fits = total <= links.band_hz
        low, high, asked = np.where(fits, low, middle), np.where(fits, middle, high), np.where(fits, asked, total)
        if np.all(asked <= NEAR * links.band_hz):
            break
    bands = _bands(bits / (low[:, None] - wait), snr)
    for _ in range(NEWTON):
        x = snr / bands
        per_hz = (np.log1p(x) - x / (1.0 + x)) / math.log(2.0)  # dR / dw
        slope = (bits / (low[:, None] - wait) ** 2 / per_hz).sum(axis=1)
        step = (bands.sum(axis=1) - links.band_hz) / slope
        later = np.where(np.isfinite(step), np.minimum(low + np.maximum(step, 0.0), high), high)
        if np.all(later - low <= 1e-15 * low):
            break
        low = later
        bands = _bands(bits / (low[:, None] - wait), snr)
    return low, bands


def tail_energy(importance: Float[np.ndarray, "L r"]) -> Float[np.ndarray, " r"]:
    r"""What is lost of an update when only the strongest ranks of every layer are sent.

    .. math::  E(m) = \sum_l \sum_{j > m} g_{l,(j)}^2 \Big/ \sum_{l,j} g_{l,j}^2, \quad
               g_j = \lVert b_j \rVert \lVert a_j \rVert

    exact where the ranks of a layer are orthogonal, which SOFT's penalty sees to.

    Args:
        importance: g >= 0.

    Returns:
        E for m = 1..r ranks kept, falling to 0; zeros where there is no update.

    >>> tail_energy(np.array([[1.0, 2.0]])).tolist()
    [0.2, 0.0]
    """
    square = np.sort(importance.astype(np.float64) ** 2, axis=1)[:, ::-1].sum(axis=0)
    left = np.append(np.cumsum(square[::-1])[::-1][1:], 0.0)
    return np.asarray(left / square.sum() if square.sum() > 0 else np.zeros_like(left))


def control(
    tails: Float[np.ndarray, "N r"], rank_bits: float, links: Uplinks, queue_s: float, tradeoff: float
) -> Decision:
    r"""Ranks and bands of one round, drift plus penalty.

    .. math::  \min_{m, w} \; V \, \frac{1}{N} \sum_k E_k(m_k) + Z \, \tau(m, w), \quad
               1 \le m_k \le r, \; \sum_k w_k \le W

    Bands follow from ranks by `least_latency`. Ranks by descent from several starts: any one device to any number, or
    any two by one each, while that helps; in small instances the optimum, see the tests.

    Args:
        tails: E_k(m), m = 1..r.
        rank_bits: payload of one rank.
        links: of the devices.
        queue_s: Z >= 0.
        tradeoff: V > 0, large for accuracy, small for latency.

    Raises:
        ValueError: a queue below 0, or a payload or V that is not positive.
    """
    if not (queue_s >= 0 and tradeoff > 0 and rank_bits > 0):
        raise ValueError(f"control needs Z >= 0, V > 0 and bits > 0, got {queue_s}, {tradeoff}, {rank_bits}")
    count, rank = tails.shape

    def least(cases: Array) -> tuple[float, Decision]:
        lost = np.take_along_axis(tails.T, cases - 1, axis=0).mean(axis=1)
        latency, bands = least_latency(rank_bits * cases, links)
        values = tradeoff * lost + queue_s * latency
        n = int(values.argmin())
        return float(values[n]), Decision(kept=cases[n], bands_hz=bands[n], latency_s=float(latency[n]))

    value, best = least(np.repeat(np.arange(1, rank + 1)[:, None], count, axis=1))
    while True:
        lower, found = least(_moves(best.kept, rank))
        if lower >= value - 1e-9 * abs(value):
            return best
        value, best = lower, found


def _moves(kept: Int[np.ndarray, " N"], rank: int) -> Int[np.ndarray, "M N"]:
    """One device to every number, and every two devices by one each, as far as ranks go."""
    count = len(kept)
    one = np.repeat(kept[None], count * rank, axis=0)
    one[np.arange(count * rank), np.repeat(np.arange(count), rank)] = np.tile(np.arange(1, rank + 1), count)
    steps = np.zeros((count, count, 2, 2, count), dtype=kept.dtype)
    for i in range(count):
        for j in range(i):
            for s in range(2):
                for u in range(2):
                    steps[i, j, s, u, i], steps[i, j, s, u, j] = 2 * s - 1, 2 * u - 1
    two = kept + steps.reshape(-1, count)
    return np.concatenate([one, two[((two >= 1) & (two <= rank)).all(axis=1)]])


def next_queue(queue_s: float, latency_s: float, limit_s: float) -> float:
    r"""The virtual queue after a round; while it stays bounded, the mean latency meets its limit.

    .. math::  Z \leftarrow \max(Z + \tau - \bar\tau, 0)

    >>> next_queue(0.5, 2.0, 1.0), next_queue(0.5, 0.25, 1.0)
    (1.5, 0.0)
    """
    return max(queue_s + latency_s - limit_s, 0.0)


def offline_rank(
    ranks: Sequence[int], losses: Sequence[float], seconds: Sequence[float], limit_s: float, slack: float
) -> int:
    """The smallest rank whose loss is within `slack` of the best among those that meet the limit on average.

    Args:
        ranks: tried. losses: reached or predicted with each. seconds: mean latency of a round with each.
        limit_s: of a round, on average.
        slack: loss that a smaller rank may cost.

    Raises:
        ValueError: no rank meets the limit.

    >>> offline_rank([4, 8, 16], [2.0, 1.05, 1.0], [0.1, 0.2, 0.9], 1.0, 0.1)
    8
    """
    meets = [(r, loss) for r, loss, s in zip(ranks, losses, seconds, strict=True) if s <= limit_s]
    if not meets:
        raise ValueError(f"no rank of {list(ranks)} takes {limit_s} s or less a round; the least is {min(seconds)} s")
    best = min(loss for _, loss in meets)
    return min(r for r, loss in meets if loss <= best + slack)
