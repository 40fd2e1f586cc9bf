"""After the last round: who was there stays a while for those who were not, so that they fetch what they have missed.

Who has missed the last round of a method goes through one more with whoever is still there, for each such method; it
alone trains in it. The others join as its facts arrive. Two parts that have ended apart do the same, without training.
Nobody stays where nobody was missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .engines.peer import Peer
from .engines.wire import Stage
from .round import run_round
from .types import Air, DeviceState, Learnt, Method, Round

VISITS = 8
"""By those who return, after a run."""


@dataclass
class Ended:
    """One method as this device has ended it. late: its last round went by without this device. absent: who was not
    in it. devices: the states, which later visits may add to; changed: whether one has. trained: the states between
    training and exchange of the last round, where this process was in it."""

    label: str
    method: Method
    devices: Mapping[int, DeviceState]
    late: bool
    absent: set[int] = field(default_factory=set)
    changed: bool = False
    trained: Mapping[int, DeviceState] = field(default_factory=dict)


def last_stage(num_methods: int, rounds: int) -> Stage:
    """Nobody is further than in the last visit, in which every method has a round, nor in a later round of a run.

    >>> last_stage(3, 20)
    Stage(method=10, round=20)
    """
    return Stage(num_methods + VISITS - 1, max(num_methods, rounds))


def close(ended: Sequence[Ended], peer: Peer, t: Round, air: Air) -> Iterator[str]:
    """Catch up with those who are there, then stay for those who are not.

    Args:
        ended: all methods in their order; states are brought up to date.
        peer: the engine; those who visit are in its mailbox.
        t: the last round.
        air: what the radio allows.

    Yields:
        Sentences a user should know.
    """
    names, num = peer.book.names, len(ended)
    waiting = {k for stage, k in peer.claims() if stage >= Stage(num, 0)}  # they have ended without us, we without them
    late = [n for n, one in enumerate(ended) if one.late or one.absent & waiting]
    if late and peer.links.alive():
        furthest = max([Stage(num, 0), *(stage for stage, _ in peer.claims())])  # a lie does no harm here
        visit = furthest.method - num + (furthest.round > 0)
        for n in late:
            stage = Stage(num + min(visit, VISITS - 1), n + 1)
            method = ended[n].method if ended[n].late else replace(ended[n].method, fit=_rests)
            there = _one_more(ended[n], peer, stage, t, air, method)
            yield _caught_up(ended[n].label, [names[k] for k in there if k != peer.book.me])
    elif late:
        yield _caught_up(", ".join(ended[n].label for n in late), [])
    peer.begin(max(peer.box.stage, Stage(num, 0)))
    absent = {k for one in ended for k in one.absent}
    if absent and peer.patience.linger_s:
        who = ", ".join(names[k] for k in sorted(absent))
        yield f"stays up to {peer.patience.linger_s:.0f} s for {who}, who missed the end"
        yield from _stay(ended, peer, t, air)


def _caught_up(label: str, names: Sequence[str]) -> str:
    if not names:
        return f"{label}: the others have ended and are gone; this device ends with what it had"
    return f"{label}: caught up with {', '.join(names)} after the end"


def _stay(ended: Sequence[Ended], peer: Peer, t: Round, air: Air) -> Iterator[str]:
    """Until nobody is missing any more or time is over: longer for those who are connected and on their way here."""
    names, patience, num = peer.book.names, peer.patience, len(ended)
    start = time.monotonic()
    end = start + patience.linger_s
    while (absent := {k for one in ended for k in one.absent}) and (now := time.monotonic()) < end:
        stage = peer.box.called(absent)
        if stage is not None and 1 <= stage.round <= num:
            one = ended[stage.round - 1]
            missing = frozenset(one.absent)
            if came := missing & set(_one_more(one, peer, stage, t, air, replace(one.method, fit=_rests))):
                yield f"{one.label}: {', '.join(names[k] for k in sorted(came))} caught up after the end"
            start = time.monotonic()
            end = start + patience.linger_s
            continue
        if any(peer.box.furthest.get(k, Stage(num, 0)) < Stage(num, 0) for k in absent & peer.links.alive().keys()):
            end = min(start + patience.first_s, max(end, now + patience.linger_s))
        with peer.box.stirred:
            peer.box.stirred.wait(0.2)


def _one_more(one: Ended, peer: Peer, stage: Stage, t: Round, air: Air, method: Method) -> tuple[int, ...]:
    """A further last round of one method; returns who was in it."""
    peer.begin(stage)
    one.devices, _ = run_round(t, one.devices, method, air, peer)
    one.absent -= set(peer.heard)
    one.changed = True
    return peer.heard


def _rests(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
    """No training: all that is had has been trained."""
    return device, Learnt(first_loss=0.0, last_loss=0.0, steps=0, trained=0)
