"""Power control of over-the-air aggregation, and the error it leaves: two designs in closed form.

Truncated channel inversion over Rayleigh blocks (Zhu, Wang and Huang, arXiv 1812.11494), and the best control for
known, static gains (Cao, Zhu, Xu and Huang 2020). Errors of the first are of the mean over n devices of entries that
are independent between devices, zero-mean, of variance 1, two to a complex symbol of unit power: each has power 1/2
and hears noise sigma^2 / 2, so that its noise is sigma^2 / rho_0, twice that of one entry a symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Static(NamedTuple):
    """Power control for static gains: the receiver's factor eta, and received power by device, ascending in q."""

    eta: float
    received: tuple[float, ...]
    error: float


def truncation(threshold: float) -> float:
    """Share of blocks a device sits out, zeta = 1 - exp(-g_th), its fading power being Exp(1).

    >>> round(truncation(0.2), 4)
    0.1813
    """
    return -float(np.expm1(-threshold))


def received_snr(threshold: float, snr: Sequence[float], peak_to_mean: float) -> float:
    r"""Common received power over noise that all devices can keep while they invert their channels.

    .. math::  \frac{\rho_0}{\sigma^2} = \min_k \gamma_k \min\Bigl( \frac 1 {E_1(g_{th})},\ \kappa g_{th} \Bigr)

    The first is the mean limit, since E[1/rho; rho > g] = E1(g); the second the peak, reached at the threshold.

    Args:
        threshold: g_th, > 0.
        snr: gamma_k, mean transmit power times mean gain over noise, of every device, linear.
        peak_to_mean: kappa.

    Returns:
        Linear, >= 0.

    Raises:
        ValueError: no device, or an SNR or a threshold that is not positive.
    """
    from scipy.special import exp1

    if not threshold > 0.0 or not snr or not min(snr) > 0.0:
        raise ValueError(f"channel inversion needs a threshold and SNRs above 0, got {threshold} and {list(snr)}")
    return min(snr) * min(1.0 / float(exp1(threshold)), peak_to_mean * threshold)


def inversion_error(threshold: float, num_devices: int, received_snr: float, phase_std_rad: float = 0.0) -> float:
    r"""Mean squared error where the receiver divides by how many it expects, n (1 - zeta).

    .. math::  \frac 1 n \Bigl( \frac{e^{s^2}}{1 - \zeta} - 1 \Bigr) + \frac{e^{s^2} \sigma^2}{\rho_0 n^2 (1-\zeta)^2}

    The mean shrinks by e^{-s^2/2} under phase errors of deviation s, for which the receiver makes up.

    Args:
        threshold: g_th; zeta = 1 - exp(-g_th).
        num_devices: n, >= 2.
        received_snr: rho_0 / sigma^2.
        phase_std_rad: s.

    Returns:
        > 0, in units of the variance of an entry.

    Raises:
        ValueError: fewer than two devices.

    >>> round(inversion_error(0.2, 5, 100 / 1.2227, 0.0), 4)
    0.045
    """
    check_count(num_devices)
    kept, spread = 1.0 - truncation(threshold), float(np.exp(phase_std_rad**2))
    return (spread / kept - 1.0) / num_devices + spread / (received_snr * (num_devices * kept) ** 2)


def counted_error(threshold: float, num_devices: int, received_snr: float, phase_std_rad: float = 0.0) -> float:
    r"""Mean squared error where the receiver knows how many it hears, K, and divides by that: partial participation.

    .. math::  \sum_{K \ge 1} P(K) \Bigl( \frac{e^{s^2}} K - \frac 1 n + \frac{e^{s^2} \sigma^2}{\rho_0 K^2} \Bigr)
               + P(0) \frac 1 n,  \quad K \sim \mathrm{Bin}(n, 1 - \zeta)

    Args:
        threshold: g_th; zeta = 1 - exp(-g_th).
        num_devices: n, >= 2.
        received_snr: rho_0 / sigma^2.
        phase_std_rad: s.

    Returns:
        > 0, in units of the variance of an entry.

    Raises:
        ValueError: fewer than two devices.
    """
    from scipy.special import comb

    check_count(num_devices)
    silent, spread = truncation(threshold), float(np.exp(phase_std_rad**2))
    k = np.arange(1, num_devices + 1)
    chance = comb(num_devices, k) * (1.0 - silent) ** k * silent ** (num_devices - k)
    heard = spread / k - 1.0 / num_devices + spread / (received_snr * k**2)
    return float((chance * heard).sum() + silent**num_devices / num_devices)


def best_threshold(snr: Sequence[float], peak_to_mean: float, phase_std_rad: float = 0.0) -> float:
    """The threshold of least `counted_error`: a grid over six decades, then a bounded search around its best.

    A textbook's 0.2 loses far more to silence than it saves in noise; the mean limit grows only like log(1/g), so
    that the optimum is small and mostly set by the peak.

    Args:
        snr: gamma_k of every device, linear; at least two.
        peak_to_mean: kappa.
        phase_std_rad: s.

    Returns:
        g_th, in [1e-6, 5].

    Raises:
        ValueError: fewer than two devices, or an SNR that is not positive.
    """
    from scipy.optimize import minimize_scalar

    check_count(len(snr))

    def error(log_threshold: float) -> float:
        threshold = float(np.exp(log_threshold))
        return counted_error(threshold, len(snr), received_snr(threshold, snr, peak_to_mean), phase_std_rad)

    grid = np.linspace(np.log(1e-6), np.log(5.0), 61)
    best = int(np.argmin([error(x) for x in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, 60)])
    return float(np.exp(minimize_scalar(error, bounds=around, method="bounded", options={"xatol": 1e-6}).x))


def static_control(q: Sequence[float], noise: float) -> Static:
    r"""Best power control for known, static gains: the weak at full power, the strong invert.

    .. math::  \eta^* = \min_k \Bigl( \frac{\sigma^2 + \sum_{i \le k} q_i}{\sum_{i \le k} \sqrt{q_i}} \Bigr)^2, \quad
               \mathrm{error} = \sum_k \Bigl( \sqrt{p_k h_k / \eta} - 1 \Bigr)^2 + \sigma^2 / \eta

    Args:
        q: largest received power P_max h_k of every device.
        noise: sigma^2, of the dimension that is read, in the same unit.

    Returns:
        eta*; received powers p_k h_k = min(q_k, eta*) by ascending q; error of the sum (of the mean: over n^2).

    Raises:
        ValueError: fewer than two devices, or a power or noise that is not positive.

    >>> static_control([1.0, 1.0], 1.0).eta
    2.25
    """
    check_count(len(q))
    ascending = np.sort(np.asarray(q, dtype=np.float64))
    if not (np.all(ascending > 0.0) and 0.0 < noise < np.inf and np.isfinite(ascending).all()):
        raise ValueError(f"power control needs powers and noise above 0, got {list(q)} and {noise}")
    eta = float(np.min((noise + np.cumsum(ascending)) / np.cumsum(np.sqrt(ascending))) ** 2)
    received = np.minimum(ascending, eta)
    error = float(np.square(np.sqrt(received / eta) - 1.0).sum() + noise / eta)
    return Static(eta, tuple(received.tolist()), error)


def check_count(num_devices: int) -> None:
    """Refuse fewer than two devices.

    Raises:
        ValueError: fewer than two.
    """
    if num_devices < 2:
        raise ValueError(f"over the air at least 2 devices add up, got {num_devices}; one sends a frame")
