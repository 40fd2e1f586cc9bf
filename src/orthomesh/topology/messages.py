"""What devices say to find their clusters without a server, and its bytes: bounded fields, nothing unpickled.

Sixteen bytes of head (`OC`, format, kind, epoch, sender, receiver), then what the kind needs, little-endian. A summary
names members only: whoever can use it heard their densities and links in their HELLO, because members of a cluster
one could join are all neighbours.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from itertools import pairwise
from typing import Any, NamedTuple

MAGIC, FORMAT = b"OC", 1
EVERYBODY = 2**32 - 1
"""Stands for no single receiver; device ids and counters are below it."""
MAX_GROUPS = 4096
MAX_LINKS = 4096
MAX_MEMBERS = 1024
_HEAD = struct.Struct("<2sBBIII")
_HELLO = struct.Struct("<IdHH")  # sequence, payload in bits, groups, links
_LINK = struct.Struct("<IdI?")  # neighbour, gain, heard, sure
_COUNTED = struct.Struct("<IH")  # version, members
MAX_BYTES = _HEAD.size + _HELLO.size + 4 * MAX_GROUPS + _LINK.size * MAX_LINKS


class Kind(IntEnum):
    """The eight messages, by their byte on the air."""

    HELLO = 1
    SUMMARY = 2
    PROPOSE = 3
    MERGE_REQ = 4
    MERGE_ACK = 5
    NACK = 6
    ACK = 7
    LEAVE = 8


class Leaf(NamedTuple):
    """One device as clusters see it; a union is priced from the leaves of its members.

    densities: share of positions per group of matrices, in [0, 1], exact in float32. payload_bits: what it sends.
    links: (neighbour, linear power gain to it) ascending, of those it can reach by Lemma 1.
    """

    id: int
    densities: tuple[float, ...]
    payload_bits: float
    links: tuple[tuple[int, float], ...]


class Hello(NamedTuple):
    """A leaf, how often it changed, and what its sender knows of its neighbours, in the order of the links.

    heard: the sequence last heard of each, 0 for none. sure: whether each is known to have heard this one.
    """

    leaf: Leaf
    sequence: int
    heard: tuple[int, ...]
    sure: tuple[bool, ...]


class Cluster(NamedTuple):
    """A cluster at one moment. version: higher than that of every cluster its members were in. members: ascending."""

    version: int
    members: tuple[int, ...]

    @property
    def head(self) -> int:
        """Who speaks for it, and its name: the largest member."""
        return self.members[-1]

    @property
    def stamp(self) -> tuple[int, int]:
        """Of two clusters that claim a device, the one with the larger stamp has it."""
        return self.version, self.members[-1]


class Message(NamedTuple):
    """One transmission; `to` is none where everybody in range is meant.

    version: of the receiver's cluster (PROPOSE, MERGE_REQ), of what is acknowledged (ACK), of the sender's (LEAVE).
    """

    kind: Kind
    epoch: int
    sender: int
    to: int | None = None
    version: int = 0
    cluster: Cluster | None = None
    hello: Hello | None = None


_WITH_VERSION = (Kind.PROPOSE, Kind.MERGE_REQ, Kind.ACK, Kind.LEAVE)
_WITH_CLUSTER = (Kind.SUMMARY, Kind.PROPOSE, Kind.MERGE_REQ, Kind.MERGE_ACK, Kind.NACK)
_BROADCAST = (Kind.HELLO, Kind.SUMMARY, Kind.LEAVE)


def encode(message: Message) -> bytes:
    """Bytes of a message, as long as what it says.

    Args:
        message: what to send.

    Returns:
        Between 16 bytes and `MAX_BYTES`.

    Raises:
        ValueError: a field out of range, or a body that the kind does not have.

    >>> len(encode(Message(Kind.SUMMARY, 0, 7, cluster=Cluster(1, (2, 7)))))
    30
    """
    check(message)
    to = EVERYBODY if message.to is None else message.to
    parts = [_HEAD.pack(MAGIC, FORMAT, message.kind, message.epoch, message.sender, to)]
    if message.kind in _WITH_VERSION:
        parts.append(struct.pack("<I", message.version))
    if message.cluster is not None:
        members = message.cluster.members
        parts.append(_COUNTED.pack(message.cluster.version, len(members)) + struct.pack(f"<{len(members)}I", *members))
    if message.hello is not None:
        leaf, sequence, heard, sure = message.hello
        parts.append(_HELLO.pack(sequence, leaf.payload_bits, len(leaf.densities), len(leaf.links)))
        parts.append(struct.pack(f"<{len(leaf.densities)}f", *leaf.densities))
        parts += [_LINK.pack(j, gain, h, s) for (j, gain), h, s in zip(leaf.links, heard, sure, strict=True)]
    return b"".join(parts)


def decode(payload: bytes) -> Message:
    """The message in some bytes, every field checked: what arrives may be anything.

    Args:
        payload: what arrived.

    Returns:
        A message that `encode` turns back into the same bytes.

    Raises:
        ValueError: not a message, of another format, truncated, over a limit, out of range, bytes left over.
    """
    if not _HEAD.size <= len(payload) <= MAX_BYTES:
        raise ValueError(f"a message takes {_HEAD.size} to {MAX_BYTES} bytes, got {len(payload)}")
    magic, form, number, epoch, sender, to = _HEAD.unpack_from(payload)
    if magic != MAGIC or form != FORMAT:
        raise ValueError(
            f"not a message of this protocol: begins with {payload[:3]!r}, want {MAGIC + bytes([FORMAT])!r}"
        )
    if number not in Kind.__members__.values():
        raise ValueError(f"a message is of kind 1 to {len(Kind)}, got {number}")
    kind, at, version, cluster, hello = Kind(number), _HEAD.size, 0, None, None
    if kind in _WITH_VERSION:
        (version,) = _take(struct.Struct("<I"), payload, at)
        at += 4
    if kind in _WITH_CLUSTER:
        cluster_version, count = _take(_COUNTED, payload, at)
        members = struct.Struct(f"<{_at_most(count, MAX_MEMBERS, 'members')}I")
        cluster = Cluster(cluster_version, _take(members, payload, at + _COUNTED.size))
        at += _COUNTED.size + members.size
    if kind is Kind.HELLO:
        hello, at = _decode_hello(sender, payload, at)
    if at != len(payload):
        raise ValueError(f"{kind.name} takes {at} bytes, {len(payload) - at} are left over")
    message = Message(kind, epoch, sender, None if to == EVERYBODY else to, version, cluster, hello)
    check(message)
    return message


def _decode_hello(sender: int, payload: bytes, at: int) -> tuple[Hello, int]:
    sequence, bits, num_groups, num_links = _take(_HELLO, payload, at)
    at += _HELLO.size
    groups = struct.Struct(f"<{_at_most(num_groups, MAX_GROUPS, 'groups')}f")
    densities = _take(groups, payload, at)
    at += groups.size
    size = _LINK.size * _at_most(num_links, MAX_LINKS, "links")
    if len(payload) < at + size:
        raise ValueError(
            f"truncated: {num_links} links take {size} bytes from byte {at}, {len(payload) - at} are there"
        )
    links = list(_LINK.iter_unpack(payload[at : at + size]))
    if any(payload[at + k] > 1 for k in range(_LINK.size - 1, size, _LINK.size)):
        raise ValueError("whether a neighbour has heard is 0 or 1")
    leaf = Leaf(sender, densities, bits, tuple((link[0], link[1]) for link in links))
    return Hello(leaf, sequence, tuple(link[2] for link in links), tuple(link[3] for link in links)), at + size


def _take(layout: struct.Struct, payload: bytes, at: int) -> tuple[Any, ...]:
    if len(payload) < at + layout.size:
        raise ValueError(f"truncated: {layout.size} bytes wanted from byte {at}, {len(payload) - at} are there")
    return layout.unpack_from(payload, at)


def _at_most(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise ValueError(f"a message has at most {limit} {what}, got {count}")
    return count


def check(message: Message) -> None:
    """That a message is one of this protocol.

    Raises:
        ValueError: which field is wrong, and what it may be.
    """
    kind, cluster = message.kind, message.cluster
    numbers = [message.epoch, message.sender, message.version] + ([] if message.to is None else [message.to])
    if not all(0 <= number < EVERYBODY for number in numbers):
        raise ValueError(f"epoch, sender, receiver and version are 0 to {EVERYBODY - 1}, got {numbers}")
    if message.to == message.sender or (message.to is None and kind not in _BROADCAST):
        raise ValueError(f"{kind.name} needs a receiver other than its sender {message.sender}, got {message.to}")
    if message.to is not None and kind is Kind.HELLO:
        raise ValueError(f"HELLO is for everybody, not for device {message.to}")
    if (cluster is not None) != (kind in _WITH_CLUSTER) or (message.hello is not None) != (kind is Kind.HELLO):
        raise ValueError(f"{kind.name} has a body of another kind")
    if message.version and kind not in _WITH_VERSION:
        raise ValueError(f"{kind.name} names no version, got {message.version}")
    if cluster is not None:
        _check_cluster(message, cluster)
    if message.hello is not None:
        _check_hello(message.sender, message.hello)


def _check_cluster(message: Message, cluster: Cluster) -> None:
    kind, members = message.kind, cluster.members
    if not (0 <= cluster.version < EVERYBODY and 1 <= len(members) <= MAX_MEMBERS and _ascending(members)):
        raise ValueError(f"a cluster has a version and 1 to {MAX_MEMBERS} ascending members, got {cluster}")
    if kind in (Kind.PROPOSE, Kind.MERGE_REQ) and (cluster.head != message.sender or message.to in members):
        raise ValueError(f"{kind.name} comes from a head to another cluster, got {cluster} from {message.sender}")
    if kind is Kind.MERGE_ACK and not {message.to, message.sender} <= set(members):
        raise ValueError(f"MERGE_ACK is between members, got {cluster} from {message.sender} to {message.to}")


def _check_hello(sender: int, hello: Hello) -> None:
    leaf = hello.leaf
    check_leaf(leaf)
    if leaf.id != sender or not 1 <= hello.sequence < EVERYBODY:
        raise ValueError(f"HELLO speaks for its sender, from sequence 1 on: {sender} says {leaf.id}, {hello.sequence}")
    if not len(hello.heard) == len(hello.sure) == len(leaf.links):
        raise ValueError(f"HELLO says of {len(leaf.links)} links what was heard, got {len(hello.heard)}")
    if not all(0 <= number < EVERYBODY for number in hello.heard):
        raise ValueError(f"sequences are 0 to {EVERYBODY - 1}, got {max(hello.heard)}")


def check_leaf(leaf: Leaf) -> None:
    """That a device can be told of.

    Raises:
        ValueError: an id, density, payload, neighbour or gain out of range, or a density that float32 would change.
    """
    ids = tuple(j for j, _ in leaf.links)
    if not (0 <= leaf.id < EVERYBODY and _ascending(ids) and leaf.id not in ids):
        raise ValueError(f"device {leaf.id}: neighbours are other devices, ascending, 0 to {EVERYBODY - 1}")
    if not (1 <= len(leaf.densities) <= MAX_GROUPS and len(leaf.links) <= MAX_LINKS):
        raise ValueError(
            f"device {leaf.id} has {len(leaf.densities)} densities and {len(leaf.links)} links; "
            f"1 to {MAX_GROUPS} and at most {MAX_LINKS} can be told"
        )
    for density in leaf.densities:
        if not 0.0 <= density <= 1.0 or struct.unpack("<f", struct.pack("<f", density))[0] != density:
            raise ValueError(f"device {leaf.id}: a density lies in [0, 1] and is told in float32, got {density!r}")
    if not 0.0 <= leaf.payload_bits < math.inf:
        raise ValueError(f"device {leaf.id}: a payload has a finite number of bits >= 0, got {leaf.payload_bits}")
    for j, gain in leaf.links:
        if not 0.0 <= gain < math.inf:
            raise ValueError(f"device {leaf.id}: the gain to {j} is a finite number >= 0, got {gain}")


def _ascending(ids: tuple[int, ...]) -> bool:
    return all(0 <= i < EVERYBODY for i in ids) and all(i < j for i, j in pairwise(ids))
