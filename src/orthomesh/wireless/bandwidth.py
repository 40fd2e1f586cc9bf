"""The split of a band among unicast receivers that needs least power in all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..units import from_db
from .link import Radio, bits_on_air, highest_efficiency, noise_w


def optimal_split(
    bits: int | float, gains: Sequence[float], radio: Radio
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    r"""Bands and powers of least total power that carry a payload to each receiver within the deadline.

    .. math::  B_j = \frac{R \ln 2}{1 + W_0((\mu h_j / (G N_0 F) - 1) / e)}, \quad \sum_j B_j = W, \quad R = b / \Gamma

    The power of one link is convex and falls with its band; mu is the power that a little more band would save, the
    same for all, found by bisection. No band is wider than the lowest code can fill: what is left then stays unused.

    Args:
        bits: size b of the payload, sent to each.
        gains: linear power gains h_j > 0.
        radio: W, Gamma, noise per band, gap, codes.

    Returns:
        Bands in Hz and powers in W, in the order given; a power is infinite beyond the fastest code.

    Raises:
        ValueError: no receiver, a gain or payload that is not positive, or noise that does not shrink with the band.

    >>> bands_hz, powers_w = optimal_split(1e6, [1e-9, 1e-9], Radio())
    >>> bands_hz.round(3).tolist()
    [500000.0, 500000.0]
    """
    h = np.asarray(gains, dtype=np.float64)
    if not (len(h) and np.all(h > 0.0) and bits > 0):
        raise ValueError(f"a split needs bits > 0 and receivers with gains > 0, got {bits} and {list(gains)}")
    if radio.noise != "per_band":
        raise ValueError("radio.split: optimal needs noise that shrinks with the band, radio.noise: per_band")
    density = from_db(radio.gap_db) * noise_w(radio, 1.0) / h
    rate_bps = bits_on_air(bits, radio) / radio.deadline_s
    lowest = radio.min_efficiency_bps_per_hz
    widest_hz = rate_bps / lowest if lowest > 0.0 else math.inf
    bands_hz = np.full(len(h), widest_hz)
    if len(h) * widest_hz > radio.bandwidth_hz:
        low, high = -800.0, 600.0  # logarithm of mu over the smallest density
        for _ in range(200):
            middle = 0.5 * (low + high)
            bands_hz = np.minimum(_bands_hz(rate_bps, middle - np.log(density / density.min())), widest_hz)
            low, high = (middle, high) if bands_hz.sum() > radio.bandwidth_hz else (low, middle)
    exponent = rate_bps / bands_hz
    hopeless = exponent > highest_efficiency(radio)
    powers_w = density * bands_hz * np.expm1(np.where(hopeless, 0.0, exponent) * math.log(2.0))
    return bands_hz, np.where(hopeless, math.inf, powers_w)


def _bands_hz(rate_bps: float, log_price: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Bands at which one more hertz saves as much as it is priced, price in units of a link's noise density.

    With v = ln 2 R / B: (v - 1) e^v = price - 1. Near the branch point of the Lambert function its series stands in
    for it, since the argument itself would lose the digits.
    """
    from scipy.special import lambertw

    price = np.exp(np.minimum(log_price, 600.0))
    v = np.real(lambertw(np.maximum((price - 1.0) / math.e, -1.0 / math.e))) + 1.0
    p = np.sqrt(2.0 * np.exp(np.minimum(log_price, 0.0)))
    v = np.where(log_price < -14.0, p - p**2 / 3.0 + 11.0 * p**3 / 72.0, v)
    return np.asarray(rate_bps * math.log(2.0) / np.maximum(v, 1e-300))
