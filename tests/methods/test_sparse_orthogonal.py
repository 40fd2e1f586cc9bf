"""The paper's method on the embedded model: its settings, and who ends with which expert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.projection import projection
from orthomesh.adapters.refinement import refine
from orthomesh.experts.bank import get, places
from orthomesh.methods.coding import record
from orthomesh.methods.parts import cuts_of, unpack
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading, unjoined
from orthomesh.models.base import load_base
from orthomesh.types import Round
from orthomesh.wireless.air import SimulatedAir
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

Play = Callable[..., Any]
Small = Callable[..., Setup]


def sent_by(device: Any) -> np.ndarray:
    """What a device has told of its expansion, off its mask zero."""
    B = np.zeros(device.own["B"].size, dtype=np.float32)
    B[unpack(device.own["mask"], B.size)] = device.own["sent"]
    return B


# who ends with what


def test_every_device_ends_with_every_expert_when_all_links_work(quarters: Any) -> None:
    assert quarters.owners() == [list(range(5))] * 5
    first, *others = (quarters.method.bank(d).experts for d in quarters.last.values())
    for experts in others:
        for one, other in zip(first, experts, strict=True):
            np.testing.assert_array_equal(one.A, other.A)
            np.testing.assert_array_equal(one.B, other.B)
            np.testing.assert_array_equal(one.code, other.code)


def test_an_expert_read_elsewhere_is_what_its_owner_sent(quarters: Any) -> None:
    for k, owner in quarters.last.items():
        sent = sent_by(owner)
        np.testing.assert_array_equal(sent, owner.own["B"].astype(np.float16))  # the last round sends what there is
        for holder in quarters.last.values():
            np.testing.assert_array_equal(quarters.method.bank(holder).experts[k].B, sent)


def test_all_members_hold_the_same_record_of_their_cluster(quarters: Any) -> None:
    for states in quarters.states[1:]:
        records = [record(states[k], quarters.method.bank.keywords["c"]) for k in range(4)]
        for other in records[1:]:
            assert {n: a.tobytes() for n, a in other.items()} == {n: a.tobytes() for n, a in records[0].items()}
        beyond = get(states[4].bank, "cluster/0")  # handed on as it was stored, not joined further
        assert {n: a.tobytes() for n, a in beyond.items()} == {n: a.tobytes() for n, a in records[0].items()}
        assert [places(states[k].bank, "cluster") for k in range(5)] == [(4,)] * 4 + [(0,)]


def test_the_paper_s_side_answers_with_the_mean_through_every_projection(play: Play, small: Small) -> None:
    played = play(paper_reading(), small(3), rounds=1)
    bank = played.method.bank(played.last[0])
    assert (bank.choice, bank.top_k, bank.gated) == ("topk", 16, True)
    mean = np.mean([d.own["B"].astype(np.float16).astype(np.float64) for d in played.last.values()], axis=0)
    for expert in bank.experts:
        np.testing.assert_allclose(expert.B, mean, rtol=1e-3, atol=1e-7)  # eq. (24), stored in 16 bit or better
    assert len({e.A.tobytes() for e in bank.experts}) == 3


@pytest.mark.parametrize(("rule", "whole"), [("stack", True), ("union", False)])
def test_a_stack_keeps_colliding_experts_whole(rule: Any, whole: bool, play: Play, small: Small) -> None:
    settings = SparseOrthogonal(density=0.5, masks="independent", max_collision=1.0, aggregation=rule)
    played = play(settings, small(2))
    masks = played.masks()
    assert (masks[0] & masks[1]).any()
    for holder in played.last.values():
        for expert in played.method.bank(holder).experts:
            owned = sent_by(played.last[expert.owner])
            assert np.array_equal(expert.B, owned) == whole
            assert not expert.B[~masks[expert.owner]].any()


def test_stacked_records_travel_between_clusters(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(density=0.4, max_collision=0.0, aggregation="stack")
    played = play(settings, small(3))
    assert played.infos[0].plan.clusters == ((0, 1), (2,))
    assert played.owners() == [[0, 1, 2]] * 3
    for expert in played.method.bank(played.last[2]).experts:
        np.testing.assert_array_equal(expert.B, sent_by(played.last[expert.owner]))


def test_one_projection_for_all_makes_the_mean_exact(play: Play, small: Small) -> None:
    """Reading R5, FFA with masks: the mean of updates B A is the update of the mean."""
    settings = SparseOrthogonal(seeds="common", aggregation="mean", masks="independent", max_collision=1.0)
    played = play(settings, small(3), rounds=1)
    assert len({int(d.own["seed"]) for d in played.last.values()}) == 1
    experts = played.method.bank(played.last[1]).experts
    assert len({e.A.tobytes() for e in experts}) == len({e.B.tobytes() for e in experts}) == 1
    mean = np.mean([sent_by(d).astype(np.float64) for d in played.last.values()], axis=0)
    np.testing.assert_allclose(experts[0].B, mean, rtol=1e-6, atol=1e-9)
    assert len({m.tobytes() for m in played.masks()}) == 3


@pytest.mark.parametrize("kind", ["elementwise", "outer"])
def test_experts_answer_with_the_projection_they_were_trained_with(kind: Any, play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(refinement=kind), small(2))
    base = load_base(small(2).model)
    for holder in played.last.values():
        for expert in played.method.bank(holder).experts:
            owner = played.last[expert.owner]
            plain = projection(int(owner.own["seed"]), base.layout)
            trained = refine(plain, owner.own["code"], base.layout, cuts_of(base), kind)
            assert not np.array_equal(expert.A, plain)
            np.testing.assert_array_equal(expert.A, trained)  # on both sides from the code in 16 bit


def test_devices_of_a_group_are_one_expert(play: Play, small: Small) -> None:
    setup = small(("zelk", "morv", "zelk"), steps=2)
    played = play(SparseOrthogonal(pool=50.0), setup)
    assert played.owners() == [[0, 1]] * 3
    zelk, morv = played.method.bank(played.last[1]).experts
    codes = [played.last[k].own["code"].astype(np.float32) for k in (0, 2)]
    np.testing.assert_array_equal(zelk.code, np.mean(codes, axis=0))
    np.testing.assert_array_equal(morv.code, played.last[1].own["code"].astype(np.float32))
    mean = (sent_by(played.last[0]) + sent_by(played.last[2])) / np.float32(2)
    np.testing.assert_array_equal(zelk.B, mean)


def test_the_oracle_asks_what_was_trained(quarters: Any, small: Small) -> None:
    base, device = load_base(small(5).model), quarters.last[3]
    (expert,) = unjoined(device, SparseOrthogonal(density=0.25), small(5)).experts
    assert expert.owner == 3
    np.testing.assert_array_equal(expert.A, projection(int(device.own["seed"]), base.layout))
    np.testing.assert_array_equal(expert.B, device.own["B"])


def test_the_oracle_answers_with_the_refined_projection(small: Small) -> None:
    base, c = load_base(small(1).model), SparseOrthogonal(refinement="elementwise")
    method = c.build(small(1))
    device, _ = method.fit(method.init(0), Round(0, 0, 1))
    (expert,) = unjoined(device, c, small(1)).experts
    plain = projection(int(device.own["seed"]), base.layout)
    np.testing.assert_array_equal(
        expert.A, refine(plain, device.own["code"], base.layout, cuts_of(base), "elementwise")
    )


# edge


def test_when_no_link_works_everybody_is_alone_and_the_run_ends(play: Play, small: Small) -> None:
    radio = Radio(max_power_dbm=-120.0)
    setup = replace(small(3), radio=radio)
    air = SimulatedAir(channel=Channel(), radio=radio, seed=0, num_devices=3)
    for settings in (SparseOrthogonal(), paper_reading()):
        played = play(settings, setup, air=air)
        assert played.infos[-1].plan.clusters == ((0,), (1,), (2,))
        assert played.owners() == [[0], [1], [2]]
        assert played.sent("values") == [0, 0]
        assert [info.links for info in played.infos] == [(), ()]  # nothing was even tried


def test_one_device_learns_alone(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(), small(1))
    assert played.owners() == [[0]]
    assert played.sent("values") == [0, 0]
    expert = played.method.bank(played.last[0]).experts[0]
    np.testing.assert_array_equal(expert.B, played.last[0].own["B"].astype(np.float16))


def test_dense_devices_share_nothing_and_still_trade_experts(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(density=1.0), small(2))
    assert played.infos[0].plan.clusters == ((0,), (1,))
    assert played.owners() == [[0, 1], [0, 1]]
    assert {p.name for p in played.infos[-1].plan.phases} == {"intra", "inter"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"density": 0.0},
        {"density": 1.1},
        {"max_collision": -0.1},
        {"warmup_steps": 0},
        {"masks": "none"},
        {"score": "largest"},
        {"level": "block"},
        {"allocation": "svd"},
        {"temperature": 0.0},
        {"max_cost": 0.0},
        {"cost_per_parameter": 0.0},
        {"seeds": "none"},
        {"refinement": "gate"},
        {"aggregation": "sum"},
        {"pool": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SparseOrthogonal(**wrong)


@pytest.mark.parametrize("wrong", [{"seeds": "common"}, {"masks": "independent"}])
def test_pooling_needs_projections_that_tell_groups_apart(wrong: dict[str, Any], tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="pool needs seeds: own and masks: negotiated"):
        SparseOrthogonal(pool=4.0, **wrong).build(tiny_setup)


def test_limits_that_leave_nothing_are_refused_before_anything_is_trained(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="the compute limit leaves 4 entries of B for 21 layers"):
        SparseOrthogonal(max_cost=4.0, cost_per_parameter=0.2).build(tiny_setup)  # 4 x 4 / (0.2 x 20)
    with pytest.raises(ValueError, match="link_gain_db: a link of -170"):
        SparseOrthogonal(link_gain_db=-170.0).build(tiny_setup)


def test_a_warm_up_longer_than_a_round_is_refused(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"warmup_steps 5 exceed the 4 steps of a round \(train.steps\)"):
        SparseOrthogonal(warmup_steps=5).build(tiny_setup)
