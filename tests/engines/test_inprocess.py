"""The engine in this process: order, envelopes, workers that compute the same and do not outlive their parent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.inprocess import InProcess, pin_threads, worker_pool
from orthomesh.types import Edge, Engine, Envelope, Facts, Message, Phase, Round

T = Round(0, 0, 1)
SECONDS = 20.0

PARENT = """
import multiprocessing, sys, time
from orthomesh.engines.inprocess import worker_pool
pool = worker_pool(2, 1)
started = [pool.submit(time.sleep, 0.2) for _ in range(2)]
[f.result() for f in started]
busy = pool.submit(time.sleep, 600)  # the other one stays idle
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    made = worker_pool(2, 2)
    assert made is not None
    yield made
    made.shutdown()


def message(src: int, dsts: tuple[int, ...], payload: bytes) -> Message:
    return Message(src=src, dsts=dsts, payload=payload, columns={"values": len(payload)})


# example


def test_all_devices_are_hosted() -> None:
    assert InProcess(3).hosted == (0, 1, 2)
    assert isinstance(InProcess(3), Engine)


def test_exchange_on_paper() -> None:
    edges = (Edge(2, 0, 0.5), Edge(1, 0, 0.25), Edge(0, 2), Edge(0, 1))
    outbox = [message(2, (0,), b"two"), message(0, (1,), b"zero"), replace(message(1, (), b"lost"), lost=(0,))]
    inbox = InProcess(4).exchange(outbox, Phase(name="p", edges=edges), T)
    assert inbox == {
        0: [Envelope(edges[1], None), Envelope(edges[0], b"two")],
        1: [Envelope(edges[3], b"zero")],
        2: [Envelope(edges[2], None, said=False)],
        3: [],
    }
    assert list(inbox) == [0, 1, 2, 3]


def test_a_sender_may_send_different_things_to_different_receivers() -> None:
    edges = (Edge(0, 1), Edge(0, 2))
    inbox = InProcess(3).exchange([message(0, (2,), b"b"), message(0, (1,), b"a")], Phase(name="p", edges=edges), T)
    assert [box[0].payload for box in (inbox[1], inbox[2])] == [b"a", b"b"]


def test_an_empty_payload_is_not_a_lost_one() -> None:
    inbox = InProcess(2).exchange([message(0, (1,), b"")], Phase(name="p", edges=(Edge(0, 1),)), T)
    assert inbox[1] == [Envelope(Edge(0, 1), b"")]


def test_everybody_s_facts_come_in_order_of_id() -> None:
    facts = {k: Facts(id=k, public={}, columns={}, payload_bits=k) for k in (2, 0, 1)}
    shared = InProcess(3).share(facts, T)
    assert list(shared) == [0, 1, 2]
    assert shared == facts


# reference


@pytest.mark.parametrize(
    ("fn", "items", "args"),
    [
        (pow, {3: 2, 0: 5, 2: 7}, (2,)),
        (math.hypot, {1: 3.0, 0: 5.0}, (4.0,)),
        (sorted, {0: [3, 1], 1: []}, ()),
        (divmod, {}, (1,)),
    ],
)
def test_map_is_the_same_on_workers_and_in_order_of_id(
    pool: ProcessPoolExecutor, fn: Callable[..., Any], items: dict[int, Any], args: tuple[Any, ...]
) -> None:
    here, there = (InProcess(4, p).map(fn, items, *args) for p in (None, pool))
    assert here == there == {k: fn(item, *args) for k, item in items.items()}
    assert list(here) == list(there) == sorted(items)


def test_workers_are_others_than_this_process(pool: ProcessPoolExecutor) -> None:
    ask = {0: "__import__('os').getpid()"}
    assert InProcess(1).map(eval, ask) == {0: os.getpid()}
    assert InProcess(1, pool).map(eval, ask) != {0: os.getpid()}


# law


@st.composite
def phases(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], set[tuple[int, int]]]:
    """Number of devices, edges in any order, and those whose transfer the air erases."""
    num = draw(st.integers(1, 6))
    pairs = [(i, j) for i in range(num) for j in range(num) if i != j]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return num, edges, set(draw(st.lists(st.sampled_from(edges)))) if edges else set()


@given(phases(), st.randoms(use_true_random=False))
def test_exactly_one_envelope_per_incoming_edge_in_order_of_sender(
    drawn: tuple[int, list[tuple[int, int]], set[tuple[int, int]]], random: Any
) -> None:
    num, pairs, erased = drawn
    reached = {i: tuple(j for src, j in pairs if src == i and (i, j) not in erased) for i in range(num)}
    outbox = [message(i, dsts, bytes([i])) for i, dsts in reached.items()]
    random.shuffle(outbox)
    phase = Phase(name="p", edges=tuple(Edge(i, j) for i, j in pairs))
    inbox = InProcess(num).exchange(outbox, phase, T)
    assert list(inbox) == list(range(num))
    for k, box in inbox.items():
        assert [e.edge.src for e in box] == sorted(i for i, j in pairs if j == k)
        assert all(e.edge.dst == k for e in box)
        assert {e.edge.src for e in box if e.payload is None} == {i for i, j in erased if j == k}
        assert all(e.payload in (None, bytes([e.edge.src])) for e in box)


# edge


def test_one_worker_needs_no_pool() -> None:
    assert worker_pool(1, 1) is None


@pytest.mark.parametrize("on_workers", [False, True])
def test_what_goes_wrong_in_a_job_comes_out_of_map(pool: ProcessPoolExecutor, on_workers: bool) -> None:
    engine = InProcess(2, pool if on_workers else None)
    with pytest.raises(ValueError, match="'x'"):
        engine.map(int, {0: "1", 1: "x"})
    assert engine.map(int, {0: "1"}) == {0: 1}  # and the engine goes on


def test_threads_are_pinned() -> None:
    before = torch.get_num_threads()
    try:
        for num in (2, 1):
            pin_threads(num)
            assert torch.get_num_threads() == num
    finally:
        torch.set_num_threads(before)


def test_workers_compute_with_pinned_threads_and_leave_interrupts_to_the_parent(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(torch.get_num_threads).result() == 2  # this process has one
    assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN


def test_workers_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        os.kill(parent.pid, signal.SIGKILL)
        try:
            parent.communicate(timeout=SECONDS)  # ends when the last process that holds the pipe is gone
        except subprocess.TimeoutExpired:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"workers were still there {SECONDS:g} s after their parent was killed")
    assert parent.returncode == -signal.SIGKILL
