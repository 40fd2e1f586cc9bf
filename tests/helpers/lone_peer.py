"""A device without a model as a process of its own: python lone_peer.py LISTEN ADDRESS LIFE, to the end of its days."""

from __future__ import annotations

import sys

import numpy as np

from orthomesh.engines.deadlines import Patience
from orthomesh.engines.links import Book
from orthomesh.engines.mailbox import Terms
from orthomesh.engines.peer import Peer
from orthomesh.engines.wire import RUN_BYTES, Stage
from orthomesh.exchange.payload import Section, encode
from orthomesh.types import Edge, Facts, Message, Phase, Round

BODY = encode([Section("values", "v", np.arange(200, dtype=np.uint8))]).payload
BOTH = Phase(name="x", edges=(Edge(0, 1), Edge(1, 0)))
PATIENCE = Patience(meet_s=20, first_s=2, least_s=1, gone_s=0.3, factor=1)


def made(me: int, listen: str, addresses: dict[int, str], life: int) -> Peer:
    """One of two devices."""
    book = Book(
        me=me, names=("a", "b"), listen=listen, addresses=addresses, credentials=None, discovery=False,
        max_body=1 << 16,
    )  # fmt: skip
    terms = Terms(run="test", config="c" * 64, base="b" * 64, version="1")
    return Peer(book=book, life=life, terms=terms, run=bytes(RUN_BYTES), story=b"{}", patience=PATIENCE)


def play(peer: Peer, index: int) -> bool:
    """A round: whether the device got what the other sends."""
    me, t = peer.book.me, Round(0, index, 9)
    peer.begin(Stage(0, index))
    peer.share({me: Facts(id=me, public={}, columns={}, payload_bits=8 * len(BODY))}, t)
    sent = Message(src=me, dsts=(1 - me,), payload=BODY, columns={"values": len(BODY)})
    (envelope,) = peer.exchange([sent], BOTH, t)[me]
    return envelope.payload == BODY


if __name__ == "__main__":
    one = made(1, sys.argv[1], {0: sys.argv[2]}, int(sys.argv[3]))
    one.meet()
    number = 0
    while True:
        number = max(number, one.ahead(Stage(0, number)).round)
        play(one, number)
        number += 1
