"""How cost grows with devices and workers: CPU seconds and memory per device, in one process, on workers, on Ray.

Embedded tasks, 2 rounds of 2 steps of 4 examples: the first also finds masks and clusters, after the second, the last,
everybody has what everybody learnt. The circle grows with the devices, so that as many are near, and beyond 50 devices
so does the deadline: a link between clusters has to carry what all devices have learnt. CPU is that of this process
and of all workers, once they have loaded the model, and of that what is not local training; memory is what this process
holds beyond its state before the first device, over the number of devices, since workers hold the model and no device.

    python -m benchmarks.scaling [--devices 10 50 200 500] [--engine inprocess ray] [--workers 1 2] [--method gossip]
    python -m benchmarks.scaling --records scaling.jsonl --plot scaling.svg --method gossip orthomesh

Each line is a process of its own. What is on record is not measured again.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 2
NEAR_M = 400.0
"""Radius of the circle for fifty devices."""


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
        train=TrainSettings(steps=2, batch_size=4), tasks=TaskSettings(train_examples=8, test_examples=1),
        radio=Radio(deadline_s=max(5.0, num_devices / 10)),
    )  # fmt: skip
    method = (GossipLora() if label == "gossip" else SparseOrthogonal()).build(setup)
    channel = Channel(radius_m=NEAR_M * (num_devices / 50) ** 0.5)
    air = SimulatedAir(channel=channel, radio=setup.radio, seed=0, num_devices=num_devices)
    pool = ray_pool(workers, 1) if engine == "ray" else worker_pool(workers, 1)
    me = psutil.Process()
    pids = {0: me.pid, **(dict(enumerate(_pids(pool, workers), 1)) if pool else {})}
    run = Clocked(InProcess(num_devices, pool), pids)
    load_base(setup.model)  # plans look at it; it is not of the devices
    if pool:
        for done in [pool.submit(_load, setup.model) for _ in range(4 * workers)]:
            done.result()
    before = me.memory_info().rss
    devices = {k: method.init(k) for k in run.hosted}
    cpu_ms, rest_ms, kB, started = [], [], [], time.monotonic()
    for index in range(ROUNDS):
        spent, run.fit_s = _cpu_s(pids), 0.0
        devices, _ = run_round(Round(0, index, ROUNDS), devices, method, air, run)
        cpu_s = _cpu_s(pids) - spent
        cpu_ms.append(1e3 * cpu_s / num_devices)
        rest_ms.append(1e3 * (cpu_s - run.fit_s) / num_devices)
        kB.append((me.memory_info().rss - before) / 1e3 / num_devices)
    experts = sum(len(_known(d)) for d in devices.values()) / num_devices
    wall_s, held = time.monotonic() - started, [psutil.Process(pid).memory_info().rss / 1e6 for pid in pids.values()]
    if pool:
        pool.shutdown()
    return {
        "devices": num_devices, "engine": engine, "workers": workers, "method": label, "cpu_ms": cpu_ms,
        "rest_ms": rest_ms, "kB": kB, "experts": experts,
        "wall_s": wall_s, "worker_MB": max(held[1:], default=0.0), "sha256": digest(devices),
    }  # fmt: skip


class Clocked:
    """An engine that notes what CPU local training takes."""

    def __init__(self, engine: Any, pids: dict[int, int]) -> None:
        self.engine, self.pids, self.fit_s = engine, pids, 0.0
        self.hosted, self.share = engine.hosted, engine.share
        self.form, self.exchange = engine.form, engine.exchange

    def map(self, fn: Any, items: Any, *args: Any) -> Any:
        """As the engine does."""
        before = _cpu_s(self.pids)
        done = self.engine.map(fn, items, *args)
        self.fit_s += _cpu_s(self.pids) - before
        return done


def _known(device: Any) -> set[int]:
    """Whose experts a device has."""
    from orthomesh.experts.bank import each

    kept = [a["members"].tolist() for a in each(device.bank, "cluster").values()]
    return {device.id, *each(device.bank, "member"), *(m for members in kept for m in members)}


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


def _load(settings: Any) -> None:
    from orthomesh.models.base import load_base

    load_base(settings)
    time.sleep(0.2)  # so that each worker gets one


def _cpu_s(pids: dict[int, int]) -> float:
    import psutil

    return sum(t.user + t.system for t in (psutil.Process(pid).cpu_times() for pid in pids.values()))


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, a line a run."""
    lines = [
        "| method | engine | workers | devices | CPU a device, ms: first round | last | without training: first | last "
        "| memory, kB: first | last | experts | a worker, MB | wall, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found:
        run = "{method} | {engine} | {workers} | {devices}".format(**r)
        (cpu, cpu_last), (rest, rest_last), (kB, kB_last) = r["cpu_ms"], r["rest_ms"], r["kB"]
        spent = f"{cpu:.0f} | {cpu_last:.0f} | {rest:.1f} | {rest_last:.1f} | {kB:.0f} | {kB_last:.0f}"
        lines.append(f"| {run} | {spent} | {r['experts']:.0f} | {r['worker_MB']:.0f} | {r['wall_s']:.0f} |")
    return "\n".join(lines)


def drawing(found: list[dict[str, Any]]) -> str:
    """CPU and, below it, memory per device over the number of devices, as SVG."""
    from dataclasses import replace

    from orthomesh.reproduction.plots import Axes, Curve, curves
    from orthomesh.reproduction.scene import Dot, Line, Scene, Words, svg

    names = list(dict.fromkeys((r["method"], r["engine"], r["workers"]) for r in found))

    def scene(title: str, subtitle: str, suffix: str, value: Callable[[dict[str, Any]], float]) -> Scene:
        lines = []
        for method, engine, workers in names:
            mine = sorted(
                (r for r in found if (r["method"], r["engine"], r["workers"]) == (method, engine, workers)),
                key=lambda r: r["devices"],
            )
            where = "one process" if engine == "inprocess" and workers == 1 else f"{engine}, {workers}"
            lines.append(Curve(f"{method}, {where}", tuple((r["devices"], value(r), math.nan) for r in mine)))
        most = max(p[1] for line in lines for p in line.spots)
        step = 10.0 ** math.floor(math.log10(most))
        axes = Axes(title, subtitle, "devices", log=True, top=step * math.ceil(most / step), suffix=suffix)
        return curves(axes, lines)

    upper = scene(
        "CPU of a device", "both rounds of a run; this process and all workers", " ms", lambda r: sum(r["cpu_ms"])
    )
    middle = scene(
        "of which not training",
        "of the last round: facts, plan, what is sent and kept",
        " ms",
        lambda r: r["rest_ms"][1],
    )
    lower = scene(
        "Memory of a device",
        "most of what the simulation holds, over the number of devices",
        " kB",
        lambda r: max(r["kB"]),
    )

    def down(mark: Line | Dot | Words, by: float) -> Line | Dot | Words:
        if isinstance(mark, Line):
            return replace(mark, spots=tuple((x, y + by) for x, y in mark.spots))
        return replace(mark, at=(mark.at[0], mark.at[1] + by))

    marks, height = list[Any](), 0.0
    for part in (upper, middle, lower):
        marks += [down(mark, height) for mark in part.marks]
        height += part.height
    return svg(Scene(width=upper.width, height=height, marks=tuple(marks)))


def on_record(path: Path | None) -> list[dict[str, Any]]:
    """Lines measured before."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []


def apart(asked: dict[str, Any]) -> dict[str, Any] | None:
    """One line from a process of its own; none, and a sentence, where it failed."""
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{asked}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}", flush=True)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(found: list[dict[str, Any]]) -> None:
    """Whether the same run ends with the same states wherever it is computed."""
    for method, count in sorted({(r["method"], r["devices"]) for r in found}):
        runs = [r for r in found if (r["method"], r["devices"]) == (method, count)]
        if len(runs) > 1:
            same = len({r["sha256"] for r in runs}) == 1
            print(f"{method}, {count} devices: {len(runs)} runs end {'alike' if same else 'DIFFERENTLY'}")


def main() -> None:
    """One process a line, then the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--devices", type=int, nargs="+", default=[10, 50, 200, 500])
    p.add_argument("--engine", nargs="+", choices=("inprocess", "ray"), default=["inprocess", "ray"])
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    p.add_argument("--method", nargs="+", choices=("gossip", "orthomesh"), default=["gossip"])
    p.add_argument("--records", type=Path, help="a file of lines measured, which is added to as each is done")
    p.add_argument("--plot", type=Path, help="an SVG file for the figure")
    p.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one:
        print(json.dumps(measure(a.devices[0], a.engine[0], a.workers[0], a.method[0])))
        return
    found = on_record(a.records)
    for method, engine, workers, count in itertools.product(a.method, a.engine, a.workers, a.devices):
        asked = {"method": method, "engine": engine, "workers": workers, "devices": count}
        if any(asked.items() <= line.items() for line in found):
            continue
        if (line := apart(asked)) is not None:
            found.append(line)
            print(table([line]).splitlines()[-1], flush=True)
            if a.records:
                with a.records.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    found.sort(key=lambda r: (r["method"], r["engine"], r["workers"], r["devices"]))
    compare(found)
    print(table(found))
    if a.plot:
        a.plot.write_text(drawing(found))


if __name__ == "__main__":
    main()
