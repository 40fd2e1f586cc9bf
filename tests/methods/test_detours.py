"""Detours in the last round: who hands on what, by hand, and that it arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orthomesh.experts.bank import get
from orthomesh.methods.clusters import Limits
from orthomesh.methods.detours import detours
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.types import Edge, Facts, Phase
from orthomesh.wireless.air import IdealAir
from orthomesh.wireless.link import Radio

# noise 1e-9 W in 1 MHz, at most 1 mW, 1 s: 1 Mbit takes a gain of 1e-6, 2 Mbit one of 3e-6
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
LIMITS = Limits(max_collision=0.1, negotiated=True, cast="broadcast", radio=RADIO, sizes=(100,))


def facts(*weak: tuple[int, int, float], n: int = 4) -> dict[int, Facts]:
    """Links of gain 4e-6 that carry 2 Mbit, but for those named."""
    gains = np.full((n, n), 4e-6)
    for i, j, gain in weak:
        gains[i, j] = gains[j, i] = gain
    return {
        i: Facts(
            id=i,
            public={},
            columns={},
            payload_bits=10**6,
            gains={j: float(gains[i, j]) for j in range(n) if j != i},
        )
        for i in range(n)
    }


def everybody(members: tuple[int, ...]) -> Phase:
    return Phase(name="intra", edges=tuple(Edge(i, j, carries=(i,)) for i in members for j in members if i != j))


# example


def test_a_faded_pair_goes_over_the_best_member_both_ways() -> None:
    made = detours(everybody((0, 1, 2, 3)), [(0, 1, 2, 3)], facts((0, 1, 1e-9), (0, 2, 2e-6)), LIMITS)
    assert made.edges == (Edge(3, 0, carries=(1,)), Edge(3, 1, carries=(0,)))


def test_a_mask_is_handed_on_unless_both_ends_found_it() -> None:
    first = [e._replace(fresh=True, masked=(e.src, e.dst) == (0, 1)) for e in everybody((0, 1, 2)).edges]
    made = detours(Phase(name="intra", edges=tuple(first)), [(0, 1, 2)], facts((0, 1, 1e-9), n=3), LIMITS)
    assert [(e.carries, e.fresh, e.masked) for e in made.edges] == [((1,), True, False), ((0,), True, True)]


def test_a_member_hands_on_no_more_than_its_link_carries() -> None:
    """3 hears neither 0, 1 nor 2 but over the others; a link of 2e-6 carries one of the two, 4e-6 both."""
    weak = [(0, 1, 1e-9), (0, 2, 1e-9), (3, 0, 2e-6)]
    made = detours(everybody((0, 1, 2, 3)), [(0, 1, 2, 3)], facts(*weak), LIMITS)
    assert made.edges == (Edge(3, 0, carries=(1,)), Edge(3, 1, carries=(0,)), Edge(3, 2, carries=(0,)))


# edge


def test_without_fades_or_ways_there_is_none() -> None:
    assert detours(everybody((0, 1)), [(0, 1), (2,), (3,)], facts(), LIMITS).edges == ()
    assert detours(everybody((0, 1)), [(0, 1), (2, 3)], facts((0, 1, 1e-9)), LIMITS).edges == ()


# law


@dataclass(frozen=True)
class Faded:
    """An air over which 0 and 1 do not reach each other in the second round."""

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        told, cost = IdealAir().announce(facts, t)
        faded = t.index == 1
        return {
            k: replace(f, gains={j: 1e-30 if faded and {k, j} == {0, 1} else 1e-6 for j in facts if j != k})
            for k, f in told.items()
        }, cost

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        gone = t.index == 1
        return [replace(m, dsts=tuple(j for j in m.dsts if not gone or {m.src, j} != {0, 1})) for m in sent], cost


def test_what_is_handed_on_is_what_the_others_have(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    c = SparseOrthogonal(density=0.25, values="int4", mask_code="entropy", sketch_bits=8, sketch=8, exchange="last")
    lost, mended = (play(replace(c, detour=d), small(3), rounds=2, air=Faded()) for d in (False, True))
    assert sorted(len(owners) for owners in lost.owners()) == [2, 2, 3]
    assert mended.owners() == [[0, 1, 2]] * 3
    for i, j in ((0, 1), (1, 0)):
        np.testing.assert_array_equal(
            get(mended.last[j].bank, f"member/{i}")["values"], get(mended.last[2].bank, f"member/{i}")["values"]
        )
    assert sum(mended.sent("values")) < 2 * sum(lost.sent("values"))
