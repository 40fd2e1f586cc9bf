"""The protocol's messages between peers: one letter a turn to each of those who talk, bounded and checked like all.

A turn's letter says how long its sender has had nothing to say, then its messages. An empty one says that its sender
does not talk with the receiver any more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from ..topology.messages import Cluster, Kind, Message, decode, encode
from .wire import Refusal, Refused

MOST_MESSAGES = 4096
MOST_BYTES = 1 << 20
_QUIET = struct.Struct("<H")
_LENGTH = struct.Struct("<H")
_SPOKEN = (Kind.SUMMARY, Kind.PROPOSE, Kind.MERGE_REQ, Kind.MERGE_ACK, Kind.NACK, Kind.ACK)
"""HELLO is not among them, since facts are told before; nor LEAVE, since who goes falls silent."""


class Turn(NamedTuple):
    """What one device said in a turn to another. quiet: as in `topology.conversation.Talk`."""

    quiet: int
    said: tuple[Message, ...]


def pack_turn(quiet: int, said: Iterable[Message]) -> bytes:
    """A turn as a body."""
    parts = [_QUIET.pack(min(quiet, 0xFFFF))]
    for one in map(encode, said):
        parts += [_LENGTH.pack(len(one)), one]
    return b"".join(parts)


def read_turn(body: bytes, src: int, me: int, epoch: int) -> Turn | None:
    """A turn from a body; none where its sender does not talk with this device any more.

    Raises:
        Refused: MALFORMED: truncated, a message of another kind, sender, receiver or epoch, or none; OVERSIZED.
    """
    if not body:
        return None
    if len(body) > MOST_BYTES:
        raise Refused(Refusal.OVERSIZED, f"a turn of {len(body)} bytes exceeds {MOST_BYTES}")
    if len(body) < _QUIET.size:
        raise Refused(Refusal.MALFORMED, "a turn ends inside its head")
    said, at = list[Message](), _QUIET.size
    while at < len(body):
        end = at + _LENGTH.size
        end += _LENGTH.unpack_from(body, at)[0] if end <= len(body) else 0
        if end > len(body) or len(said) == MOST_MESSAGES:
            raise Refused(Refusal.MALFORMED, "a turn ends inside a message, or has too many")
        said.append(_read(body[at + _LENGTH.size : end], src, me, epoch))
        at = end
    return Turn(_QUIET.unpack_from(body)[0], tuple(said))


def _read(data: bytes, src: int, me: int, epoch: int) -> Message:
    try:
        message = decode(data)
    except ValueError as error:
        raise Refused(Refusal.MALFORMED, f"a message about clusters: {error}") from None
    if message.kind not in _SPOKEN or message.sender != src or message.to not in (None, me) or message.epoch != epoch:
        raise Refused(Refusal.MALFORMED, f"a message about clusters that is not for here: {message.kind.name}")
    return message


def read_outcome(body: bytes, src: int, epoch: int) -> Cluster:
    """The cluster a device says it has ended in, from a body.

    Raises:
        Refused: MALFORMED: no such message, or a cluster without its sender.
    """
    message = _read(body, src, src, epoch)
    if message.kind is not Kind.SUMMARY or message.cluster is None or src not in message.cluster.members:
        raise Refused(Refusal.MALFORMED, "not the cluster of its sender")
    return message.cluster
