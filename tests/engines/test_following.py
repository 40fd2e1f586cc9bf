"""Whose word counts: two, or one as far as time allows; one liar among three others moves nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.following import Claim, claims, follow, reachable
from orthomesh.engines.wire import Stage

LAST = Stage(2, 20)
STAGES = st.builds(Stage, st.integers(0, 2), st.integers(0, 20))


def test_claims_are_of_those_who_are_connected_or_were() -> None:
    furthest = {1: Stage(0, 1), 2: Stage(0, 5), 3: Stage(1, 0)}
    assert [c.device for c in claims(furthest, [1, 2, 3, 4], [1, 2, 4])] == [2, 1]
    assert [c.device for c in claims(furthest, [1, 3], [])] == [3, 1]


def test_nobody_there() -> None:
    assert follow([], Stage(0, 4), {}) == (Stage(0, 4), None)


@given(st.lists(STAGES, min_size=2, max_size=6), STAGES, STAGES)
def test_one_liar_among_three_or_more_moves_nobody(honest: list[Stage], lie: Stage, here: Stage) -> None:
    said = sorted([Claim(s, k) for k, s in enumerate(honest)] + [Claim(lie, 9)], reverse=True)
    assert follow(said, here, {})[0] <= max(here, *honest)


@given(STAGES, STAGES, STAGES)
def test_one_alone_is_followed_as_far_as_it_can_be(claim: Stage, most: Stage, here: Stage) -> None:
    went, doubted = follow([Claim(claim, 1)], here, {1: most})
    assert went == max(here, min(claim, most))
    assert (doubted is not None) == (claim > went)
    assert follow([Claim(claim, 1)], here, {}) == (max(here, claim), None)


@given(STAGES, st.floats(0, 1e6), st.floats(1e-3, 1e4), st.floats(0, 1e5))
def test_more_time_allows_no_less_and_one_round_is_always_possible(
    then: Stage, elapsed_s: float, training_s: float, more_s: float
) -> None:
    at_once, later = (reachable(then, s, training_s, LAST) for s in (elapsed_s, elapsed_s + more_s))
    assert min(then, LAST) <= at_once <= later <= LAST
    assert reachable(Stage(0, 20), 0.0, training_s, LAST) == Stage(1, 0)
