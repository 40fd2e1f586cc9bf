"""What one device knows while clusters form, as a frozen record, and what follows from it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from .messages import Cluster, Hello, Leaf

Price = Callable[[tuple[Leaf, ...]], tuple[float, float] | None]
Offer = tuple[float, float, int, int]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The same on every device of an epoch, but for the times.

    price: (collision rate, needed power in W) of a union from its leaves, ids ascending, or none where it is not
    allowed. A pure function, and monotone: no subset of an allowed set is refused or costs more. Links need not be
    checked: a union is priced only if all its members are linked both ways.
    retry_s: wait before a message is sent again; doubled up to `backoff` times that. patience: a device that leaves so
    many in a row unanswered is taken for gone. quiet_s: a head that learns nothing new for so long stops asking.
    """

    price: Price
    retry_s: float = 0.5
    backoff: int = 8
    patience: int = 500
    quiet_s: float = 1800.0


class Peer(NamedTuple):
    """What was heard of another device. knows: the last own sequence it has heard, 0 for none."""

    leaf: Leaf
    reach: frozenset[int]
    sequence: int
    knows: int


class Timer(NamedTuple):
    """When to send next, and how often it was in vain."""

    due_s: float = math.inf
    tries: int = 0


OFF = Timer()


@dataclass(frozen=True, kw_only=True)
class State:
    """One device.

    leaf, sequence: itself, and how often it changed. peers: whose HELLO came. gone: who left, died, is out of reach.
    cluster: its own. seen: by device, the latest cluster known to contain it. offers: by head, the cluster it was
    computed for and its key. asked: whom this head proposed to. wooed: by head, (its version, ours) of a proposal.
    frozen: whom this head asked to absorb its cluster; until that is decided it agrees to nothing else.
    untold: by device, a cluster it has yet to acknowledge. reported: to whom, when the head was lost.
    owes: somebody lacks our HELLO. left: said LEAVE. changed_s: when it last learned something, s.
    """

    rules: Rules
    epoch: int
    leaf: Leaf
    cluster: Cluster
    sequence: int = 1
    peers: Mapping[int, Peer]
    gone: frozenset[int] = frozenset()
    seen: Mapping[int, Cluster]
    offers: Mapping[int, tuple[Cluster, Offer | None]]
    asked: Cluster | None = None
    wooed: Mapping[int, tuple[int, int]]
    frozen: Cluster | None = None
    untold: Mapping[int, Cluster]
    reported: tuple[int, Cluster] | None = None
    owes: bool = False
    left: bool = False
    changed_s: float
    hello: Timer = OFF
    tell: Timer = OFF
    propose: Timer = OFF
    merge: Timer = OFF

    @property
    def id(self) -> int:
        """The device."""
        return self.leaf.id

    @property
    def is_head(self) -> bool:
        """Whether it speaks for its cluster."""
        return self.cluster.head == self.leaf.id


def wake_s(state: State) -> float:
    """When the next `Tick` is due, s; infinite if nothing is waited for."""
    return min(state.hello.due_s, state.tell.due_s, state.propose.due_s, state.merge.due_s)


def is_settled(state: State) -> bool:
    """Whether the device has nothing to say: no merger it knows of, nothing unacknowledged; all know if it left."""
    return math.isinf(wake_s(state))


def unheard(state: State) -> frozenset[int]:
    """Neighbours whose HELLO has not come; before it has, no merger may be chosen: a better one could be unknown."""
    return frozenset(j for j, _ in state.leaf.links if j not in state.peers) - state.gone


def unsure(state: State) -> frozenset[int]:
    """Neighbours that may not have heard the present HELLO; one that cannot be reached has to ask for it."""
    known = (state.peers[j] for j, _ in state.leaf.links if j in state.peers and j not in state.gone)
    return unheard(state) | {p.leaf.id for p in known if state.id in p.reach and p.knows < state.sequence}


def hello_of(state: State) -> Hello:
    """What to tell everybody about oneself and what was heard."""
    heard, sure = [], []
    for j, _ in state.leaf.links:
        peer = state.peers.get(j)
        heard.append(peer.sequence if peer else 0)
        sure.append(peer is not None and peer.knows >= state.sequence)
    return Hello(state.leaf, state.sequence, tuple(heard), tuple(sure))


def present(state: State) -> tuple[int, ...]:
    """Members of the own cluster that are neither gone nor known to be in a later one."""
    stamp, seen, me = state.cluster.stamp, state.seen, state.id
    return tuple(
        m
        for m in state.cluster.members
        if m == me or (m not in state.gone and (m not in seen or seen[m].stamp <= stamp))
    )


def best(state: State) -> tuple[State, Cluster | None]:
    """The cluster of lowest key among those the own one may merge with, and a state that remembers the keys.

    The key is (collision rate, power, lower head, higher head). A cluster that has grown unnoticed costs more than
    believed, never less: such a belief can delay a merger, not cause a wrong one.
    """
    offers = dict(state.offers)
    found: tuple[Offer, Cluster] | None = None
    for head, cluster in state.seen.items():
        if cluster.head != head or head in state.cluster.members or head in state.gone:
            continue
        if head not in offers or offers[head][0] != cluster:
            offers[head] = (cluster, offer(state, cluster))
        key = offers[head][1]
        if key is not None and (found is None or key < found[0]):
            found = key, cluster
    return replace(state, offers=offers), found[1] if found else None


def offer(state: State, other: Cluster) -> Offer | None:
    """Key of the union with another cluster, none where it is not allowed."""
    own = set(state.cluster.members)
    theirs = set(other.members)
    if own & theirs or (own | theirs) & state.gone:
        return None
    leaves: dict[int, Leaf] = {state.id: state.leaf}
    if not all(reaches(state.leaf, k) for k in theirs):
        return None
    for k in (own | theirs) - {state.id}:
        if k not in state.peers or not state.peers[k].reach.issuperset(theirs if k in own else own):
            return None
        leaves[k] = state.peers[k].leaf
    price = state.rules.price(tuple(leaves[k] for k in sorted(leaves)))
    if price is None:
        return None
    if math.isnan(price[0]) or math.isnan(price[1]):
        raise ValueError(f"clustering: the price of {sorted(leaves)} is not a number, got {price}")
    heads = sorted((state.cluster.head, other.head))
    return (*price, heads[0], heads[1])


def reaches(leaf: Leaf, other: int) -> bool:
    """Whether a device has a link to another."""
    at = bisect_left(leaf.links, (other,))
    return at < len(leaf.links) and leaf.links[at][0] == other
