"""S of problem (11) given U and P: densities that are worth most to each device and collide least in its cluster.

With powers and clusters fixed, the deadline is a budget of entries, and the collision rate (19) is linear in the
densities of each single device: dS_l / ds_il is the chance P1 that exactly one of the others holds a position. So one
device after the other gets what is best for it (block-coordinate ascent; no promise of a global optimum): the most of
the groups with the highest H_l - mu P1_l. At price mu = 0 and temperature tau this is (22).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from jaxtyping import Float

from ..adapters.collision import Triple, join, triple
from .problem import Demand, Members, Problem


def fill(
    score: Float[np.ndarray, " G"], sizes: Sequence[int], entries: float, temperature: float
) -> Float[np.ndarray, " G"]:
    r"""Densities of one device that are worth most under its budget, eq. (22) with `min`.

    .. math::  \max_s \sum_l n_l (h_l s_l - \tau s_l (\ln s_l - 1)), \quad \sum_l n_l s_l = Q, \quad 1/n_l \le s_l \le 1

    solved by s_l = min(1, exp((h_l - level) / tau)), and at temperature 0 by filling groups in order of h (a
    fractional knapsack).

    Args:
        score: h, in nats. [G]
        sizes: n_l, positions of every group. [G]
        entries: Q, at least one for every group; more than there are fill everything.
        temperature: tau, nats, >= 0.

    Returns:
        In (0, 1]; sum_l n_l s_l = min(Q, sum n_l). [G]

    >>> fill(np.array([2.0, 1.0]), (100, 100), 120.0, 0.0).tolist()
    [1.0, 0.2]
    """
    n = np.asarray(sizes, dtype=np.float64)
    if entries >= n.sum():
        return np.ones_like(n)
    if temperature == 0.0:
        s = 1.0 / n
        left = entries - len(n)
        for g in np.argsort(-score, kind="stable").tolist():
            more = min(left, n[g] - 1.0)
            s[g] = (1.0 + more) / n[g]
            left -= more
        return s
    heat = (score - score.max()) / temperature
    low, high = -float(np.log(n.max())) - 1.0, float(-heat.min()) + 1.0  # everything at one entry, everything full
    for _ in range(200):
        level = (low + high) / 2.0
        s = np.clip(np.exp(np.minimum(heat + level, 0.0)), 1.0 / n, 1.0)
        low, high = (level, high) if n @ s < entries else (low, level)
    return s


def one_other(problem: Problem, densities: Float[np.ndarray, "n G"]) -> Float[np.ndarray, "n G"]:
    """How much every member's density adds to the collisions of its cluster, dS_l / ds_il. [n G]

    Independent masks: the chance that exactly one of the others holds a position. Negotiated: 1 where the others'
    densities leave no room, else 0.
    """
    if problem.limits.masks == "negotiated":
        return np.asarray((densities.sum(axis=0) > 1.0 + 1e-12).astype(np.float64) * np.ones_like(densities))
    nobody = Triple(np.ones(densities.shape[1]), *np.zeros((2, densities.shape[1])))
    others = [
        reduce(join, (triple(row) for j, row in enumerate(densities) if j != i), nobody).one
        for i in range(len(densities))
    ]
    return np.stack(others)


def choose(
    problem: Problem, demand: Demand, clusters: Sequence[Members], start: Float[np.ndarray, "M G"], sweeps: int = 20
) -> Float[np.ndarray, "M G"]:
    """Densities of all devices in their clusters, one device after the other until nothing changes.

    Args:
        problem: sizes and masks.
        demand: importance, budgets, temperature, price of a collision.
        clusters: a partition.
        start: densities to begin from. [M G]
        sweeps: how often all devices of a cluster are gone through at most.

    Returns:
        Every device uses its budget in full. [M G]
    """
    chosen = start.copy()
    for members in clusters:
        for _ in range(sweeps if demand.price > 0.0 else 1):
            before = chosen[list(members)]
            for k, i in enumerate(members):
                score = demand.importance[i]
                if demand.price > 0.0:
                    score = score - demand.price * one_other(problem, chosen[list(members)])[k]
                chosen[i] = fill(score, problem.sizes, float(demand.entries[i]), demand.temperature)
            if np.abs(chosen[list(members)] - before).max() < 1e-9:
                break
    return chosen


def payload_bits(problem: Problem, demand: Demand, densities: Float[np.ndarray, "M G"]) -> Float[np.ndarray, " M"]:
    """Bits of every device's payload at its densities, overhead + bits per entry times entries. [M]"""
    entries = densities @ np.asarray(problem.sizes, dtype=np.float64)
    return np.asarray(demand.overhead_bits + demand.entry_bits * entries)
