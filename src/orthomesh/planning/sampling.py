"""How often and with how many ranks each device of a server joins, so that training ends soonest by the clock.

After adaptive federated LoRA with independent sampling (arXiv 2505.23555), of which only descriptions could be read:
sampling probabilities and sketch sizes are chosen together, for least rounds times seconds of a round. The form of
both factors and their minimum are ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..types import Array

HALVINGS = 60


def shares(
    worth: Float[np.ndarray, " N"],
    seconds: Float[np.ndarray, " N"],
    fixed_s: float,
    floor: float,
    ends: tuple[float, float],
) -> Float[np.ndarray, " N"]:
    r"""Expected ranks m_n = q_n k_n that a device sends in a round, its chance to join times the ranks of its sketch.

    .. math::  \min_m \; \Big(\beta + \sum_n w_n \frac{\gamma}{m_n}\Big) \Big(c + \sum_n m_n s_n\Big), \quad
               m_{min} \le m_n \le \gamma

    Rounds grow with the variance that absence and cut ranks add, seconds with what is sent. In log m both factors are
    sums of exponentials, so that their product has one minimum, and where its slope vanishes
    :math:`m_n = \lambda \sqrt{w_n \gamma / s_n}`, cut off at both ends, :math:`\lambda^2` being the ratio of the two.

    Args:
        worth: w_n, squared weight times squared norm of its update, over their sum.
        seconds: s_n >= 0, to send one rank.
        fixed_s: c > 0, of a round whoever joins.
        floor: beta >= 0, rounds that nobody's absence adds.
        ends: m_min > 0 and gamma, the ranks there are.

    Raises:
        ValueError: numbers out of these ranges.

    >>> shares(np.array([0.5, 0.5]), np.array([1.0, 100.0]), 1.0, 1.0, (0.5, 16.0)).round(2).tolist()
    [4.9, 0.5]
    """
    least, most = ends
    if not (0 < least <= most and fixed_s > 0 and floor >= 0 and np.all(worth >= 0) and np.all(seconds >= 0)):
        raise ValueError("shares need 0 < least <= most ranks, c > 0, and beta, w and s that are not negative")
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(worth > 0, np.sqrt(worth * most / seconds), 0.0)  # infinite where sending takes no time

    def cut(scale: float) -> Array:
        return np.clip(scale * slope, least, most)

    def excess(scale: float) -> float:
        m = cut(scale)
        return float(scale**2 * (floor + (worth * most / m).sum()) - fixed_s - (m * seconds).sum())

    high = 1.0
    while excess(high) < 0 and np.any(cut(high) < np.where(worth > 0, most, least)):
        high *= 2.0
    low = 0.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return cut(high)


def split(share: float) -> tuple[float, int]:
    """Chance to join and ranks of the sketch whose product is a share: the fewest ranks, so that many join.

    >>> split(2.5), split(0.25), split(16.0)
    ((0.8333333333333334, 3), (0.25, 1), (1.0, 16))
    """
    ranks = max(1, int(np.ceil(share - 1e-9)))
    return share / ranks, ranks
