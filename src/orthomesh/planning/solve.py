"""Problem (11) solved: who clusters with whom, at what power."""

from __future__ import annotations

import numpy as np

from ..topology.clustering import agnes
from .outcome import cluster_rate, outcome
from .problem import Members, Problem, Solution, Solver, check, power_limits_w
from .reach import power_per_loss_w


def solve(problem: Problem, solver: Solver = "agnes") -> Solution:
    """Clusters, powers and densities within (11a)-(11c): fewest clusters, then least mean collision rate (R10).

    Args:
        problem: devices, links, limits.
        solver: `agnes`, the paper's greedy mergers.

    Returns:
        The solution, with a lower bound on the number of clusters.

    Raises:
        ValueError: a problem that is none, or a solver that is not there yet.
    """
    check(problem)
    if solver != "agnes":
        raise ValueError(f"solver {solver!r} is not there yet; agnes is")
    M = len(problem.densities)
    loss = np.full((M, M), np.inf)
    i, j = problem.links.pairs.T
    with np.errstate(divide="ignore"):
        loss[i, j], loss[j, i] = (1.0 / problem.links.gains).T
    limit_w = power_limits_w(problem)

    def key(members: Members) -> tuple[float, float] | None:
        rate = cluster_rate(problem, problem.densities, members)
        m = np.array(members)
        inside = loss[np.ix_(m, m)]
        np.fill_diagonal(inside, 0.0)
        total = inside.max(axis=1) if problem.limits.cast == "broadcast" else inside.sum(axis=1)
        power = power_per_loss_w(problem, m, np.full(len(m), len(m) - 1)) * total
        fits = rate <= problem.limits.max_collision and bool(np.all(power <= limit_w[m]))
        return (rate, 0.0) if fits else None

    return outcome(problem, agnes(range(M), key), problem.densities, 1, "there is a device")
