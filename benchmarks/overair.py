"""Over-the-air aggregation: what error it leaves, formula beside simulation, and when it is faster than frames.

Errors are mean squared, of the mean over n devices of independent entries of variance 1; the mean itself has variance
1 / n, so `relative` = sqrt(n error) is how far off what comes out of the air is, in parts of itself. `counted`: the
receiver knows how many are active in a block; `expected`: it divides by n (1 - zeta) whatever happens.

    python -m benchmarks.overair [--blocks 20000]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from orthomesh.exchange.overair import OverAir, airtime_s, break_even_efficiency, superpose
from orthomesh.exchange.powercontrol import counted_error, inversion_error, received_snr, static_control
from orthomesh.rng import stream
from orthomesh.units import from_db

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


def _interval(off: np.ndarray) -> str:
    """Mean square with a 95 % interval, entries of a block taken together."""
    blocks = np.square(off).reshape(-1, ENTRIES).mean(axis=1)
    return f"{blocks.mean():.3g} ± {1.96 * blocks.std() / len(blocks) ** 0.5:.1g}"


def main() -> None:
    """Print the three tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--blocks", type=int, default=20_000, help="fading blocks of each simulation")
    a = p.parse_args()
    print("Truncated inversion over Rayleigh blocks, peak 6 dB over mean\n", *errors(a.blocks), sep="\n")
    print("\nKnown gains, static\n", *static(a.blocks), sep="\n")
    print("\nFaster than one digital broadcast below ... bit/s/Hz; slots for 32 M positions, 20 MHz, 2 bit/s/Hz\n")
    print(*break_even(), sep="\n")
    print("\nAll to all takes n slots either way; through a head the air takes 2 (up, down), frames n + 1.")


if __name__ == "__main__":
    main()
