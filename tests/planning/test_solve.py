"""Solvers of problem (11)."""

from __future__ import annotations

import numpy as np

from orthomesh.planning.problem import Limits, Problem, all_pairs
from orthomesh.planning.solve import solve
from orthomesh.wireless.link import Radio


def test_quarters_fill_clusters_of_four() -> None:
    problem = Problem(
        radio=Radio(),
        limits=Limits(max_collision=0.0),
        sizes=(10,),
        densities=np.full((6, 1), 0.25),
        payload_bits=np.full(6, 1e5),
        links=all_pairs(np.full((6, 6), 1e-9)),
    )
    assert sorted(map(len, solve(problem, "agnes").clusters)) == [2, 4]
