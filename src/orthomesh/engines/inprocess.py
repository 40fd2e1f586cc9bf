"""The in-process engine: hosts every device, computes in this process or on worker processes beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..exchange.framing import talk_bytes
from ..topology.conversation import converse
from ..types import Envelope, Facts, Formed, Forming, Message, Phase, Round

Y = TypeVar("Y")


@runtime_checkable
class Pool(Protocol):
    """What computes beside this process: workers on this machine, or on a cluster."""

    def submit(self, fn: Callable[..., Y], /, *args: Any) -> Future[Y]:
        """Have a worker compute `fn(*args)`."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers."""
        ...


@dataclass(frozen=True)
class InProcess:
    """Every device in one process. With `pool`, `map` runs on its workers; the result does not change.

    Nothing is lost beyond what the air lost, so `share` and `exchange` only regroup.
    """

    num_devices: int
    pool: Pool | None = field(default=None, compare=False)

    @property
    def hosted(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self.num_devices))

    def map(self, fn: Callable[..., Y], items: Mapping[int, Any], *args: Any) -> dict[int, Y]:
        """Apply `fn(item, *args)` to each item, in order of id."""
        if self.pool is None:
            return {k: fn(items[k], *args) for k in sorted(items)}
        futures = {k: self.pool.submit(fn, items[k], *args) for k in sorted(items)}
        return {k: f.result() for k, f in futures.items()}

    def share(self, facts: Mapping[int, Facts], t: Round) -> dict[int, Facts]:
        """Everybody's facts are already here."""
        return {k: facts[k] for k in sorted(facts)}

    def form(self, forming: Forming, t: Round) -> Formed:
        """The talk of all, in turns."""
        ended = converse(forming.leaves, forming.price, t.index)
        others = len(forming.leaves) - 1
        return Formed(
            ended.clusters, ended.told, {k: talk_bytes(ended.turns, n, others) for k, n in ended.copies.items()}
        )

    def exchange(self, outbox: Sequence[Message], phase: Phase, t: Round) -> dict[int, list[Envelope]]:
        """One envelope per edge, in order of sender; empty where no message covers the edge, or the air took it."""
        payload = {(m.src, dst): m.payload for m in outbox for dst in m.dsts}
        said = payload.keys() | {(m.src, dst) for m in outbox for dst in m.lost}
        inbox: dict[int, list[Envelope]] = {k: [] for k in self.hosted}
        for edge in sorted(phase.edges, key=lambda e: e.src):
            pair = edge.src, edge.dst
            inbox[edge.dst].append(Envelope(edge, payload.get(pair), pair in said))
        return inbox


def worker_pool(num_workers: int, num_threads: int) -> ProcessPoolExecutor | None:
    """Worker processes with a pinned number of torch threads each; none for a single worker.

    Workers are spawned, not forked, so that torch and its threads start clean; each loads the base model once.
    """
    if num_workers <= 1:
        return None
    return ProcessPoolExecutor(
        max_workers=num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(num_threads,),
    )


def start_worker(num_threads: int) -> None:
    """Pin threads, leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pin_threads(num_threads)


def _end_with_parent() -> None:
    """Wait for the parent; a worker without one has nobody to work for and would stay for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def pin_threads(num_threads: int) -> None:
    """Fix how many threads torch computes with: results are bitwise equal only for the same number.

    Idle OpenMP threads must not spin, or two threads on a busy machine run twenty times slower than one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch  # after the environment is set

    torch.set_num_threads(num_threads)
