"""LoRI: a dense run, a global mask, a sparse run from scratch with the same A; adapters kept apart and merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.methods.lori import Lori, dense_steps, masked
from orthomesh.methods.parts import unpack
from orthomesh.methods.setup import Setup, device_rows
from orthomesh.models import finetune
from orthomesh.models.base import load_base
from orthomesh.rng import stream
from orthomesh.types import Edge, Envelope, Phase, Round
from orthomesh.wireless.air import IdealAir

# example


def test_steps_of_the_dense_run_on_paper() -> None:
    assert dense_steps(0.5, 24, Round(0, 3, 5)) == 60
    assert dense_steps(0.01, 2, Round(0, 0, 1)) == 1
    assert dense_steps(0.99, 2, Round(0, 0, 1)) == 1
    with pytest.raises(ValueError, match="at least two steps"):
        dense_steps(0.5, 1, Round(0, 0, 1))


def test_the_mask_is_global_and_b_starts_anew() -> None:
    own = {"B": np.array([0.1, -3.0, 2.0, 0.0, -0.5, 0.2, 0.3, 0.4, 1.0, -0.6], dtype=np.float32)}
    own |= {"seed": np.array(7, dtype=np.uint64), "moment/step": np.array(3.0, dtype=np.float32)}
    after = masked(own, 0.2, Round(0, 4, 9))
    assert unpack(after["mask"], 10).tolist() == [False, True, True] + [False] * 7
    assert not after["B"].any()
    assert int(after["seed"]) == 7
    assert int(after["masked"]) == 4
    assert "moment/step" not in after


# reference


def test_the_two_runs_are_those_of_a_device_alone(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Three steps dense and three sparse over two rounds of three, against the step loop called by hand."""
    setup = small(1, steps=3)
    base, rows = load_base(setup.model), device_rows(small(1, steps=3), 0)
    state = play(Lori(), setup, rounds=2).last[0]
    A, size = projection(int(state.own["seed"]), base.layout), base.layout.num_expansion
    zero = np.zeros(size, dtype=np.float32)
    dense, _ = finetune.fit(base, rows, finetune.Factors(A=A, B=zero), setup.train, stream(0, "batches", 0, 0, 1))
    keep = np.sort(np.argsort(-np.abs(dense.B), kind="stable")[: round(0.1 * size)])
    np.testing.assert_array_equal(np.flatnonzero(unpack(state.own["mask"], size)), keep)
    active = np.zeros(size, dtype=bool)
    active[keep] = True
    begun = finetune.Factors(A=A, B=zero, active=active)
    sparse, _ = finetune.fit(base, rows, begun, setup.train, stream(0, "batches", 1, 0, 0))
    np.testing.assert_array_equal(state.own["B"], sparse.B)


def test_runs_may_change_over_inside_a_round(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """One round of four steps at a share of a quarter: one dense, three sparse."""
    played = play(Lori(dense_share=0.25), small(2, steps=4), rounds=1)
    learnt = played.infos[0].learnt[0]
    size = played.last[0].own["B"].size
    assert (learnt.steps, learnt.trained) == (4, round(0.1 * size))
    assert played.infos[0].plan.phases[0].edges


@pytest.mark.parametrize("merging", ["cat", "linear"])
def test_merged_updates_against_numpy(merging: Any, small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout = load_base(setup.model).layout
    played = play(Lori(topology="radio", merging=merging), setup, rounds=2)
    state, w = played.last[1], 1.2 / 3
    bs = {k: s.own["B"] if k == 1 else s.own["B"].astype(np.float16) for k, s in played.last.items()}
    a = {k: matrices_a(projection(int(s.own["seed"]), layout), layout)[0] for k, s in played.last.items()}
    b = {k: matrices_b(B.astype(np.float32), layout)[0] for k, B in bs.items()}
    if merging == "cat":
        expected = sum(w * b[k] @ a[k] for k in range(3))
    else:
        expected = sum(np.sqrt(w) * b[k] for k in range(3)) @ sum(np.sqrt(w) * a[k] for k in range(3))
    bank = played.method.bank(state)
    made = sum(matrices_b(e.B, layout)[0] @ matrices_a(e.A, layout)[0] for e in bank.experts)
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert [e.owner for e in bank.experts] == ([0, 1, 2] if merging == "cat" else [1])
    assert (bank.choice, bank.top_k) == (("topk", 0) if merging == "cat" else ("only", 0))


# law


def test_masks_travel_once_to_each_neighbour(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Lori(topology="radio", dense_share=0.3), small(2), rounds=4)
    size, masks = played.last[0].own["B"].size, played.sent("mask")
    assert masks[0] == 0
    assert sum(m > 0 for m in masks) == 1
    assert 0 < sum(masks) <= 2 * (size // 8 + 60)
    values = [v for v in played.sent("values") if v]
    assert len(values) >= 2
    assert max(values) <= 2 * (2 * round(0.1 * size) + 60)


def test_a_device_that_starts_again_tells_its_new_mask(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Lori(topology="radio", dense_share=0.3), small(2), rounds=4, fresh={3: (1,)})
    told = played.last[0].bank["member/1/mask"]
    np.testing.assert_array_equal(told, played.last[1].own["mask"])
    assert int(played.last[0].bank["member/1/masked"]) == int(played.last[1].own["masked"]) == 3


@pytest.mark.parametrize("steps", [1, 4])
def test_a_device_that_missed_the_dense_run_makes_up_for_it(
    steps: int, small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """Without a dense step all of B would be equal, and the mask its first entries."""
    setup = small(2, steps=steps)
    played = play(Lori(topology="radio", dense_share=0.3), setup, rounds=4, fresh={3: (1,)})
    late, layout = played.last[1].own, load_base(setup.model).layout
    mask = unpack(late["mask"], late["B"].size)
    ends = np.cumsum(layout.expansion_sizes)
    assert mask[ends[len(ends) // 2] :].any()
    assert late["B"].any() == (steps > 1)
    assert played.infos[-1].learnt[1].steps == steps


# edge


def inbox_of(parts: dict[str, np.ndarray]) -> list[Envelope]:
    frame = encode([Section("values", name, array) for name, array in parts.items()])
    return [Envelope(Edge(1, 0), frame.payload)]


def test_values_without_a_mask_are_of_no_use_and_wrong_ones_are_refused(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(Lori(topology="radio"), small(2), rounds=2)
    method, t, phase = played.method, Round(0, 1, 2), Phase(name="gossip", edges=())
    sender = played.last[1].own
    good = decode(method.send(played.last[1], Phase(name="gossip", edges=(Edge(1, 0, fresh=True),)), t)[0].payload)
    alone = replace(played.last[0], bank={})
    assert method.merge(alone, inbox_of({"values": good["values"]}), phase, t).bank == {}
    assert set(method.merge(alone, inbox_of(good), phase, t).bank) == {f"member/1/{name}" for name in good}
    with pytest.raises(ValueError, match="do not fit its mask"):
        method.merge(alone, inbox_of({**good, "values": good["values"][:-1]}), phase, t)
    with pytest.raises(ValueError, match="not finite"):
        method.merge(alone, inbox_of({**good, "values": np.full_like(good["values"], np.nan)}), phase, t)
    assert unpack(sender["mask"], sender["B"].size).sum() == good["values"].size


def test_a_topology_that_needs_relays_is_refused(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"ring may need relays.* take one of random, matching, radio"):
        Lori(topology="ring").build(tiny_setup)


def test_before_anything_came_it_answers_by_itself(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Lori(), small(1), rounds=2, air=IdealAir())
    (expert,) = played.method.bank(played.last[0]).experts
    np.testing.assert_array_equal(expert.B, played.last[0].own["B"])
