"""What sockets carry beside payloads, against messages counted one by one; what is really sent is asked in parity."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines import wire
from orthomesh.exchange.framing import (
    ANSWER_BYTES,
    FACTS_BYTES,
    GAIN_BYTES,
    HEAD_BYTES,
    LETTER_BYTES,
    facts_bytes,
    framing_bytes,
    opening_bytes,
)
from orthomesh.types import Edge, Facts, Phase, Plan


def test_the_parts_are_those_of_the_wire() -> None:
    facts = Facts(id=0, public={}, columns={}, payload_bits=8, gains={1: 0.5, 2: 0.25})
    empty = len(wire.pack_facts(Facts(id=0, public={}, columns={}, payload_bits=8))) - FACTS_BYTES  # an empty frame
    assert len(wire.pack_facts(facts)) == empty + FACTS_BYTES + 2 * GAIN_BYTES
    assert empty == 5  # charged as control
    assert wire.HEAD_BYTES == HEAD_BYTES


@given(
    st.integers(2, 6).flatmap(
        lambda m: st.tuples(
            st.just(m), st.lists(st.permutations(range(m)).map(lambda p: Edge(p[0], p[1])), max_size=12)
        )
    )
)
def test_every_message_is_counted_at_both_ends(drawn: tuple[int, list[Edge]]) -> None:
    num, edges = drawn
    plan = Plan(phases=(Phase(name="x", edges=tuple(edges)), Phase(name="y", edges=())))
    sent = dict.fromkeys(range(num), 0)
    for i in range(num):
        for j in set(range(num)) - {i}:
            sent[i] += facts_bytes(num)
            sent[j] += ANSWER_BYTES
    for edge in edges:
        sent[edge.src] += LETTER_BYTES
        sent[edge.dst] += ANSWER_BYTES
    assert framing_bytes(plan, num, range(num)) == sent
    assert framing_bytes(plan, num, [1]) == {1: sent[1]}


def test_whoever_takes_a_connection_proves_itself_at_greater_length() -> None:
    assert opening_bytes(3, False) - opening_bytes(3, True) == opening_bytes(9, False) - opening_bytes(9, True) > 0
