"""What encrypted sockets carry beside what a method sends: heads, acknowledgements, the opening of a connection (R8).

A model in constants, known before a run and the same for all methods: so many bytes for each message of the plan. It
holds for ids of one or two digits and zenoh 1.10 over TLS 1.3 with certificates of `orthomesh keys`. Left out is what
nobody knows before: signs of life (2.5 bytes a second), repetitions, and a record of TLS every 16 kB (0.14 %).
Simulations record it beside the five columns; the simulated radio has frames of its own, and is not charged for it.
"""

from __future__ import annotations

from collections.abc import Collection

from ..types import Plan

HEAD_BYTES = 50
"""Of a message between peers: `engines.wire`."""
QUERY_BYTES = 42
"""What zenoh and TLS put around a message."""
ANSWER_BYTES = 95
"""An acknowledgement, with all around it."""
FACTS_BYTES, GAIN_BYTES = 30, 10
"""What facts say beside their arrays: sizes by column, and for every other device a gain."""
LETTER_BYTES = HEAD_BYTES + QUERY_BYTES
QUIET_BYTES, LENGTH_BYTES = 2, 2
"""Of a turn in a talk about clusters, and of each message in it: `engines.talking`."""
DIALLED_BYTES, TAKEN_BYTES, NAME_BYTES = 1050, 1285, 19
"""Until a connection stands: by whoever dialled, by the other; and for each device of the run."""
GREETINGS, GREETING_BYTES = 2, 215
"""How often two devices usually greet each other, and a greeting with its head."""


def opening_bytes(num_devices: int, dialled: bool) -> int:
    """Sent to one device until a connection stands and both have greeted: handshake of TLS, zenoh's own, greetings.

    >>> opening_bytes(10, True), opening_bytes(10, False)
    (1944, 2179)
    """
    greeted = GREETINGS * (GREETING_BYTES + QUERY_BYTES + ANSWER_BYTES)
    return (DIALLED_BYTES if dialled else TAKEN_BYTES) + NAME_BYTES * num_devices + greeted


def facts_bytes(num_devices: int) -> int:
    """Around facts told to one device.

    >>> facts_bytes(10)
    212
    """
    return LETTER_BYTES + FACTS_BYTES + GAIN_BYTES * (num_devices - 1)


def framing_bytes(plan: Plan, num_devices: int, hosted: Collection[int]) -> dict[int, int]:
    r"""Bytes of framing that devices send in a round on sockets, besides payloads and facts.

    .. math::  (M - 1)(h + q + f + (M - 1) g + a) + (h + q) n_{out} + a n_{in}

    Args:
        plan: of the round; every edge carries a message, be it that nothing comes.
        num_devices: M, whose facts it was made with, each told to every other one.
        hosted: whose bytes are asked for.

    Returns:
        Bytes by device.

    >>> framing_bytes(Plan(phases=()), 2, [0])
    {0: 227}
    """
    told = (num_devices - 1) * (facts_bytes(num_devices) + ANSWER_BYTES)
    sent = {k: told for k in sorted(hosted)}
    for edge in (e for phase in plan.phases for e in phase.edges):
        if edge.src in sent:
            sent[edge.src] += LETTER_BYTES
        if edge.dst in sent:
            sent[edge.dst] += ANSWER_BYTES
    return sent


def talk_bytes(turns: int, copies: int, others: int) -> int:
    r"""Bytes of framing of a talk about clusters: a message to each of the others in every turn, and one at the end.

    .. math::  (M - 1) ((T + 1) (h + q + a + 2) + h + q + a) + 2 c

    Args:
        turns: T, after the first.
        copies: c, messages of the protocol that were in them, to each receiver.
        others: M - 1.

    >>> talk_bytes(5, 8, 1)
    1337
    """
    letter = LETTER_BYTES + ANSWER_BYTES
    return others * ((turns + 1) * (letter + QUIET_BYTES) + letter) + LENGTH_BYTES * copies
