"""What a device concludes from what it knows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orthomesh.topology.clusterstate import (
    Peer,
    Rules,
    State,
    Timer,
    best,
    hello_of,
    is_settled,
    offer,
    present,
    unheard,
    unsure,
    wake_s,
)  # fmt: skip
from orthomesh.topology.messages import Cluster, Leaf


def leaf(i: int, density: float = 0.25, near: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Leaf:
    return Leaf(i, (density,), 1e6, tuple((j, 1.0) for j in near if j != i))


def total(leaves: tuple[Leaf, ...]) -> tuple[float, float] | None:
    """Sum of the densities, allowed up to 1."""
    s = sum(one.densities[0] for one in leaves)
    return (s, 0.0) if s <= 1.0 else None


def state(me: int, peers: list[Leaf], **changed: object) -> State:
    alone = {p.id: Cluster(0, (p.id,)) for p in [leaf(me), *peers]}
    made = State(
        rules=Rules(price=total), epoch=0, leaf=leaf(me), cluster=alone[me], changed_s=0.0, seen=alone,
        peers={p.id: Peer(p, frozenset(j for j, _ in p.links), 1, 1) for p in peers},
        offers={}, wooed={}, untold={},
    )  # fmt: skip
    return replace(made, **changed)


def test_the_best_offer_is_the_lowest_price_then_the_lowest_names() -> None:
    near = state(2, [leaf(0, 0.5), leaf(1, 0.25), leaf(3, 0.25)])
    after, chosen = best(near)
    assert chosen == Cluster(0, (1,))
    assert {h: k for h, (_, k) in after.offers.items()} == {
        0: (0.75, 0.0, 0, 2), 1: (0.5, 0.0, 1, 2), 3: (0.5, 0.0, 2, 3)
    }  # fmt: skip
    assert near.offers == {}


def test_only_whole_cliques_of_links_usable_both_ways_are_priced() -> None:
    far = leaf(1, near=(0, 3))  # does not list 2
    assert offer(state(2, [far]), Cluster(0, (1,))) is None
    deaf = replace(state(2, [leaf(1)]), leaf=leaf(2, near=(0, 3)))
    assert offer(deaf, Cluster(0, (1,))) is None
    apart = state(2, [leaf(0), leaf(1, near=(0, 2))], cluster=Cluster(1, (0, 2)))
    assert offer(apart, Cluster(0, (1,))) == (0.75, 0.0, 1, 2)
    assert offer(state(2, [leaf(0), leaf(3, near=(2,))], cluster=Cluster(1, (0, 2))), Cluster(0, (3,))) is None
    assert offer(state(2, [leaf(0, 1.0)]), Cluster(0, (0,))) is None
    assert offer(state(2, [leaf(0)], gone=frozenset({0})), Cluster(0, (0,))) is None
    assert offer(state(2, [leaf(0)]), Cluster(5, (0, 9))) is None  # 9 is a stranger
    assert offer(state(2, [leaf(0)]), Cluster(5, (0, 2))) is None  # not another cluster


def test_who_has_to_be_heard_and_who_has_to_hear() -> None:
    known = state(2, [leaf(0), leaf(1, near=(0,)), leaf(3)])
    known = replace(known, peers={**known.peers, 3: known.peers[3]._replace(knows=0)}, gone=frozenset({9}))
    assert unheard(known) == {4}
    assert unsure(known) == {3, 4}  # 1 has no link to us and need not know
    assert unheard(replace(known, gone=frozenset({4}))) == set()
    told = hello_of(known)
    assert (told.heard, told.sure) == ((1, 1, 1, 0), (True, True, False, False))


def test_present_are_those_neither_gone_nor_known_elsewhere() -> None:
    together = Cluster(3, (0, 1, 2))
    four = state(2, [leaf(0), leaf(1)], cluster=together, seen={0: together, 1: Cluster(4, (1, 9)), 2: together})
    assert present(four) == (0, 2)
    assert present(replace(four, gone=frozenset({0}))) == (2,)
    assert present(replace(four, seen={})) == (0, 1, 2)


def test_it_wakes_for_the_first_timer_and_is_settled_without_any() -> None:
    idle = state(2, [])
    assert is_settled(idle)
    assert math.isinf(wake_s(idle))
    assert wake_s(replace(idle, tell=Timer(3.0), merge=Timer(2.0))) == 2.0
    assert not is_settled(replace(idle, propose=Timer(1.0)))


def test_a_price_that_is_no_number_is_refused() -> None:
    broken = replace(state(2, [leaf(0)]), rules=Rules(price=lambda leaves: (math.nan, 0.0)))
    with pytest.raises(ValueError, match=r"price of \[0, 2\] is not a number"):
        best(broken)
