"""The paper's method on the embedded model: masks, clusters, what travels when, and who ends with which expert."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.collision import collision_rate, empirical_rate
from orthomesh.adapters.lowrank import slices
from orthomesh.adapters.projection import projection
from orthomesh.engines.inprocess import InProcess
from orthomesh.exchange.payload import decode
from orthomesh.experts.bank import get, places, store
from orthomesh.methods.parts import cluster_record, unpack
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading, travels
from orthomesh.models.base import load_base
from orthomesh.round import run_round
from orthomesh.types import Air, DeviceState, Method, Round, RoundInfo
from orthomesh.wireless.air import IdealAir, SimulatedAir
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

TASKS = ("zelk", "morv", "quib", "vask", "glim")


@dataclass(frozen=True)
class Played:
    method: Method
    states: list[dict[int, DeviceState]]
    infos: list[RoundInfo]

    @property
    def last(self) -> dict[int, DeviceState]:
        return self.states[-1]

    def sent(self, column: str) -> list[int]:
        """Bytes of a column by round, all devices together."""
        return [sum(s.bytes_sent.get(column, 0) for s in i.cost.by_device.values()) for i in self.infos]  # type: ignore

    def owners(self) -> list[list[int]]:
        return [[e.owner for e in self.method.bank(d).experts] for d in self.last.values()]


def play(settings: SparseOrthogonal, setup: Setup, rounds: int = 2, air: Air | None = None) -> Played:
    played = Played(settings.build(setup), [], [])
    engine = InProcess(setup.num_devices)
    devices = {k: played.method.init(k) for k in engine.hosted}
    for index in range(rounds):
        t = Round(setup.seed, index, rounds)
        devices, info = run_round(t, devices, played.method, air or IdealAir(), engine)
        played.states.append(devices)
        played.infos.append(info)
    return played


def with_devices(setup: Setup, num: int, **train: Any) -> Setup:
    steps = {"steps": 2, "batch_size": 2, **train}
    return replace(setup, assignment=TASKS[:num], train=replace(setup.train, **steps))


def masks_of(devices: dict[int, DeviceState]) -> np.ndarray:
    return np.stack([unpack(d.own["mask"], d.own["B"].size) for d in devices.values()])


@pytest.fixture(scope="module")
def quarters(tiny_setup: Setup) -> Played:
    """Five devices of density 1/4: a cluster of four that just fit, and one alone."""
    return play(SparseOrthogonal(density=0.25, max_collision=0.0), with_devices(tiny_setup, 5), rounds=3)


# masks and clusters


def test_negotiated_masks_of_a_cluster_are_disjoint(quarters: Played) -> None:
    assert quarters.infos[0].plan.clusters == ((0, 1, 2, 3), (4,))
    masks = masks_of(quarters.last)
    assert (masks[:4].sum(axis=0) == 1).all()  # four quarters, every position taken once
    assert [d.own["cluster"].tolist() for d in quarters.last.values()] == [[0, 1, 2, 3]] * 4 + [[4]]


def test_every_layer_has_its_quota_and_b_is_zero_off_the_mask(quarters: Played) -> None:
    for device in quarters.last.values():
        mask = unpack(device.own["mask"], device.own["B"].size)
        cuts = slices(device.own["sizes"].tolist())
        assert [int(mask[c].sum()) for c in cuts] == device.own["quota"].tolist()
        assert [q / n for q, n in zip(device.own["quota"], device.own["sizes"], strict=True)] == [0.25] * len(cuts)
        assert not device.own["B"][~mask].any()
        assert device.own["moment/exp_avg"].shape == (int(mask.sum()),)


def test_masks_stay_as_they_were_found(quarters: Played) -> None:
    for states in quarters.states[1:]:
        np.testing.assert_array_equal(masks_of(states), masks_of(quarters.states[0]))
    assert len({info.plan.clusters for info in quarters.infos}) == 1


def test_independent_masks_collide_as_often_as_equation_19_says(tiny_setup: Setup) -> None:
    settings = SparseOrthogonal(density=0.25, masks="independent", score="random", max_collision=1.0)
    masks = masks_of(play(settings, with_devices(tiny_setup, 3), rounds=1).last)
    expected = float(collision_rate(np.full((3, 1), 0.25))[0])
    assert expected == pytest.approx(10 / 64)
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / masks.shape[1])
    assert abs(empirical_rate(masks) - expected) < five_sigma


def test_the_mask_keeps_the_largest_entries_of_the_warm_up(tiny_setup: Setup) -> None:
    setup = replace(with_devices(tiny_setup, 1), assignment=("zelk",))
    method = SparseOrthogonal(masks="independent", density=0.1).build(setup)
    after, _ = method.fit(method.init(0), Round(0, 0, 2))
    dense, _ = SparseOrthogonal(density=0.1).build(setup).fit(method.init(0), Round(0, 0, 2))
    mask = unpack(after.own["mask"], after.own["B"].size)
    for cut in slices(after.own["sizes"].tolist()):
        size = np.abs(dense.own["B"][cut])
        assert size[mask[cut]].min() >= size[~mask[cut]].max()


def test_a_random_mask_ignores_magnitudes_and_is_the_device_s_own(tiny_setup: Setup) -> None:
    settings = SparseOrthogonal(masks="independent", score="random", max_collision=1.0)
    one, two = (play(settings, with_devices(tiny_setup, 2, learning_rate=r), rounds=1) for r in (1e-3, 1e-2))
    np.testing.assert_array_equal(masks_of(one.last), masks_of(two.last))
    assert (masks_of(one.last)[0] != masks_of(one.last)[1]).any()


def test_a_short_warm_up_trains_the_rest_of_the_round_under_the_mask(tiny_setup: Setup) -> None:
    setup = replace(with_devices(tiny_setup, 1, steps=4), assignment=("zelk",))
    method = SparseOrthogonal(masks="independent", warmup_steps=1).build(setup)
    after, learnt = method.fit(method.init(0), Round(0, 0, 2))
    assert learnt.steps == 4
    assert learnt.trained == int(after.own["quota"].sum())
    assert float(after.own["moment/step"]) == 4.0


# what travels, and when


def test_nobody_sends_a_projection(quarters: Played, tiny_setup: Setup) -> None:
    layout = load_base(tiny_setup.model).layout
    for device in quarters.last.values():
        assert layout.num_projection not in {a.size for a in (*device.own.values(), *device.bank.values())}
    expert = quarters.method.bank(quarters.last[0]).experts[3]
    np.testing.assert_array_equal(expert.A, projection(int(quarters.last[3].own["seed"]), layout))


def test_masks_codes_and_bids_travel_once(tiny_setup: Setup) -> None:
    played = play(SparseOrthogonal(exchange="every"), with_devices(tiny_setup, 3), rounds=4)
    values, masks, codes, once = (played.sent(c) for c in ("values", "mask", "codes", "one_off"))
    assert [n > 0 for n in values] == [False, True, True, True]  # a negotiated mask is trained under before it is told
    assert [n > 0 for n in masks] == [n > 0 for n in codes] == [False, True, False, False]
    assert [n > 0 for n in once] == [True, True, False, False]  # bids, then seeds


def test_independent_masks_are_told_in_the_first_round(tiny_setup: Setup) -> None:
    settings = SparseOrthogonal(masks="independent", exchange="every", max_collision=1.0)
    played = play(settings, with_devices(tiny_setup, 2), rounds=3)
    assert [n > 0 for n in played.sent("values")] == [True, True, True]
    assert [n > 0 for n in played.sent("mask")] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "rounds_with_values"),
    [(0.0, [False, True, True, True]), (1e6, [False, True, False, True])],
)
def test_values_travel_when_they_have_changed_enough_and_in_the_end(
    change: float, rounds_with_values: list[bool], tiny_setup: Setup
) -> None:
    played = play(SparseOrthogonal(change=change), with_devices(tiny_setup, 2), rounds=4)
    assert [n > 0 for n in played.sent("values")] == rounds_with_values


def test_worth_sending_by_hand() -> None:
    early, last = Round(0, 1, 3), Round(0, 2, 3)
    changed, every = SparseOrthogonal(change=0.5), SparseOrthogonal(exchange="every")
    assert [travels(c, early, changed) for c in (-1.0, 0.0, 0.4, 0.5, float("inf"))] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert [travels(c, last, changed) for c in (-1.0, 0.0, 0.4)] == [False, False, True]
    assert [travels(c, early, every) for c in (-1.0, 0.0, 0.4)] == [False, True, True]


def test_a_lost_message_is_made_good_in_the_next_round(tiny_setup: Setup) -> None:
    @dataclass(frozen=True)
    class Once:
        """Nothing of the second round reaches device 0."""

        def announce(self, facts, t):  # type: ignore[no-untyped-def]
            return IdealAir().announce(facts, t)

        def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
            sent, cost = IdealAir().transmit(outbox, phase, t)
            return [replace(m, dsts=tuple(j for j in m.dsts if j or t.index != 1)) for m in sent], cost

    played = play(SparseOrthogonal(change=1e6), with_devices(tiny_setup, 3), rounds=4, air=Once())
    held = [[e.owner for e in played.method.bank(states[0]).experts] for states in played.states]
    assert held == [[0], [0], [0, 1, 2], [0, 1, 2]]


# who ends with what


def test_every_device_ends_with_every_expert_when_all_links_work(quarters: Played) -> None:
    assert quarters.owners() == [list(range(5))] * 5
    first, *others = (quarters.method.bank(d).experts for d in quarters.last.values())
    for experts in others:
        for one, other in zip(first, experts, strict=True):
            np.testing.assert_array_equal(one.A, other.A)
            np.testing.assert_array_equal(one.B, other.B)
            np.testing.assert_array_equal(one.code, other.code)


def test_an_expert_read_elsewhere_is_what_its_owner_sent(quarters: Played) -> None:
    for k, owner in quarters.last.items():
        sent = np.zeros(owner.own["B"].size, dtype=np.float32)
        sent[unpack(owner.own["mask"], sent.size)] = owner.own["sent"]
        np.testing.assert_array_equal(sent, owner.own["B"].astype(np.float16))  # the last round sends what there is
        for holder in quarters.last.values():
            np.testing.assert_array_equal(quarters.method.bank(holder).experts[k].B, sent)


def test_all_members_hold_the_same_record_of_their_cluster(quarters: Played) -> None:
    for states in quarters.states[1:]:
        records = [store(cluster_record(states[k], "union")) for k in range(4)]
        for record in records[1:]:
            assert {n: a.tobytes() for n, a in record.items()} == {n: a.tobytes() for n, a in records[0].items()}
        beyond = get(states[4].bank, "cluster/0")  # handed on as it was stored, not joined further
        assert {n: a.tobytes() for n, a in beyond.items()} == {n: a.tobytes() for n, a in records[0].items()}
        assert [places(states[k].bank, "cluster") for k in range(5)] == [(4,)] * 4 + [(0,)]


def test_the_paper_s_side_answers_with_the_mean_through_every_projection(tiny_setup: Setup) -> None:
    played = play(paper_reading(), with_devices(tiny_setup, 3), rounds=1)
    bank = played.method.bank(played.last[0])
    assert (bank.choice, bank.top_k, bank.gated) == ("topk", 16, True)
    mean = np.mean([d.own["B"].astype(np.float16).astype(np.float64) for d in played.last.values()], axis=0)
    for expert in bank.experts:
        np.testing.assert_allclose(expert.B, mean, rtol=1e-3, atol=1e-7)  # eq. (24), stored in 16 bit or better
    assert len({e.A.tobytes() for e in bank.experts}) == 3


# edge


def test_when_no_link_works_everybody_is_alone_and_the_run_ends(tiny_setup: Setup) -> None:
    radio = Radio(max_power_dbm=-120.0)
    setup = replace(with_devices(tiny_setup, 3), radio=radio)
    air = SimulatedAir(channel=Channel(), radio=radio, seed=0, num_devices=3)
    for settings in (SparseOrthogonal(), paper_reading()):
        played = play(settings, setup, air=air)
        assert played.infos[-1].plan.clusters == ((0,), (1,), (2,))
        assert played.owners() == [[0], [1], [2]]
        assert played.sent("values") == [0, 0]
        assert [info.links for info in played.infos] == [(), ()]  # nothing was even tried


def test_one_device_learns_alone(tiny_setup: Setup) -> None:
    played = play(SparseOrthogonal(), with_devices(tiny_setup, 1))
    assert played.owners() == [[0]]
    assert played.sent("values") == [0, 0]
    expert = played.method.bank(played.last[0]).experts[0]
    np.testing.assert_array_equal(expert.B, played.last[0].own["B"].astype(np.float16))


def test_dense_devices_share_nothing_and_still_trade_experts(tiny_setup: Setup) -> None:
    played = play(SparseOrthogonal(density=1.0), with_devices(tiny_setup, 2))
    assert played.infos[0].plan.clusters == ((0,), (1,))
    assert played.owners() == [[0, 1], [0, 1]]
    assert {p.name for p in played.infos[-1].plan.phases} == {"intra", "inter"}


def test_what_a_message_holds(tiny_setup: Setup) -> None:
    setup = with_devices(tiny_setup, 2)
    method = SparseOrthogonal().build(setup)
    played = play(SparseOrthogonal(), setup, rounds=1)
    (intra,) = [p for p in played.infos[0].plan.phases if p.name == "intra"]
    (message,) = method.send(played.last[0], intra, Round(0, 0, 1))
    assert {n: a.dtype.name for n, a in decode(message.payload).items()} == {
        **{"values": "float16", "version": "uint32", "mask": "uint8", "code": "float16", "seed": "uint64"}
    }


@pytest.mark.parametrize(
    "wrong", [{"density": 0.0}, {"density": 1.1}, {"max_collision": -0.1}, {"warmup_steps": 0}, {"masks": "none"}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SparseOrthogonal(**wrong)
