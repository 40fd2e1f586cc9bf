"""Clusters that devices find by talking to each other beside those that each plans from all facts, over seeds.

The default experiment's method, ten devices, after one step of training (clusters need densities and links, not what
was learnt): `clustering: agnes`, by the protocol in turns, and `local-search`, planned. `real` is the air of
`init-peers --air real`, where everybody reaches everybody.

    python -m benchmarks.partitions [--radii 400 600 800 1000 1500] [--seeds 30] [--devices 10]
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace

import numpy as np

from orthomesh.engines.inprocess import InProcess
from orthomesh.presets import build
from orthomesh.round import run_round
from orthomesh.types import Air, DeviceState, Learnt, Round
from orthomesh.wireless.air import IdealAir, SimulatedAir

QUICK = ("train.steps=1", "train.batch_size=1", "tasks.train_examples=2", "tasks.test_examples=1")
KINDS = ("agnes", "local-search")

Clusters = tuple[tuple[int, ...], ...]


def clusters(radius_m: float | None, seed: int, num_devices: int) -> dict[str, Clusters]:
    """Of a first round, in which nothing is told but facts."""
    t, found, states = Round(seed, 0, 2), dict[str, Clusters](), dict[int, DeviceState]()
    for kind in KINDS:
        given = [f"seed={seed}", f"devices={num_devices}", f"methods.orthomesh.clustering={kind}", *QUICK]
        x = build("default", None, [*given, *([f"channel.radius_m={radius_m}"] if radius_m else [])])
        method = x.methods["orthomesh"].build(x.setup())
        air: Air = IdealAir()
        if radius_m:
            air = SimulatedAir(channel=x.channel, radio=x.radio, seed=seed, num_devices=num_devices)
        states = states or {k: method.fit(method.init(k), t)[0] for k in range(num_devices)}
        still = replace(method, fit=_rests, send=lambda d, phase, t: (), merge=lambda d, inbox, phase, t: d)
        found[kind] = run_round(t, states, still, air, InProcess(num_devices))[1].plan.clusters
    return found


def _rests(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
    return device, Learnt(first_loss=0.0, last_loss=0.0, steps=0, trained=0)


def main() -> None:
    """Print a line a radius."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radii", type=float, nargs="+", default=[400.0, 600.0, 800.0, 1000.0, 1500.0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--devices", type=int, default=10)
    asked = parser.parse_args()
    print("| radius, m | partitions that differ | clusters, talked | clusters, planned | more, fewer clusters |")
    print("|---|---|---|---|---|")
    for radius_m in [None, *asked.radii]:
        found = [clusters(radius_m, seed, asked.devices) for seed in range(asked.seeds)]
        talked, planned = ([one[kind] for one in found] for kind in KINDS)
        beyond = Counter(np.sign(len(a) - len(b)) for a, b in zip(talked, planned, strict=True))
        differ = sum(a != b for a, b in zip(talked, planned, strict=True))
        means = " | ".join(f"{np.mean([len(p) for p in several]):.2f}" for several in (talked, planned))
        where = "real" if radius_m is None else f"{radius_m:.0f}"
        print(f"| {where} | {differ} of {asked.seeds} | {means} | {beyond[1]}, {beyond[-1]} |", flush=True)


if __name__ == "__main__":
    main()
