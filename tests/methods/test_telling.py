"""What devices tell each other, and when; what is lost, and who comes late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthomesh.adapters.mask import merged
from orthomesh.adapters.projection import projection
from orthomesh.exchange.payload import decode
from orthomesh.exchange.quantise import quantise, tell
from orthomesh.experts.bank import get, places, read
from orthomesh.methods.coding import opened, read_record
from orthomesh.methods.parts import cluster_record, holds, unpack
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.methods.telling import describe, merge, plan, send, travels
from orthomesh.models.base import load_base
from orthomesh.types import Cost, DeviceState, Edge, Envelope, Facts, Message, Phase, Round
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


def test_codes_and_bids_travel_once_and_masks_that_all_found_do_not(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(exchange="every"), small(3), rounds=4)
    values, masks, codes, once = (played.sent(c) for c in ("values", "mask", "codes", "one_off"))
    assert [n > 0 for n in values] == [False, True, True, True]  # a negotiated mask is trained under before it is told
    assert [n > 0 for n in codes] == [False, True, False, False]
    assert masks == [0, 0, 0, 0]
    assert [n > 0 for n in once] == [True, True, False, False]  # bids, then seeds


def test_masks_are_told_where_not_all_found_the_same(play: Play, small: Small) -> None:
    """Device 0 has heard no bids, so it takes what it likes, and the others do not know what that is."""
    played = play(SparseOrthogonal(exchange="every"), small(3), rounds=4, air=Deaf((0,), 0, ("masks",)))
    assert [n > 0 for n in played.sent("mask")] == [False, True, False, False]
    for holder in played.last.values():
        held = {e.owner: e.B for e in played.method.bank(holder).experts}
        assert sorted(held) == [0, 1, 2]
        for k, device in played.last.items():
            assert (held[k] != 0)[~played.masks()[k]].sum() == 0
            missed = np.abs(held[k] - device.own["B"])[~(played.masks().sum(axis=0) > 1)]
            assert missed.max() <= 1e-3 * np.abs(device.own["B"]).max()


def test_masks_found_in_the_last_round_are_told(play: Play, small: Small) -> None:
    assert play(SparseOrthogonal(), small(3), rounds=1).sent("mask")[0] > 0


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


# between clusters


def test_clusters_exchange_when_they_are_due(play: Play, small: Small) -> None:
    apart = SparseOrthogonal(density=1.0, max_collision=0.0, exchange="every", inter_every=2)  # everybody by itself
    played = play(apart, small(2), rounds=5)
    across = [[p.name for p in info.plan.phases if p.name in ("inter", "spread")] for info in played.infos]
    assert [bool(names) for names in across] == [False, True, False, True, True]
    assert [len(owners) for owners in (played.owners(r)[0] for r in range(5))] == [1, 2, 2, 2, 2]
    assert played.sent("values")[2] == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
    loss=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    inter_every=st.integers(1, 3),
)
def test_after_any_losses_one_round_without_brings_every_expert_to_every_device(
    n: int, seed: int, loss: float, inter_every: int, tiny_setup: Setup
) -> None:
    """Any connected graph, any clusters that are cliques of it, values that change between lossy rounds."""
    rng = np.random.default_rng(seed)
    linked = random_links(n, rng)
    c = SparseOrthogonal(masks="independent", inter_every=inter_every)
    devices = hand_made(random_cliques(linked, rng))
    setup = replace(tiny_setup, assignment=("zelk",) * n)
    for index in range(4):
        t = Round(0, index, 4)
        devices = {k: trained(d, index) if rng.random() < 0.7 or index == 0 else d for k, d in devices.items()}
        facts = {
            k: replace(describe(d, t, c), gains={j: float(linked[k, j]) for j in devices if j != k})
            for k, d in devices.items()
        }
        for phase in plan(facts, t, c, setup).phases:
            sent = {(m.src, j): m.payload for d in devices.values() for m in send(d, phase, t, c) for j in m.dsts}
            assert all(linked[link] for link in sent)
            if not t.is_last:
                sent = {link: payload for link, payload in sent.items() if rng.random() >= loss}
            inbox = {k: [Envelope(e, sent.get((e.src, k))) for e in phase.edges if e.dst == k] for k in devices}
            devices = {k: merge(d, inbox[k], phase, t, c) for k, d in devices.items()}
    versions = [(k, int(d.own["version"])) for k, d in devices.items()]
    for d in devices.values():
        assert [tuple(row) for row in holds(d).tolist()] == versions
        records = [read_record(get(d.bank, f"cluster/{k}"), np.array([SIZE]), c) for k in places(d.bank, "cluster")]
        records.append(cluster_record(d, "union"))
        for k, other in devices.items():
            (held,) = [read(record, k) for record in records if k in record.members]
            np.testing.assert_array_equal(held, other.own["B"])  # whole numbers are exact in 16 bit


SIZE = 12


def random_links(n: int, rng: np.random.Generator) -> np.ndarray:
    """Who hears whom: a random tree and some more."""
    linked = np.triu(rng.random((n, n)) < 0.3, 1)
    for k in range(1, n):
        linked[rng.integers(k), k] = True
    return linked | linked.T


def random_cliques(linked: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """A partition in which all members of a cluster hear each other."""
    clusters: list[list[int]] = []
    for k in range(len(linked)):
        fits = [members for members in clusters if linked[k, members].all() and rng.random() < 0.7]
        if fits:
            fits[0].append(k)
        else:
            clusters.append([k])
    return clusters


def hand_made(clusters: list[list[int]]) -> dict[int, DeviceState]:
    """Devices with a cluster and a mask of their own, which collides with nobody's."""
    made = {}
    for members in clusters:
        for k in members:
            made[k] = DeviceState(
                id=k,
                own={
                    "B": np.zeros(SIZE, dtype=np.float32),
                    "mask": np.packbits(np.arange(SIZE) // 2 == k),
                    "masked": np.array(0, dtype=np.uint32),
                    "cluster": np.array(members, dtype=np.uint32),
                    "quota": np.array([2], dtype=np.uint32),
                    "sizes": np.array([SIZE], dtype=np.uint32),
                    "spans": np.array([1], dtype=np.uint32),
                    "seed": np.array(k, dtype=np.uint64),
                    "code": np.zeros(0, dtype=np.float32),
                    "sketch": np.full(3, k, dtype=np.float16),
                },
            )
    return dict(sorted(made.items()))


def trained(device: DeviceState, index: int) -> DeviceState:
    """A device with values nobody has seen yet: far enough from those before to be worth sending."""
    mask = unpack(device.own["mask"], SIZE)
    return replace(device, own={**device.own, "B": np.where(mask, np.float32(10**index + device.id), np.float32(0))})


# changes


DELTAS = SparseOrthogonal(masks="independent", values="int8", deltas="int4", exchange="every")


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), loss=st.sampled_from([0.0, 0.3, 0.7]))
def test_whoever_has_what_a_change_counts_from_reads_what_the_sender_thinks(seed: int, loss: float) -> None:
    """Three devices of one cluster; after the losses a round without, and everybody is near the truth."""
    rng, devices = np.random.default_rng(seed), hand_made([[0, 1, 2]])
    for index in range(5):
        t = Round(0, index, 5)
        devices = {k: grown(d, rng) for k, d in devices.items()}
        have = {k: {int(m): int(v) for m, v in holds(d)} for k, d in devices.items()}
        edges = [
            Edge(i, j, carries=(i,), fresh=not have[j].get(i), held=have[j].get(i, 0))
            for i in devices for j in devices if i != j
        ]  # fmt: skip
        phase = Phase(name="intra", edges=tuple(edges))
        sent = {(m.src, j): m.payload for d in devices.values() for m in send(d, phase, t, DELTAS) for j in m.dsts}
        sent = {link: payload for link, payload in sent.items() if t.is_last or rng.random() >= loss}
        inbox = {k: [Envelope(e, sent.get((e.src, k))) for e in edges if e.dst == k] for k in devices}
        devices = {k: merge(d, inbox[k], phase, t, DELTAS) for k, d in devices.items()}
        for d in devices.values():
            for j in places(d.bank, "member"):
                told, other = get(d.bank, f"member/{j}"), devices[j].own
                if "version" in told and int(told["version"]) == int(other["base"]):
                    np.testing.assert_array_equal(told["values"], other["sent"])
    for d in devices.values():
        for j in set(devices) - {d.id}:
            told, other = get(d.bank, f"member/{j}"), devices[j].own
            now = other["B"][unpack(other["mask"], SIZE)]
            assert int(told["version"]) == int(other["version"]) == 5
            assert np.abs(told["values"] - now).max() < 0.5  # of steps up to four, a fourteenth and what was missed


def grown(device: DeviceState, rng: np.random.Generator) -> DeviceState:
    """A device that has learnt a little more."""
    mask = unpack(device.own["mask"], SIZE)
    more = rng.standard_normal(SIZE).astype(np.float32)
    return replace(device, own={**device.own, "B": device.own["B"] + np.where(mask, more, np.float32(0))})


def test_changes_take_fewer_bytes_and_miss_less(play: Play, small: Small) -> None:
    c = SparseOrthogonal(density=0.25, masks="independent", max_collision=1.0, values="int8", exchange="every")
    whole, changes = play(c, small(2), rounds=3), play(replace(c, deltas="int4"), small(2), rounds=3)
    (first, *rest), (same, *less) = whole.sent("values"), changes.sent("values")
    assert first == same
    assert sum(less) < 0.6 * sum(rest)
    own = changes.last[0].own
    now = own["B"][unpack(own["mask"], own["B"].size)]
    missed, coarse = now - own["sent"], now - tell(now, None, "int4").sent
    assert np.linalg.norm(missed) < 0.8 * np.linalg.norm(coarse)  # at the same four bits
    np.testing.assert_array_equal(get(changes.last[1].bank, "member/0")["values"], own["sent"])


def test_a_change_without_what_it_counts_from_is_as_if_lost() -> None:
    known = {"values": np.ones(4, np.float32), "version": np.array(2), "mask": np.packbits(np.ones(4, bool))}
    parts = {"change": quantise(np.ones(4, np.float32), "int4"), "base": np.array(2), "version": np.array(3)}
    sizes = np.array([4])
    np.testing.assert_allclose(opened(1, parts, known, sizes, DELTAS)["values"], 2.0, rtol=0.01)
    assert opened(1, parts, {**known, "version": np.array(1)}, sizes, DELTAS) == {}
    assert opened(1, parts, {}, sizes, DELTAS) == {}
    with pytest.raises(ValueError, match="device 1 sent values or a mask that cannot be read"):
        opened(1, {**parts, "change": parts["change"][1:]}, known, sizes, DELTAS)


def test_groups_tell_whole_values(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="pool needs deltas: null"):
        SparseOrthogonal(pool=4.0, deltas="int8").build(tiny_setup)


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
        assert set(told) == {"have", "change", "density", "cluster", "masked", "masks"}


def test_task_codes_are_public_only_while_company_is_looked_for(small: Small) -> None:
    c, setup = SparseOrthogonal(pool=4.0), small(1)
    device, _ = c.build(setup).fit(c.build(setup).init(0), Round(0, 0, 2))
    told = describe(device, Round(0, 0, 2), c)
    assert {"code", "error"} <= told.public.keys()
    assert told.columns["codes"] > device.own["code"].nbytes // 2
    found = {"cluster": np.array([0], np.uint32), "masked": np.array(0, np.uint32), "mask": np.zeros(1, np.uint8)}
    settled = replace(device, own={**device.own, **found})
    later = describe(settled, Round(0, 1, 2), c)
    assert {"seed", "cluster"} <= later.public.keys()
    assert not {"code", "error"} & later.public.keys()


# who comes late


@pytest.mark.parametrize("who", [(3,), (0,), (0, 1)])
def test_latecomers_take_what_is_free_and_old_masks_stay(who: tuple[int, ...], play: Play, small: Small) -> None:
    """A cluster of quarters is full: whoever starts afresh in round 2 finds just its own share free."""
    setup, settings = small(4), SparseOrthogonal(density=0.25, max_collision=0.0)
    played = play(settings, setup, rounds=3, fresh={1: who})
    old = [k for k in range(4) if k not in who]
    assert [info.plan.clusters for info in played.infos] == [((0, 1, 2, 3),)] * 3
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


class FadedAir:
    """In round 2 device 0 hears neither 1 nor 2."""

    def announce(self, facts: Mapping[int, Facts], t: Round) -> tuple[dict[int, Facts], Cost]:
        heard, cost = IdealAir().announce(facts, t)
        if t.index != 2:
            return dict(heard), cost
        faded = ({0, 1}, {0, 2})
        gains = {k: {j: 0.0 if {k, j} in faded else 1.0 for j in heard if j != k} for k in heard}
        return {k: replace(f, gains=gains[k]) for k, f in heard.items()}, cost

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        return IdealAir().transmit(outbox, phase, t)


def test_who_starts_again_out_of_reach_of_its_cluster_leaves_it(play: Play, small: Small) -> None:
    """Its old mates forget it, and have its new expert from the cluster it is in now, and all others as before."""
    settings = SparseOrthogonal(density=0.25, exchange="every")
    played = play(settings, small(5), rounds=4, fresh={2: (0,)}, air=FadedAir())
    before, after = played.infos[1].plan.clusters, played.infos[-1].plan.clusters
    (mates,) = ({*members} - {0} for members in before if 0 in members)
    (now,) = (members for members in after if 0 in members)
    assert mates - {*now}
    for k in mates - {*now}:
        assert 0 not in played.last[k].own["cluster"]
    assert len({tuple(map(tuple, holds(d))) for d in played.last.values()}) == 1
    assert played.owners() == [[0, 1, 2, 3, 4]] * 5
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


# what is overheard


def test_overhearing_brings_the_same_for_fewer_bytes(play: Play, small: Small) -> None:
    """Three devices, of which two fit one cluster; over an ideal air all hear each other."""
    c = SparseOrthogonal(density=0.5, max_collision=0.0)
    plain, wide = play(c, small(3)), play(replace(c, overhear=True), small(3))
    assert len(plain.infos[-1].plan.clusters) == 2
    assert plain.owners() == wide.owners() == [[0, 1, 2]] * 3
    for a, b in zip(plain.last.values(), wide.last.values(), strict=True):
        for one, other in zip(plain.method.bank(a).experts, wide.method.bank(b).experts, strict=True):
            np.testing.assert_array_equal(one.B, other.B)
    assert [p.name for p in wide.infos[-1].plan.phases].count("spread") == 0
    assert wide.sent("values")[-1] < 0.85 * plain.sent("values")[-1]  # one of six transmissions of a record is saved


def test_nobody_overhears_in_unicast(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="overhear needs cast: broadcast"):
        SparseOrthogonal(overhear=True, cast="unicast").build(tiny_setup)
