"""Topologies side by side: how fast each mixes, and what its edges cost once every radio hop is paid.

Pure averaging of random vectors over one radio scene: `left` is the consensus distance after `--rounds` rounds as a
share of what it was; degree and slowest mode are of the first round. An overlay edge takes the fewest hops; `sends` are
broadcasts of one adapter a device and round, `phases` follow one another, each as long as its longest transfer.
`product` is ||W_T ... W_1 - 11'/n||^(1/T), the share of a disagreement that a round leaves on average at worst.

    python -m benchmarks.topologies [--devices 16] [--rounds 8] [--degree 3] [--radius 800] [--megabits 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np

from orthomesh.methods.overlays import overlay_phases
from orthomesh.rng import stream
from orthomesh.topology.graphs import components
from orthomesh.topology.mixing import Pair, consensus_over_time, matrix, slem
from orthomesh.topology.overlay import Scene, Topology, overlay
from orthomesh.wireless.channel import Channel, gains
from orthomesh.wireless.link import Radio, airtime_s, max_power_w
from orthomesh.wireless.power import required_power_w


def rows(a: argparse.Namespace) -> Iterator[str]:
    """One line a topology; those that this number of devices does not have say so."""
    radio, channel = Radio(), Channel(radius_m=a.radius, fading="none")
    bits, ids = a.megabits * 1e6, tuple(range(a.devices))
    gain = gains(channel, a.seed, 0, a.devices)
    need = {(i, j): required_power_w(bits, float(gain[i, j]), 1, radio) for i in ids for j in ids if i != j}
    links = {link: p / max_power_w(radio) for link, p in need.items() if p <= max_power_w(radio)}
    usable = frozenset(link for link in links if link[0] < link[1])
    slot_s = airtime_s(bits, radio.bandwidth_hz, radio)
    yield (
        f"{a.devices} devices in a disk of {a.radius:.0f} m, {len(usable)} usable links of {len(need) // 2} for "
        f"{a.megabits} Mbit in {slot_s:.2f} s, {len(components(ids, usable))} part(s)\n"
    )
    yield f"| topology | most in | slowest mode | product | left after {a.rounds} | phases | sends | J a round |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in sorted(get_args(Topology)):
        labels = {i: str(i % 4) for i in ids}
        scenes = [
            Scene(ids=ids, usable=usable, degree=a.degree, labels=labels, seed=a.seed, round_index=t)
            for t in range(a.rounds)
        ]
        try:
            weights = [overlay(name, scene) for scene in scenes]
        except ValueError as error:
            yield f"| {name} | {error} |||||||"
            continue
        yield _row(name, weights, links, need, slot_s, a)


def _row(
    name: str,
    weights: Sequence[dict[Pair, float]],
    links: dict[Pair, float],
    need: dict[Pair, float],
    slot_s: float,
    a: argparse.Namespace,
) -> str:
    ws = [matrix(w, range(a.devices)) for w in weights]
    plans = [overlay_phases(w, links) for w in weights]
    sends = energy_j = 0.0
    for phases in plans:
        for phase in phases:
            for src in {e.src for e in phase.edges}:
                sends += 1
                energy_j += slot_s * max(need[src, e.dst] for e in phase.edges if e.src == src)
    left = consensus_over_time(stream(a.seed, "vectors").standard_normal((a.devices, 64)), ws)
    product = slem(np.linalg.multi_dot([np.eye(a.devices), *ws[::-1]])) ** (1 / a.rounds)
    most = max(int((w > 0).sum(axis=1).max()) - 1 for w in ws)
    return (
        f"| {name} | {most} | {slem(ws[0]):.3f} | {product:.3f} | {left[-1] / left[0]:.1e} "
        f"| {np.mean([len(p) for p in plans]):.1f} | {sends / a.rounds / a.devices:.2f} | {energy_j / a.rounds:.3f} |"
    )


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--devices", type=int, default=16)
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--degree", type=int, default=3, help="neighbours, peers or members of those that have a number")
    p.add_argument("--radius", type=float, default=800.0, help="of the disk, m")
    p.add_argument("--megabits", type=float, default=1.0, help="size of an adapter")
    p.add_argument("--seed", type=int, default=0)
    print(*rows(p.parse_args()), sep="\n")


if __name__ == "__main__":
    main()
