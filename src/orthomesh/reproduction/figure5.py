"""Spectral entropy and density over the layers for two tasks: the paper's Figure 5."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from ..evaluation import densities as figure
from ..evaluation.statistics import Interval, interval
from ..evaluation.wording import count, size
from ..experiment import Experiment
from ..models.size import size_of
from ..tasks.embedded import TASKS as EMBEDDED_TASKS
from . import plots, scene, tables
from .outcome import put, write_csv
from .scales import Scale, base_experiment

TASKS: Mapping[str, tuple[str, ...]] = {
    "tiny": tuple(EMBEDDED_TASKS)[:2],
    "small": ("scienceqa", "arc_challenge"),
    "paper": ("scienceqa", "arc_challenge"),
}
"""Two tasks by scale; the paper shows ScienceQA and ARC-Challenge."""
PROMPTS = 32
FIELDS = (
    "task", "layer", "block", "kind", "entropy_nats", "entropy_half_width", "density_%", "density_half_width", "seeds"
)  # fmt: skip
Spread = Mapping[str, Sequence[Mapping[str, Interval]]]
"""Over seeds, by task, layer and panel."""


def figure5(
    scale: Scale, given: Mapping[str, Any], overrides: Sequence[str], seeds: int, out: Path
) -> list[str | Path | Table]:
    """Measure both tasks and write `densities.csv`, `.svg`, `.html`, `fig5.csv`, `.tex` and `fig5-*.svg`, `.png`.

    Args:
        scale: which model and data.
        given: what options say, by dotted key.
        overrides: `key=value` of an experiment's settings.
        seeds: how many draws of prompts; `densities.*` and the table have the means, `fig5*` also 95 % t-intervals.
        out: where to.

    Returns:
        A table, sentences and paths, in the order to show them.

    Raises:
        ValueError: whatever is wrong with the model or the data.
    """
    x, sharing = _experiment(scale, given, overrides), figure.Sharing()
    layout, measured = figure.measure_draws(x.model, x.tasks, range(x.seed, x.seed + seeds))
    by_seed = [figure.layer_densities(layout, one, sharing) for one in measured]
    by_task, spread, words = means(by_seed), intervals(by_seed), figure.title(x.model, sharing)
    over = f"{words}; {count(seeds, 'seed')}, 95 % intervals" if seeds > 1 else words
    paths = figure.write_densities(by_task, f"{words}; means over {count(seeds, 'seed')}" if seeds > 1 else words, out)
    paths.append(write_csv(out / "fig5.csv", FIELDS, _numbers(by_task, spread, seeds)))
    paths.append(_latex(by_task, spread, over, out / "fig5.tex"))
    notes: list[str] = []
    for what, name in figure.PANELS:
        made, note = scene.write(_panel(spread, what, f"Figure 5: {name}", over), out / f"fig5-{what}")
        paths += made
        notes += [f"note: {note}"] if note and not notes else []
    return [figure.density_table(by_task), *figure.sentences(by_task), *_widest(spread, seeds), *notes, *paths]


def means(by_seed: Sequence[figure.ByTask]) -> figure.ByTask:
    """Every layer under every task with its means over seeds."""
    if len(by_seed) == 1:
        return by_seed[0]  # numbers of entries stay whole
    fields = ("entropy", "density", "active")
    return {
        task: [
            rows[0]._replace(**{field: fmean(getattr(row, field) for row in rows) for field in fields})
            for rows in zip(*(one[task] for one in by_seed), strict=True)
        ]
        for task in by_seed[0]
    }


def intervals(by_seed: Sequence[figure.ByTask]) -> Spread:
    """Entropy, nats, and density, %, of every layer under every task over seeds."""
    return {
        task: [
            {what: interval([_value(row, what) for row in rows]) for what, _ in figure.PANELS}
            for rows in zip(*(one[task] for one in by_seed), strict=True)
        ]
        for task in by_seed[0]
    }


def _numbers(by_task: figure.ByTask, spread: Spread, seeds: int) -> list[tuple[object, ...]]:
    """Lines under `FIELDS`."""
    found = []
    for task, rows in by_task.items():
        for row, by_panel in zip(rows, spread[task], strict=True):
            told = ("" if math.isnan(v) else f"{v:.6g}" for what, _ in figure.PANELS for v in by_panel[what])
            found.append((task, row.layer, row.block, row.kind, *told, seeds))
    return found


def _panel(spread: Spread, what: str, title: str, words: str) -> scene.Scene:
    """Means over the layers with bands of their intervals, a line for each task."""
    lines = [
        plots.Curve(task, tuple((float(n), *by_panel[what]) for n, by_panel in enumerate(layers)))
        for task, layers in spread.items()
    ]
    highest = max(mean + (0 if math.isnan(half) else half) for line in lines for _, mean, half in line.spots)
    axes = plots.Axes(title, words, "layer", top=plots.rounded(highest), suffix="")
    return plots.curves(axes, lines)


def _widest(spread: Spread, seeds: int) -> list[str]:
    """A sentence on how far seeds are apart, where there are several."""
    if seeds < 2:
        return []
    entropy, density = (
        max(by_panel[what].half for layers in spread.values() for by_panel in layers) for what, _ in figure.PANELS
    )
    return [
        f"note: means over {count(seeds, 'seed')}, which draw the prompts; the widest 95 % interval of a layer is "
        f"+- {entropy:.2f} nats and +- {density:.2f} points of density; fig5.csv has all"
    ]


def price(scale: Scale, given: Mapping[str, Any], overrides: Sequence[str], seeds: int) -> str:
    """What it will cost, in a sentence; no weight is read."""
    x = _experiment(scale, given, overrides)
    held = size(size_of(x.model).parameters * (2 if x.model.dtype == "bfloat16" else 4))
    each = f", {x.tasks.train_examples} for each of {count(seeds, 'seed')}," if seeds > 1 else ""
    return (
        f"fig5 puts {seeds * x.tasks.train_examples} prompts of each task through the model{each} and trains nothing: "
        f"{held} of memory for its weights, about 5 MB of disk"
    )


def _experiment(scale: Scale, given: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    asked = {"tasks.names": list(TASKS[scale.name]), "tasks.train_examples": PROMPTS, **given}
    return base_experiment(scale, {}, asked, overrides)


def _latex(by_task: figure.ByTask, spread: Spread, caption: str, path: Path) -> Path:
    """Entropy and density of every layer, two columns for each task."""
    names = ["Layer", *(name for task in by_task for name in (f"{task}, entropy", "density, %"))]
    labels = [row.label for row in next(iter(by_task.values()))]
    layers = zip(*spread.values(), strict=True)
    cells = [
        [label, *(_said(by_panel[what]) for by_panel in some for what, _ in figure.PANELS)]
        for label, some in zip(labels, layers, strict=True)
    ]
    return put(path, tables.latex("fig5", names, [("", cells)], caption))


def _said(value: Interval) -> str:
    return f"{value.mean:.2f}" if math.isnan(value.half) else f"{value.mean:.2f} ± {value.half:.2f}"


def _value(row: figure.LayerDensity, what: str) -> float:
    return row.entropy if what == "entropy" else 100 * row.density
