"""Turns as bytes: what is said comes back, and whatever else arrives is refused."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.talking import Turn, pack_turn, read_outcome, read_turn
from orthomesh.engines.wire import Refusal, Refused
from orthomesh.topology.messages import Cluster, Hello, Kind, Leaf, Message, encode

ACK = Message(Kind.ACK, 3, 1, 0, 2)
TOLD = Message(Kind.SUMMARY, 3, 1, cluster=Cluster(2, (1, 4)))
ASKS = Message(Kind.PROPOSE, 3, 1, 0, 5, Cluster(2, (1,)))


def test_a_turn_survives_the_wire() -> None:
    assert read_turn(pack_turn(7, [ACK, TOLD, ASKS]), 1, 0, 3) == Turn(7, (ACK, TOLD, ASKS))
    assert pack_turn(0, []) == b"\0\0"
    assert read_turn(pack_turn(1 << 20, []), 1, 0, 3) == Turn(0xFFFF, ())


def test_an_empty_body_ends_a_talk() -> None:
    assert read_turn(b"", 1, 0, 3) is None


@pytest.mark.parametrize(
    "message",
    [
        ACK._replace(epoch=4),
        ACK._replace(sender=2),
        ACK._replace(to=2),
        Message(Kind.LEAVE, 3, 1),
        Message(Kind.HELLO, 3, 1, hello=Hello(Leaf(1, (0.5,), 1.0, ()), 1, (), ())),
    ],
)
def test_messages_that_are_not_for_here_are_refused(message: Message) -> None:
    with pytest.raises(Refused, match="not for here") as caught:
        read_turn(pack_turn(0, [message]), 1, 0, 3)
    assert caught.value.why is Refusal.MALFORMED


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        read_turn(bytes((1 << 20) + 1), 1, 0, 3)
    assert caught.value.why is Refusal.OVERSIZED
    with pytest.raises(Refused, match="too many"):
        read_turn(pack_turn(0, [ACK] * 4097), 1, 0, 3)


@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 255))
def test_noise_ends_in_a_refusal_or_a_turn(noise: bytes, at: int, value: int) -> None:
    good = bytearray(pack_turn(1, [ACK, TOLD]))
    good[at % len(good)] = value
    for data in (noise, bytes(good), struct.pack("<HH", 1, len(noise)) + noise, bytes(good[: at % len(good)])):
        with suppress(Refused):
            turn = read_turn(data, 1, 0, 3)
            assert turn is None or all(m.sender == 1 for m in turn.said)


def test_a_device_speaks_for_the_cluster_it_is_in() -> None:
    assert read_outcome(encode(TOLD), 1, 3) == Cluster(2, (1, 4))
    for wrong in (encode(TOLD._replace(cluster=Cluster(2, (4, 5)))), encode(ACK), b"", encode(TOLD._replace(epoch=1))):
        with pytest.raises(Refused):
            read_outcome(wrong, 1, 3)
