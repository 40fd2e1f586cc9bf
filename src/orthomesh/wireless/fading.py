"""Small-scale fading: what a pair's gain is multiplied by in each block of a round, and what blocks are worth together.

A transfer of seconds sees many coherence times. With N independent blocks a codeword spans all of them at one constant
power, and carries the mean of log2(1 + p h rho_k / sigma^2). That mean turns into one number, the effective gain: the
gain at which a link that does not fade needs the same power for the same spectral efficiency. Lemma 1, feasibility and
outage then hold with it as they stand; with one block it is the gain itself, as in the paper.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..rng import normals

Kind = Literal["rayleigh", "rician", "nakagami", "none"]


class Law(NamedTuple):
    """A distribution of power with mean 1. shape: K (linear) of Rice, m of Nakagami; not used by the others."""

    kind: Kind
    shape: float = 1.0


class Blocks(NamedTuple):
    """Powers of each pair in each block, and how much of a transfer each block takes; weights add up to 1."""

    powers: Float[np.ndarray, "P N"]
    weights: Float[np.ndarray, " N"]


def time_correlation(doppler_hz: float, gap_s: float) -> float:
    """How alike a fading gain is after a while, J0(2 pi f_D T) (Clarke), the coefficient of an AR(1) process.

    >>> time_correlation(0.0, 1.0), round(time_correlation(1.0, 0.3828), 3)
    (1.0, -0.0)
    """
    from scipy.special import j0

    return float(j0(2.0 * math.pi * doppler_hz * gap_s))


def gaussians(
    seed: int,
    round_index: int,
    pairs: tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]],
    num_blocks: int,
    correlation: float = 0.0,
) -> Float[np.ndarray, "2 P N"]:
    """Real and imaginary part of each pair's gain in each block, unit variance each.

    Rounds follow one another as an AR(1) process, x_t = a x_(t-1) + sqrt(1 - a^2) w_t; blocks of one round are
    independent. A function of (seed, round) only: the innovations of as many rounds as still matter (1e-9) are
    drawn again.

    Args:
        seed: seed of the run.
        round_index: t.
        pairs: lower and higher id of each pair.
        num_blocks: N.
        correlation: a in [-1, 1], from one round to the next.

    Returns:
        [2 P N].
    """
    low, high = (np.asarray(side)[:, None] for side in pairs)
    block = np.arange(num_blocks)[None, :]
    a = abs(correlation)
    reach = 0 if a == 0.0 else (round_index if a == 1.0 else math.ceil(math.log(1e-9) / math.log(a)))
    x = np.zeros((2, len(pairs[0]), num_blocks))
    first = max(0, round_index - reach)
    for t in range(first, round_index + 1):
        fresh = np.stack([normals(seed, "fading-blocks", t, low, high, block, part) for part in (0, 1)])
        x = fresh if t == first else correlation * x + math.sqrt(1.0 - a * a) * fresh
    return x


def powers(law: Law, x: Float[np.ndarray, "2 P N"]) -> Float[np.ndarray, "P N"]:
    """Powers of a law from two normal numbers each; mean 1.

    Rayleigh: half the sum of squares, exponential. Rice: the same around a fixed part that holds K/(K+1) of the
    power. Nakagami: Gamma(m, 1/m) at the quantile of the first number.

    >>> powers(Law("rayleigh"), np.ones((2, 1, 1))).tolist()
    [[1.0]]
    """
    if law.kind == "none":
        return np.ones_like(x[0])
    if law.kind == "nakagami":
        from scipy.special import gammaincinv, ndtr

        return np.asarray(gammaincinv(law.shape, ndtr(x[0])) / law.shape)
    k = law.shape if law.kind == "rician" else 0.0
    return np.asarray(((math.sqrt(2.0 * k) + x[0]) ** 2 + x[1] ** 2) / (2.0 * (k + 1.0)))


def ergodic(law: Law) -> Blocks:
    """Infinitely many blocks as one weighted grid over the logarithm of power, the same for every pair.

    The trapezoidal rule in ln rho; the integrand is smooth and falls off at both ends, so that the error is far below
    1e-9 for log2(1 + g rho).

    >>> blocks = ergodic(Law("rayleigh"))
    >>> round(float((blocks.weights * np.log2(1 + 10 * blocks.powers[0])).sum()), 4)  # e^(1/g) E1(1/g) / ln 2
    2.9065
    """
    if law.kind == "none":
        return Blocks(np.ones((1, 1)), np.ones(1))
    from scipy.special import gammaln, i0e

    m = law.shape if law.kind == "nakagami" else 1.0
    u = np.arange(-45.0 / min(m, 1.0), 6.0, 0.125)
    rho = np.exp(u)
    if law.kind == "rician":
        k = law.shape
        bend = 2.0 * np.sqrt(k * (k + 1.0) * rho)
        log_density = math.log(k + 1.0) - k - (k + 1.0) * rho + bend + np.log(i0e(bend))
    else:
        log_density = m * math.log(m) + (m - 1.0) * u - m * rho - gammaln(m)
    weights = np.exp(log_density + u)
    kept = weights > 0.0
    return Blocks(rho[kept][None, :], weights[kept] / weights.sum())


def effective(blocks: Blocks, efficiency: Float[np.ndarray, " P"] | float) -> Float[np.ndarray, " P"]:
    """What blocks at one constant power are worth: rho with sum_k w_k log2(1 + g rho_k) = x = log2(1 + g rho).

    Between the geometric mean (x to infinity) and the arithmetic mean of the powers (x to 0): more bits per
    symbol suffer more from deep blocks.

    Args:
        blocks: powers and weights; powers with one row stand for all pairs.
        efficiency: x, bit/s/Hz, >= 0.

    Returns:
        Power factor of each pair, > 0.

    >>> effective(Blocks(np.array([[1.0, 3.0]]), np.array([0.5, 0.5])), 1.0).round(4).tolist()  # (1+g)(1+3g) = 4
    [1.8685]
    """
    if blocks.powers.shape[1] == 1:
        return np.asarray(blocks.powers[:, 0] * np.ones(np.shape(efficiency) or (1,)))
    target = np.asarray(efficiency, dtype=np.float64).reshape(-1, 1) * math.log(2.0)
    with np.errstate(divide="ignore"):
        depth = np.log(blocks.powers)
    target = np.minimum(target, 700.0)  # beyond a thousand bit/s/Hz no power is enough anyway
    safe = np.maximum(target, 1e-9)
    weights = blocks.weights[None, :]
    u = np.log(np.expm1(safe)) - (depth * weights).sum(axis=1, keepdims=True)  # by convexity the root is not above
    done = np.zeros(u.shape, dtype=bool)
    for _ in range(100):
        at = u + depth
        carried = np.logaddexp(0.0, at)
        slope = (np.exp(at - carried) * weights).sum(axis=1, keepdims=True)
        step = np.where(done, 0.0, ((carried * weights).sum(axis=1, keepdims=True) - safe) / slope)
        u = u - step
        done |= np.abs(step) < 1e-13 * (1.0 + np.abs(u))  # row by row: a pair's number must not depend on others
        if done.all():
            break
    return np.asarray(np.exp(np.log(np.expm1(safe)) - u)[:, 0])
