"""Compute spread over the cores and GPUs of a cluster by Ray: a pool for the in-process engine, so that results agree.

One fat worker for each core or GPU, not one for each device: a worker holds the base model once and advances whichever
device is next. A worker that dies is started again and its work repeated; since everything a device does is a pure
function of its state, the result does not change.
"""

from __future__ import annotations

import os
import queue
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from .inprocess import pin_threads

Y = TypeVar("Y")

STARTS = 4
"""How often a cluster of this machine's own is started before the run gives up."""
REPEATS = 5
"""How often work is repeated on a worker that was started again, before the run gives up."""


@dataclass(frozen=True)
class RayPool:
    """Workers on a Ray cluster, with the two verbs of a pool of processes.

    workers: handles that are idle. callers: one thread a worker, which waits for it. own: whether this process started
    the cluster, and so ends it.
    """

    workers: queue.SimpleQueue[Any]
    callers: ThreadPoolExecutor
    own: bool

    def submit(self, fn: Callable[..., Y], /, *args: Any) -> Future[Y]:
        """Have the next idle worker compute `fn(*args)`.

        Raises (from the future):
            ValueError, OSError, ...: whatever `fn` raised.
            RuntimeError: a worker died again and again.
        """
        return self.callers.submit(self._call, fn, args)

    def _call(self, fn: Callable[..., Y], args: tuple[Any, ...]) -> Y:
        import ray

        worker = self.workers.get()
        try:
            done: Y = ray.get(worker.compute.remote(fn, args))
            return done
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            reason = " ".join(str(error).split())[:200]
            raise RuntimeError(f"a Ray worker died {REPEATS} times over the same work: {reason}") from None
        finally:
            self.workers.put(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, and the cluster where this process started it."""
        import ray

        self.callers.shutdown(wait=wait, cancel_futures=cancel_futures)
        while not self.workers.empty():
            ray.kill(self.workers.get())
        if self.own:
            ray.shutdown()


class Worker:
    """What runs on one core or GPU: it computes what it is given, and keeps what it has loaded."""

    def __init__(self, num_threads: int) -> None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        pin_threads(num_threads)

    def compute(self, fn: Callable[..., Y], args: tuple[Any, ...]) -> Y:
        """`fn(*args)`."""
        return fn(*args)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()


def ray_pool(num_workers: int, num_threads: int, address: str | None = None, gpus: bool = False) -> RayPool:
    """Start workers on a Ray cluster.

    Args:
        num_workers: how many; one for each core or GPU that is to compute.
        num_threads: torch threads of each, pinned; each asks the cluster for as many cores.
        address: `host:port` of a running cluster, `auto` for the one of this machine; none starts one here.
        gpus: whether each worker wants a GPU to itself.

    Returns:
        The pool.

    Raises:
        ValueError: Ray is not installed, no cluster at the address, or one with too few cores or GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a simulation calls nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # workers are what computes; at Ray's 15 anything else comes first
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # on a busy machine its 30 s are too short
    try:
        import ray
    except ImportError:
        raise ValueError("engine: ray is not installed; pip install 'orthomesh[ray]'") from None
    own = not ray.is_initialized()
    if own:
        _connect(address, num_workers * num_threads)
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": num_workers * num_threads, "GPU": num_workers * gpus}
    for kind, count in wanted.items():
        if there.get(kind, 0) < count:
            found = f"{there.get(kind, 0):g}"
            if own:
                ray.shutdown()
            raise ValueError(f"engine: {num_workers} workers want {count} {kind}s of the Ray cluster, it has {found}")
    remote = ray.remote(Worker).options(
        num_cpus=num_threads, num_gpus=int(gpus), max_restarts=-1, max_task_retries=REPEATS
    )
    workers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(num_workers):
        workers.put(remote.remote(num_threads))
    return RayPool(workers, ThreadPoolExecutor(num_workers, thread_name_prefix="ray"), own)


def _connect(address: str | None, num_cpus: int) -> None:
    """Join a cluster, or start one in this machine with as many cores as are asked for.

    Ray gives its own processes 30 s to show themselves, which no setting of its changes; on a busy machine they come
    later, so that it is asked again.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    here: dict[str, Any] = {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": 1 << 29}
    for left in range(STARTS - 1 if address is None else 0, -1, -1):
        try:
            ray.init(**quiet, **(here if address is None else {"address": address}))
            return
        except Exception as error:  # too slow a start is a bare one
            reason = " ".join(str(error).split())[:200]
            slow = "timed out" in reason.lower()
            if not slow and not isinstance(error, ConnectionError | ValueError | RuntimeError):
                raise
            ray.shutdown()
            if not slow or not left:
                where = address or f"this machine{f', asked {STARTS} times' if slow else ''}"
                raise ValueError(f"engine: no Ray cluster answers at {where}: {reason}") from None
            warnings.warn(
                "Ray has not started in the 30 s it gives itself, this machine is busy; once more", stacklevel=3
            )
