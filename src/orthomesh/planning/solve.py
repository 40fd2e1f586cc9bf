"""Problem (11) solved: who clusters with whom, at what power, with which densities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..topology.clustering_exact import MOST_BY_SUBSETS, by_covering, by_subsets, lower_bound
from ..topology.clustering_fit import best_fit
from ..topology.clustering_instance import Instance
from ..topology.clustering_merge import merge_rounds
from ..topology.clustering_search import Effort, improve, local_search
from .densities import choose, payload_bits
from .linkage import instance
from .outcome import outcome
from .problem import Members, Problem, Solution, Solver, check

MOST_PAIRS = 5_000_000
"""Pairs that local search and best fit keep at hand; the mergers drop pairs as they go."""

TURNS = 4
"""How often clusters and densities are chosen in turn at most."""


def solve(problem: Problem, solver: Solver = "local-search") -> Solution:
    """U, P and S within (11a)-(11c): fewest clusters, then least mean collision rate, reading R10.

    Powers follow from clusters by Lemma 1 (25). Where densities are free (`problem.demand`), clusters and densities
    are chosen in turn, and the best pair is kept.

    Args:
        problem: devices, links, limits.
        solver: `exact` (few devices), `agnes` (the paper's mergers), `best-fit` decreasing, or `local-search` from
            both.

    Returns:
        The solution, with a lower bound on the number of clusters at its densities.

    Raises:
        ValueError: a problem that is none, budgets that no density meets, or too many devices for `exact`.
    """
    check(problem)
    if problem.demand is None:
        return _at(problem, problem.densities, solver)
    alone = [(i,) for i in range(len(problem.densities))]
    densities = choose(problem, replace(problem.demand, price=0.0), alone, problem.densities)
    best = _at(problem, densities, solver)
    for _ in range(TURNS if problem.demand.price > 0.0 else 0):
        densities = choose(problem, problem.demand, best.clusters, best.densities)
        found = _at(problem, densities, solver)
        if (found.num_clusters, found.mean_rate) >= (best.num_clusters, best.mean_rate):
            break
        best = found
    return best


def cluster(asked: Instance, solver: Solver) -> tuple[Members, ...]:
    """Clusters by the solver of this name.

    Args:
        asked: items, how they join, who may be together.
        solver: as in `solve`; `exact` proves the fewest clusters, and up to 16 items also the least collision rate.

    Returns:
        A partition of the items.

    Raises:
        ValueError: too many items for `exact`, or too many pairs for what is not `agnes`.
    """
    if solver == "agnes":
        return merge_rounds(asked).clusters
    if len(asked.pairs) > MOST_PAIRS:
        raise ValueError(
            f"{len(asked.pairs)} pairs of devices within reach of each other are more than {solver} takes "
            f"({MOST_PAIRS}); use agnes, or plan for fewer devices at a time"
        )
    if solver == "best-fit":
        return best_fit(asked)
    if solver == "local-search":
        return local_search(asked)
    if len(asked.leaves) <= MOST_BY_SUBSETS:
        return by_subsets(asked)
    return improve(asked, by_covering(asked), Effort(depth=0, sweeps=8))


def _at(problem: Problem, densities: Float[np.ndarray, "M G"], solver: Solver) -> Solution:
    """The solution at given densities."""
    if problem.demand is not None:
        problem = replace(problem, payload_bits=payload_bits(problem, problem.demand, densities))
    asked = instance(problem, densities)
    clusters = cluster(asked, solver)
    bound, by = (len(clusters), "exact solution") if solver == "exact" else lower_bound(asked)
    return outcome(problem, clusters, densities, bound, by)
