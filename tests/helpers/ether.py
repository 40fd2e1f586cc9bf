"""Connections between peers in one process, without sockets: to lose, hold back or end what they carry at will."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orthomesh.engines.deadlines import Patience
from orthomesh.engines.links import Book
from orthomesh.engines.mailbox import Terms
from orthomesh.engines.peer import Peer
from orthomesh.engines.sockets import Carried

TERMS = Terms(run="test", config="c" * 64, base="b" * 64, version="1")
PATIENCE = Patience(meet_s=20, first_s=20, least_s=20, gone_s=0.1, factor=1)


@dataclass
class Ether:
    """apart: pairs without a connection, both ways. lost: whether a message from, to, of these bytes is lost."""

    apart: set[frozenset[int]] = field(default_factory=set)
    lost: Callable[[int, int, bytes], bool] = lambda src, dst, data: False
    ends: dict[int, Connections] = field(default_factory=dict)

    def links(self, book: Book, life: int, receive: Any, tell: Any, changed: Any) -> Connections:
        """In the place of `Links`."""
        self.ends[book.me] = Connections(self, book, life, receive)
        return self.ends[book.me]


@dataclass
class Connections:
    """One device's."""

    ether: Ether
    book: Book
    life: int
    receive: Callable[[int, bytes], bytes]
    zid: str = "z"
    lock: threading.Lock = field(default_factory=threading.Lock)

    def knows(self, zid: str, device: int) -> None:
        """Nothing is counted here."""

    def push(self, dst: int, data: bytes, timeout_s: float) -> bytes | None:
        """To whoever is there and connected, now."""
        me, there = self.book.me, self.ether.ends.get(dst)
        if there is None or frozenset((me, dst)) in self.ether.apart or self.ether.lost(me, dst, data):
            return None
        return there.receive(me, data)

    def alive(self) -> dict[int, set[int]]:
        """All that are there and connected."""
        me, ends = self.book.me, dict(self.ether.ends)
        return {k: {e.life} for k, e in ends.items() if k != me and frozenset((me, k)) not in self.ether.apart}

    def meter(self) -> dict[int, Carried]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """It is not there any more."""
        self.ether.ends.pop(self.book.me, None)


def peer(me: int, count: int, **options: Any) -> Peer:
    """A peer among so many; where `peer.Links` is an ether's, without a socket."""
    book = Book(
        me=me, names=tuple("abcdefghij"[:count]), listen="127.0.0.1:1", addresses={}, credentials=None,
        discovery=False, max_body=1 << 16,
    )  # fmt: skip
    usual = {"life": me + 1, "terms": TERMS, "run": bytes(8), "story": b"{}", "patience": PATIENCE}
    return Peer(book=book, **{**usual, **options})
