"""How cost grows with devices and workers: CPU seconds and memory per device, in one process, on workers, on Ray.

Embedded tasks, 5 steps of 8 examples a round, 3 rounds, the first of which warms up and is not counted. CPU is that of
this process and of all workers; memory is what this process holds beyond its state before the first device, over the
number of devices, since workers hold the model and no device. `waits` is wall time over the CPU time a worker had.

    python -m benchmarks.scaling [--devices 10 50 200 500] [--engine inprocess ray] [--workers 1 2] [--method gossip]
    python -m benchmarks.scaling --plot scaling.svg --method gossip orthomesh

Each line is a process of its own.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = 3


def measure(num_devices: int, engine: str, workers: int, label: str) -> dict[str, Any]:
    """Run one line in this process."""
    import psutil

    from orthomesh.checkpoint import digest
    from orthomesh.engines.inprocess import InProcess, pin_threads, worker_pool
    from orthomesh.engines.ray import ray_pool
    from orthomesh.methods.gossip_lora import GossipLora
    from orthomesh.methods.setup import Setup
    from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
    from orthomesh.models.base import load_base
    from orthomesh.models.settings import ModelSettings, TrainSettings
    from orthomesh.round import run_round
    from orthomesh.tasks.embedded import TASKS
    from orthomesh.tasks.settings import TaskSettings
    from orthomesh.types import Round
    from orthomesh.wireless.air import SimulatedAir
    from orthomesh.wireless.channel import Channel
    from orthomesh.wireless.link import Radio

    pin_threads(1)
    setup = Setup(
        seed=0, assignment=tuple(list(TASKS)[k % len(TASKS)] for k in range(num_devices)), model=ModelSettings(),
        train=TrainSettings(steps=5, batch_size=8), tasks=TaskSettings(train_examples=40, test_examples=1),
        radio=Radio(deadline_s=5.0),
    )  # fmt: skip
    method = (GossipLora() if label == "gossip" else SparseOrthogonal()).build(setup)
    air = SimulatedAir(channel=Channel(radius_m=400.0), radio=setup.radio, seed=0, num_devices=num_devices)
    pool = ray_pool(workers, 1) if engine == "ray" else worker_pool(workers, 1)
    run, me = InProcess(num_devices, pool), psutil.Process()
    pids = {0: me.pid, **(dict(enumerate(_pids(pool, workers), 1)) if pool else {})}
    load_base(setup.model)  # plans look at it; it is not of the devices
    before = me.memory_info().rss
    devices = {k: method.init(k) for k in run.hosted}
    started, spent, most = 0.0, 0.0, 0
    for index in range(ROUNDS):
        if index == 1:
            started, spent = time.monotonic(), _cpu_s(pids)
        devices, _ = run_round(Round(0, index, ROUNDS), devices, method, air, run)
        most = max(most, me.memory_info().rss - before)
    wall_s, cpu_s = time.monotonic() - started, _cpu_s(pids) - spent
    if pool:
        pool.shutdown()
    return {
        "devices": num_devices, "engine": engine, "workers": workers, "method": label,
        "cpu_ms": 1e3 * cpu_s / num_devices / (ROUNDS - 1), "wall_s": wall_s / (ROUNDS - 1),
        "kB": most / 1e3 / num_devices, "sha256": digest(devices),
    }  # fmt: skip


def _pids(pool: Any, workers: int) -> list[int]:
    """Of all workers: each answers once while the others wait."""
    asked = [pool.submit(_who) for _ in range(4 * workers)]
    found = {future.result() for future in asked}
    while len(found) < workers:
        found.add(pool.submit(_who).result())
    return sorted(found)


def _who() -> int:
    time.sleep(0.2)
    return os.getpid()


def _cpu_s(pids: dict[int, int]) -> float:
    import psutil

    return sum(t.user + t.system for t in (psutil.Process(pid).cpu_times() for pid in pids.values()))


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, a line a run."""
    lines = [
        "| method | engine | workers | devices | CPU a device and round, ms | memory a device, kB | wall a round, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in found:
        lines.append(
            f"| {r['method']} | {r['engine']} | {r['workers']} | {r['devices']} | {r['cpu_ms']:.1f} | {r['kB']:.0f} "
            f"| {r['wall_s']:.1f} |"
        )
    return "\n".join(lines)


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """CPU and memory per device over the number of devices."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=("CPU a device and round, ms", "memory a device, kB"))
    for name in dict.fromkeys((r["method"], r["engine"], r["workers"]) for r in found):
        mine = [r for r in found if (r["method"], r["engine"], r["workers"]) == name]
        for column, field in ((1, "cpu_ms"), (2, "kB")):
            line = go.Scatter(
                x=[r["devices"] for r in mine], y=[r[field] for r in mine], mode="lines+markers",
                name="{}, {}, {} workers".format(*name), showlegend=column == 1,
            )  # fmt: skip
            figure.add_trace(line, row=1, col=column)
    figure.update_xaxes(type="log", title="devices")
    figure.update_yaxes(rangemode="tozero")
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    """One process a line, then the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--devices", type=int, nargs="+", default=[10, 50, 200, 500])
    p.add_argument("--engine", nargs="+", choices=("inprocess", "ray"), default=["inprocess", "ray"])
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    p.add_argument("--method", nargs="+", choices=("gossip", "orthomesh"), default=["gossip"])
    p.add_argument("--plot", type=Path, help="an HTML file for the figure")
    p.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one:
        print(json.dumps(measure(a.devices[0], a.engine[0], a.workers[0], a.method[0])))
        return
    found = []
    for method in a.method:
        for engine in a.engine:
            for workers in a.workers:
                for count in a.devices:
                    line = [str(x) for x in ("--devices", count, "--engine", engine, "--workers", workers)]
                    command = [sys.executable, "-m", "benchmarks.scaling", "--one", *line, "--method", method]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode:
                        print(f"{method}, {engine}, {workers}, {count}: {done.stderr.strip().splitlines()[-1]}")
                        continue
                    found.append(json.loads(done.stdout.splitlines()[-1]))
                    print(table(found).splitlines()[-1], flush=True)
    for method in a.method:
        for count in a.devices:
            same = {r["sha256"] for r in found if (r["method"], r["devices"]) == (method, count)}
            print(f"{method}, {count} devices: {len(same)} different final states")
    print(table(found))
    if a.plot:
        plot(found, a.plot)


if __name__ == "__main__":
    main()
