"""Clusters without a server against the centralised result: messages, bytes and time, over lossy air.

M devices uniform in a square, on average 20 within reach of each, densities of 28 groups of matrices uniform around a
device's own mean in [0.02, 0.2], S_max 0.25, masks independent (19). Messages are encoded to count their bytes; each
copy at each receiver is lost by itself, delayed by up to 0.1 s and so overtaken; what is unanswered is sent again
after 0.5 s, doubling to 4 s. A broadcast counts once; `new` counts no repetitions. The centralised result is that of
`clustering_merge`; `diff`, the clusters that only one of the two has, must be 0.

    python -m benchmarks.protocol [--devices 10 100 1000] [--losses 0 0.3 0.7] [--seeds 1] [--turns]

With `--turns` only as runs do it (`topology/conversation.py`): facts are known, all speak in turns, nothing is lost.

Expected: below 2 new SUMMARY per device, about 8 new PROPOSE, and 2 new messages per merger (MERGE_REQ, MERGE_ACK).
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from orthomesh.adapters.collision import collision_rate, mean_rate
from orthomesh.adapters.collision_rows import expected
from orthomesh.exchange.framing import talk_bytes
from orthomesh.rng import stream
from orthomesh.topology.clustering_instance import Instance
from orthomesh.topology.clustering_merge import Merging, merge_rounds
from orthomesh.topology.clusterstate import Rules
from orthomesh.topology.conversation import converse
from orthomesh.topology.lossy import Weather, chances, simulate
from orthomesh.topology.messages import Kind, Leaf

GROUPS, DEGREE, MAX_COLLISION = 28, 20, 0.25
SIZES = (1,) * GROUPS
COLUMNS = tuple(kind for kind in Kind if kind is not Kind.LEAVE)


def world(num_devices: int, seed: int) -> list[Leaf]:
    """Devices with about `DEGREE` neighbours each."""
    from scipy.spatial import cKDTree

    rng = stream(seed, "protocol benchmark", num_devices)
    places = rng.random((num_devices, 2)) * math.sqrt(num_devices)
    around = cKDTree(places).query_ball_point(places, math.sqrt(DEGREE / math.pi))
    mean = rng.uniform(0.02, 0.2, (num_devices, 1))
    densities = (mean * rng.uniform(0.5, 1.5, (num_devices, GROUPS))).astype(np.float32).astype(float).tolist()
    return [
        Leaf(i, tuple(densities[i]), 1e6, tuple((j, 1.0) for j in sorted(around[i]) if j != i))
        for i in range(num_devices)
    ]


def price(leaves: tuple[Leaf, ...]) -> tuple[float, float] | None:
    """Mean collision rate of a union on the grid of 2^-40, within the limit."""
    rate = mean_rate(collision_rate(np.array([leaf.densities for leaf in leaves])), SIZES)
    return (round(rate * 2**40) / 2**40, 0.0) if rate <= MAX_COLLISION else None


def central(leaves: list[Leaf]) -> Merging:
    """Greedy clustering with everything known."""
    densities = np.array([leaf.densities for leaf in leaves])
    rows = expected(densities, SIZES)
    pairs = np.array([(leaf.id, j) for leaf in leaves for j, _ in leaf.links if j > leaf.id]).reshape(-1, 2)
    return merge_rounds(
        Instance(
            leaves=rows.leaves, join=rows.join, rate=rows.rate, max_rate=MAX_COLLISION, pairs=pairs,
            power=np.zeros(len(pairs)), size=densities.mean(axis=1),
        )
    )  # fmt: skip


def row(num_devices: int, loss: float, seed: int, known: Merging, leaves: list[Leaf]) -> str:
    """One run as a line of the table."""
    began = time.process_time()
    rules, weather = Rules(price=price, quiet_s=1e5), Weather(loss=loss)
    outcome = simulate(leaves, rules, weather, chances(seed, num_devices, round(100 * loss)), limit_s=1e5)
    cpu_s = time.process_time() - began
    wrong = len(set(outcome.clusters) ^ set(known.clusters))
    mergers = num_devices - len(outcome.clusters)
    sent = " ".join(f"{outcome.sent.get(kind, 0) / num_devices:9.2f}" for kind in COLUMNS)
    new = [outcome.new.get(kind, 0) for kind in (Kind.SUMMARY, Kind.PROPOSE, Kind.MERGE_REQ, Kind.MERGE_ACK)]
    news = f"{new[0] / num_devices:6.2f} {new[1] / num_devices:6.2f} {(new[2] + new[3]) / max(mergers, 1):6.2f}"
    total = sum(outcome.sent_bytes.values()) / num_devices
    most = max(outcome.device_bytes.values())
    return (
        f"{num_devices:6d} {loss:4.1f} {known.rounds:6d} {len(outcome.clusters):6d} {wrong:4d}  {sent}  {news} "
        f"{total:8.0f} {most:8d} {outcome.duration_s:8.1f} {cpu_s:7.1f}"
    )


def turns(num_devices: int, known: Merging, leaves: list[Leaf]) -> str:
    """The same in turns, after facts were told: turns, bytes a device, framing on sockets a device, wrong clusters."""
    began = time.process_time()
    ended = converse({leaf.id: leaf for leaf in leaves}, price, 0)
    cpu_s = time.process_time() - began
    wrong = len(set(ended.clusters) ^ set(known.clusters))
    told = sum(ended.told.values()) / num_devices
    framing = sum(talk_bytes(ended.turns, n, num_devices - 1) for n in ended.copies.values()) / num_devices
    return f"{num_devices:6d} {ended.turns:6d} {told:8.0f} {framing:9.0f} {wrong:6d} {cpu_s:7.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--losses", type=float, nargs="+", default=[0.0, 0.3, 0.7])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--turns", action="store_true", help="as runs do it")
    asked = parser.parse_args()
    if asked.turns:
        print("     M  turns    bytes   framing  wrong   cpu s")
        for num_devices in asked.devices:
            leaves = world(num_devices, 0)
            print(turns(num_devices, central(leaves), leaves), flush=True)
        return
    print("messages sent per device by kind; bytes per device, mean and largest; seconds of air, of processor")
    names = " ".join(f"{kind.name:>9}" for kind in COLUMNS)
    print(f"     M loss rounds      K diff  {names}  newSUM newPRO merger    bytes  largest    air s   cpu s")
    for num_devices in asked.devices:
        for seed in range(asked.seeds):
            leaves = world(num_devices, seed)
            known = central(leaves)
            for loss in asked.losses:
                print(row(num_devices, loss, seed, known, leaves), flush=True)


if __name__ == "__main__":
    main()
