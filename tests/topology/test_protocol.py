"""One device of the serverless clustering protocol, message by message."""

from __future__ import annotations

import math

import pytest

from orthomesh.topology.clusterstate import Rules, State, is_settled, wake_s
from orthomesh.topology.messages import Cluster, Hello, Kind, Leaf, Message
from orthomesh.topology.protocol import Depart, Down, Received, Tick, Up, start, step

Out = tuple[Message, ...]


def price(leaves: tuple[Leaf, ...]) -> tuple[float, float] | None:
    """Sum of the densities, allowed up to 1."""
    total = sum(one.densities[0] for one in leaves)
    return (total, 0.0) if total <= 1.0 else None


RULES = Rules(price=price, retry_s=1.0, patience=3, quiet_s=100.0)


def leaf(i: int, density: float = 0.25, near: tuple[int, ...] = (1, 2, 3)) -> Leaf:
    return Leaf(i, (density,), 1e6, tuple((j, 1.0) for j in near if j != i))


def hello(of: Leaf, epoch: int = 0) -> Message:
    """A HELLO of a device that has heard everybody's first one and is heard."""
    return Message(Kind.HELLO, epoch, of.id, hello=Hello(of, 1, (1,) * len(of.links), (True,) * len(of.links)))


def fed(state: State, *messages: Message, now_s: float = 0.0) -> tuple[State, Out]:
    out: Out = ()
    for message in messages:
        state, sent = step(state, Received(message), now_s)
        out += sent
    return state, out


def ready(me: int, *others: Leaf) -> tuple[State, Out]:
    """A device that has heard all its neighbours, and what it says first."""
    near = tuple(other.id for other in others)
    state, _ = start(leaf(me, near=near), RULES, 0, 0.0)
    return fed(state, *[hello(other) for other in others])


def propose(sender: int, to: int, cluster: Cluster, version: int) -> Message:
    return Message(Kind.PROPOSE, 0, sender, to, version, cluster)


ALONE = {i: Cluster(0, (i,)) for i in range(5)}


# example: three devices of density 0.25, 0.25, 0.5 in reach of each other; the first two merge, then all


def test_it_proposes_once_all_neighbours_are_heard() -> None:
    state, out = start(leaf(1), RULES, 0, 0.0)
    assert [m.kind for m in out] == [Kind.HELLO]
    state, out = fed(state, hello(leaf(2)))
    assert out == ()  # 3 could be better
    state, out = fed(state, hello(leaf(3, 0.5)))
    assert out == (propose(1, 2, ALONE[1], 0),)


def test_the_lower_of_two_that_chose_each_other_asks_to_be_absorbed_and_the_higher_commits() -> None:
    low, _ = ready(1, leaf(2), leaf(3, 0.5))
    high, out = ready(2, leaf(1), leaf(3, 0.5))
    assert out == (propose(2, 1, ALONE[2], 0),)
    low, out = fed(low, *out)
    request = Message(Kind.MERGE_REQ, 0, 1, 2, 0, ALONE[1])
    assert out == (request,)
    assert low.frozen == ALONE[2]
    merged = Cluster(1, (1, 2))
    high, out = fed(high, request)
    assert out[:2] == (
        Message(Kind.MERGE_ACK, 0, 2, 1, 0, merged),
        Message(Kind.SUMMARY, 0, 2, None, 0, merged),
    )
    assert out[2] == propose(2, 3, merged, 0)
    low, answers = fed(low, out[0], out[1])
    assert (low.cluster, low.frozen) == (merged, None)
    assert answers == (Message(Kind.ACK, 0, 1, 2, 1),)
    assert not low.is_head
    assert is_settled(low)
    high, _ = fed(high, *answers)
    assert high.untold == {}


def test_a_committed_merger_is_not_made_twice() -> None:
    high, _ = ready(2, leaf(1), leaf(3, 0.5))
    request = Message(Kind.MERGE_REQ, 0, 1, 2, 0, ALONE[1])
    once, _ = fed(high, request)
    again, out = fed(once, request)
    assert again.cluster == once.cluster
    assert out == (Message(Kind.MERGE_ACK, 0, 2, 1, 0, Cluster(1, (1, 2))),)


def test_an_outdated_request_or_proposal_is_answered_with_what_is_true() -> None:
    high, _ = ready(3, leaf(1), leaf(2, 0.5))
    high, _ = fed(high, Message(Kind.MERGE_REQ, 0, 1, 3, 0, ALONE[1]))
    truth = Message(Kind.NACK, 0, 3, 2, 0, Cluster(1, (1, 3)))
    assert fed(high, Message(Kind.MERGE_REQ, 0, 2, 3, 0, ALONE[2])) == (high, (truth,))
    assert fed(high, propose(2, 3, ALONE[2], 0)) == (high, (truth,))


def test_a_refused_request_thaws_and_chooses_anew() -> None:
    low, _ = ready(1, leaf(2), leaf(3, 0.5))
    low, _ = fed(low, propose(2, 1, ALONE[2], 0))
    assert low.frozen is not None
    low, out = fed(low, Message(Kind.NACK, 0, 2, 1, 0, Cluster(1, (2, 9))))  # 9 is out of reach of 1
    assert low.frozen is None
    assert out == (propose(1, 3, ALONE[1], 0),)


def test_a_frozen_head_agrees_to_nothing_else_until_it_is_decided() -> None:
    middle, _ = ready(2, leaf(1, 0.5), leaf(3))
    middle, out = fed(middle, propose(3, 2, ALONE[3], 0))
    assert out == (Message(Kind.MERGE_REQ, 0, 2, 3, 0, ALONE[2]),)
    assert fed(middle, Message(Kind.MERGE_REQ, 0, 1, 2, 0, ALONE[1])) == (middle, ())
    joined, _ = fed(middle, Message(Kind.MERGE_ACK, 0, 3, 2, 0, Cluster(1, (2, 3))))
    _, out = fed(joined, Message(Kind.MERGE_REQ, 0, 1, 2, 0, ALONE[1]))
    assert out == (Message(Kind.NACK, 0, 2, 1, 0, Cluster(1, (2, 3))),)


# timers


def test_what_is_unanswered_is_sent_again_later_and_later() -> None:
    state, out = ready(1, leaf(2))
    times = []
    for _ in range(6):
        now_s = wake_s(state)
        times.append(now_s)
        state, out = step(state, Tick(), now_s)
        assert out == (propose(1, 2, ALONE[1], 0),)
    assert times == [1.0, 3.0, 7.0, 15.0, 23.0, 31.0]  # 1, 2, 4, then 8 retries apart


def test_it_falls_quiet_when_nothing_is_learned_and_wakes_with_news() -> None:
    state, _ = ready(1, leaf(2), leaf(3, 0.5))
    while not is_settled(state):
        state, _ = step(state, Tick(), now_s := wake_s(state))
    assert 100.0 <= now_s <= 110.0
    state, _ = fed(state, Message(Kind.SUMMARY, 0, 3, None, 0, Cluster(1, (3, 4))), now_s=200.0)
    assert wake_s(state) == 201.0


def test_a_neighbour_that_never_answers_is_given_up() -> None:
    state, _ = start(leaf(1), RULES, 0, 0.0)
    state, _ = fed(state, hello(leaf(2)))
    for _ in range(4):
        assert state.gone == set()
        state, _ = step(state, Tick(), wake_s(state))
    state, out = step(state, Tick(), wake_s(state))
    assert state.gone == {3}
    assert propose(1, 2, ALONE[1], 0) in out


def test_a_head_that_does_not_answer_a_request_is_given_up() -> None:
    low, _ = ready(1, leaf(2), leaf(3, 0.5))
    low, _ = fed(low, propose(2, 1, ALONE[2], 0))
    for _ in range(5):
        low, out = step(low, Tick(), wake_s(low))
    assert low.gone == {2}
    assert out == (propose(1, 3, ALONE[1], 0),)


def test_hello_is_said_again_to_who_lacks_it() -> None:
    state, _ = ready(1, leaf(2))
    ignorant = Message(Kind.HELLO, 0, 2, hello=Hello(leaf(2), 1, (0, 0), (False, False)))
    state, _ = fed(state, ignorant, now_s=10.0)
    assert wake_s(state) <= 10.5
    _, out = step(state, Tick(), 10.5)
    assert Kind.HELLO in {m.kind for m in out}


# who comes and goes


def together(me: int) -> State:
    """Devices 1, 2, 3 in one cluster of head 3, at version 2."""
    state, _ = ready(me, *[leaf(k) for k in (1, 2, 3) if k != me])
    joined = Message(Kind.SUMMARY, 0, 3, None, 0, Cluster(2, (1, 2, 3)))
    if me == 3:
        state, _ = fed(state, Message(Kind.MERGE_REQ, 0, 1, 3, 0, ALONE[1]), Message(Kind.ACK, 0, 1, 3, 1))
        state, _ = fed(state, Message(Kind.MERGE_REQ, 0, 2, 3, 1, ALONE[2]))
        return fed(state, Message(Kind.ACK, 0, 1, 3, 2), Message(Kind.ACK, 0, 2, 3, 2))[0]
    return fed(state, joined)[0]


def test_the_largest_member_left_takes_over_from_a_dead_head_and_all_others_tell_it_what_they_know() -> None:
    heir, out = step(together(2), Down(3), 5.0)
    assert heir.cluster == Cluster(3, (1, 2))
    assert out == (Message(Kind.SUMMARY, 0, 2, None, 0, Cluster(3, (1, 2))),)
    other, out = step(together(1), Down(3), 5.0)
    assert out == (Message(Kind.SUMMARY, 0, 1, 2, 0, Cluster(2, (1, 2, 3))),)
    other, _ = fed(other, Message(Kind.SUMMARY, 0, 2, None, 0, Cluster(3, (1, 2))))
    assert other.cluster == heir.cluster


def test_an_heir_that_missed_the_last_merger_learns_of_it_and_takes_over() -> None:
    """Head 3 committed to absorb 2 and died; only 1 had heard of it."""
    absorbed, _ = ready(2, leaf(1, 0.5), leaf(3))
    absorbed, _ = fed(absorbed, propose(3, 2, Cluster(1, (1, 3)), 0))
    absorbed, _ = step(absorbed, Down(3), 5.0)
    told = Message(Kind.SUMMARY, 0, 1, 2, 0, Cluster(2, (1, 2, 3)))
    absorbed, out = fed(absorbed, told)
    assert Message(Kind.ACK, 0, 2, 1, 2) in out
    assert absorbed.cluster == Cluster(3, (1, 2))


def test_a_head_goes_on_without_a_member_that_left() -> None:
    head = together(3)
    assert head.cluster == Cluster(2, (1, 2, 3))
    after, out = fed(head, Message(Kind.LEAVE, 0, 1, None, 2))
    assert after.cluster == Cluster(3, (2, 3))
    assert out[0] == Message(Kind.ACK, 0, 3, 1, 2)
    assert Message(Kind.SUMMARY, 0, 3, None, 0, Cluster(3, (2, 3))) in out
    assert fed(after, hello(leaf(1)))[0] == after  # not heard any more


def test_who_leaves_says_so_until_all_know() -> None:
    state, out = step(together(2), Depart(), 5.0)
    leave = Message(Kind.LEAVE, 0, 2, None, 2)
    assert out == (leave,)
    state, out = step(state, Tick(), wake_s(state))
    assert out == (leave,)
    state, out = fed(state, propose(1, 2, ALONE[1], 0))
    assert out == (leave._replace(to=1),)
    state, _ = fed(state, Message(Kind.ACK, 0, 1, 2, 2), Message(Kind.ACK, 0, 3, 2, 2))
    assert is_settled(state)


def test_whoever_can_be_reached_later_is_waited_for() -> None:
    state, _ = ready(1, leaf(2, 0.5))
    state, out = step(state, Up(4, 0.5), 5.0)
    assert out[0].hello == Hello(Leaf(1, (0.25,), 1e6, ((2, 1.0), (4, 0.5))), 2, (1, 0), (False, False))
    newcomer = leaf(4, 0.125, near=(1,))
    state, out = fed(state, Message(Kind.HELLO, 0, 4, hello=Hello(newcomer, 1, (2,), (True,))))
    assert propose(1, 4, ALONE[1], 0) in out


def test_of_two_that_claim_a_device_the_later_cluster_has_it() -> None:
    member = together(1)
    stale = Message(Kind.SUMMARY, 0, 2, None, 0, Cluster(1, (1, 2)))
    member, out = fed(member, stale)
    assert out == (Message(Kind.NACK, 0, 1, 2, 0, Cluster(2, (1, 2, 3))),)
    head, _ = fed(together(3), Message(Kind.NACK, 0, 1, 3, 0, Cluster(7, (1, 9))))
    assert head.cluster == Cluster(8, (2, 3))


def test_a_refusal_is_final_even_if_the_request_comes_again() -> None:
    """3 knows that 1 is gone, 2 does not; were 3 to keep its version, a late copy could still be granted."""
    high, _ = ready(3, leaf(1), leaf(2))
    high, _ = step(high, Down(1), 0.0)
    request = Message(Kind.MERGE_REQ, 0, 2, 3, 0, Cluster(1, (1, 2)))
    high, out = fed(high, request)
    assert high.cluster == Cluster(1, (3,))
    assert Message(Kind.NACK, 0, 3, 2, 0, Cluster(1, (3,))) in out


# edge


def test_other_epochs_own_echoes_and_messages_for_others_are_ignored() -> None:
    state, _ = ready(1, leaf(2))
    for message in (hello(leaf(3), epoch=1), hello(leaf(1)), propose(2, 4, ALONE[2], 0)):
        assert fed(state, message) == (state, ())
    assert step(state, Down(1), 0.0) == (state, ())
    assert step(state, Tick(), 0.0) == (state, ())


def test_alone_in_the_world_it_is_settled_at_once() -> None:
    state, out = start(leaf(1, near=()), RULES, 0, 0.0)
    assert [m.kind for m in out] == [Kind.HELLO]
    assert is_settled(state)
    assert state.cluster == ALONE[1]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="told in float32"):
        start(leaf(1, 0.1), RULES, 0, 0.0)
    state, _ = ready(1, leaf(2))
    with pytest.raises(ValueError, match="the gain to 7 is a finite number"):
        step(state, Up(7, math.nan), 0.0)
