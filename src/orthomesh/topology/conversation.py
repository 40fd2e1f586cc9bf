"""The protocol in turns: all speak, then all have heard, so that what is said is the same however fast messages are.

The protocol itself needs no turns. They make its messages a function of the leaves alone, as long as nobody falls
silent: a simulation can count them, and devices on real links say the same and end with the same clusters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from .clusterstate import Price, Rules, State, is_settled, reaches
from .messages import Cluster, Kind, Leaf, Message, encode
from .protocol import Down, Event, Out, Received, Tick, start, step

REPEAT = 16.0
"""Turns after which something is said again; who is there has answered long before."""
MOST_DEVICES = 400
"""That may talk with each other, so that turns can be numbered in a message's head."""


class Talk(NamedTuple):
    """One device's part. state: of the protocol, whose clock counts turns. turn: from 0. says: in this turn.

    quiet: turns in which it had nothing to say, as far as all it has heard had nothing either.
    """

    state: State
    turn: int
    says: Out
    quiet: int


class Ended(NamedTuple):
    """What all ended with. clusters: by smallest member. told: bytes each device has said, what was for everybody
    once; copies: messages it has said, to each receiver. turns: how many it took after the first."""

    clusters: tuple[tuple[int, ...], ...]
    told: Mapping[int, int]
    copies: Mapping[int, int]
    turns: int


def begin(device: int, leaves: Mapping[int, Leaf], price: Price, epoch: int) -> Talk:
    """A device's first turn.

    Args:
        device: which.
        leaves: of all that talk, by id; each has told its own to all others before.
        price: of a union.
        epoch: which clustering this is.

    Raises:
        ValueError: a leaf that cannot be told, or a link to nobody.
    """
    mine = leaves[device]
    known = [leaf for k, leaf in leaves.items() if k != device and linked(mine, leaf)]
    state, says = start(mine, Rules(price=price, retry_s=REPEAT), epoch, 0.0, known)
    return Talk(state, 0, says, _quiet(state, says, ()))


def hear(talk: Talk, heard: Iterable[Message], gone: Collection[int], quiet: Iterable[int]) -> Talk:
    """A device's next turn.

    Args:
        talk: the turn that is over.
        heard: what others said in it, in order of sender.
        gone: who has fallen silent.
        quiet: of the others, in it.
    """
    state, now_s = talk.state, float(talk.turn + 1)
    events: list[Event] = [*(Down(k) for k in sorted(gone)), *(Received(m) for m in heard), Tick()]
    says: list[Message] = []
    for event in events:
        state, out = step(state, event, now_s)
        says += out
    return Talk(state, talk.turn + 1, tuple(says), _quiet(state, says, (talk.quiet, *quiet)))


def _quiet(state: State, says: Sequence[Message], before: Iterable[int]) -> int:
    return 0 if says or not is_settled(state) else 1 + min(before, default=0)


def is_over(talk: Talk, steps: int, count: int) -> bool:
    """Whether all have ended, or it has gone on for longer than mergers can take.

    Args:
        talk: of one device.
        steps: in so many turns word from any reaches all others; 1 if all are connected.
        count: of the devices that talk.
    """
    return talk.quiet > steps or talk.turn >= most_turns(count) + steps


def most_turns(count: int) -> int:
    """More than any talk of so many devices takes: four turns for each of at most M - 1 mergers, and as many again."""
    return 16 + 8 * count


def linked(one: Leaf, other: Leaf) -> bool:
    """Whether either reaches the other."""
    return reaches(one, other.id) or reaches(other, one.id)


def spoken(talk: Talk, to: int) -> tuple[Message, ...]:
    """What a device says in a turn to another: what is for it alone, and for everybody.

    As with facts, everybody hears what is for everybody, so that who is linked to a member but not to the head does
    not go on asking for what is taken.
    """
    return tuple(m for m in talk.says if m.to is None or m.to == to)


def outcome(talk: Talk) -> Message:
    """What a device tells all in the end: the cluster it is in."""
    return Message(Kind.SUMMARY, talk.state.epoch, talk.state.id, cluster=talk.state.cluster)


def mutual(stated: Mapping[int, Cluster]) -> tuple[tuple[int, ...], ...]:
    """Clusters as far as their members say the same; what is allowed for all is allowed for those that do.

    Args:
        stated: the cluster each device says it is in.

    Returns:
        A partition of the devices, by smallest member.

    >>> mutual({0: Cluster(1, (0, 1)), 1: Cluster(1, (0, 1)), 2: Cluster(2, (1, 2))})
    ((0, 1), (2,))
    """
    together: dict[Cluster, list[int]] = {}
    for k in sorted(stated):
        cluster = stated[k] if k in stated[k].members else Cluster(0, (k,))
        together.setdefault(cluster, []).append(k)
    return tuple(sorted(tuple(members) for members in together.values()))


def converse(leaves: Mapping[int, Leaf], price: Price, epoch: int) -> Ended:
    """All in one process, nothing lost.

    Args:
        leaves: of the devices, by id; their links lead to each other only.
        price: of a union.
        epoch: which clustering this is.

    Returns:
        Clusters, those of greedy clustering, and bytes: a message to everybody counts once.

    Raises:
        ValueError: a leaf that cannot be told, a link to nobody, or a price that is not a number.
    """
    prices: dict[tuple[int, ...], tuple[float, float] | None] = {}

    def once(union: tuple[Leaf, ...]) -> tuple[float, float] | None:
        ids = tuple(leaf.id for leaf in union)
        if ids not in prices:  # both heads ask
            prices[ids] = price(union)
        return prices[ids]

    talks = {k: begin(k, leaves, once, epoch) for k in sorted(leaves)}
    told, copies = dict.fromkeys(talks, 0), dict.fromkeys(talks, 0)
    while not all(is_over(talk, 1, len(talks)) for talk in talks.values()):
        for k, talk in talks.items():
            told[k] += sum(len(encode(m)) for m in talk.says)
            copies[k] += sum(len(talks) - 1 if m.to is None else 1 for m in talk.says)
        lowest = min(talk.quiet for talk in talks.values())
        after = {}
        for k, talk in talks.items():
            heard = [m for j in talks if j != k for m in spoken(talks[j], k)]
            after[k] = hear(talk, heard, (), (lowest,))
        talks = after
    for k, talk in talks.items():
        told[k] += len(encode(outcome(talk)))
    clusters = mutual({k: talk.state.cluster for k, talk in talks.items()})
    return Ended(clusters, told, copies, max((talk.turn for talk in talks.values()), default=0))
