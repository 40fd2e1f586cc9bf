"""Peers are killed, frozen and cut off: rounds close without them, nothing trained is lost, who returns catches up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benchmarks.fleet import Fleet, Relay, fleet

from orthomesh.checkpoint import load_devices
from orthomesh.engines.deadlines import Patience
from orthomesh.engines.links import Book
from orthomesh.engines.mailbox import Terms
from orthomesh.engines.peer import Peer
from orthomesh.engines.wire import RUN_BYTES, Stage
from orthomesh.exchange.payload import Section, encode
from orthomesh.types import Edge, Facts, Message, Phase, Round

BODY = encode([Section("values", "v", np.arange(200, dtype=np.uint8))]).payload
BOTH = Phase(name="x", edges=(Edge(0, 1), Edge(1, 0)))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Fleet]:
    made = fleet(tmp_path, 3, "rounds=8", patience={"meet_s": 60.0})
    made.pause_s = 1.0
    yield made
    made.close()


@pytest.mark.timeout(400)
def test_one_is_killed_inside_a_phase_and_returns_and_another_is_frozen(three: Fleet) -> None:
    three.start(0, at="4/facts", how=signal.SIGSTOP)
    three.start(1, at="1/phase 0")
    three.start(2)
    three.until(1, "dead", 200)
    three.start(1)
    three.until(0, "stopped", 100)
    three.until(2, "closed without d0", 100)
    three.signal(0, signal.SIGCONT)
    assert three.ended(200) == {0: 0, 1: 0, 2: 0}
    assert "closed without d1" in three.said(2)
    assert "orthomesh: goes on after round" in three.said(1)  # what it had trained was on disk
    for k, file in enumerate(three.files):
        states, done = load_devices(file.parent / "run" / "state" / "orthomesh.safetensors")
        assert (list(states), done) == ([k], 8)


@pytest.fixture
def pair(free_ports: object) -> Iterator[tuple[list[Peer], Relay]]:
    """Two that have met, with a relay between them."""
    ports = free_ports(2)  # type: ignore[operator]
    relay = Relay(f"127.0.0.1:{ports[0]}")
    made = []
    for k, port in enumerate(ports):
        book = Book(
            me=k, names=("a", "b"), listen=f"127.0.0.1:{port}", addresses={0: relay.address} if k else {},
            credentials=None, discovery=False, max_body=1 << 16,
        )  # fmt: skip
        patience = Patience(meet_s=20, first_s=2, least_s=1, gone_s=0.3, factor=1)
        terms = Terms(run="test", config="c" * 64, base="b" * 64, version="1")
        made.append(Peer(book=book, life=k + 1, terms=terms, run=bytes(RUN_BYTES), story=b"{}", patience=patience))
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(Peer.meet, made)) == [{}, {}]
    yield made, relay
    for peer in made:
        peer.close()
    relay.close()


def play(peers: list[Peer], index: int) -> list[bool]:
    """A round of both: whether each has got what the other sent."""

    def one(peer: Peer) -> bool:
        me, t = peer.book.me, Round(0, index, 9)
        peer.begin(Stage(0, index))
        peer.share({me: Facts(id=me, public={}, columns={}, payload_bits=8 * len(BODY))}, t)
        sent = Message(src=me, dsts=(1 - me,), payload=BODY, columns={"values": len(BODY)})
        (envelope,) = peer.exchange([sent], BOTH, t)[me]
        return envelope.payload == BODY

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, peers))


def test_a_partition_ends_no_round_late_and_heals(pair: tuple[list[Peer], Relay]) -> None:
    peers, relay = pair
    assert play(peers, 0) == [True, True]
    relay.dead = True
    start = time.monotonic()
    assert play(peers, 1) == [False, False]
    assert time.monotonic() - start < 8  # facts 2 s at most, a message 1 s, and a loaded machine
    assert [p.missing for p in peers] == [{1}, {0}]
    relay.dead = False
    assert any(play(peers, index) == [True, True] for index in range(2, 6))


def test_connections_that_are_cut_in_the_middle_lose_nothing(pair: tuple[list[Peer], Relay]) -> None:
    peers, relay = pair
    relay.delay_s = 0.1
    with ThreadPoolExecutor(1) as threads:
        cuts = threads.submit(lambda: [(time.sleep(0.35), relay.cut()) for _ in range(3)])
        got = [play(peers, index) for index in range(4)]
        cuts.result()
    relay.delay_s = 0.0
    assert got.count([True, True]) >= 1
    assert any(play(peers, index) == [True, True] for index in range(4, 8))
