"""Which letters everybody has: devices whose facts did not reach all compare what they know until they know the same.

Plans are made from facts, so two devices that know different ones plan differently. Whoever has facts of everybody
needs no comparison, since there is nothing more to know. The others ask around: what one has the others fetch, what one
went on without is left out, and what two have different versions of is left out too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

from .wire import MAX_DEVICES, Refusal, Refused

DIGEST_BYTES = 8
_ENTRY = struct.Struct(f"<H{DIGEST_BYTES}s")


OPEN, WAITED, CLOSED = 0, 1, 255
"""Standings of a device: it still waits for those who tell it themselves; it has waited; it has gone on. In between:
one more than the least standing among those it has compared with and found the same, so that who stands at n + 1 knows
that all within n steps have what it has."""


class Known(NamedTuple):
    """What a device says it has. digests: of the bodies, by device."""

    standing: int
    digests: Mapping[int, bytes]


class Step(NamedTuple):
    """What a device does next. fetch: whom to ask for whose body. leave: whose to go on without. standing: its new."""

    fetch: Mapping[int, int]
    leave: frozenset[int]
    standing: int


def digest(body: bytes) -> bytes:
    """By which two devices tell whether they have the same body."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def pack_known(known: Known) -> bytes:
    """What a device has as bytes: standing, then device and digest in order of id."""
    return bytes([known.standing]) + b"".join(_ENTRY.pack(k, known.digests[k]) for k in sorted(known.digests))


def read_known(data: bytes) -> Known:
    """The same from bytes.

    Raises:
        Refused: MALFORMED: truncated, or devices not ascending.
    """
    if not data or (len(data) - 1) % _ENTRY.size or len(data) > 1 + MAX_DEVICES * _ENTRY.size:
        raise Refused(Refusal.MALFORMED, f"{len(data)} bytes do not say what a device knows")
    entries = list(_ENTRY.iter_unpack(data[1:]))
    ids = [k for k, _ in entries]
    if ids != sorted(set(ids)):
        raise Refused(Refusal.MALFORMED, f"what a device knows of {len(ids)} devices is in disorder")
    return Known(data[0], dict(entries))


def compare(me: int, mine: Mapping[int, bytes], told: Mapping[int, Known], left: frozenset[int] = frozenset()) -> Step:
    """What follows from what the others have.

    Args:
        me: the device, whose own body is nobody's to leave out.
        mine: digests of what it has, by device, its own among them.
        told: what others that are there say they have.
        left: whose it goes on without already.

    Returns:
        What to do. The standing is `WAITED` where something is to be fetched or somebody lacks something.

    >>> a, b = b"a" * 8, b"b" * 8
    >>> compare(0, {0: a}, {2: Known(WAITED, {0: a, 1: b})})
    Step(fetch={1: 2}, leave=frozenset(), standing=1)
    >>> compare(0, {0: a, 1: b}, {2: Known(CLOSED, {0: a}), 3: Known(WAITED, {0: a})})
    Step(fetch={}, leave=frozenset({1}), standing=2)
    """
    closed = [known.digests for known in told.values() if known.standing == CLOSED]
    without = {d for digests in closed for d in mine.keys() - digests}
    apart = {d for known in told.values() for d, seen in known.digests.items() if mine.get(d, seen) != seen}
    leave = frozenset((without | apart | left) - {me})
    fetch: dict[int, int] = {}
    for k in sorted(told):
        for d in told[k].digests.keys() - mine.keys() - leave:
            fetch.setdefault(d, k)
    kept = mine.keys() - leave
    waiting = [known for known in told.values() if known.standing != CLOSED]
    same = not fetch and all(known.digests.keys() >= kept for known in waiting)
    lowest = min((known.standing for known in waiting), default=CLOSED)
    return Step(fetch, leave, min(lowest + 1, CLOSED - 1) if same and lowest >= WAITED else WAITED)


def common(me: int, mine: Mapping[int, bytes], told: Mapping[int, Known]) -> frozenset[int]:
    """What to go on with when time is over: oneself, and what all have that no longer wait themselves."""
    waited = [known.digests for known in told.values() if known.standing != OPEN]
    return frozenset(d for d in mine if d == me or all(d in digests for digests in waited))
