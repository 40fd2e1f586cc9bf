"""What travels between two devices: messages of a fixed head and raw bytes, checked at every step, never unpickled.

A head says what kind of message it is, which run, from whom to whom, which method, round and phase it belongs to, how
long its body is, and a checksum over all of it. Whatever does not fit is refused with a reason from `Refusal`, which is
what a device counts. Facts have a body of their own, since a plan needs more of them than their arrays.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ..exchange.payload import Section, decode, encode
from ..types import COLUMNS, Column, Facts

MAGIC = b"OMW1"
VERSION = 1
CHECK_BYTES = 8
RUN_BYTES = 8
MAX_DEVICES = 1 << 16
MAX_METHODS = 256
MAX_ROUNDS = 1 << 24
MAX_PHASES = 1 << 12
MAX_BODY = 1 << 30
"""Bytes; a device takes less where it is told so."""
_HEAD = struct.Struct("<4sBBBB8sHHQIHQ")
HEAD_BYTES = _HEAD.size + CHECK_BYTES


class Kind(IntEnum):
    """What a message is for."""

    HELLO = 1  # who I am and what I run
    FACTS = 2  # of this round
    PARCEL = 3  # over one edge of a phase
    NOTHING = 4  # over this edge nothing comes: the air took it
    ASK = 5  # what you have heard of what all tell all, or one of it
    TALK = 6  # a turn of the talk in which clusters form
    OUTCOME = 7  # the cluster I have ended in
    UNSAID = 8  # over this edge nothing comes, since I had nothing to say


class Refusal(IntEnum):
    """Why a message was not taken; what is counted and answered."""

    MALFORMED = 1
    OVERSIZED = 2
    OTHER_RUN = 3
    OTHER_DEVICE = 4  # not from or not to whom it says
    STALE = 5  # of a round that is over
    REPLAYED = 6  # a second one with other content, or of an earlier life
    DIFFERENT = 7  # settings, base model or version differ
    TAKEN = 8  # somebody of this name is here
    STRANGER = 9  # has not greeted since the receiver was started


class Refused(ValueError):
    """A message that is not taken, and why."""

    def __init__(self, why: Refusal, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


class Stage(NamedTuple):
    """Where a run stands: number of the method among the run's, and round of it. Ordered as they happen."""

    method: int
    round: int


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One message as both ends see it.

    run: digest of what all devices of a run agree on. [8 bytes]  life: grows whenever the sender starts anew.
    phase: place in the plan's phases, 0 where there is none. body: raw bytes; what they mean, `kind` says.
    """

    kind: Kind
    run: bytes
    src: int
    dst: int
    life: int
    stage: Stage
    phase: int = 0
    body: bytes = b""


def pack(letter: Letter) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: a field beyond its bounds.
    """
    if wrong := _out_of_bounds(letter):
        raise ValueError(wrong)
    if len(letter.run) != RUN_BYTES or len(letter.body) > MAX_BODY:
        raise ValueError(f"a run is {RUN_BYTES} bytes and a body at most {MAX_BODY}, got {len(letter.body)}")
    head = _HEAD.pack(
        MAGIC, VERSION, letter.kind, letter.stage.method, 0, letter.run, letter.src, letter.dst, letter.life,
        letter.stage.round, letter.phase, len(letter.body),
    )  # fmt: skip
    return b"".join((head, _check(head, letter.body), letter.body))


def unpack(data: bytes, max_body: int = MAX_BODY) -> Letter:
    """A message from bytes, or a refusal.

    Args:
        data: what arrived.
        max_body: longest body that is taken, bytes.

    Raises:
        Refused: MALFORMED: no message, truncated, another version, unknown kind, a field beyond its bounds, a wrong
            checksum; OVERSIZED: the body exceeds `max_body`.
    """
    if len(data) < HEAD_BYTES:
        raise Refused(Refusal.MALFORMED, f"{len(data)} bytes are no message: its head alone has {HEAD_BYTES}")
    magic, version, kind, method, spare, run, src, dst, life, round_, phase, length = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Refused(Refusal.MALFORMED, f"a message begins with {MAGIC!r} version {VERSION}, not {data[:5]!r}")
    if length > max_body:
        raise Refused(Refusal.OVERSIZED, f"a body of {length} bytes exceeds the {max_body} that are taken")
    if len(data) != HEAD_BYTES + length:
        raise Refused(Refusal.MALFORMED, f"{len(data) - HEAD_BYTES} bytes follow the head that announces {length}")
    if kind not in Kind.__members__.values() or spare:
        raise Refused(Refusal.MALFORMED, f"there is no message of kind {kind}, flags {spare}")
    body = data[HEAD_BYTES:]
    if _check(data[: _HEAD.size], body) != data[_HEAD.size : HEAD_BYTES]:
        raise Refused(Refusal.MALFORMED, "the checksum does not match: the message was altered on the way")
    letter = Letter(
        kind=Kind(kind), run=run, src=src, dst=dst, life=life, stage=Stage(method, round_), phase=phase, body=body
    )
    if wrong := _out_of_bounds(letter):
        raise Refused(Refusal.MALFORMED, wrong)
    return letter


def _check(head: bytes, body: bytes) -> bytes:
    total = hashlib.blake2b(head, digest_size=CHECK_BYTES)
    total.update(body)
    return total.digest()


def _out_of_bounds(letter: Letter) -> str:
    """Which field of a head is beyond its bounds, in words; empty where none is."""
    bounds = {
        "src": (letter.src, MAX_DEVICES), "dst": (letter.dst, MAX_DEVICES), "life": (letter.life, 1 << 64),
        "method": (letter.stage.method, MAX_METHODS), "round": (letter.stage.round, MAX_ROUNDS),
        "phase": (letter.phase, MAX_PHASES),
    }  # fmt: skip
    return next((f"{n} {v} is not below {bound}" for n, (v, bound) in bounds.items() if not 0 <= v < bound), "")


_FACTS = struct.Struct(f"<Q{len(COLUMNS)}IH")
_GAIN = struct.Struct("<Hd")
LARGEST_BITS = 1 << 62


def pack_facts(facts: Facts) -> bytes:
    """Facts as a body: payload size, bytes by column, gains, then the arrays as a frame of `exchange.payload`."""
    columns = [facts.columns.get(c, 0) for c in COLUMNS]
    gains = [_GAIN.pack(k, facts.gains[k]) for k in sorted(facts.gains)]
    frame = encode([Section("control", name, array) for name, array in facts.public.items()])
    return b"".join((_FACTS.pack(facts.payload_bits, *columns, len(gains)), *gains, frame.payload))


def unpack_facts(body: bytes, device: int, max_bytes: int) -> Facts:
    """Facts from a body.

    Args:
        body: what `pack_facts` made.
        device: whose they are.
        max_bytes: most bytes their arrays may take in memory.

    Raises:
        Refused: MALFORMED, whatever does not fit: truncated, gains that are negative or not finite, of a device twice
            or beyond bounds, sizes beyond bounds, arrays that `exchange.payload.decode` refuses.
    """
    if len(body) < _FACTS.size:
        raise Refused(Refusal.MALFORMED, f"facts of {len(body)} bytes end inside their head")
    bits, *counts, num_gains = _FACTS.unpack_from(body)
    end = _FACTS.size + num_gains * _GAIN.size
    if num_gains > MAX_DEVICES or len(body) < end:
        raise Refused(Refusal.MALFORMED, f"facts that announce {num_gains} gains end before them")
    if max(bits, *counts) >= LARGEST_BITS:
        raise Refused(Refusal.MALFORMED, f"facts of a payload of {bits} bits and {counts} bytes are beyond all bounds")
    gains = dict(_GAIN.iter_unpack(body[_FACTS.size : end]))
    if len(gains) < num_gains or not all(k < MAX_DEVICES and np.isfinite(g) and g >= 0 for k, g in gains.items()):
        raise Refused(Refusal.MALFORMED, "facts with a gain that is no gain, or two of one device")
    try:
        public = decode(body[end:], max_bytes)
    except ValueError as error:
        raise Refused(Refusal.MALFORMED, f"facts whose arrays cannot be read: {error}") from None
    return Facts(id=device, public=public, columns=_columns(counts), payload_bits=bits, gains=gains)


def _columns(counts: list[int]) -> Mapping[Column, int]:
    return {c: n for c, n in zip(COLUMNS, counts, strict=True) if n}
