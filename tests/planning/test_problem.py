"""Problems are checked before anything is planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orthomesh.planning.problem import Limits, Links, Problem, all_pairs, check, near_pairs, power_limits_w
from orthomesh.wireless.link import Radio


def problem(M: int = 3) -> Problem:
    return Problem(
        radio=Radio(max_power_dbm=30.0),
        limits=Limits(max_collision=0.1),
        sizes=(100, 300),
        densities=np.full((M, 2), 0.25),
        payload_bits=np.full(M, 1e5),
        links=all_pairs(np.full((M, M), 1e-9)),
    )


def test_pairs_of_a_matrix_keep_both_ways_apart() -> None:
    gains = np.array([[9.0, 1.0, 0.0], [2.0, 9.0, 3.0], [0.0, 0.0, 9.0]])
    links = all_pairs(gains)
    assert links.pairs.tolist() == [[0, 1], [1, 2]]  # 0 and 2 hear nothing of each other
    assert links.gains.tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_near_pairs_are_those_of_all_distances() -> None:
    xy = np.random.default_rng(0).uniform(0, 100, (60, 2))
    far = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    assert near_pairs(xy, 20.0).tolist() == [[i, j] for i in range(60) for j in range(i + 1, 60) if far[i, j] <= 20.0]


def test_the_radio_limits_power_unless_devices_have_their_own() -> None:
    assert power_limits_w(problem()).tolist() == [1.0, 1.0, 1.0]
    assert power_limits_w(replace(problem(1), power_limit_w=np.array([0.5]))).tolist() == [0.5]


def test_a_crowd_in_one_place_is_refused_before_its_pairs_are_listed() -> None:
    with pytest.raises(ValueError, match="10000 devices have 49995000 pairs within 10 m, more than 12000000"):
        near_pairs(np.zeros((10_000, 2)), 10.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"densities": np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 1.5]])}, r"density lies in \[0, 1\]; device 2 has 1.5"),
        ({"densities": np.array([[0.1, 0.2], [np.nan, 0.2], [0.1, 0.5]])}, r"density lies in .* device 1 has nan"),
        ({"payload_bits": np.array([1.0, -1.0, 1.0])}, "payload has .* device 1 has -1.0"),
        ({"power_limit_w": np.array([1.0, 1.0, np.nan])}, "power limit .* device 2 has nan"),
        ({"positions_m": np.array([[0.0, 0.0], [0.0, np.nan], [1.0, 1.0]])}, "position is .* device 1 has nan"),
        ({"sizes": (100,)}, "one positive size per group"),
        ({"limits": Limits(max_collision=1.5)}, r"S_max is a share of positions in \[0, 1\], got 1.5"),
        ({"links": Links(pairs=np.array([[1, 1]]), gains=np.ones((1, 2)))}, r"link 0 is between \[1, 1\]"),
        ({"links": Links(pairs=np.array([[0, 7]]), gains=np.ones((1, 2)))}, r"0 <= i < j < 3"),
        ({"links": Links(pairs=np.array([[0, 1]]), gains=-np.ones((1, 2)))}, r"gains between devices \[0, 1\] are"),
        ({"links": Links(pairs=np.array([[0, 1]] * 2), gains=np.ones((2, 2)))}, "0 and 1 have two links"),
    ],
)
def test_bad_problems_get_a_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(replace(problem(), **change))


def test_bad_positions_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"position of device 1 is \[nan, 0.0\]"):
        near_pairs(np.array([[0.0, 0.0], [np.nan, 0.0]]), 10.0)
