"""How a cluster finds its masks: bids, what is taken, and messages that are no such thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.mask import bid, negotiate
from orthomesh.exchange.entropy import encode_levels
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.experts.bank import get, places, put
from orthomesh.methods import agreement, learning
from orthomesh.methods.agreement import agree, offer
from orthomesh.methods.coding import code_bid
from orthomesh.methods.parts import shape, unpack
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.types import Array, DeviceState, Edge, Envelope, Phase, Round

C = SparseOrthogonal()
T = Round(seed=0, index=3, total=9)
NO_BID = encode_levels(np.zeros(4, np.uint8), 8)


def device(k: int, B: list[float], quota: int = 2, **own: Array) -> DeviceState:
    """One matrix."""
    parts = {
        "B": np.array(B, np.float32),
        "seed": np.array(100 + k, np.uint64),
        "code": np.array([k], np.float16),
        "quota": np.array([quota], np.uint32),
        "sizes": np.array([len(B)], np.uint32),
        "spans": np.array([1], np.uint32),
        "moment/exp_avg": np.arange(len(B), dtype=np.float32),
    }
    return DeviceState(id=k, own={**parts, **own})


def settled(k: int, mask: list[int], cluster: list[int]) -> DeviceState:
    bits = np.packbits(np.array(mask, bool))
    own = {"mask": bits, "masked": np.array(0, np.uint32), "cluster": np.array(cluster, np.uint32)}
    return device(k, [float(m) for m in mask], sum(mask), **own)


def deliver(states: list[DeviceState], phase: Phase, lost: tuple[tuple[int, int], ...] = ()) -> list[DeviceState]:
    """All of a phase but what is lost."""
    payload: dict[tuple[int, int], bytes] = {}
    for state in states:
        for edge in (e for e in phase.edges if e.src == state.id):
            if sections := offer(state, edge.carries, C):
                payload[edge.src, edge.dst] = encode(sections).payload
    after = []
    for state in states:
        edges = [e for e in phase.edges if e.dst == state.id]
        inbox = [Envelope(e, None if (e.src, e.dst) in lost else payload.get((e.src, e.dst))) for e in edges]
        after.append(agree(state, inbox, phase, T, C))
    return after


def mask_of(state: DeviceState) -> list[int]:
    return unpack(state.own["mask"], state.own["B"].size).astype(int).tolist()


NEW = Phase(name="masks", edges=(Edge(0, 1, carries=(0,)), Edge(1, 0, carries=(1,))))
LATE = Phase(name="masks", edges=(Edge(0, 7, carries=(0, 3)), Edge(7, 0, carries=(7,)), Edge(7, 3, carries=(7,))))


def test_two_that_want_different_things_get_them() -> None:
    one, two = deliver([device(0, [9, -8, 1, 2]), device(1, [1, 2, 7, 9])], NEW)
    assert (mask_of(one), mask_of(two)) == ([1, 1, 0, 0], [0, 0, 1, 1])
    assert one.own["B"].tolist() == [9, -8, 0, 0]
    assert one.own["moment/exp_avg"].tolist() == [0, 1]
    assert [s.own["cluster"].tolist() for s in (one, two)] == [[0, 1], [0, 1]]
    assert int(two.own["masked"]) == 3
    assert unpack(get(one.bank, "member/1")["mask"], 4).tolist() == [
        False,
        False,
        True,
        True,
    ]  # known before it is told


def test_all_find_what_negotiation_finds() -> None:
    rng = np.random.default_rng(0)
    states = [device(k, rng.standard_normal(12).tolist(), 4) for k in range(3)]
    edges = tuple(Edge(i, j, carries=(i,)) for i in range(3) for j in range(3) if i != j)
    after = deliver(states, Phase(name="masks", edges=edges))
    bids = {s.id: bid(np.abs(s.own["B"]), *shape(s.own)) for s in states}
    expected = negotiate(bids, (12,), {k: np.array([4]) for k in bids})
    assert [mask_of(s) for s in after] == [expected[k].astype(int).tolist() for k in range(3)]


def test_a_bid_that_is_lost_leaves_a_device_to_itself() -> None:
    same = [device(0, [9, 8, 1, 2]), device(1, [9, 8, 1, 2])]
    one, two = deliver(same, NEW, lost=((0, 1), (1, 0)))
    assert mask_of(one) == mask_of(two) == [1, 1, 0, 0]  # each what it likes best: they collide
    assert [s.own["cluster"].tolist() for s in (one, two)] == [[0, 1], [0, 1]]
    assert places(one.bank, "member") == ()


def test_who_comes_late_takes_what_is_free() -> None:
    """Of six positions 0 and 3 hold four; 7 likes those best."""
    old = [settled(0, [1, 1, 0, 0, 0, 0], [0, 3]), settled(3, [0, 0, 1, 0, 1, 0], [0, 3])]
    old[0] = replace(old[0], bank=put({}, "member/3", {"mask": old[1].own["mask"]}))
    zero, three, seven = deliver([*old, device(7, [6, 5, 4, 1, 3, 2])], LATE)
    assert mask_of(seven) == [0, 0, 0, 1, 0, 1]
    assert (mask_of(zero), mask_of(three)) == ([1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0])
    assert [s.own["cluster"].tolist() for s in (zero, three, seven)] == [[0, 3, 7]] * 3
    assert get(zero.bank, "member/7")["mask"].tobytes() == seven.own["mask"].tobytes()


def test_a_latecomer_that_hears_nothing_takes_what_it_likes() -> None:
    old = [settled(0, [1, 1, 0, 0, 0, 0], [0, 3]), settled(3, [0, 0, 1, 0, 1, 0], [0, 3])]
    *_, seven = deliver([*old, device(7, [6, 5, 4, 1, 3, 2])], LATE, lost=((0, 7),))
    assert mask_of(seven) == [1, 1, 0, 0, 0, 0]


def test_whoever_starts_afresh_is_no_longer_believed() -> None:
    """Device 3 is back without a memory; what 0 knew of it is forgotten, and its old positions are free."""
    known = {"mask": np.packbits([0, 0, 1, 1]), "version": np.array(2, np.uint32)}
    zero = replace(settled(0, [1, 1, 0, 0], [0, 3]), bank=put({}, "member/3", known))
    phase = Phase(name="masks", edges=(Edge(0, 3, carries=(0,)), Edge(3, 0, carries=(3,))))
    zero, three = deliver([zero, device(3, [1, 2, 3, 4])], phase)
    assert mask_of(three) == [0, 0, 1, 1]
    assert get(zero.bank, "member/3").keys() == {"mask"}


def test_who_has_left_a_cluster_is_forgotten_and_who_is_away_is_not() -> None:
    """Of the cluster (0, 3, 4, 5) device 3 is in another one now, and 4 is not there this round."""
    known = {f"member/{k}/mask": np.packbits([0, 0, 1, 1]) for k in (3, 4, 5)}
    zero = replace(settled(0, [1, 1, 0, 0], [0, 3, 4, 5]), bank=known)
    after = agree(zero, (), Phase(name="masks", edges=(), clusters=((0, 5), (3, 6))), T, C)
    assert after.own["cluster"].tolist() == [0, 4, 5]
    assert places(after.bank, "member") == (4, 5)
    phase = Phase(
        name="masks", edges=(Edge(0, 7, carries=(0, 5)), Edge(7, 0, carries=(7,))), clusters=((0, 5, 7), (3,))
    )
    joined, _ = deliver([zero, device(7, [1, 1, 9, 9])], phase)
    assert joined.own["cluster"].tolist() == [0, 4, 5, 7]
    assert places(joined.bank, "member") == (4, 5, 7)


def test_the_first_of_a_group_bids_and_the_others_adopt() -> None:
    units = ((0, (0, 2)), (1, (1,)))
    edges = tuple(Edge(i, j, carries=unit) for i, unit in units for j in range(3) if j != i)
    phase = Phase(name="masks", edges=edges)
    states = [device(0, [9, 8, 1, 2]), device(1, [9, 7, 6, 1]), device(2, [1, 1, 1, 9])]
    zero, one, two = deliver(states, phase)
    assert mask_of(zero) == mask_of(two)
    assert not np.any(np.array(mask_of(zero)) & np.array(mask_of(one)))
    assert [int(s.own["seed"]) for s in (zero, one, two)] == [100, 101, 100]
    assert not two.own["B"].any()
    assert "moment/exp_avg" not in two.own
    assert [s.own["group"].tolist() for s in (zero, two)] == [[0, 2]] * 2
    assert "group" not in one.own
    assert set(decode(encode(offer(states[0], (0, 2), C)).payload)) == {"bid", "quota", "seed"}
    assert set(decode(encode(offer(states[1], (1,), C)).payload)) == {"bid", "quota"}
    alone = deliver(states, phase, lost=((0, 2),))[2]
    assert int(alone.own["seed"]) == 102
    assert alone.own["B"].any()


def test_others_go_on_undisturbed() -> None:
    bystander = settled(5, [1, 0, 0, 0], [5])
    assert agree(bystander, (), NEW, T, C) is bystander


def test_independent_masks_are_not_talked_about() -> None:
    c = SparseOrthogonal(masks="independent")
    own = device(0, [9, 8, 1, 2], mask=np.packbits([1, 1, 0, 0]), masked=np.array(3, np.uint32))
    assert offer(own, (0,), c) == []
    after = agree(own, [Envelope(NEW.edges[1], None)], NEW, T, c)
    assert after.own["cluster"].tolist() == [0, 1]
    assert offer(after, (0, 1), c) == []


@pytest.mark.parametrize(
    "parts",
    [
        {"values": np.zeros(3, np.float16)},
        {"bid": NO_BID},
        {"bid": NO_BID, "quota": np.zeros(2, np.uint32)},
        {"taken": np.zeros(2, np.uint8)},
    ],
)
def test_what_is_neither_a_bid_nor_what_is_taken_is_refused_by_sender(parts: dict[str, Any]) -> None:
    payload = encode([Section("one_off", name, a) for name, a in parts.items()]).payload
    with pytest.raises(ValueError, match="device 1 sent"):
        agree(device(0, [9, 8, 1, 2]), [Envelope(NEW.edges[1], payload)], NEW, T, C)
    long = encode(
        [Section("one_off", "bid", np.zeros(9, np.uint8)), Section("one_off", "quota", np.ones(1, np.uint32))]
    )
    with pytest.raises(ValueError, match="a code of 9 bytes is no bid for 4 positions"):
        agree(device(0, [9, 8, 1, 2]), [Envelope(NEW.edges[1], long.payload)], NEW, T, C)
    with pytest.raises(ValueError, match="a bid for 4 positions takes 2 bytes, got 9"):
        agree(device(0, [9, 8, 1, 2]), [Envelope(NEW.edges[1], long.payload)], NEW, T, replace(C, mask_code="raw"))


def test_the_bid_of_a_group_needs_a_seed() -> None:
    edge = Edge(0, 2, carries=(0, 2))
    parts = [Section("one_off", "bid", NO_BID)]
    parts.append(Section("one_off", "quota", np.ones(1, np.uint32)))
    phase = Phase(name="masks", edges=(edge, Edge(0, 1, carries=(0, 2))))
    with pytest.raises(ValueError, match=r"device 0 sent \['bid', 'quota'\]"):
        agree(device(2, [9, 8, 1, 2]), [Envelope(edge, encode(parts).payload)], phase, T, C)


@pytest.mark.parametrize("c", [C, SparseOrthogonal(run=2, mask_code="raw")])
def test_devices_of_one_process_that_ask_the_same_share_what_was_found(c: SparseOrthogonal) -> None:
    levels = {k: np.array(bid, np.uint8) for k, bid in ((1, [7, 4, 0, 1]), (2, [7, 7, 0, 0]), (5, [0, 0, 7, 7]))}
    told, owed = {k: code_bid(a, c) for k, a in levels.items()}, {k: np.array([2]) for k in levels}
    closed = np.array([False, False, True, False])
    found = agreement.settled(told, (4,), owed, closed, c)
    expected = negotiate(levels, (4,), owed, closed)
    assert {k: a.tolist() for k, a in found.items()} == {
        k: np.packbits(np.repeat(mask, c.run)).tolist() for k, mask in expected.items()
    }
    again = agreement.settled({k: a.copy() for k, a in told.items()}, (4,), owed, closed, c)
    assert all(again[k] is mask for k, mask in found.items())
    for other in (
        agreement.settled({**told, 2: code_bid(levels[1], c)}, (4,), owed, closed, c),
        agreement.settled(told, (4,), {**owed, 2: np.array([1])}, closed, c),
        agreement.settled(told, (4,), owed, ~closed, c),
    ):
        assert not any(other[k] is mask for k, mask in found.items())


def test_a_bid_is_worked_out_once_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    known = device(2, [9, 8, 1, 2])
    bid = learning.offered(known.own, 2, C)
    told = replace(known, own={**known.own, "bid": bid})
    alone = Phase(name="masks", edges=())
    right = agree(known, [], alone, T, C).own
    monkeypatch.setattr(learning, "wish", None)
    assert learning.offered(told.own, 2, C) is bid
    again = agree(told, [], alone, T, C).own
    assert again.keys() == right.keys()
    assert "bid" not in again
    assert again["mask"].tolist() == right["mask"].tolist()
