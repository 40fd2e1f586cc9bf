"""How often devices of a group train the same position of the expansion, IV-B.

The rate is the tail of a Poisson-binomial count: the chance that at least two of independent masks hold a
position. Three numbers per layer are enough to know it for a group, and two groups join without cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Triple(NamedTuple):
    """Per layer, the chance that none, exactly one, at least two of a group hold a position. [L] each."""

    none: Float[np.ndarray, " L"]
    one: Float[np.ndarray, " L"]
    several: Float[np.ndarray, " L"]


def triple(density: Float[np.ndarray, " L"]) -> Triple:
    """One device as a group: (1 - s, s, 0).

    Args:
        density: share of positions it holds, per layer, [L], in [0, 1].

    Raises:
        ValueError: a density outside [0, 1].

    >>> [x.tolist() for x in triple(np.array([0.25]))]
    [[0.75], [0.25], [0.0]]
    """
    _check(density)
    return Triple(1.0 - density, density, np.zeros_like(density))


def join(a: Triple, b: Triple) -> Triple:
    """Two groups with no device in common as one; associative, commutative, positive terms only.

    p0 = a0 b0,  p1 = a0 b1 + a1 b0,  p2 = a2 + (a0 + a1) b2 + a1 b1

    The last number never falls: a larger group collides at least as often.

    Args:
        a: one group.
        b: the other.

    Returns:
        Their union.
    """
    return Triple(
        a.none * b.none,
        a.none * b.one + a.one * b.none,
        a.several + (a.none + a.one) * b.several + a.one * b.one,
    )


def collision_rate(densities: Float[np.ndarray, "M L"]) -> Float[np.ndarray, " L"]:
    r"""Chance that at least two independent masks hold a position, per layer, eq. (19).

    .. math::  S = 1 - \prod_j (1 - s_j) - \sum_j s_j \prod_{z \ne j} (1 - s_z)

    Computed by joining triples in order of id: as written, the formula cancels (relative error 1e-5 at
    densities of 1e-6), and a form in logarithms breaks at density 1.

    Args:
        densities: share of positions each device holds, [M L], in [0, 1]; M may be 0.

    Returns:
        Rate per layer, [L], in [0, 1].

    Raises:
        ValueError: a density outside [0, 1].

    Readings: masks drawn independently of each other. Masks that were negotiated (R3): `negotiated_rate`;
    masks that can be looked at: `empirical_rate`.

    >>> collision_rate(np.array([[0.5], [0.5], [0.5]])).tolist()
    [0.5]
    """
    _check(densities)
    ones, zeros = np.ones(densities.shape[1]), np.zeros(densities.shape[1])
    rates = reduce(join, (triple(row) for row in densities), Triple(ones, zeros, zeros)).several
    return np.asarray(np.minimum(rates, 1.0))  # positive terms may round to one unit in the last place above 1


def mean_rate(rates: Float[np.ndarray, " L"], sizes: Sequence[int]) -> float:
    """One number for all layers: rates weighted by the positions of each, sum_l d_l r_l S_l / sum_l d_l r_l.

    Args:
        rates: rate per layer, [L].
        sizes: d_l r_l, positions of each layer's expansion.

    Returns:
        The share of all positions, in [0, 1] where the rates are.

    Raises:
        ValueError: not one positive size per layer.

    >>> mean_rate(np.array([0.5, 0.0]), [100, 300])
    0.125
    """
    if len(sizes) != len(rates) or not sizes or min(sizes) < 1:
        raise ValueError(f"a mean rate needs one positive size for each of {len(rates)} layers, got {list(sizes)}")
    return math.fsum(float(rate) * size for rate, size in zip(rates, sizes, strict=True)) / sum(sizes)


def empirical_rate(masks: Bool[np.ndarray, "M n"]) -> float:
    """Share of positions that at least two of the masks at hand hold; knows nothing of independence.

    Args:
        masks: one row per device, [M n].

    Returns:
        In [0, 1].

    Raises:
        ValueError: no position.

    >>> empirical_rate(np.array([[True, True, False, False], [False, True, False, True]]))
    0.25
    """
    if masks.shape[1] == 0:
        raise ValueError("a collision rate needs at least one position, the masks have none")
    return float(np.mean(np.count_nonzero(masks, axis=0) >= 2))


def negotiated_rate(densities: Float[np.ndarray, "M L"]) -> Float[np.ndarray, " L"]:
    """What masks agreed upon cannot avoid, per layer: min(1, max(0, sum_i s_i - 1)), reading R3.

    While the densities add up to at most 1 there is room for everybody. Beyond the first full cover every
    further position must land on a taken one, whoever it belongs to: sum_i s_i - 1 of the layer. Spread one
    to a place, they collide on that share; piled up, on fewer places but with more devices on each.

    Args:
        densities: share of positions each device holds, [M L], in [0, 1].

    Returns:
        Rate per layer, [L], in [0, 1].

    Raises:
        ValueError: a density outside [0, 1].

    >>> negotiated_rate(np.array([[0.5, 0.5], [0.5, 0.75]])).tolist()
    [0.0, 0.25]
    """
    _check(densities)
    # rounded once: eight times 1/8, or ten times 0.1, is exactly full
    return np.array([min(1.0, max(0.0, math.fsum(layer) - 1.0)) for layer in densities.T])


def _check(densities: Float[np.ndarray, "*shape"]) -> None:
    if not np.all((densities >= 0.0) & (densities <= 1.0)):
        raise ValueError("a density is a share of positions in [0, 1]; one is outside or not a number")
