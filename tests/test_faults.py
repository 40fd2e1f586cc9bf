"""Devices are killed, frozen and cut off: rounds close without them, and who returns catches up.

Without a model, so that it costs little; the whole peer under all faults is in test_faults_slow.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import lone_peer
import pytest
from benchmarks.fleet import Relay
from lone_peer import made, play

from orthomesh.engines.peer import Peer

pytestmark = pytest.mark.timeout(120)  # no wait is without end; how long it takes is the machine's affair


def until(peer: Peer, index: int, got: bool, within: int = 200) -> int:
    """Play rounds until one ends with or without what the other sends; the next round."""
    for n in range(index, index + within):
        if play(peer, n) is got:
            return n + 1
    raise AssertionError(f"{within} rounds, none of them with arrived = {got}")


def test_one_is_killed_and_returns_and_is_frozen_and_returns(free_ports: Callable[[int], list[int]]) -> None:
    here, there = (f"127.0.0.1:{port}" for port in free_ports(2))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    started: list[subprocess.Popen[bytes]] = []

    def start(life: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(lone_peer.__file__), there, here, str(life)]
        started.append(subprocess.Popen(command, env=environment))
        return started[-1]

    a = made(0, here, {1: there}, 1)
    try:
        other = start(2)
        assert a.meet() == {}
        index = until(a, 0, True)
        other.send_signal(signal.SIGKILL)
        index = until(a, index, False)
        assert a.missing == {1}
        other = start(3)
        index = until(a, index, True)
        assert "device 1 is back" in a.box.news()
        other.send_signal(signal.SIGSTOP)
        index = until(a, index, False)
        index = until(a, index, False)  # it stays away as long as it is frozen
        other.send_signal(signal.SIGCONT)
        until(a, index, True)
    finally:
        for one in started:
            one.kill()
            one.wait()
        a.close()


@pytest.fixture
def pair(free_ports: Callable[[int], list[int]]) -> Iterator[tuple[list[Peer], Relay]]:
    """Two that have met, with a relay between them."""
    here, there = (f"127.0.0.1:{port}" for port in free_ports(2))
    relay = Relay(here)
    both = [made(0, here, {}, 1), made(1, there, {0: relay.address}, 2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(Peer.meet, both)) == [{}, {}]
    yield both, relay
    for peer in both:
        peer.close()
    relay.close()


def play_both(peers: list[Peer], index: int) -> list[bool]:
    """A round of both."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(play, peers, [index] * 2))


def test_a_partition_closes_rounds_and_heals(pair: tuple[list[Peer], Relay]) -> None:
    peers, relay = pair
    assert play_both(peers, 0) == [True, True]
    relay.dead = True
    assert play_both(peers, 1) == [False, False]
    assert [p.missing for p in peers] == [{1}, {0}]
    relay.dead = False
    assert any(play_both(peers, index) == [True, True] for index in range(2, 12))


def test_connections_that_are_cut_in_the_middle_lose_nothing(pair: tuple[list[Peer], Relay]) -> None:
    peers, relay = pair
    relay.delay_s = 0.1
    with ThreadPoolExecutor(1) as threads:
        cuts = threads.submit(lambda: [(time.sleep(0.35), relay.cut()) for _ in range(3)])
        got = [play_both(peers, index) for index in range(4)]
        cuts.result()
    relay.delay_s = 0.0
    assert got.count([True, True]) >= 1
    assert any(play_both(peers, index) == [True, True] for index in range(4, 14))
