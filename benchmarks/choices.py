"""How often each choice of expert is the right one, without training any: only prompts are read.

Ten tasks, each under its given instructions, under a neutral template that names no task, and, told by what was given,
in other words. What a device tells of its task is packed to 16 bit and read back, as it travels.

    python -m benchmarks.routers --choices-only --model DIR --data DIR [--examples 200 60] [--seeds 0 1 2]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from orthomesh.experts.router import Classes, classes, discriminate, nearest
from orthomesh.experts.sketch import pack, sketch, squared_distance, task_sketch, unpack
from orthomesh.experts.taskcode import task_code
from orthomesh.models import answer as answering
from orthomesh.models.base import Base
from orthomesh.models.reading import reading_points
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.catalogue import test_set, training_share
from orthomesh.tasks.settings import TaskSettings

Reworded = Callable[[TaskSettings, str, Path], TaskSettings]
Scores = np.ndarray
"""Of every prompt under every task; the largest wins. [N, M]"""


def read(base: Base, points: Sequence[str], tasks: TaskSettings, seed: int, training: bool) -> list[np.ndarray]:
    """Mean over every prompt's tokens of the inputs at some points, task by task. [N, sum k]"""
    found = []
    for task in tasks.names:
        rows = training_share(tasks, task, seed, 0, 1) if training else test_set(tasks, task, seed)
        found.append(answering._means(base, tokenise(base, rows, task), points))
    return found


def gaussian(points: np.ndarray, known: Classes) -> Scores:
    """Log-likelihoods under Gaussian densities, doubled: the discriminant before its tails were heavy."""
    pairs = zip(known.means, known.metrics, strict=True)
    return -np.stack([squared_distance(points, mean, scatter) for mean, scatter in pairs], axis=1) - known.spread


def told(parts: Sequence[np.ndarray], widths: Sequence[int], size: int) -> Classes:
    """The tasks as receivers know them."""
    return classes([unpack(pack(task_sketch(sketch(part, widths, size)))) for part in parts])


def cosines(x: np.ndarray, codes: np.ndarray, widths: Sequence[int]) -> Scores:
    """Raw cosines, added up over the inputs."""
    cuts = np.cumsum(widths)[:-1]
    pairs = zip(np.split(x, cuts, axis=1), np.split(codes, cuts, axis=1), strict=True)
    unit = [
        (p / np.linalg.norm(p, axis=1, keepdims=True), q / np.linalg.norm(q, axis=1, keepdims=True)) for p, q in pairs
    ]
    return np.sum([p @ q.T for p, q in unit], axis=0)


def votes(own: Sequence[np.ndarray], x: np.ndarray, widths: Sequence[int], size: int) -> Scores:
    """A sketch and a discriminant for every input; their posteriors added up."""
    cuts, total = np.cumsum((0, *widths)), np.zeros((len(x), len(own)))
    for start, end in pairwise(cuts.tolist()):
        known = told([part[:, start:end] for part in own], (end - start,), size)
        verdict = discriminate(sketch(x[:, start:end], (end - start,), size), known)
        total[np.arange(len(x)), verdict.best] += verdict.probability
    return total


def rules(own: Sequence[np.ndarray], x: np.ndarray, widths: Sequence[int], first: int) -> dict[str, np.ndarray]:
    """Which task every rule sends each prompt to; `first`: inputs of the first block among all."""
    few, wide = widths[:first], sum(widths[:first])
    near, asked = [part[:, :wide] for part in own], x[:, :wide]
    codes = np.stack([task_code(part[:32]) for part in own]).astype(np.float64)
    found = {}
    for size in (64, 128):
        known, points = told(near, few, size), sketch(asked, few, size)
        found[f"discriminant, t-densities, {size} numbers of the first block"] = discriminate(points, known).best
        found[f"discriminant, Gaussian, {size} numbers of the first block"] = gaussian(points, known).argmax(1)
    found["a vote of the first block's inputs, 32 numbers each"] = votes(near, asked, few, 32).argmax(1)
    found["raw cosine, first block"] = cosines(asked, codes[:, :wide], few).argmax(1)
    found["raw cosine, all blocks"] = cosines(x, codes, widths).argmax(1)
    found["centred cosine, all blocks"] = nearest(x, codes, tuple(widths)).best
    return found


def shares(
    base: Base, given: TaskSettings, reworded: Reworded, seeds: Sequence[int]
) -> Mapping[str, Mapping[str, list[float]]]:
    """Percent of prompts sent to the right task, by rule, way of asking and seed; means over the tasks."""
    depth = 1 + max(int(n.split(".")[2]) for n in base.slots)
    points = reading_points(base.model, depth)
    widths, first = answering.widths(base.model, points), len(reading_points(base.model, 1))
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        neutral = reworded(given, "neutral", Path(folder) / "neutral")
        other = reworded(given, "paraphrase", Path(folder) / "other")
        for seed in seeds:
            for trained, asked in ((given, {"given": given, "in other words": other}), (neutral, {"neutral": neutral})):
                own = read(base, points, trained, seed, training=True)
                for way, tasks in asked.items():
                    parts = read(base, points, tasks, seed, training=False)
                    truth = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
                    for rule, picked in rules(own, np.concatenate(parts), widths, first).items():
                        right = [100 * float(np.mean(picked[truth == n] == n)) for n in range(len(parts))]
                        found.setdefault(rule, {}).setdefault(way, []).append(float(np.mean(right)))
            print(f"seed {seed} read", flush=True)
    return found


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Means over seeds with the half-width of a 95 % t-interval."""
    from scipy.stats import t

    ways = list(next(iter(found.values())))
    lines = ["| rule | " + " | ".join(ways) + " |", "|---" * (1 + len(ways)) + "|"]
    for rule, by_way in found.items():
        cells = []
        for way in ways:
            v = np.array(by_way[way])
            half = t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else float("nan")
            cells.append(f"{v.mean():.1f} ± {half:.1f}" if len(v) > 1 else f"{v.mean():.1f}")
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
