"""Clustering at scale, against the optimum, and beside what else clusters.

Devices lie uniformly in a square; each has twenty others within reach on average, twenty-eight layers, densities of
1 to 45 % that differ between devices and layers, independent masks, S_max 0.25. Every line is a process of its own,
with one thread; other work on the machine lengthens `wall`, not `CPU`.

    python -m benchmarks.clustering scale [--million] [--plot FILE.svg]   # greedy mergers over M = 1e3 .. 1e5 (1e6)
    python -m benchmarks.clustering search [--sizes 100 1000 10000]       # best fit and local search
    python -m benchmarks.clustering gap [--instances 20]                  # clusters above the optimum, M = 15 and 100
    python -m benchmarks.clustering peers [--sizes 1000 10000]            # scipy's and scikit-learn's on the same graph

Targets: M = 1e5 in 8 s and 600 MB, 1e6 in 120 s; local search within 2 % of the fewest clusters at M = 15, 6 % at 100.
The peers know neither S nor S_max nor cliques: scipy gets all pairwise rates (complete linkage), scikit-learn
positions and the graph of who is within reach (complete linkage of connected clusters), as near as they come.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from orthomesh.adapters.collision_rows import expected
from orthomesh.rng import stream
from orthomesh.topology.clustering_exact import by_covering, by_subsets
from orthomesh.topology.clustering_fit import best_fit
from orthomesh.topology.clustering_instance import Instance, total_rate
from orthomesh.topology.clustering_merge import merge_rounds
from orthomesh.topology.clustering_search import local_search

LAYERS, DEGREE, S_MAX, GRID = 28, 20, 0.25, 2.0**40
SECONDS, MEGABYTES = 8.0, 600.0


def places(num_devices: int, seed: int) -> np.ndarray:
    """Positions in the unit square. [M 2]"""
    return stream(seed, "place", num_devices).random((num_devices, 2))


def drawn(num_devices: int, seed: int, degree: float = DEGREE) -> Instance:
    """One instance."""
    from scipy.spatial import cKDTree

    rng = stream(seed, "density", num_devices)
    s = rng.uniform(0.02, 0.3, (num_devices, 1)) * rng.uniform(0.5, 1.5, (num_devices, LAYERS))
    xy = places(num_devices, seed)
    reach = math.sqrt(degree / (num_devices * math.pi))
    pairs = cKDTree(xy).query_pairs(reach, output_type="ndarray").astype(np.int64).reshape(-1, 2)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    rows = expected(s, [100] * LAYERS)
    return Instance(
        leaves=rows.leaves,
        join=rows.join,
        rate=rows.rate,
        max_rate=S_MAX,
        pairs=pairs,
        power=np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T),
        size=s.mean(axis=1),
    )


def one(what: str, num_devices: int) -> dict[str, Any]:
    """One line, measured in this process: building the instance does not count."""
    asked = drawn(num_devices, 0)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run = {"mergers": _mergers, "best fit": _best_fit, "local search": _search, "scipy": _scipy, "sklearn": _sklearn}
    wall, cpu = time.perf_counter(), time.process_time()
    found = run[what](asked)
    return {
        "what": what,
        "M": num_devices,
        "pairs": len(asked.pairs),
        **found,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before_mb,
    }


def _mergers(asked: Instance) -> dict[str, Any]:
    found = merge_rounds(asked)
    return {"clusters": len(found.clusters), "rounds": found.rounds, "evaluations": found.evaluations}


def _best_fit(asked: Instance) -> dict[str, Any]:
    return {"clusters": len(best_fit(asked))}


def _search(asked: Instance) -> dict[str, Any]:
    return {"clusters": len(local_search(asked))}


def _scipy(asked: Instance) -> dict[str, Any]:
    from scipy.cluster.hierarchy import fcluster, linkage

    M = len(asked.leaves)
    i, j = np.triu_indices(M, 1)
    far = np.ones(len(i))
    for start in range(0, len(i), 200_000):
        part = slice(start, start + 200_000)
        far[part] = asked.rate(asked.leaves, i[part], j[part])
    near = np.zeros((M, M), dtype=bool)
    near[tuple(asked.pairs.T)] = True
    far[~near[i, j]] = 1e3
    return {"clusters": int(fcluster(linkage(far, "complete"), S_MAX, "distance").max())}


def _sklearn(asked: Instance) -> dict[str, Any]:
    from scipy.sparse import coo_array
    from sklearn.cluster import AgglomerativeClustering

    M = len(asked.leaves)
    graph = coo_array((np.ones(len(asked.pairs)), tuple(asked.pairs.T)), shape=(M, M)).tocsr()
    reach = math.sqrt(DEGREE / (M * math.pi))
    model = AgglomerativeClustering(
        n_clusters=None, distance_threshold=reach, linkage="complete", connectivity=graph + graph.T
    )
    return {"clusters": int(model.fit_predict(places(M, 0)).max()) + 1}


def apart(what: str, num_devices: int, limit_s: float) -> dict[str, Any]:
    """One line from a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.clustering", "one", "--what", what, "--sizes"]
    try:
        done = subprocess.run([*command, str(num_devices)], capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"what": what, "M": num_devices, "failed": f"not done after {limit_s:.0f} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
        return {"what": what, "M": num_devices, "failed": last[0][:90]}
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def show(line: dict[str, Any]) -> None:
    """One line of the table."""
    start = f"{line['what']:13}{line['M']:>9,}"
    if "failed" in line:
        print(f"{start}  {line['failed']}", flush=True)
        return
    rounds = f"{line['rounds']} rounds, {line['evaluations']:,} rates" if "rounds" in line else ""
    print(
        f"{start}{line['pairs']:>12,}{line['clusters']:>9,}{line['cpu_s']:>9.2f}{line['wall_s']:>9.2f}"
        f"{line['rss_mb']:>9.0f}  {rounds}",
        flush=True,
    )


def header() -> None:
    """The table's head."""
    print(f"{'':13}{'M':>9}{'pairs':>12}{'clusters':>9}{'CPU s':>9}{'wall s':>9}{'RSS MB':>9}")


def scale(million: bool, plot: Path | None) -> None:
    """Greedy mergers over M, and how their time grows."""
    header()
    lines = []
    for M in (1000, 3000, 10_000, 30_000, 100_000, *((1_000_000,) if million else ())):
        lines.append(apart("mergers", M, 900.0))
        show(lines[-1])
    done = [line for line in lines if "failed" not in line and line["M"] >= 10_000]
    slope = np.polyfit(*(np.log([line[k] for line in done]) for k in ("M", "cpu_s")), 1)[0]
    at = next(line for line in done if line["M"] == 100_000)
    print(f"CPU time grows as M^{slope:.2f} from 1e4 on")
    print(
        f"M = 1e5: {at['cpu_s']:.1f} s of CPU, {at['wall_s']:.1f} s of wall (target {SECONDS:.0f}), "
        f"{at['rss_mb']:.0f} MB (target {MEGABYTES:.0f})"
    )
    if plot is not None:
        plot.write_text(drawing([line for line in lines if "failed" not in line]))
        print(f"plot: {plot}")


def drawing(lines: list[dict[str, Any]]) -> str:
    """CPU seconds over M, both in powers of ten, with a line of slope one through the last point, as SVG."""

    def x(m: float) -> float:
        return 70 + 130 * (math.log10(m) - 3)

    def y(s: float) -> float:
        return 190 - 60 * math.log10(s)

    width = int(x(lines[-1]["M"])) + 40
    per_device = lines[-1]["cpu_s"] / lines[-1]["M"]
    marks = "".join(
        f'<circle cx="{x(p["M"]):.1f}" cy="{y(p["cpu_s"]):.1f}" r="4" fill="#0072b2">'
        f"<title>M = {p['M']:,}: {p['cpu_s']:.2f} s, {p['rss_mb']:.0f} MB</title></circle>"
        for p in lines
    )
    path = " ".join(f"{x(p['M']):.1f},{y(p['cpu_s']):.1f}" for p in lines)
    ends = [(x(p["M"]), y(per_device * p["M"])) for p in (lines[0], lines[-1])]
    ticks = "".join(
        f'<text x="{x(10**k):.0f}" y="345" text-anchor="middle">10<tspan dy="-5" font-size="9">{k}</tspan></text>'
        for k in range(3, round(math.log10(lines[-1]["M"])) + 1)
    ) + "".join(
        f'<text x="60" y="{y(10.0**k) + 4:.0f}" text-anchor="end">{10.0**k:g}</text>'
        f'<line x1="66" x2="{width - 20}" y1="{y(10.0**k):.0f}" y2="{y(10.0**k):.0f}" stroke="#ddd"/>'
        for k in range(-2, 3)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="375" font-family="sans-serif" font-size="12">'
        f'<text x="20" y="22" font-size="14">Greedy mergers: CPU seconds over number of devices</text>{ticks}'
        f'<line x1="{ends[0][0]:.1f}" y1="{ends[0][1]:.1f}" x2="{ends[1][0]:.1f}" y2="{ends[1][1]:.1f}" '
        f'stroke="#999" stroke-dasharray="5 4"/><polyline points="{path}" fill="none" stroke="#0072b2"/>{marks}'
        f'<text x="20" y="366" fill="#777" font-size="11">dashed: proportional to M; mean degree 20, 28 layers</text>'
        "</svg>\n"
    )


def gap(instances: int) -> None:
    """Number of clusters above the exact optimum, summed over instances, and how often it is met."""
    ways = {
        "agnes": lambda a: merge_rounds(a).clusters,
        "best fit": best_fit,
        "best fit, 20 restarts": lambda a: best_fit(a, restarts=20),
        "local search": local_search,
    }
    for M, degree, exact in ((15, 12.0, by_subsets), (100, float(DEGREE), by_covering)):
        asked = [drawn(M, seed, degree) for seed in range(instances)]
        began = time.process_time()
        least = [len(exact(a)) for a in asked]
        spent = time.process_time() - began
        print(
            f"M = {M}, mean degree {degree:g}: {instances} instances, {sum(least)} clusters at least; {exact.__name__}"
        )
        print(f"  {'exact':24}{'':22}{spent / instances:9.2f} s of CPU each")
        for name, way in ways.items():
            began = time.process_time()
            found = [way(a) for a in asked]
            spent = time.process_time() - began
            count = [len(f) for f in found]
            rate = sum(total_rate(a, f) for a, f in zip(asked, found, strict=True)) / GRID / M / instances
            met = sum(c == b for c, b in zip(count, least, strict=True))
            print(
                f"  {name:24}{100 * (sum(count) / sum(least) - 1):+6.1f} %  optimal {met:>3}/{instances}"
                f"{spent / instances:9.2f} s of CPU each   mean S {rate:.3f}",
                flush=True,
            )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["scale", "search", "gap", "peers", "one"])
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--what", default="mergers")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a line of peers or search may take")
    a = parser.parse_args()
    if a.part == "one":
        print(json.dumps(one(a.what, a.sizes[0])))
    elif a.part == "scale":
        scale(a.million, a.plot)
    elif a.part == "gap":
        gap(a.instances)
    else:
        header()
        whats = ("mergers", "scipy", "sklearn") if a.part == "peers" else ("mergers", "best fit", "local search")
        for M in a.sizes or ((1000, 10_000) if a.part == "peers" else (100, 1000, 10_000)):
            for what in whats:
                show(apart(what, M, a.limit))


if __name__ == "__main__":
    main()
