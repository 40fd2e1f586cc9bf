"""How many entries of B each layer may train, eqs. (17) and (20)-(22): entropy of spectra, and a budget shared by it.

Reading R4. Singular values come from `models.covariance`; what is shared here is a number of entries, so that the
budget is met to the entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Rule = Literal["entropy", "softmax"]

TEMPERATURE = 2.0
"""Of `entropy`, in nats: densities go with the square root of the effective rank exp(H).

Entropies of W0 C~ lie two to three nats apart, so that the densest layer has two to four times the density of the
sparsest. At 1 it has five to seventeen times, and a cluster holds as many devices without a collision as its densest
layer does.
"""


def spectral_entropy(singular_values: Float[np.ndarray, " R"]) -> float:
    r"""Entropy of a spectrum in nats, eq. (21).

    .. math::  H = -\sum_j p_j \ln p_j, \quad p_j = \sigma_j / \sum_z \sigma_z

    Args:
        singular_values: of W0 C~, (20), in any order; zeros contribute nothing. [R]

    Returns:
        In [0, ln R]: 0 for a single direction, ln R for equal values; exp(H) is the effective rank.

    Raises:
        ValueError: none, all of them zero, or one that is negative or not finite.

    >>> round(spectral_entropy(np.array([3.0, 3.0, 0.0])) / math.log(2), 12)
    1.0
    """
    if not np.all(np.isfinite(singular_values)) or np.any(singular_values < 0.0):
        raise ValueError("a spectral entropy needs finite singular values >= 0; one is negative or not finite")
    if not np.any(singular_values > 0.0):
        raise ValueError(f"a spectral entropy needs a singular value above zero, got {singular_values.size} of zero")
    share = singular_values / singular_values.max()  # first, so that no sum overflows
    p = share / share.sum()
    p = p[p > 0.0]
    return max(0.0, -math.fsum(p * np.log(p)))


def entry_budget(
    sizes: Sequence[int],
    density: float,
    compute_entries: float | None,
    radio_bits: float | None,
    bits_per_entry: int,
) -> int:
    r"""Entries of all B a device may train and send, Q_budget of (22): the least of what three limits leave.

    .. math::  Q_{budget} = \lfloor \min(s \sum_l d_l r, \; c_{max} B / (\epsilon N), \; \Gamma R / b) \rfloor

    Args:
        sizes: d_l r of every layer. [L]
        density: s, share of all entries wanted at most, in (0, 1]; taken as the decimal it is written as.
        compute_entries: what computing allows, (7)(11c), from `wireless.compute.parameter_budget`; None for no limit.
        radio_bits: what the air allows, (11a): the deadline Gamma in s times the rate of the worst link in bit/s,
            from `wireless.link`, less what else must travel in that time; None for no limit.
        bits_per_entry: b, bits of one value on the air.

    Returns:
        Entries, at least one for every layer, at most sum d_l r.

    Raises:
        ValueError: a limit that leaves a layer without an entry, by name; an argument out of range.

    >>> entry_budget((100, 300), 0.125, None, 480.0, 16)
    30
    """
    _check_sizes(sizes)
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], the share of B that is active; got {density}")
    if bits_per_entry < 1:
        raise ValueError(f"a value takes at least one bit on the air, got {bits_per_entry}")
    limits = {"density": Fraction(str(density)) * sum(sizes)}
    for name, limit, unit in (("compute", compute_entries, 1), ("radio", radio_bits, bits_per_entry)):
        if limit is not None and not limit >= 0.0:
            raise ValueError(f"the {name} limit is >= 0, or None for no limit; got {limit}")
        if limit is not None and math.isfinite(limit):
            limits[name] = Fraction(limit) / unit
    binding = min(limits, key=lambda name: limits[name])
    budget = math.floor(limits[binding])
    if budget < len(sizes):
        raise ValueError(
            f"the {binding} limit leaves {budget} entries of B for {len(sizes)} layers, and each needs one; "
            f"a higher {_REMEDY[binding]} or fewer layers would do"
        )
    return budget


_REMEDY = {"density": "density", "compute": "cost limit", "radio": "deadline or rate"}


def allocate(
    entropies: Float[np.ndarray, " L"],
    sizes: Sequence[int],
    budget: int,
    rule: Rule = "entropy",
    temperature: float | None = None,
) -> Int[np.ndarray, " L"]:
    r"""Active entries of every layer's B under a budget, eq. (22); divided by d_l r they are its densities.

    .. math::  q_l = n_l \min(1, \lambda e^{H_l / \tau}), \quad n_l = d_l r_l, \quad \sum_l q_l = Q_{budget}

    Reading R4. The paper writes max for min (a density above 1), gives layers of different size the same share, and
    loses what full layers leave. `entropy` weighs by size, so that equal entropies mean equal densities; shares what
    full layers leave among the others in the same proportions (water-filling); rounds by largest remainders, ties to
    the earlier layer; and gives no layer less than one entry. `softmax` is (22) to the letter but for min:
    q_l = min(Q softmax(H)_l, n_l), rounded down, at least one. It leaves part of the budget where layers are full, and
    exceeds it by at most the single entries of layers whose share is below one.

    Args:
        entropies: H of every layer, in nats. [L]
        sizes: n_l = d_l r of every layer. [L]
        budget: Q_budget, entries of all layers together, from `entry_budget`.
        rule: ours, or the paper's.
        temperature: tau in nats; lower spreads densities further. None: `TEMPERATURE` for `entropy`, 1 for
            `softmax`, which has none.

    Returns:
        q_l in [1, n_l]. [L] With `entropy` they add up to min(budget, sum n_l) exactly.

    Raises:
        ValueError: a budget below one entry a layer, a temperature below 1e-6, entropies that are negative,
            not finite or not one for each size, a size below 1.

    >>> allocate(np.array([1.0, 1.0, 1.0]), (100, 200, 300), 60).tolist()
    [10, 20, 30]
    >>> allocate(np.log([4.0, 1.0]), (100, 100), 60, temperature=1.0).tolist()
    [48, 12]
    """
    tau = {"entropy": TEMPERATURE, "softmax": 1.0}[rule] if temperature is None else temperature
    _check(entropies, sizes, budget, tau)
    n, heat = np.array(sizes, dtype=np.int64), (entropies - entropies.max()) / tau  # no exponent above zero
    if rule == "softmax":
        share = np.exp(heat) / math.fsum(np.exp(heat))
        return np.asarray(np.clip(np.floor(budget * share).astype(np.int64), 1, n))
    return _round(_fill(heat, n, budget), n, budget) if budget < n.sum() else n


def _fill(heat: Float[np.ndarray, " L"], n: Int[np.ndarray, " L"], budget: int) -> Float[np.ndarray, " L"]:
    """n exp(heat + level), kept within [1, n], at the level where they add up to a budget below sum n."""
    floor = -np.log(n)  # logarithm of the density of a single entry
    starts, ends = floor - heat, -heat  # levels at which a layer leaves its single entry, and at which it is full

    def total(level: float) -> float:
        return math.fsum(n * np.exp(np.clip(heat + level, floor, 0.0)))

    level = max((k for k in (*starts, *ends) if total(k) <= budget), default=float(starts.min()))
    free = (starts <= level) & (level < ends)  # who shares what the others leave
    x = np.where(ends <= level, n, 1).astype(np.float64)
    weight = n[free] * np.exp(heat[free] + level)
    x[free] = (budget - x[~free].sum()) * weight / math.fsum(weight)
    return x


def _round(x: Float[np.ndarray, " L"], n: Int[np.ndarray, " L"], total: int) -> Int[np.ndarray, " L"]:
    """Whole numbers in [1, n] next to x that add up to `total`, by largest remainders."""
    x = np.clip(np.round(x, 9), 1, n)  # so that equal remainders are equal, and the earlier layer wins
    q = np.floor(x).astype(np.int64)
    order = np.argsort(q - x, kind="stable")  # full layers have no remainder and come last
    q[order[: total - int(q.sum())]] += 1
    return np.asarray(q)


def _check(entropies: Float[np.ndarray, " L"], sizes: Sequence[int], budget: int, temperature: float) -> None:
    _check_sizes(sizes)
    if len(entropies) != len(sizes):
        raise ValueError(f"densities need one entropy for each layer, got {len(entropies)} for {len(sizes)} layers")
    if not np.all(np.isfinite(entropies)) or np.any(entropies < 0.0):
        raise ValueError("an entropy is a finite number >= 0; one is negative or not finite")
    if not (temperature >= 1e-6 and math.isfinite(temperature)):
        raise ValueError(
            f"the temperature of the densities must be a finite number of at least 1e-6, got {temperature}"
        )
    if budget < len(sizes):
        raise ValueError(
            f"a budget of {budget} entries of B cannot give each of {len(sizes)} layers one; "
            f"at least {len(sizes)} are needed"
        )


def _check_sizes(sizes: Sequence[int]) -> None:
    if not sizes or min(sizes) < 1:
        raise ValueError(f"densities need at least one layer and layers of at least one entry, got sizes {list(sizes)}")
