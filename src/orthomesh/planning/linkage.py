"""Problem (11) as a clustering problem: rates of unions, usable links, and the power of a whole cluster."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..adapters.collision_rows import expected, negotiated
from ..topology.clustering_instance import Further, Instance, Members
from .problem import Problem, power_limits_w
from .reach import pair_powers_w, power_per_loss_w, usable

FEW = 256
"""Devices that the bound on the size of a cluster looks at; larger clusters are not bounded."""


def instance(problem: Problem, densities: Float[np.ndarray, "M G"]) -> Instance:
    """What the solvers of `topology` need to know of a problem.

    Broadcast is feasible pair by pair, so that feasible clusters are cliques of usable links. In unicast the powers to
    all members add up and the band is split, which is asked for each cluster; where a lowest code makes the power for
    few receivers larger than its share for many, the larger counts, so that what is allowed for a cluster is allowed
    for every part of it.

    Args:
        problem: devices, links, limits.
        densities: of every device. [M G]
    """
    rows_of = negotiated if problem.limits.masks == "negotiated" else expected
    rows = rows_of(densities, problem.sizes, problem.limits.over)
    works = usable(problem)
    weights = np.asarray(problem.sizes, dtype=np.float64) / sum(problem.sizes)
    return Instance(
        leaves=rows.leaves,
        join=rows.join,
        rate=rows.rate,
        max_rate=problem.limits.max_collision,
        pairs=problem.links.pairs[works],
        power=pair_powers_w(problem)[works].max(axis=1),
        size=densities @ weights,
        further=_unicast(problem) if problem.limits.cast == "unicast" else None,
        least=rows_of(np.sort(densities, axis=0)[:FEW], problem.sizes, problem.limits.over).leaves,
    )


def _unicast(problem: Problem) -> Further:
    """Largest power of any member of a set, or None where one exceeds its limit."""
    every = np.arange(len(problem.densities))
    limit_w = power_limits_w(problem)
    (i, j), gains = problem.links.pairs.T.tolist(), problem.links.gains.tolist()
    loss: list[dict[int, float]] = [{} for _ in every]
    for a, b, (there, back) in zip(i, j, gains, strict=True):
        loss[a][b] = 1.0 / there if there > 0.0 else np.inf
        loss[b][a] = 1.0 / back if back > 0.0 else np.inf
    alone = power_per_loss_w(problem, every, np.ones_like(every))
    factors = {1: alone}

    def needed_w(members: Members) -> float | None:
        n = len(members) - 1
        if n not in factors:
            factors[n] = np.maximum(alone, power_per_loss_w(problem, every, np.full_like(every, n)))
        worst = 0.0
        for a in members:
            factor = float(factors[n][a])
            total = sum(loss[a].get(b, np.inf) for b in members if b != a)
            power = 0.0 if factor == 0.0 else factor * total
            if not power <= limit_w[a]:
                return None
            worst = max(worst, power)
        return worst

    return needed_w
