"""What devices tell each other, and when; what is lost, and who comes late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.mask import merged
from orthomesh.adapters.projection import projection
from orthomesh.exchange.payload import decode
from orthomesh.experts.bank import places
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.methods.telling import describe, travels
from orthomesh.models.base import load_base
from orthomesh.types import Round
from orthomesh.wireless.air import IdealAir

Play = Callable[..., Any]
Small = Callable[..., Setup]


@dataclass(frozen=True)
class Deaf:
    """An ideal air over which nothing of some phase and round reaches some devices."""

    devices: tuple[int, ...]
    index: int
    phases: tuple[str, ...] = ("masks", "intra", "inter", "spread")

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        if t.index != self.index or phase.name not in self.phases:
            return sent, cost
        return [replace(m, dsts=tuple(j for j in m.dsts if j not in self.devices)) for m in sent], cost


# what travels, and when


def test_nobody_sends_a_projection(quarters: Any, tiny_setup: Setup) -> None:
    layout = load_base(tiny_setup.model).layout
    for device in quarters.last.values():
        assert layout.num_projection not in {a.size for a in (*device.own.values(), *device.bank.values())}
    expert = quarters.method.bank(quarters.last[0]).experts[3]
    np.testing.assert_array_equal(expert.A, projection(int(quarters.last[3].own["seed"]), layout))


def test_masks_codes_and_bids_travel_once(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(exchange="every"), small(3), rounds=4)
    values, masks, codes, once = (played.sent(c) for c in ("values", "mask", "codes", "one_off"))
    assert [n > 0 for n in values] == [False, True, True, True]  # a negotiated mask is trained under before it is told
    assert [n > 0 for n in masks] == [n > 0 for n in codes] == [False, True, False, False]
    assert [n > 0 for n in once] == [True, True, False, False]  # bids, then seeds


def test_independent_masks_are_told_in_the_first_round(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(masks="independent", exchange="every", max_collision=1.0)
    played = play(settings, small(2), rounds=3)
    assert [n > 0 for n in played.sent("values")] == [True, True, True]
    assert [n > 0 for n in played.sent("mask")] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "rounds_with_values"),
    [(0.0, [False, True, True, True]), (1e6, [False, True, False, True])],
)
def test_values_travel_when_they_have_changed_enough_and_in_the_end(
    change: float, rounds_with_values: list[bool], play: Play, small: Small
) -> None:
    played = play(SparseOrthogonal(change=change), small(2), rounds=4)
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


def test_a_lost_message_is_made_good_in_the_next_round(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(change=1e6), small(3), rounds=4, air=Deaf((0,), 1))
    assert [played.owners(r)[0] for r in range(4)] == [[0], [0], [0, 1, 2], [0, 1, 2]]


def test_what_a_message_holds(play: Play, small: Small) -> None:
    setup = small(2)
    method = SparseOrthogonal().build(setup)
    played = play(SparseOrthogonal(), setup, rounds=1)
    (intra,) = [p for p in played.infos[0].plan.phases if p.name == "intra"]
    (message,) = method.send(played.last[0], intra, Round(0, 0, 1))
    assert {n: a.dtype.name for n, a in decode(message.payload).items()} == {
        **{"values": "float16", "version": "uint32", "mask": "uint8", "seed": "uint64"},
        **{"code": "float16", "sketch": "float16"},
    }


# what everybody is told


def test_facts_hold_densities_by_group_of_matrices(play: Play, small: Small) -> None:
    for level, groups in (("matrix", 21), ("layer", 3), ("global", 1)):
        c = SparseOrthogonal(level=level, allocation="entropy")  # type: ignore[arg-type]
        device = play(c, small(1), rounds=1).last[0]
        told = describe(device, Round(0, 0, 2), c).public
        own = device.own
        share = merged(own["quota"], own["spans"]) / merged(own["sizes"], own["spans"])
        np.testing.assert_array_equal(told["density"], share.astype(np.float32))
        assert told["density"].shape == (groups,)
        assert set(told) == {"have", "change", "density", "cluster", "masked"}


def test_task_codes_are_public_only_while_company_is_looked_for(small: Small) -> None:
    c, setup = SparseOrthogonal(pool=4.0), small(1)
    device, _ = c.build(setup).fit(c.build(setup).init(0), Round(0, 0, 2))
    told = describe(device, Round(0, 0, 2), c)
    assert {"code", "error"} <= told.public.keys()
    assert told.columns["codes"] > device.own["code"].nbytes // 2
    settled = replace(device, own={**device.own, "cluster": np.array([0], np.uint32), "masked": np.array(0, np.uint32)})
    later = describe(settled, Round(0, 1, 2), c)
    assert {"seed", "cluster"} <= later.public.keys()
    assert not {"code", "error"} & later.public.keys()


# who comes late


@pytest.mark.parametrize("who", [(3,), (0,), (0, 1)])
def test_latecomers_take_what_is_free_and_old_masks_stay(who: tuple[int, ...], play: Play, small: Small) -> None:
    """A cluster of quarters is full: whoever starts afresh in round 2 finds just its own share free."""
    setup, settings = small(4), SparseOrthogonal(density=0.25, max_collision=0.0)
    played = play(settings, setup, rounds=4, fresh={1: who})
    old = [k for k in range(4) if k not in who]
    assert [info.plan.clusters for info in played.infos] == [((0, 1, 2, 3),)] * 4
    np.testing.assert_array_equal(played.masks()[old], played.masks(0)[old])
    assert (played.masks().sum(axis=0) == 1).all()
    once = [n > 0 for n in played.sent("one_off")]
    assert once[:2] == [True, True]
    assert played.owners() == [[0, 1, 2, 3]] * 4
    for holder in played.last.values():
        for expert in played.method.bank(holder).experts:
            np.testing.assert_array_equal(expert.B != 0, played.last[expert.owner].own["B"] != 0)


def test_a_cluster_that_has_grown_replaces_what_others_knew_of_it(play: Play, small: Small) -> None:
    """Device 0 comes into a cluster that went by the name of 1, and another cluster knows it by that name."""
    settings = SparseOrthogonal(density=0.4, max_collision=0.0, exchange="every")
    played = play(settings, small(4), rounds=4, fresh={2: (0,)}, absent=(0,))
    assert [i.plan.clusters for i in played.infos] == [((1, 2), (3,))] * 2 + [((0, 3), (1, 2))] * 2
    assert [places(played.states[r][1].bank, "cluster") for r in (1, 3)] == [(3,), (0,)]
    assert played.owners() == [[0, 1, 2, 3]] * 4
    for holder in played.last.values():
        for expert in played.method.bank(holder).experts:
            np.testing.assert_array_equal(expert.B, played.last[expert.owner].own["B"].astype(np.float16))


def test_a_latecomer_that_does_not_hear_what_is_taken_takes_what_it_likes(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(density=0.25, max_collision=0.0)
    heard = play(settings, small(4), rounds=2, fresh={1: (3,)})
    deaf = play(settings, small(4), rounds=2, fresh={1: (3,)}, air=Deaf((3,), 1, ("masks",)))
    free = ~heard.masks()[:3].any(axis=0)
    np.testing.assert_array_equal(heard.masks()[3], free)
    assert (deaf.masks()[3] & ~free).any()
    np.testing.assert_array_equal(deaf.masks()[:3], heard.masks()[:3])
    assert deaf.masks()[3].sum() == free.sum()


def test_a_latecomer_with_an_independent_mask_needs_no_words(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(masks="independent", max_collision=1.0, exchange="every")
    played = play(settings, small(3), rounds=3, fresh={1: (1,)})
    assert played.infos[1].plan.phases[0].name == "masks"
    assert played.owners(1) == [[0, 1, 2]] * 3
    held = {e.owner: e.B for e in played.method.bank(played.last[2]).experts}
    np.testing.assert_array_equal(held[1], 0 + held[1] * (played.masks()[1]))
    assert np.array_equal(played.masks()[[0, 2]], played.masks(0)[[0, 2]])
