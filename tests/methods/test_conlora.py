"""ConLoRA: B after a round is W B, with the Metropolis weights of the graph that was drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.methods.conlora import ConLora
from orthomesh.methods.setup import Setup
from orthomesh.topology.mixing import matrix, metropolis
from orthomesh.types import Round

# reference


@pytest.mark.parametrize("num_neighbours", [1, 2])
def test_a_round_is_w_times_b(num_neighbours: int, small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, settings = small(4), ConLora(num_neighbours=num_neighbours)
    method = settings.build(setup)
    alone = np.stack([method.fit(method.init(k), Round(0, 0, 1))[0].own["B"] for k in range(4)])
    played = play(settings, setup, rounds=1)
    (phase,) = played.infos[0].plan.phases
    pairs = sorted({(min(e.src, e.dst), max(e.src, e.dst)) for e in phase.edges})
    w = matrix(metropolis(pairs, range(4)), range(4))
    assert max(sum(k in p for p in pairs) for k in range(4)) <= num_neighbours
    mixed = np.stack([played.last[k].own["B"] for k in range(4)])
    np.testing.assert_allclose(mixed, w @ alone, atol=1e-5)
    assert len({played.last[k].own["A"].tobytes() for k in range(4)}) == 1


# edge


def test_all_start_from_one_projection_that_never_travels(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(ConLora(), small(3), rounds=2)
    first, last = played.states[0][0].own["A"], played.last[2].own["A"]
    np.testing.assert_array_equal(first, last)
    assert played.sent("one_off") == [0, 0]


def test_a_negative_number_of_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="num_neighbours"):
        ConLora(num_neighbours=-1)
