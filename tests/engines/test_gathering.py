"""Who knows what: comparing, fetching and leaving out end with the same set everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.engines.gathering import CLOSED, OPEN, WAITED, Known, common, compare, digest, pack_known, read_known
from orthomesh.engines.wire import Refused

A, B, C, D = (digest(name) for name in (b"a", b"b", b"c", b"d"))


def test_what_one_has_is_fetched_from_it() -> None:
    step = compare(0, {0: A}, {1: Known(WAITED, {0: A, 1: B}), 2: Known(WAITED, {1: B, 3: D})})
    assert (dict(step.fetch), step.leave, step.standing) == ({1: 1, 3: 2}, frozenset(), WAITED)


def test_nobody_goes_on_while_another_still_waits_or_lacks_something() -> None:
    mine = {0: A, 1: B}
    assert compare(0, mine, {1: Known(OPEN, {})}).standing == WAITED
    assert compare(0, mine, {1: Known(OPEN, {}), 2: Known(CLOSED, mine)}).standing == WAITED
    assert compare(0, mine, {1: Known(WAITED, {1: B})}).standing == WAITED
    assert compare(0, mine, {1: Known(4, mine), 2: Known(WAITED, mine)}).standing == WAITED + 1
    assert compare(0, mine, {}).standing == compare(0, mine, {1: Known(CLOSED, mine)}).standing == CLOSED - 1


def test_what_one_went_on_without_is_left_out_and_stays_out() -> None:
    mine, told = {0: A, 1: B, 2: C}, {1: Known(CLOSED, {0: A, 1: B}), 3: Known(WAITED, {0: A, 1: B, 2: C})}
    step = compare(0, mine, told)
    assert (step.leave, dict(step.fetch)) == ({2}, {})
    again = compare(0, {0: A, 1: B}, {3: told[3]}, step.leave)
    assert (again.leave, dict(again.fetch), again.standing) == ({2}, {}, WAITED + 1)


def test_two_versions_of_one_device_are_none_and_nobody_leaves_itself_out() -> None:
    step = compare(0, {0: A, 2: C}, {1: Known(WAITED, {0: D, 1: B, 2: D})})
    assert step.leave == {2}
    assert compare(0, {0: A}, {1: Known(CLOSED, {1: B})}).leave == frozenset()


def test_when_time_is_over_what_all_have_who_waited() -> None:
    mine = {0: A, 1: B, 2: C}
    assert common(0, mine, {1: Known(WAITED, {1: B}), 2: Known(OPEN, {})}) == {0, 1}


@given(st.dictionaries(st.integers(0, 65535), st.binary(min_size=8, max_size=8)), st.integers(0, 255))
def test_it_survives_the_wire(digests: dict[int, bytes], standing: int) -> None:
    assert read_known(pack_known(Known(standing, digests))) == Known(standing, digests)


@pytest.mark.parametrize("data", [b"", b"\0" * 10, b"\0" + (b"\x01\0" + A) * 2, b"\0\x02\0" + A + b"\x01\0" + A])
def test_what_is_no_such_list_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        read_known(data)


@settings(max_examples=15)
@given(st.integers(2, 6), st.data())
def test_who_stands_higher_than_the_farthest_is_away_has_what_all_have(count: int, data: st.DataObject) -> None:
    """The loop in turns that each take at will, over a tree of connections; nobody speaks to all."""
    parent = [0, *(data.draw(st.integers(0, k - 1)) for k in range(1, count))]
    ears = [{j for j in range(count) if j != k and (parent[j] == k or parent[k] == j)} for k in range(count)]
    bodies = [{j: digest(bytes([j])) for j in {k} | data.draw(st.sets(st.integers(0, 9)))} for k in range(count)]
    everything, standing = frozenset[int]().union(*bodies), [WAITED] * count
    for turn in range(400):
        k = data.draw(st.integers(0, count - 1)) if turn < 30 else turn % count
        step = compare(k, bodies[k], {j: Known(standing[j], dict(bodies[j])) for j in ears[k]})
        bodies[k] |= {d: bodies[j][d] for d, j in step.fetch.items()}
        standing[k] = step.standing
        assert standing[k] <= count or bodies[k].keys() == everything
    assert min(standing) > count
