"""Large obstacles: whether a pair sees each other, and log-normal shadowing that moves with its two ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ..rng import normals, uniforms

Pairs = tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]


def in_sight(seed: int, pairs: Pairs, probability: Float[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
    """Whether each pair sees each other: one keyed draw a pair for the whole run, the same both ways.

    The draw stays while devices walk, so that a pair changes its state only where its distance moves the
    probability across it.

    Args:
        seed: seed of the run.
        pairs: lower and higher id of each pair.
        probability: of sight at its present distance.

    Returns:
        [P].
    """
    return np.asarray(uniforms(seed, "sight", *pairs) < probability)


def shadow(
    seed: int, pairs: Pairs, places_m: Sequence[Float[np.ndarray, "M 2"]], distance_m: float
) -> Float[np.ndarray, " P"]:
    """Shadowing of each pair in units of its deviation, after its ends have walked.

    Both ends move: z_t = c z_(t-1) + sqrt(1 - c^2) w_t with c = exp(-(D_i + D_j) / d_corr), D the way each
    device has gone in the round. A standard normal number in every round.

    Args:
        seed: seed of the run.
        pairs: lower and higher id of each pair.
        places_m: where everybody was in rounds 0..t; one entry where nobody moves.
        distance_m: decorrelation distance d_corr, m.

    Returns:
        [P].
    """
    low, high = pairs
    z = normals(seed, "shadowing", 0, low, high)
    for t in range(1, len(places_m)):
        way_m = np.hypot(*(places_m[t] - places_m[t - 1]).T)
        c = np.exp(-(way_m[low] + way_m[high]) / distance_m)
        z = c * z + np.sqrt(1.0 - c * c) * normals(seed, "shadowing", t, low, high)
    return z


def lognormal_mean(sigma_db: float) -> float:
    """Mean of the power factor 10^(X/10) for X normal with a deviation in dB, exp((sigma ln 10 / 10)^2 / 2).

    Shadowing with median 1 raises the mean power, 5.46 times at 8 dB; dividing by this takes it out again.

    >>> round(lognormal_mean(8.0), 2)
    5.46
    """
    return math.exp((sigma_db * math.log(10.0) / 10.0) ** 2 / 2.0)
