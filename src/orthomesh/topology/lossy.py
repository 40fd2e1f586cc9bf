"""The protocol over an air that loses, repeats and delays, in one process: to test it, and to count what it sends."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..rng import stream
from .clusterstate import Rules, State, wake_s
from .messages import EVERYBODY, Kind, Leaf, Message, decode, encode
from .protocol import Depart, Down, Event, Received, Tick, Up, start, step


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What happens to one copy of a message at one receiver, independently of all others.

    loss, repeat: chance that it is lost, that it comes once more. delay_s: it takes uniformly up to so long, so later
    ones overtake.
    """

    loss: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.1


class Dies(NamedTuple):
    """A device stops without a word; the others notice within `Weather.delay_s`."""

    at_s: float
    device: int


class Leaves(NamedTuple):
    """A device says LEAVE, and answers whoever talks to it that it has left."""

    at_s: float
    device: int


class Joins(NamedTuple):
    """A device appears; the others notice within `Weather.delay_s`.

    gains: from those that can reach it. silent_s: so long it neither speaks nor listens; from 2 `Weather.delay_s` on
    all it hears was said by devices that knew of it.
    """

    at_s: float
    leaf: Leaf
    gains: Mapping[int, float]
    silent_s: float = 0.0


class Cut(NamedTuple):
    """Links end, both ways; both ends notice within `Weather.delay_s`."""

    at_s: float
    pairs: tuple[tuple[int, int], ...]


Change = Dies | Leaves | Joins | Cut


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended. clusters: as all members agree, by smallest member; of devices that are still there.

    states: of every device that is still there. sent, sent_bytes: transmissions by kind, a broadcast counts once.
    new: those that said something their sender had not said before.
    device_bytes: what each device sent. duration_s: until nobody had anything to say. deliveries: copies that arrived.
    """

    clusters: tuple[tuple[int, ...], ...]
    states: Mapping[int, State]
    sent: Mapping[Kind, int]
    new: Mapping[Kind, int]
    sent_bytes: Mapping[Kind, int]
    device_bytes: Mapping[int, int]
    duration_s: float
    deliveries: int


@dataclass(kw_only=True)
class _Play:
    rules: Rules
    epoch: int
    weather: Weather
    draws: Iterator[float]
    states: dict[int, State] = field(default_factory=dict)
    ears: dict[int, set[int]] = field(default_factory=dict)
    queue: list[tuple[float, int, int, Event | Change]] = field(default_factory=list)
    planned_s: dict[int, float] = field(default_factory=dict)
    sent: Counter[Kind] = field(default_factory=Counter)
    new: Counter[Kind] = field(default_factory=Counter)
    said: set[bytes] = field(default_factory=set)
    sent_bytes: Counter[Kind] = field(default_factory=Counter)
    device_bytes: Counter[int] = field(default_factory=Counter)
    deliveries: int = 0
    pushed: int = 0

    def push(self, at_s: float, device: int, event: Event | Change) -> None:
        self.pushed += 1
        heapq.heappush(self.queue, (at_s, self.pushed, device, event))


def simulate(
    leaves: Iterable[Leaf],
    rules: Rules,
    weather: Weather,
    draws: Iterator[float],
    changes: Iterable[Change] = (),
    limit_s: float = 3e4,
) -> Outcome:
    """Run the protocol until nobody has anything to say.

    Args:
        leaves: the devices; a broadcast is heard by all that are linked to its sender in either direction.
        rules: of every device.
        weather: loss, repetition, delay.
        draws: numbers in [0, 1) that decide what the weather does; `chances` gives keyed ones.
        changes: who leaves, dies, joins, which links end, and when.
        limit_s: later than this it has not ended.

    Returns:
        Clusters and counts.

    Raises:
        ValueError: a device given twice, an end that is not reached, or members that disagree at the end.
    """
    play = _Play(rules=rules, epoch=0, weather=weather, draws=draws)
    leaves = tuple(leaves)
    if len({leaf.id for leaf in leaves}) < len(leaves):
        raise ValueError(f"clustering: a device is given twice among {[leaf.id for leaf in leaves]}")
    for leaf in leaves:
        for j, _ in leaf.links:
            play.ears.setdefault(leaf.id, set()).add(j)
            play.ears.setdefault(j, set()).add(leaf.id)
    for change in changes:
        play.push(change.at_s, EVERYBODY, change)
    for leaf in leaves:
        _after(play, 0.0, leaf.id, start(leaf, rules, 0, 0.0))
    now_s = 0.0
    while play.queue:
        now_s, _, device, event = heapq.heappop(play.queue)
        if now_s > limit_s:
            raise ValueError(f"clustering has not ended after {limit_s:g} s with {len(play.states)} devices")
        if isinstance(event, Dies | Leaves | Joins | Cut):
            _change(play, now_s, event)
        elif device in play.states:
            _happen(play, now_s, device, event)
    there = {i: state for i, state in sorted(play.states.items()) if not state.left}
    return Outcome(
        clusters=agreed(there), states=there, sent=dict(play.sent), new=dict(play.new),
        sent_bytes=dict(play.sent_bytes), device_bytes=dict(play.device_bytes),
        duration_s=now_s, deliveries=play.deliveries,
    )  # fmt: skip


def chances(seed: int, *ids: int) -> Iterator[float]:
    """Numbers in [0, 1) under a key, without end."""
    rng = stream(seed, "lossy air", *ids)
    while True:
        yield from rng.random(4096).tolist()


def agreed(states: Mapping[int, State]) -> tuple[tuple[int, ...], ...]:
    """The partition the devices believe in.

    Raises:
        ValueError: two devices of which only one believes to be with the other.
    """
    for i, state in states.items():
        for k in state.cluster.members:
            if k not in states or states[k].cluster != state.cluster:
                there = states[k].cluster if k in states else "not there"
                raise ValueError(f"clustering: device {i} believes in {state.cluster}, device {k} is {there}")
    return tuple(sorted({state.cluster.members for state in states.values()}))


def _happen(play: _Play, now_s: float, device: int, event: Event) -> None:
    if isinstance(event, Tick):
        if play.planned_s.get(device) != now_s:
            return  # planned anew since
        play.planned_s[device] = math.inf
    _after(play, now_s, device, step(play.states[device], event, now_s))


def _after(play: _Play, now_s: float, device: int, result: tuple[State, tuple[Message, ...]]) -> None:
    state, out = result
    play.states[device] = state
    for message in out:
        _send(play, now_s, message)
    due_s = wake_s(state)
    if due_s < play.planned_s.get(device, math.inf):
        play.planned_s[device] = due_s
        play.push(due_s, device, Tick())


def _send(play: _Play, now_s: float, message: Message) -> None:
    payload = encode(message)
    play.sent[message.kind] += 1
    if payload not in play.said:
        play.said.add(payload)
        play.new[message.kind] += 1
    play.sent_bytes[message.kind] += len(payload)
    play.device_bytes[message.sender] += len(payload)
    event = Received(decode(payload))
    weather, draw = play.weather, play.draws
    ears = play.ears.get(message.sender, set())
    for receiver in sorted(ears) if message.to is None else [message.to] if message.to in ears else []:
        for _ in range(2 if next(draw) < weather.repeat else 1):
            if next(draw) >= weather.loss:
                play.deliveries += 1
                play.push(now_s + weather.delay_s * next(draw), receiver, event)


def _change(play: _Play, now_s: float, change: Change) -> None:
    match change:
        case Dies(_, device):
            play.states.pop(device, None)
            for other in sorted(play.ears.pop(device, ())):
                play.ears[other].discard(device)
                play.push(now_s + play.weather.delay_s * next(play.draws), other, Down(device))
        case Leaves(_, device):
            _happen(play, now_s, device, Depart())
        case Joins(_, leaf, gains, silent_s):
            play.ears.setdefault(leaf.id, set()).update({j for j, _ in leaf.links} | set(gains))
            for other in sorted(play.ears[leaf.id]):
                play.ears.setdefault(other, set()).add(leaf.id)
            for other, gain in sorted(gains.items()):
                play.push(now_s + play.weather.delay_s * next(play.draws), other, Up(leaf.id, gain))
            if silent_s > 0.0:
                play.push(now_s + silent_s, EVERYBODY, Joins(now_s + silent_s, leaf, {}))  # noticed already
            else:
                _after(play, now_s, leaf.id, start(leaf, play.rules, play.epoch, now_s))
        case Cut(_, pairs):
            for i, j in pairs:
                play.ears[i].discard(j)
                play.ears[j].discard(i)
                play.push(now_s + play.weather.delay_s * next(play.draws), i, Down(j))
                play.push(now_s + play.weather.delay_s * next(play.draws), j, Down(i))
