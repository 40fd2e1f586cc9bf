"""Over-the-air aggregation: what error it leaves, formula beside simulation, and when it is faster than frames.

Errors are mean squared, of the mean over n devices of independent entries of variance 1; the mean itself has variance
1 / n, so `relative` = sqrt(n error) is how far off what comes out of the air is, in parts of itself. `counted`: the
receiver knows how many are active in a block; `expected`: it divides by n (1 - zeta) whatever happens.

With `--accuracy` also what the error does to answers: FFA-LoRA (B averaged, A common) among devices that share a task,
everybody sending in everybody's slot, B's of one scale a layer; the radio is ideal but for the sum. About a minute.

    python -m benchmarks.overair [--blocks 20000] [--accuracy] [--devices 5] [--seeds 0 1 2]
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.readings import interval
from orthomesh.engines.inprocess import InProcess
from orthomesh.evaluation.accuracy import Exam, mean_accuracy
from orthomesh.evaluation.examine import examine
from orthomesh.exchange.overair import OverAir, airtime_s, break_even_efficiency, superpose
from orthomesh.exchange.powercontrol import counted_error, inversion_error, received_snr, static_control
from orthomesh.methods.ffa import Ffa
from orthomesh.methods.gossip_lora import received
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.rng import stream
from orthomesh.round import run_round
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import DeviceState, Envelope, Phase, Round
from orthomesh.units import from_db
from orthomesh.wireless.air import IdealAir
from orthomesh.wireless.link import Radio

ENTRIES = 8
"""Of a block in the simulation: four symbols under one fading draw."""


def errors(blocks: int) -> Iterator[str]:
    """Truncated inversion: formula and simulation with its 95 % interval, textbook threshold and best."""
    yield "| n | SNR, dB | phase, rad | g_th | silent, % | counted | simulated | expected | simulated | relative, % |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    cases = [(n, db, 0.0, g) for n in (2, 5, 10) for db in (10.0, 20.0) for g in (0.2, None)]
    for n, db, phase, threshold in [*cases, (5, 20.0, 0.1, None), (5, 20.0, 0.3, None)]:
        c = OverAir(threshold=threshold, phase_std_rad=phase, block_symbols=ENTRIES // 2)
        snr = float(from_db(db))
        x = {k: stream(0, "values", n, k).standard_normal(ENTRIES * blocks) for k in range(n)}
        x = {k: v / np.sqrt(np.mean(v**2)) for k, v in x.items()}
        got = superpose(x, dict.fromkeys(x, snr), c, 0, n)
        g = got.threshold
        rho = received_snr(g, [snr] * n, c.peak_to_mean)
        truth = np.mean(list(x.values()), axis=0)
        rescaled = got.mean * np.repeat(got.active, ENTRIES) / (n * np.exp(-g))
        counted, expected = (f(g, n, rho, phase) for f in (counted_error, inversion_error))
        yield (
            f"| {n} | {db:.0f} | {phase} | {g:.2g}{' (best)' if threshold is None else ''} | {100 * -np.expm1(-g):.2g} "
            f"| {counted:.3g} | {_interval(got.mean - truth)} | {expected:.3g} | {_interval(rescaled - truth)} "
            f"| {100 * np.sqrt(n * counted):.1f} |"
        )


def static(draws: int) -> Iterator[str]:
    """Known gains: the best control against the weakest user's, formula and simulation, error of the mean."""
    yield "| n | SNR, dB | eta* / weakest | formula | simulated | weakest inverts |"
    yield "|---|---|---|---|---|---|"
    for n in (2, 5, 10):
        for db in (10.0, 20.0):
            rng = stream(0, "static", n, int(db))
            q, noise = rng.standard_exponential(n) * from_db(db), 1.0
            found = static_control(q.tolist(), noise)
            x = rng.standard_normal((n, ENTRIES * draws))
            y = np.sqrt(found.received) @ x + np.sqrt(noise) * rng.standard_normal(ENTRIES * draws)
            off = (y / np.sqrt(found.eta) - x.sum(axis=0)) / n
            yield (
                f"| {n} | {db:.0f} | {found.eta / q.min():.2f} | {found.error / n**2:.3g} | {_interval(off)} "
                f"| {noise / q.min() / n**2:.3g} |"
            )


def break_even() -> Iterator[str]:
    """Spectral efficiency below which the air is faster, for four devices of one density, and the times at 2 bit/s/Hz.

    s_u: share of positions anybody holds: all where only that is known; 1 - (1 - s)^4 for independent masks; 4 s for
    masks that never collide (R3), where there is nothing to add up.
    """
    yield "| s | b | all positions | union, independent | union, no collision | air, s | frame, s |"
    yield "|---|---|---|---|---|---|---|"
    size, band_hz, efficiency = 32_000_000, 20e6, 2.0
    for s in (1.0, 0.5, 0.25, 0.125, 0.05):
        for bits in (16, 8, 4):
            union = 1.0 - (1.0 - s) ** 4
            ways = (1.0, union, 4.0 * s if 4.0 * s <= 1.0 else None)
            cells = " | ".join("-" if u is None else f"{break_even_efficiency(s, bits, u):.1f}" for u in ways)
            air_s, frame_s = airtime_s(round(union * size), band_hz), s * size * bits / (band_hz * efficiency)
            yield f"| {s} | {bits} | {cells} | {air_s:.2f} | {frame_s:.2f} |"


def accuracy(num_devices: int, seeds: Sequence[int]) -> Iterator[str]:
    """Answers of devices that average by frames, by the air at some SNRs, and not at all."""
    yield "| aggregation | right answers, % | paired with frames |"
    yield "|---|---|---|"
    frames = [_trained(num_devices, seed, "frames", 0.0) for seed in seeds]
    yield f"| frames | {interval(frames)} | |"
    for name, snr_db in (("air", 20.0), ("alone", 0.0), ("air", 10.0)):
        seen = [_trained(num_devices, seed, name, snr_db) for seed in seeds]
        paired = [a - b for a, b in zip(seen, frames, strict=True)]
        yield f"| {name + f', {snr_db:.0f} dB' * (name == 'air')} | {interval(seen)} | {interval(paired)} |"


def _trained(num_devices: int, seed: int, how: str, snr_db: float) -> float:
    """Mean accuracy of all devices on their task after five rounds, %."""
    tasks = TaskSettings(names=("zelk",), train_examples=30, test_examples=100)
    setup = Setup(
        seed=seed,
        assignment=("zelk",) * num_devices,
        model=ModelSettings(),
        train=TrainSettings(),
        tasks=tasks,
        radio=Radio(),
    )
    method, engine = Ffa().build(setup), InProcess(num_devices)
    sizes = load_base(setup.model).layout.expansion_sizes

    def summed(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
        """The device's B and the sum of the others' that it hears, over their number."""
        others = {k: parts["B"].astype(np.float64) for k, (_, parts) in received(inbox, "B").items()}
        cuts = np.cumsum(sizes)[:-1]
        split = {k: np.split(b, cuts) for k, b in others.items()}
        layers = [{k: split[k][n] for k in split} for n in range(len(sizes))]
        snr = dict.fromkeys(others, float(from_db(snr_db)))
        heard = [superpose(x, snr, OverAir(), seed, t.index, device.id, n).mean for n, x in enumerate(layers)]
        total = device.own["B"] + len(others) * np.concatenate(heard)
        return replace(device, own={**device.own, "B": (total / (1 + len(others))).astype(np.float32)})

    if how == "air":
        method = replace(method, merge=summed)
    elif how == "alone":
        method = replace(method, merge=lambda device, inbox, phase, t: device)
    devices = {k: method.init(k) for k in range(num_devices)}
    for index in range(5):
        devices, _ = run_round(Round(seed, index, 5), devices, method, IdealAir(), engine)
    exam = Exam(setup.model, tasks, seed, 100, (("zelk", tuple(range(num_devices))),))
    result = examine(devices, method.bank, exam, engine)
    return 100.0 * mean_accuracy(result.scores, result.weights)["zelk"]


def _interval(off: np.ndarray) -> str:
    """Mean square with a 95 % interval, entries of a block taken together."""
    blocks = np.square(off).reshape(-1, ENTRIES).mean(axis=1)
    return f"{blocks.mean():.3g} ± {1.96 * blocks.std() / len(blocks) ** 0.5:.1g}"


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--blocks", type=int, default=20_000, help="fading blocks of each simulation")
    p.add_argument("--accuracy", action="store_true", help="also train")
    p.add_argument("--devices", type=int, default=5, help="that train")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    a = p.parse_args()
    print("Truncated inversion over Rayleigh blocks, peak 6 dB over mean\n", *errors(a.blocks), sep="\n")
    print("\nKnown gains, static\n", *static(a.blocks), sep="\n")
    print("\nFaster than one digital broadcast below ... bit/s/Hz; slots for 32 M positions, 20 MHz, 2 bit/s/Hz\n")
    print(*break_even(), sep="\n")
    print("\nAll to all takes n slots either way; through a head the air takes 2 (up, down), frames n + 1.")
    if a.accuracy:
        print(f"\nFFA-LoRA, {a.devices} devices with one task and 30 examples each, seeds {a.seeds}\n")
        for line in accuracy(a.devices, a.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
