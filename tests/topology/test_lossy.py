"""The protocol against the centralised greedy result, whatever the air does."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, combinations, repeat

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orthomesh.topology.clustering import Members, agnes
from orthomesh.topology.clusterstate import Rules, is_settled
from orthomesh.topology.lossy import Change, Cut, Dies, Joins, Leaves, Outcome, Weather, agreed, chances, simulate
from orthomesh.topology.messages import Kind, Leaf


def price(leaves: tuple[Leaf, ...]) -> tuple[float, float] | None:
    """Chance that two of a union collide at a position, exact in binary; then its size; allowed up to 1/4."""
    none = one = 1.0
    one = 0.0
    for s in (leaf.densities[0] for leaf in leaves):
        none, one = none * (1 - s), one * (1 - s) + none * s
    return (1 - none - one, float(len(leaves))) if none + one >= 0.75 else None


RULES = Rules(price=price, quiet_s=1e6)
UNSHRUNK = (Phase.explicit, Phase.generate)
"""A run takes up to half a second and shrinking takes thousands: it is left to whoever looks into a failure."""


@st.composite
def worlds(draw: st.DrawFn, most: int = 8) -> tuple[Leaf, ...]:
    """Devices with few different densities, so that ties happen, and any links, some usable one way only."""
    m = draw(st.integers(1, most))
    density = draw(st.lists(st.sampled_from([0.0, 0.0625, 0.125, 0.25, 0.5]), min_size=m, max_size=m))
    linked = draw(st.sets(st.sampled_from([(i, j) for i in range(m) for j in range(m) if i != j] or [(0, 0)])))
    dense = draw(st.booleans())  # the set is who hears whom, or who does not
    names = sorted(draw(st.sets(st.integers(0, 2**32 - 2), min_size=m, max_size=m)))
    return tuple(
        Leaf(names[i], (density[i],), 1e6,
             tuple((names[j], 1.0) for j in range(m) if j != i and ((i, j) in linked) != dense))
        for i in range(m)
    )  # fmt: skip


weathers = st.builds(
    Weather, loss=st.sampled_from([0.0, 0.3, 0.7]), repeat=st.sampled_from([0.0, 0.5]),
    delay_s=st.sampled_from([0.0, 0.1, 3.0]),
)  # fmt: skip
fates = st.lists(st.sampled_from([0.0, 0.1, 0.35, 0.6, 0.9, 0.999]), max_size=60)


def usable(leaves: Iterable[Leaf]) -> set[tuple[int, int]]:
    reach = {(leaf.id, j) for leaf in leaves for j, _ in leaf.links}
    return {(i, j) for i, j in reach if (j, i) in reach}


def central(leaves: Iterable[Leaf], units: Iterable[Members] | None = None) -> tuple[Members, ...]:
    """Greedy clustering by somebody who knows everything, of single devices or of clusters there are."""
    by_id = {leaf.id: leaf for leaf in leaves}
    links = usable(by_id.values())
    by_head = {members[-1]: members for members in units or [(i,) for i in by_id]}

    def everybody(heads: Members) -> Members:
        return tuple(sorted(k for head in heads for k in by_head[head]))

    def key(heads: Members) -> tuple[float, float] | None:
        union = everybody(heads)
        if any(pair not in links for pair in combinations(union, 2)):
            return None
        return price(tuple(by_id[k] for k in union))

    return tuple(sorted(everybody(heads) for heads in agnes(by_head, key)))


def check_valid(outcome: Outcome) -> None:
    """A partition into allowed clusters of which no two could still merge, and everybody has fallen silent."""
    there = {i: s for i, s in outcome.states.items()}
    assert sorted(k for members in outcome.clusters for k in members) == sorted(there)
    assert all(is_settled(state) for state in there.values())
    links = {
        (i, j) for i, j in usable(s.leaf for s in there.values())
        if j not in there[i].gone and i not in there[j].gone
    }  # fmt: skip

    def allowed(members: Members) -> bool:
        whole = all(pair in links for pair in combinations(sorted(members), 2))
        return whole and price(tuple(there[k].leaf for k in sorted(members))) is not None

    assert all(allowed(members) for members in outcome.clusters if len(members) > 1)
    assert not [pair for pair in combinations(outcome.clusters, 2) if allowed(pair[0] + pair[1])]


# example


def test_four_quarters_in_reach_of_each_other_make_pairs_on_paper() -> None:
    """Two quarters collide at 1/16, three at 10/64, four at 67/256 > 1/4: 0 and 1 merge first, then 2 and 3."""
    four = [Leaf(i, (0.25,), 1e6, tuple((j, 1.0) for j in range(4) if j != i)) for i in range(4)]
    outcome = simulate(four, RULES, Weather(), chances(0))
    assert outcome.clusters == ((0, 1), (2, 3))
    assert (outcome.sent[Kind.SUMMARY], outcome.sent[Kind.MERGE_REQ], outcome.sent[Kind.MERGE_ACK]) == (2, 2, 2)
    assert outcome.sent_bytes[Kind.SUMMARY] == 2 * (16 + 6 + 2 * 4)
    assert sum(outcome.device_bytes.values()) == sum(outcome.sent_bytes.values())


def test_a_link_of_one_direction_costs_a_few_hellos() -> None:
    """1 asks until it has heard 0; 0, which cannot reach 1, answers and does not wait for an answer."""
    pair = [Leaf(0, (0.25,), 1e6, ()), Leaf(1, (0.25,), 1e6, ((0, 1.0),))]
    outcome = simulate(pair, RULES, Weather(), chances(0))
    assert outcome.clusters == ((0,), (1,))
    assert outcome.sent[Kind.HELLO] <= 5
    assert outcome.duration_s < 2.0


def test_a_newcomer_gets_its_best_if_it_waits_until_it_is_known() -> None:
    """With 2 it never collides, with 1 at 1/64; but 2 notices it 3 s late, and a link may be of one direction."""
    there = [Leaf(1, (0.25,), 1e6, ()), Leaf(2, (0.0,), 1e6, ())]
    new, gains = Leaf(9, (0.0625,), 1e6, ((1, 1.0), (2, 1.0))), {1: 1.0, 2: 1.0}
    found = []
    for silent_s in (0.0, 6.0):
        draws = chain([0.0, 0.999], repeat(0.0))  # when 1 and 2 notice it; after that nothing takes any time
        join = Joins(10.0, new, gains, silent_s)
        outcome = simulate(there, RULES, Weather(delay_s=3.0), draws, [join])
        check_valid(outcome)
        found.append(outcome.clusters)
    assert found == [((1, 9), (2,)), ((1,), (2, 9))]


# reference: the centralised result


@settings(max_examples=12, phases=UNSHRUNK)
@given(leaves=worlds(), weather=weathers, fate=fates, seed=st.integers(0, 99))
def test_it_equals_the_centralised_result_whatever_is_lost_repeated_or_overtaken(
    leaves: tuple[Leaf, ...], weather: Weather, fate: list[float], seed: int
) -> None:
    outcome = simulate(leaves, RULES, weather, chain(fate, chances(seed)))
    assert outcome.clusters == central(leaves)
    check_valid(outcome)


@pytest.mark.parametrize("loss", [0.0, 0.3, 0.7])
def test_two_dozen_devices_in_the_plane_equal_the_centralised_result(loss: float) -> None:
    rng = np.random.default_rng(int(10 * loss))
    places = rng.random((24, 2)) * 5
    near = np.linalg.norm(places[:, None] - places[None], axis=2) < 1.8
    density = (rng.integers(1, 60, 24) / 256).tolist()
    leaves = [
        Leaf(i, (density[i],), 1e6, tuple((j, 1.0) for j in range(24) if j != i and near[i, j])) for i in range(24)
    ]
    outcome = simulate(leaves, RULES, Weather(loss=loss, repeat=0.2, delay_s=1.0), chances(0))
    assert outcome.clusters == central(leaves)
    assert max(map(len, outcome.clusters)) >= 3


# law: who comes and goes


def newcomer(leaves: Iterable[Leaf], first: bool, density: float, near: Iterable[int]) -> Leaf:
    """A device of id 0, or of the highest that is free."""
    taken = {leaf.id for leaf in leaves}
    name = next(i for i in chain([0] if first else [], range(2**32 - 2, 0, -1)) if i not in taken)
    return Leaf(name, (density,), 1e6, tuple((j, 1.0) for j in near))


@settings(max_examples=12, phases=UNSHRUNK)
@given(data=st.data(), leaves=worlds(), weather=weathers, fate=fates)
def test_whoever_leaves_dies_or_joins_the_rest_agrees_on_allowed_clusters(
    data: st.DataObject, leaves: tuple[Leaf, ...], weather: Weather, fate: list[float]
) -> None:
    ids = [leaf.id for leaf in leaves]
    some = st.lists(st.sampled_from(ids), unique=True)
    lost = data.draw(some.map(lambda chosen: chosen[:3]))
    when = st.floats(0, 20)
    changes: list[Change] = [
        Dies(data.draw(when), i) if data.draw(st.booleans()) else Leaves(data.draw(when), i) for i in lost
    ]
    new = []
    if data.draw(st.booleans()):
        near = sorted(data.draw(some))
        new = [newcomer(leaves, data.draw(st.booleans()), data.draw(st.sampled_from([0.0, 0.0625, 0.25])), near)]
        changes.append(Joins(data.draw(when), new[0], dict.fromkeys(data.draw(some), 1.0)))
    outcome = simulate(leaves, RULES, weather, chain(fate, chances(1)), changes)
    assert set(outcome.states) == {leaf.id for leaf in [*leaves, *new]} - set(lost)
    check_valid(outcome)


@settings(max_examples=10, phases=UNSHRUNK)
@given(leaves=worlds(), weather=weathers, fate=fates, first=st.booleans())
def test_what_is_left_and_who_joins_go_on_from_where_they_are(
    leaves: tuple[Leaf, ...], weather: Weather, fate: list[float], first: bool
) -> None:
    """After all is quiet a device dies; another comes, and waits until all know it: greedy from what there was."""
    before = central(leaves)
    dead = max(before, key=len)[0 if first else -1]
    alive = [leaf._replace(links=tuple(x for x in leaf.links if x[0] != dead)) for leaf in leaves if leaf.id != dead]
    new = newcomer(leaves, first, 0.0625, [x.id for x in alive])
    units = [tuple(k for k in members if k != dead) for members in before]
    remaining = central(alive, [members for members in units if members])
    grown = [x._replace(links=tuple(sorted([*x.links, (new.id, 1.0)]))) for x in alive]
    join = Joins(2e4, new, {x.id: 1.0 for x in alive}, silent_s=2 * weather.delay_s)
    outcome = simulate(leaves, RULES, weather, chain(fate, chances(2)), [Dies(5e3, dead), join])
    assert outcome.clusters == central([*grown, new], [*remaining, (new.id,)])


@settings(max_examples=10, phases=UNSHRUNK)
@given(leaves=worlds(), weather=weathers, fate=fates, split=st.integers(1, 7))
def test_parts_of_a_network_that_fell_apart_before_it_began_cluster_by_themselves(
    leaves: tuple[Leaf, ...], weather: Weather, fate: list[float], split: int
) -> None:
    one, other = leaves[:split], leaves[split:]
    cut = tuple((i.id, j.id) for i in one for j in other if {i.id, j.id} & {k for x in (i, j) for k, _ in x.links})

    def inside(part: tuple[Leaf, ...]) -> list[Leaf]:
        ids = {leaf.id for leaf in part}
        return [leaf._replace(links=tuple(x for x in leaf.links if x[0] in ids)) for leaf in part]

    outcome = simulate(leaves, RULES, weather, chain(fate, chances(3)), [Cut(0.0, cut)])
    assert outcome.clusters == tuple(sorted(central(inside(one)) + central(inside(other))))


def test_a_network_that_falls_apart_on_the_way_ends_in_allowed_clusters() -> None:
    eight = [Leaf(i, (0.0625,), 1e6, tuple((j, 1.0) for j in range(8) if j != i)) for i in range(8)]
    for seed in range(3):
        cut = Cut(0.5 + seed, tuple((i, j) for i in range(4) for j in range(4, 8)))
        outcome = simulate(eight, RULES, Weather(loss=0.3, delay_s=1.0), chances(seed), [cut])
        check_valid(outcome)
        assert all(max(members) < 4 or min(members) >= 4 for members in outcome.clusters)


# edge


def test_the_same_draws_give_the_same_run() -> None:
    three = [Leaf(i, (0.25,), 1e6, tuple((j, 1.0) for j in range(3) if j != i)) for i in range(3)]
    runs = [simulate(three, RULES, Weather(loss=0.5), chances(5)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_bad_input_is_refused() -> None:
    one = Leaf(0, (0.25,), 1e6, ())
    with pytest.raises(ValueError, match="a device is given twice"):
        simulate([one, one], RULES, Weather(), chances(0))
    two = [Leaf(0, (0.25,), 1e6, ((1, 1.0),)), Leaf(1, (0.25,), 1e6, ((0, 1.0),))]
    with pytest.raises(ValueError, match="has not ended after 50 s"):
        simulate(two, RULES, Weather(loss=1.0), chances(0), limit_s=50.0)
    states = simulate([one], RULES, Weather(), chances(0)).states
    with pytest.raises(ValueError, match="device 3 believes in"):
        agreed({3: states[0]})
