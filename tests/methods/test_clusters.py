"""Who clusters with whom and what travels between clusters, from facts written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.adapters.collision import collision_rate
from orthomesh.methods.clusters import (
    Limits,
    agreement,
    arrange,
    between,
    exchange_phases,
    formed,
    has_parted,
    rates,
)
from orthomesh.types import Edge, Facts
from orthomesh.wireless.link import Radio

# noise 1e-9 W in 1 MHz, at most 1 mW, 1 s: 1 Mbit takes 1e-9 / gain W, so a gain of 1e-6; 2 Mbit take 3e-6
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
SIZES = (100, 300)


def limits(
    max_collision: float = 0.1, negotiated: bool = True, cast: Literal["broadcast", "unicast"] = "broadcast"
) -> Limits:
    return Limits(max_collision=max_collision, negotiated=negotiated, cast=cast, radio=RADIO, sizes=SIZES)


def facts(
    gains: np.ndarray, density: float = 0.25, bits: int = 10**6, have: dict[int, dict[int, int]] | None = None
) -> dict[int, Facts]:
    n = len(gains)
    told = have or {}
    return {
        i: Facts(
            id=i,
            public={
                "density": np.full(2, density, dtype=np.float32),
                "have": np.array(sorted({i: 0, **told.get(i, {})}.items()), dtype=np.uint32),
            },
            columns={},
            payload_bits=bits,
            gains={j: float(gains[i, j]) for j in range(n) if j != i},
        )
        for i in range(n)
    }


def clustered(told: dict[int, Facts], *clusters: tuple[int, ...], masked: int = 0) -> dict[int, Facts]:
    """The same facts of devices that have a cluster, and a mask since some round."""
    of = {k: np.array(members, np.uint32) for members in clusters for k in members}
    since = np.array(masked, np.uint32)
    return {
        k: replace(f, public={**f.public, "cluster": of[k], "masked": since}) if k in of else f for k, f in told.items()
    }


def form(told: dict[int, Facts], kept: Limits) -> tuple[tuple[int, ...], ...]:
    """Clusters of devices that have none."""
    return arrange(told, [(k,) for k in sorted(told)], kept)


def everybody(n: int, gain: float = 1e-3) -> np.ndarray:
    return np.full((n, n), gain)


# example


def test_negotiated_quarters_fill_a_cluster_of_four() -> None:
    assert form(facts(everybody(5)), limits(max_collision=0.0)) == ((0, 1, 2, 3), (4,))
    assert form(facts(everybody(5)), limits(max_collision=0.25)) == ((0, 1, 2, 3, 4),)  # 5/4 - 1


def test_independent_quarters_collide_as_equation_19_says() -> None:
    """Two: 1/16. Three: 3 (1/16)(3/4) + 1/64 = 10/64. So S_max = 0.1 makes pairs."""
    assert rates(np.full((2, 1), 0.25), negotiated=False)[0] == pytest.approx(1 / 16)
    assert rates(np.full((3, 1), 0.25), negotiated=False)[0] == pytest.approx(10 / 64)
    assert form(facts(everybody(4)), limits(negotiated=False)) == ((0, 1), (2, 3))
    assert form(facts(everybody(3)), limits(max_collision=0.15, negotiated=False)) == ((0, 1), (2,))
    assert form(facts(everybody(3)), limits(max_collision=0.16, negotiated=False)) == ((0, 1, 2),)


def test_who_cannot_reach_a_member_stays_out() -> None:
    gains = everybody(3)
    gains[0, 2] = gains[2, 0] = 0.9e-6
    assert form(facts(gains), limits()) == ((0, 1), (2,))
    assert form(facts(everybody(3, 0.9e-6)), limits()) == ((0,), (1,), (2,))


def test_unicast_splits_the_band_and_so_reaches_less_far() -> None:
    """To two receivers 1 Mbit each: 2 bit/s/Hz over half the band, 2 x 3 x 0.5e-9 / gain W, so a gain of 3e-6."""
    gains = everybody(3, 2e-6)
    assert form(facts(gains), limits()) == ((0, 1, 2),)
    assert len(form(facts(gains), limits(cast="unicast"))) == 2
    assert form(facts(everybody(3, 3.1e-6)), limits(cast="unicast")) == ((0, 1, 2),)


def test_between_clusters_a_link_must_carry_all_records_at_once() -> None:
    """Two devices of 1 Mbit: 2 Mbit, 3e-9 / gain W."""
    pair = ((0,), (1,))
    assert between(facts(everybody(2, 2.9e-6)), pair, limits()) == ()
    (phase,) = between(facts(everybody(2, 3.1e-6)), pair, limits())
    assert phase.name == "inter"
    assert {(e.src, e.dst, e.carries) for e in phase.edges} == {(0, 1, (0,)), (1, 0, (1,))}


def test_whoever_is_new_bids_and_who_was_there_says_what_is_taken() -> None:
    phase = agreement(((0, 2), (1,)), [(0,), (1,), (2,)])
    assert (phase.name, phase.edges) == ("masks", (Edge(0, 2, carries=(0,)), Edge(2, 0, carries=(2,))))
    late = agreement(((1, 3, 4, 6), (5,)), [(4,), (6,)])
    assert {(e.src, e.dst, e.carries) for e in late.edges} == {
        *((1, k, (1, 3)) for k in (4, 6)),
        *((4, k, (4,)) for k in (1, 3, 6)),
        *((6, k, (6,)) for k in (1, 3, 4)),
    }
    group = agreement(((0, 1, 2),), [(0, 2), (1,)])
    assert {(e.src, e.dst, e.carries) for e in group.edges} == {
        (0, 1, (0, 2)),
        (0, 2, (0, 2)),
        (1, 0, (1,)),
        (1, 2, (1,)),
    }


def test_who_comes_late_joins_where_it_collides_least() -> None:
    """Quarters: (0, 1, 2) has room for one more without a collision, (3, 4, 5, 6) has none."""
    told = clustered(facts(everybody(9)), (0, 1, 2), (3, 4, 5, 6))
    assert arrange(told, [(7,)], limits(max_collision=0.3))[0] == (0, 1, 2, 7)
    assert arrange(told, [(7,), (8,)], limits(max_collision=0.0)) == ((0, 1, 2, 7), (3, 4, 5, 6), (8,))
    # the second finds 1/4 in either, and the first cluster comes first
    assert arrange(told, [(7,), (8,)], limits(max_collision=0.3))[0] == (0, 1, 2, 7, 8)


def test_who_comes_late_joins_only_whom_all_can_reach() -> None:
    gains = everybody(4)
    gains[0, 1] = 0.9e-6  # between members that were there before
    told = clustered(facts(gains), (0, 1), (2,))
    assert arrange(told, [(3,)], limits()) == ((0, 1), (2, 3))
    gains[3, 2] = 0.9e-6
    told = clustered(facts(gains), (0, 1), (2,))
    assert arrange(told, [(3,)], limits()) == ((0, 1), (2,), (3,))


def test_a_group_holds_positions_once_and_needs_power_for_all() -> None:
    """Halves: two fill a cluster, however many devices share one of them."""
    told = facts(everybody(5), density=0.5)
    assert arrange(told, [(0, 2, 4), (1,), (3,)], limits(max_collision=0.0)) == ((0, 1, 2, 4), (3,))
    gains = everybody(5)
    gains[4, 1] = gains[4, 3] = 0.9e-6
    assert arrange(facts(gains, density=0.5), [(0, 2, 4), (1,), (3,)], limits(max_collision=0.0)) == ((0, 2, 4), (1, 3))
    later = dict(apart := clustered(facts(everybody(4), density=0.5), (0, 1, 2)))
    for k, seed in ((0, 7), (2, 7), (1, 8)):
        later[k] = replace(later[k], public={**later[k].public, "seed": np.array(seed, np.uint64)})
    assert arrange(later, [(3,)], limits(max_collision=0.5)) == ((0, 1, 2, 3),)
    assert arrange(apart, [(3,)], limits(max_collision=0.5)) == ((0, 1, 2), (3,))


def test_a_cluster_is_what_its_members_agree_on() -> None:
    """2 was away when 3 came; 5 has started again elsewhere; 9 is not there today."""
    told = facts(everybody(7))
    said = {**dict.fromkeys((0, 1, 3), (0, 1, 2, 3, 5, 9)), 2: (0, 1, 2, 5, 9), **dict.fromkeys((5, 6), (5, 6))}
    named = {k: replace(told[k], public={"cluster": np.array(members, np.uint32)}) for k, members in said.items()}
    assert formed({**told, **named}) == ((0, 1, 2, 3), (5, 6))
    assert formed(told) == ()


def test_who_counts_somebody_to_its_cluster_that_is_elsewhere() -> None:
    facts = {k: Facts(id=k, public={"cluster": np.array(c, np.uint32)}, columns={}, payload_bits=0)
             for k, c in {0: [0], 1: [0, 1, 2, 9], 2: [0, 1, 2, 9]}.items()}  # fmt: skip
    assert formed(facts) == ((0,), (1, 2))
    assert has_parted(facts, formed(facts))
    assert not has_parted({k: facts[k] for k in (1, 2)}, ((1, 2),))  # who is not there has not left


def test_new_values_travel_to_whoever_lacks_them_and_statics_with_them_once() -> None:
    clusters = ((0, 1), (2,))
    first = clustered(facts(everybody(3)), *clusters)
    intra, inter, spread = exchange_phases(first, clusters, {0: 1, 1: 1, 2: 1}, limits())
    assert [p.name for p in (intra, inter, spread)] == ["intra", "inter", "spread"]
    assert {(e.src, e.dst, e.carries, e.fresh) for e in intra.edges} == {(0, 1, (0,), True), (1, 0, (1,), True)}
    assert {(e.carries, e.fresh) for e in inter.edges} == {((0,), True), ((2,), True)}  # named by the first member
    assert {(e.carries, e.fresh) for e in spread.edges} == {((2,), True)}

    all_known = {k: {0: 1, 1: 1, 2: 1} for k in range(3)}
    later = clustered(facts(everybody(3), have=all_known), *clusters)
    intra, inter, *rest = exchange_phases(later, clusters, {0: 2, 1: 1, 2: 1}, limits())
    assert {(e.src, e.dst, e.fresh) for e in intra.edges} == {(0, 1, False)}  # only 0 has something new
    assert {(e.dst, e.carries, e.fresh) for e in inter.edges} == {(2, (0,), False)}
    assert rest == []


def test_masks_need_no_telling_between_those_who_found_the_same() -> None:
    told = clustered(facts(everybody(3)), (0, 1, 2))
    seen = {0: 7, 1: 7, 2: 8}
    told = {k: replace(f, public={**f.public, "masks": np.array(seen[k], np.uint64)}) for k, f in told.items()}
    (intra,) = exchange_phases(told, ((0, 1, 2),), dict.fromkeys(range(3), 1), limits())
    assert {(e.src, e.dst) for e in intra.edges if e.masked} == {(0, 1), (1, 0)}
    assert all(e.fresh for e in intra.edges)


def test_when_everybody_has_everything_nothing_travels() -> None:
    known = facts(everybody(3), have={k: {0: 1, 1: 1, 2: 1} for k in range(3)})
    (only,) = exchange_phases(known, ((0, 1), (2,)), {0: 1, 1: 1, 2: 1}, limits())
    assert (only.name, only.edges) == ("intra", ())


def test_what_was_lost_is_sent_again_though_it_is_not_new() -> None:
    latest = {0: 1, 1: 2, 2: 2}
    have = {k: dict(latest) for k in range(3)}
    del have[1][0]  # device 1 never got what 0 sent in round 1
    told = clustered(facts(everybody(3), have=have), (0, 1), (2,))
    (intra,) = exchange_phases(told, ((0, 1), (2,)), latest, limits())
    assert [(e.src, e.dst, e.fresh) for e in intra.edges] == [(0, 1, True)]


def test_what_is_known_of_an_earlier_life_is_told_again() -> None:
    """Device 0 found its mask in round 3 (of its second life); values of rounds before that went with another."""
    have = {k: {0: 3, 1: 3} for k in range(2)}
    told = clustered(facts(everybody(2), have=have), (0, 1), masked=0)
    reborn = {**told, 0: replace(told[0], public={**told[0].public, "masked": np.array(3, np.uint32)})}
    (old,), (new,) = (exchange_phases(f, ((0, 1),), {0: 5, 1: 3}, limits()) for f in (told, reborn))
    assert [(e.src, e.dst, e.fresh) for e in old.edges] == [(0, 1, False)]
    assert [(e.src, e.dst, e.fresh) for e in new.edges] == [(0, 1, True)]


def test_the_others_of_a_group_begin_from_what_the_first_has() -> None:
    told, clusters = facts(everybody(3)), ((0, 1, 2),)
    (intra,) = exchange_phases(told, clusters, dict.fromkeys(range(3), 0), limits(), ((0, 2),))
    assert intra.edges == (Edge(0, 2, carries=(0,), fresh=True),)
    (everything,) = exchange_phases(told, clusters, dict.fromkeys(range(3), 1), limits(), ((0, 2),))
    assert len(everything.edges) == len({(e.src, e.dst) for e in everything.edges}) == 6


# law


@settings(max_examples=15)
@given(
    st.integers(1, 7),
    st.sampled_from([0.1, 0.125, 0.25, 0.5, 1.0]),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.booleans(),
    st.sampled_from(["broadcast", "unicast"]),
    st.integers(0, 2**32 - 1),
)
def test_clusters_are_a_partition_within_the_limits(
    n: int, density: float, most: float, negotiated: bool, cast: Literal["broadcast", "unicast"], seed: int
) -> None:
    gains = 10.0 ** np.random.default_rng(seed).uniform(-7, -5, (n, n))
    told = facts(gains, density=density)
    kept = limits(max_collision=most, negotiated=negotiated, cast=cast)
    clusters = form(told, kept)
    assert sorted(k for members in clusters for k in members) == list(range(n))
    for members in clusters:
        if len(members) == 1:
            continue
        m = len(members)
        expected = max(0.0, m * density - 1) if negotiated else collision_rate(np.full((m, 1), density))[0]
        assert expected <= most + 1e-6
        for i in members:
            others = [gains[i, j] for j in members if j != i]
            if cast == "broadcast":
                assert 1e-9 / min(others) <= 1e-3 * (1 + 1e-9)
            else:  # (2^b - 1) N0 W/b each, b receivers
                assert sum((2.0 ** len(others) - 1) * 1e-9 / len(others) / g for g in others) <= 1e-3 * (1 + 1e-9)
    shuffled = {k: told[k] for k in np.random.default_rng(seed + 1).permutation(n).tolist()}
    assert form(shuffled, kept) == clusters


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_after_all_phases_everybody_in_reach_has_the_latest(n: int, seed: int) -> None:
    """Followed on paper: whoever has a cluster's records hands them on along the edges of the plan."""
    rng = np.random.default_rng(seed)
    cuts = sorted(rng.choice(np.arange(1, n), size=int(rng.integers(0, n)), replace=False).tolist())
    clusters = tuple(tuple(range(a, b)) for a, b in zip([0, *cuts], [*cuts, n], strict=True))
    told = facts(everybody(n, 1.0))
    latest = {k: 1 for k in range(n)}
    has = {k: {k} for k in range(n)}
    for phase in exchange_phases(told, clusters, latest, limits()):
        arrived: dict[int, set[int]] = {k: set() for k in range(n)}
        for e in phase.edges:
            for first in e.carries:
                part = {e.src} if phase.name == "intra" else set(next(m for m in clusters if m[0] == first))
                assert part <= has[e.src], "a device hands on what it does not have"
                arrived[e.dst] |= part
        for k in range(n):
            has[k] |= arrived[k]
    assert all(has[k] == set(range(n)) for k in range(n))


# edge


def test_unknown_gains_limit_nothing() -> None:
    told = {k: replace(f, gains={}) for k, f in facts(everybody(4)).items()}
    assert form(told, limits()) == ((0, 1, 2, 3),)
    assert len(between(told, ((0,), (1,), (2, 3)), limits())) > 0


def test_every_solver_keeps_to_the_limits_and_fewest_come_first() -> None:
    """Three independent quarters and three eighths, S_max 0.1."""
    told = facts(everybody(6))
    told |= {
        k: replace(told[k], public={**told[k].public, "density": np.full(2, 0.125, np.float32)}) for k in (3, 4, 5)
    }
    kept = limits(negotiated=False)
    found = {name: form(told, replace(kept, solver=name)) for name in ("agnes", "best-fit", "local-search", "exact")}
    assert len(found["exact"]) == len(found["local-search"]) <= len(found["best-fit"])
    assert len(found["local-search"]) <= len(found["agnes"])
    for clusters in found.values():
        for members in clusters:
            s = np.stack([told[k].public["density"] for k in members]).astype(np.float64)
            assert collision_rate(s)[0] <= 0.1


def test_full_density_shares_with_nobody() -> None:
    assert form(facts(everybody(3), density=1.0), limits(max_collision=0.9)) == ((0,), (1,), (2,))


def test_one_device_is_a_cluster() -> None:
    alone = facts(everybody(1))
    assert form(alone, limits()) == ((0,),)
    (intra,) = exchange_phases(alone, ((0,),), {0: 1}, limits())
    assert intra.edges == ()


def test_the_rate_of_layers_is_weighted_by_their_size() -> None:
    """Densities 0.8 and 0.3 of two devices: S = 0.6 and 0 over 100 and 300 positions, 0.15 in all."""
    told = facts(everybody(2))
    told = {k: replace(f, public={**f.public, "density": np.array([0.8, 0.3], np.float32)}) for k, f in told.items()}
    assert form(told, limits(max_collision=0.16)) == ((0, 1),)
    assert form(told, limits(max_collision=0.14)) == ((0,), (1,))
