"""Which limit keeps a cluster from growing, on networks small enough to see it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.planning.binding import bindings
from orthomesh.planning.problem import Limits, Problem, all_pairs
from orthomesh.planning.solve import solve
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import Cast

NEAR, FAR = 1e-6, 1e-30


def problem(gain: np.ndarray, density: list[float], most: float, cast: Cast = "broadcast") -> Problem:
    return Problem(
        radio=Radio(bandwidth_hz=1e6, noise_dbm_per_hz=-90.0, noise_figure_db=0.0, max_power_dbm=33.0),
        limits=Limits(max_collision=most, cast=cast, masks="independent"),
        sizes=(100,),
        densities=np.array(density)[:, None],
        payload_bits=np.full(len(density), 1e6),
        links=all_pairs(gain),
    )


def grid(m: int, *far: tuple[int, int]) -> np.ndarray:
    gain = np.full((m, m), NEAR)
    for i, j in far:
        gain[i, j] = gain[j, i] = FAR
    return gain


def test_collision_binds_where_all_hear_each_other() -> None:
    """Densities of one half collide on a quarter of the positions; at 0.2 none may share."""
    found = bindings(problem(grid(2), [0.5, 0.5], 0.2), [(0,), (1,)])
    assert [(b.limit, b.room) for b in found] == [("collision", 0), ("collision", 0)]
    assert [b.limit for b in bindings(problem(grid(2), [0.5, 0.5], 0.25), [(0,), (1,)])] == ["nothing"] * 2


def test_reach_binds_where_somebody_is_not_heard() -> None:
    """0 and 2 do not hear each other: {0, 1} cannot take 2, though 1 alone could."""
    p = problem(grid(3, (0, 2)), [0.1] * 3, 1.0)
    assert [(b.limit, b.room) for b in bindings(p, [(0, 1), (2,)])] == [("reach", 0), ("reach", 1)]


def test_power_binds_in_unicast_only() -> None:
    """2 W reach one receiver with 1 W at full band; two at half of it need (1/2)(2^2 - 1) = 1.5 W each."""
    for cast, limit in (("unicast", "power"), ("broadcast", "nothing")):
        p = problem(grid(3), [0.1] * 3, 1.0, cast)  # type: ignore[arg-type]
        assert bindings(p, [(0, 1), (2,)])[1].limit == limit


def test_a_device_in_no_link_at_all_is_bound_by_reach() -> None:
    p = problem(np.zeros((2, 2)), [0.1, 0.1], 1.0)
    assert [(b.limit, b.room) for b in bindings(p, [(0,), (1,)])] == [("reach", 0)] * 2


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), m=st.integers(2, 9), unicast=st.booleans())
def test_greedy_mergers_leave_none_that_is_allowed(seed: int, m: int, unicast: bool) -> None:
    rng = np.random.default_rng(seed)
    upper = np.triu(10.0 ** rng.uniform(-7, -5, (m, m)), 1)
    p = problem(upper + upper.T, rng.uniform(0.05, 0.4, m).tolist(), 0.1, "unicast" if unicast else "broadcast")
    assert "nothing" not in {b.limit for b in bindings(p, solve(p, "agnes").clusters)}
