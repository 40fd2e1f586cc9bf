"""Clusters without a server: one device as a pure state machine, messages in, messages out.

Greedy clustering merges what is mutually best, IV-C: keys only grow as clusters grow, so heads agree pairwise and no
one sees the whole. The lower of two heads that chose each other freezes and asks to be absorbed; the higher commits
alone, so no common knowledge is needed. Every message may be lost, repeated and overtaken. No input, output, clock or
chance: whoever drives it brings them as events (`Received`, `Tick` at `wake_s`, `Down`, `Up`, `Depart`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from .clusterstate import OFF, Peer, Rules, State, Timer, best, hello_of, offer, present, unheard, unsure
from .messages import Cluster, Hello, Kind, Leaf, Message, check_leaf

Out = tuple[Message, ...]


class Received(NamedTuple):
    """A message came, as decoded."""

    message: Message


class Tick(NamedTuple):
    """Time has passed; due at `wake_s` of the state."""


class Down(NamedTuple):
    """A device died or went out of reach, by the knowledge of whoever drives this one."""

    peer: int


class Up(NamedTuple):
    """Another device can be reached from now on, at a linear power gain."""

    peer: int
    gain: float


class Depart(NamedTuple):
    """This device leaves."""


Event = Received | Tick | Down | Up | Depart


def start(leaf: Leaf, rules: Rules, epoch: int, now_s: float, known: Iterable[Leaf] | None = None) -> tuple[State, Out]:
    """A device that knows whom it can reach, alone in its cluster, and what it says first.

    A new epoch clusters everybody anew: start again with a higher number. Messages of other epochs are ignored.

    Args:
        leaf: the device, its densities and links.
        rules: price of a union, times.
        epoch: which clustering this is, >= 0.
        now_s: any clock that never goes back, s.
        known: all that are linked with it, where each has told its leaf to all others already and knows that they
            have it; none: nobody is known, so HELLO comes first.

    Raises:
        ValueError: a leaf that cannot be told, or a link to a device that is not known.
    """
    check_leaf(leaf)
    heard = {one.id: Peer(one, frozenset(j for j, _ in one.links), 1, 1) for one in known or ()}
    if known is not None and (strange := {j for j, _ in leaf.links} - heard.keys()):
        raise ValueError(f"device {leaf.id}: nothing is known of its neighbours {sorted(strange)}")
    seen = {k: Cluster(0, (k,)) for k in (leaf.id, *heard)}
    state = State(
        rules=rules, epoch=epoch, leaf=leaf, cluster=seen[leaf.id], peers=heard, seen=seen, offers={}, wooed={},
        untold={}, changed_s=now_s, hello=Timer(now_s) if known is None else OFF, owes=known is None,
    )  # fmt: skip
    return _transmit(_settle(state, now_s), now_s)


def step(state: State, event: Event, now_s: float) -> tuple[State, Out]:
    """One event at one device.

    Args:
        state: before it; not changed.
        event: what happened.
        now_s: when, s.

    Returns:
        The state after it, and what to send: to one device, or to everybody in range where `to` is none.
        Messages may be sent in any order, and delivered late, often, or never.

    Raises:
        ValueError: a price that is not a number.
    """
    after, replies = _handle(state, event, now_s)
    after = _give_up(after, now_s)
    if after is not state:
        if after.peers is not state.peers or after.seen is not state.seen or after.cluster is not state.cluster:
            after = replace(after, changed_s=now_s)
        after = _settle(after, now_s)
    after, sent = _transmit(after, now_s)
    return after, replies + sent


# what an event tells


def _handle(state: State, event: Event, now_s: float) -> tuple[State, Out]:
    match event:
        case Received(message):
            return _hear(state, message, now_s) if _is_meant(state, message) else (state, ())
        case Down(peer) if peer != state.id:
            return replace(state, gone=state.gone | {peer}), ()
        case Up(peer, gain) if not state.left:
            links = dict(state.leaf.links) | {peer: gain}
            leaf = state.leaf._replace(links=tuple(sorted(links.items())))
            check_leaf(leaf)
            hello, gone = Timer(now_s), state.gone - {peer}
            return replace(state, leaf=leaf, sequence=state.sequence + 1, gone=gone, offers={}, hello=hello), ()
        case Depart() if not state.left:
            untold = dict.fromkeys(sorted(state.peers.keys() - state.gone), state.cluster)
            return replace(
                state, left=True, asked=None, frozen=None, untold=untold, tell=Timer(now_s), hello=OFF, propose=OFF,
                merge=OFF,
            ), ()  # fmt: skip
        case _:
            return state, ()


def _is_meant(state: State, message: Message) -> bool:
    if message.epoch != state.epoch or message.sender == state.id:
        return False
    if message.sender in state.gone and message.kind is not Kind.LEAVE:
        return False
    return message.to is None or message.to == state.id


def _hear(state: State, message: Message, now_s: float) -> tuple[State, Out]:
    if message.kind is Kind.LEAVE:
        ack = Message(Kind.ACK, state.epoch, state.id, message.sender, message.version)
        return replace(state, gone=state.gone | {message.sender}), (ack,)
    if message.kind is Kind.ACK:
        told = state.untold.get(message.sender)
        if told is None or told.version != message.version:
            return state, ()
        untold = {k: c for k, c in state.untold.items() if k != message.sender}
        return replace(state, untold=untold, tell=state.tell if untold else OFF), ()
    if state.left:
        return state, (Message(Kind.LEAVE, state.epoch, state.id, message.sender, state.cluster.version),)
    if message.hello is not None:
        return _hear_hello(state, message.sender, message.hello, now_s), ()
    assert message.cluster is not None
    state, replies = _learn(state, message, message.cluster)
    if message.kind is Kind.PROPOSE:
        return _hear_proposal(state, message, message.cluster, replies)
    if message.kind is Kind.MERGE_REQ:
        return _hear_request(state, message, message.cluster, replies)
    return state, replies


def _hear_hello(state: State, sender: int, hello: Hello, now_s: float) -> State:
    reach = frozenset(j for j, _ in hello.leaf.links)
    mine = [k for k, (j, _) in enumerate(hello.leaf.links) if j == state.id]
    knows = hello.heard[mine[0]] if mine else 0
    old = state.peers.get(sender)
    if old is None or hello.sequence > old.sequence:
        peer = Peer(hello.leaf, reach, hello.sequence, max(knows, old.knows if old else 0))
        seen = state.seen if sender in state.seen else {**state.seen, sender: Cluster(0, (sender,))}
        state = replace(state, peers={**state.peers, sender: peer}, seen=seen, offers={})
    elif knows > old.knows:
        state = replace(state, peers={**state.peers, sender: old._replace(knows=knows)})
    elif not mine:
        return state  # said again, to others
    confirms = any(j == sender for j, _ in state.leaf.links)  # our HELLO has a place to say what we heard of it
    lacks = bool(mine) and (knows < state.sequence or (confirms and not hello.sure[mine[0]]))
    if lacks and not state.owes:
        due_s = min(state.hello.due_s, now_s + state.rules.retry_s / 2)  # one answer to all who ask in the meantime
        state = replace(state, owes=True, hello=state.hello._replace(due_s=due_s))
    return state if state.owes or unsure(state) else replace(state, hello=OFF)


def _learn(state: State, message: Message, cluster: Cluster) -> tuple[State, Out]:
    """Note a cluster; join it if it is a later one of this device; contradict its head if it is outdated."""
    newer = {m: cluster for m in cluster.members if m not in state.seen or state.seen[m].stamp < cluster.stamp}
    if newer:
        state = replace(state, seen={**state.seen, **newer})
    mine, outdated = state.id in cluster.members, cluster.stamp < state.cluster.stamp
    if mine and cluster.stamp > state.cluster.stamp:
        state = _enter(state, cluster)
    if message.kind is not Kind.SUMMARY:
        return state, ()
    answers: list[Message] = []
    if message.to is not None or (mine and not outdated):
        answers.append(Message(Kind.ACK, state.epoch, state.id, message.sender, cluster.version))
    if outdated and message.sender == cluster.head and set(cluster.members) & set(state.cluster.members):
        answers.append(_answer(state, Kind.NACK, message.sender))
    return state, tuple(answers)


def _enter(state: State, cluster: Cluster) -> State:
    """Member of a later cluster; members of the old one that are not in it learn of it, if this was their head."""
    orphans = set(present(state)) - set(cluster.members) if state.is_head else set()
    return replace(
        state, cluster=cluster, offers={}, asked=None, frozen=None, untold=dict.fromkeys(sorted(orphans), cluster),
        tell=Timer(-math.inf) if orphans else OFF, propose=OFF, merge=OFF,
    )  # fmt: skip


def _hear_proposal(state: State, message: Message, cluster: Cluster, replies: Out) -> tuple[State, Out]:
    if not state.is_head or message.version != state.cluster.version:
        return state, (*replies, _answer(state, Kind.NACK, message.sender))
    if state.seen.get(message.sender) != cluster or state.wooed.get(message.sender) == (
        cluster.version,
        message.version,
    ):
        return state, replies  # overtaken by a later cluster of its head, or said again
    return replace(state, wooed={**state.wooed, message.sender: (cluster.version, message.version)}), replies


def _hear_request(state: State, message: Message, cluster: Cluster, replies: Out) -> tuple[State, Out]:
    """Absorb a cluster that froze for us, once; say again what became of it if it asks again."""
    own = state.cluster
    if own.stamp > cluster.stamp and set(cluster.members) <= set(own.members):
        return state, (*replies, _answer(state, Kind.MERGE_ACK, message.sender))
    if not state.is_head or message.version != own.version:
        return state, (*replies, _answer(state, Kind.NACK, message.sender))
    if state.frozen is not None:
        return state, replies  # it asks again when this is decided
    if cluster.head > state.id or offer(state, cluster) is None:
        # a member is known to be gone here and not there; the new version makes the refusal final
        state = _announce(state, own.version + 1, own.members)
        return state, (*replies, _answer(state, Kind.NACK, message.sender))
    version = max(own.version, cluster.version) + 1
    state = _announce(state, version, tuple(sorted(own.members + cluster.members)))
    return state, (*replies, _answer(state, Kind.MERGE_ACK, message.sender))


def _answer(state: State, kind: Kind, to: int) -> Message:
    return Message(kind, state.epoch, state.id, to, 0, state.cluster)


def _announce(state: State, version: int, members: tuple[int, ...]) -> State:
    """Head of a changed cluster, which every member has to acknowledge."""
    cluster = Cluster(version, members)
    others = [m for m in members if m != state.id]
    return replace(
        state, cluster=cluster, seen={**state.seen, **dict.fromkeys(members, cluster)}, offers={}, asked=None,
        frozen=None, untold=dict.fromkeys(others, cluster), tell=Timer(-math.inf), propose=OFF, merge=OFF,
    )  # fmt: skip


# what follows from what is known


def _give_up(state: State, now_s: float) -> State:
    """Whoever left too many messages unanswered is taken for gone."""
    patience, lost = state.rules.patience, frozenset[int]()
    if state.hello.tries > patience:
        lost |= unheard(state)
        state = replace(state, hello=Timer(now_s if state.owes else math.inf))
    if state.tell.tries > patience:
        lost |= state.untold.keys()
    if state.merge.tries > patience and state.frozen is not None:
        lost |= {state.frozen.head}
    return replace(state, gone=state.gone | lost) if lost else state


def _settle(state: State, now_s: float) -> State:
    untold = {k: c for k, c in state.untold.items() if k not in state.gone and not _is_past(state, k, c)}
    if len(untold) < len(state.untold):
        state = replace(state, untold=untold, tell=state.tell if untold else OFF)
    if state.left:
        return state
    there = present(state)
    if state.frozen is not None and _is_decided(state, state.frozen):
        state = replace(state, frozen=None, merge=OFF, asked=None)
    if there[-1] == state.id and (not state.is_head or (there != state.cluster.members and state.frozen is None)):
        state = _announce(state, _latest(state) + 1, there)
    elif there[-1] != state.cluster.head:
        state = _report(state, there[-1], now_s)
    if state.is_head and state.frozen is None and not unheard(state):
        state = _choose(state, now_s)
    return state


def _is_past(state: State, peer: int, told: Cluster) -> bool:
    """Whether a device is known to be in a later cluster than the one it was to acknowledge; LEAVE does not age."""
    return not state.left and peer in state.seen and state.seen[peer].stamp > told.stamp


def _is_decided(state: State, target: Cluster) -> bool:
    """Whether the cluster we asked is no more what it was, without us in it: then it never absorbs us."""
    return target.head in state.gone or state.seen[target.head].stamp > target.stamp


def _latest(state: State) -> int:
    return max([state.cluster.version, *(state.seen[m].version for m in state.cluster.members if m in state.seen)])


def _report(state: State, head: int, now_s: float) -> State:
    """The head died or went elsewhere: the largest member left takes over, and hears from us what we last knew."""
    elsewhere = state.seen.get(state.cluster.head, state.cluster)
    told = elsewhere if elsewhere.stamp > state.cluster.stamp else state.cluster
    if state.reported == (head, told) or _is_past(state, head, told):
        return state
    return replace(state, reported=(head, told), untold={**state.untold, head: told}, tell=Timer(now_s))


def _choose(state: State, now_s: float) -> State:
    state, chosen = best(state)
    if chosen != state.asked:
        state = replace(state, asked=chosen, propose=Timer(now_s) if chosen else OFF)
    elif chosen and math.isinf(state.propose.due_s):
        state = replace(state, propose=Timer(now_s + state.rules.retry_s))  # was quiet; there is news
    if chosen is None or state.id > chosen.head:
        return state
    if state.wooed.get(chosen.head) == (chosen.version, state.cluster.version):
        state = replace(state, frozen=chosen, merge=Timer(now_s), propose=OFF)
    return state


# what is due


def _transmit(state: State, now_s: float) -> tuple[State, Out]:
    out: list[Message] = []
    if state.hello.due_s <= now_s:
        waits = bool(unsure(state))
        if waits or state.owes:
            out.append(Message(Kind.HELLO, state.epoch, state.id, hello=hello_of(state)))
        state = replace(state, owes=False, hello=_again(state, state.hello, now_s) if waits else OFF)
    if state.tell.due_s <= now_s:
        out += _told(state)
        state = replace(state, tell=_again(state, state.tell, now_s) if state.untold else OFF)
    asked = state.asked
    if asked is not None and state.propose.due_s <= now_s:
        if now_s - state.changed_s < state.rules.quiet_s:
            out.append(Message(Kind.PROPOSE, state.epoch, state.id, asked.head, asked.version, state.cluster))
            state = replace(state, propose=_again(state, state.propose, now_s))
        else:
            state = replace(state, propose=OFF)
    if state.frozen is not None and state.merge.due_s <= now_s:
        target = state.frozen
        out.append(Message(Kind.MERGE_REQ, state.epoch, state.id, target.head, target.version, state.cluster))
        state = replace(state, merge=_again(state, state.merge, now_s))
    return state, tuple(out)


def _told(state: State) -> list[Message]:
    """What others have to acknowledge; a cluster of one tells it once, to whom it may concern."""
    if state.left:
        return [Message(Kind.LEAVE, state.epoch, state.id, None, state.cluster.version)]
    everybody = state.is_head and (not state.untold or state.cluster in state.untold.values())
    out = [Message(Kind.SUMMARY, state.epoch, state.id, None, 0, state.cluster)] if everybody else []
    return out + [
        Message(Kind.SUMMARY, state.epoch, state.id, peer, 0, cluster)
        for peer, cluster in state.untold.items()
        if not everybody or cluster != state.cluster
    ]


def _again(state: State, timer: Timer, now_s: float) -> Timer:
    wait_s = state.rules.retry_s * min(2**timer.tries, state.rules.backoff)
    return Timer(now_s + wait_s, timer.tries + 1)
