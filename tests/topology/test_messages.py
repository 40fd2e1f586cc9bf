"""Messages of the clustering protocol and their bytes."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orthomesh.topology.messages import (
    EVERYBODY,
    MAX_BYTES,
    MAX_LINKS,
    MAX_MEMBERS,
    Cluster,
    Hello,
    Kind,
    Leaf,
    Message,
    check_leaf,
    decode,
    encode,
)

ids = st.integers(0, EVERYBODY - 1)
unit = st.floats(0, 1, width=32)
positive = st.floats(0, 1e30)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message there is."""
    kind = draw(st.sampled_from(Kind))
    epoch, number, sender = draw(ids), draw(ids), draw(ids)
    to = draw(ids.filter(lambda i: i != sender))
    if kind is Kind.HELLO:
        near = sorted(draw(st.sets(ids.filter(lambda i: i != sender), max_size=5)))
        leaf = Leaf(
            sender, tuple(draw(st.lists(unit, min_size=1, max_size=5))), draw(positive),
            tuple((j, draw(positive)) for j in near),
        )  # fmt: skip
        heard, sure = tuple(draw(ids) for _ in near), tuple(draw(st.booleans()) for _ in near)
        return Message(kind, epoch, sender, hello=Hello(leaf, max(number, 1), heard, sure))
    if kind in (Kind.ACK, Kind.LEAVE):
        return Message(kind, epoch, sender, to, version=number)
    members = draw(st.sets(ids, min_size=1, max_size=6))
    if kind in (Kind.PROPOSE, Kind.MERGE_REQ):
        members = {i for i in members if i < sender and i != to} | {sender}
    if kind is Kind.MERGE_ACK:
        members |= {sender, to}
    cluster = Cluster(draw(ids), tuple(sorted(members)))
    version = number if kind in (Kind.PROPOSE, Kind.MERGE_REQ) else 0
    return Message(kind, epoch, sender, None if kind is Kind.SUMMARY else to, version, cluster)


def hello(**changed: object) -> Message:
    leaf = Leaf(7, (0.25, 0.5), 1e6, ((2, 1e-6), (9, 0.5)))._replace(**changed)
    return Message(Kind.HELLO, 1, leaf.id, hello=Hello(leaf, 1, (0,) * len(leaf.links), (False,) * len(leaf.links)))


# example


def test_bytes_on_paper() -> None:
    """Head: 2 + 1 + 1 + 3 x 4 = 16. A cluster: version 4, count 2, 4 per member. HELLO: 16 + 4 a group + 17 a link."""
    payload = encode(Message(Kind.PROPOSE, 3, 7, 9, 5, Cluster(4, (2, 7))))
    assert payload == struct.pack("<2sBBIII I IH II", b"OC", 1, 3, 3, 7, 9, 5, 4, 2, 2, 7)
    assert len(payload) == 16 + 4 + 6 + 8
    assert len(encode(Message(Kind.ACK, 0, 1, 2, 3))) == len(encode(Message(Kind.LEAVE, 0, 1))) == 20
    assert len(encode(hello())) == 16 + 16 + 2 * 4 + 2 * 17
    assert encode(hello())[-17:] == struct.pack("<IdI?", 9, 0.5, 0, False)


def test_the_head_is_the_largest_member_and_the_later_cluster_has_the_larger_stamp() -> None:
    assert Cluster(3, (1, 5)).head == 5
    assert Cluster(3, (1, 5)).stamp < Cluster(3, (2, 6)).stamp < Cluster(4, (1, 2)).stamp


# law


@given(messages())
def test_what_is_sent_arrives(message: Message) -> None:
    payload = encode(message)
    assert decode(payload) == message
    assert len(payload) <= MAX_BYTES


def decodes_or_says_why(payload: bytes) -> None:
    """No other error escapes, and what was understood is what was sent, to the byte."""
    try:
        message = decode(payload)
    except ValueError as error:
        reason = str(error)
    else:
        assert encode(message) == payload
        return
    assert len(reason) > 20


@given(st.binary(max_size=120))
@example(b"")
def test_any_bytes_are_decoded_or_refused_with_a_sentence(payload: bytes) -> None:
    decodes_or_says_why(payload)


@given(st.integers(0, 20), st.binary(max_size=80))
def test_anything_behind_a_right_head_is_decoded_or_refused(kind: int, body: bytes) -> None:
    decodes_or_says_why(struct.pack("<2sBBIII", b"OC", 1, kind, 1, 2, 3 if kind > 2 else EVERYBODY) + body)


@given(messages(), st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damaged_messages_are_decoded_or_refused(message: Message, at: int, byte: int, length: int) -> None:
    payload = bytearray(encode(message))
    payload[at % len(payload)] = byte
    decodes_or_says_why(bytes(payload))
    decodes_or_says_why(bytes(payload[:length]))
    decodes_or_says_why(bytes(payload) + bytes(1))


# edge


def test_counts_are_bounded_before_anything_is_built() -> None:
    head = struct.pack("<2sBBIII", b"OC", 1, 2, 0, 1, EVERYBODY)
    with pytest.raises(ValueError, match="at most 1024 members, got 2000"):
        decode(head + struct.pack("<IH", 0, 2000) + bytes(4 * 2000))
    with pytest.raises(ValueError, match=f"16 to {MAX_BYTES} bytes"):
        decode(head + bytes(MAX_BYTES))
    with pytest.raises(ValueError, match="at most 4096 links, got 65535"):
        decode(struct.pack("<2sBBIII IdHH f", b"OC", 1, 1, 0, 1, EVERYBODY, 1, 0.0, 1, 65535, 0.5))
    largest = Leaf(2**31, (0.5,) * 4096, 1.0, tuple((j, 1.0) for j in range(MAX_LINKS)))
    message = Message(Kind.HELLO, 0, 2**31, hello=Hello(largest, 1, (0,) * MAX_LINKS, (True,) * MAX_LINKS))
    assert len(encode(message)) == MAX_BYTES
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"densities": (1.5,)}, r"a density lies in \[0, 1\]"),
        ({"densities": (1e300,)}, r"a density lies in \[0, 1\]"),
        ({"densities": (math.nan,)}, r"a density lies in \[0, 1\]"),
        ({"densities": (0.1,)}, r"told in float32, got 0.1"),
        ({"densities": ()}, r"has 0 densities"),
        ({"payload_bits": math.inf}, r"a finite number of bits"),
        ({"links": ((2, -1.0),)}, r"the gain to 2 is a finite number >= 0"),
        ({"links": ((2, math.nan),)}, r"the gain to 2 is a finite number >= 0"),
        ({"links": ((9, 1.0), (2, 1.0))}, r"neighbours are other devices, ascending"),
        ({"links": ((7, 1.0),)}, r"neighbours are other devices"),
    ],
)
def test_a_leaf_that_cannot_be_told_is_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode(hello(**changed))
    check_leaf(Leaf(7, (float(np.float32(0.1)),), 0.0, ()))


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Message(Kind.ACK, 0, 1), "ACK needs a receiver other than its sender 1, got None"),
        (Message(Kind.ACK, 0, 1, 1), "ACK needs a receiver"),
        (Message(Kind.ACK, 0, EVERYBODY, 1), "epoch, sender, receiver and version are 0 to"),
        (Message(Kind.SUMMARY, 0, 1), "body of another kind"),
        (Message(Kind.LEAVE, 0, 1, cluster=Cluster(0, (1,))), "body of another kind"),
        (Message(Kind.NACK, 0, 1, 2, 3, Cluster(0, (1,))), "NACK names no version, got 3"),
        (Message(Kind.NACK, 0, 1, 2, 0, Cluster(0, ())), f"1 to {MAX_MEMBERS} ascending members"),
        (Message(Kind.NACK, 0, 1, 2, 0, Cluster(0, (3, 1))), "ascending members"),
        (Message(Kind.PROPOSE, 0, 1, 2, 0, Cluster(0, (0,))), "PROPOSE comes from a head"),
        (Message(Kind.MERGE_REQ, 0, 5, 2, 0, Cluster(0, (2, 5))), "to another cluster"),
        (Message(Kind.MERGE_ACK, 0, 5, 2, 0, Cluster(0, (5, 6))), "MERGE_ACK is between members"),
        (hello()._replace(to=3), "HELLO is for everybody"),
        (hello()._replace(sender=3), "HELLO speaks for its sender"),
    ],
)
def test_what_is_no_message_is_refused(message: Message, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode(message)


def test_a_hello_says_something_of_every_link() -> None:
    message = hello()
    assert message.hello is not None
    for wrong, sentence in (
        (message.hello._replace(heard=(0,)), "says of 2 links"),
        (message.hello._replace(heard=(0, EVERYBODY)), "sequences are 0 to"),
        (message.hello._replace(sequence=0), "from sequence 1 on"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encode(message._replace(hello=wrong))


def test_other_protocols_are_refused() -> None:
    payload = encode(hello())
    with pytest.raises(ValueError, match="not a message of this protocol"):
        decode(b"OM1" + payload[3:])
    with pytest.raises(ValueError, match="kind 1 to 8, got 9"):
        decode(payload[:3] + b"\x09" + payload[4:])
    with pytest.raises(ValueError, match="whether a neighbour has heard is 0 or 1"):
        decode(payload[:-1] + b"\x02")
