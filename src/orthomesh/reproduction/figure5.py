"""Spectral entropy and density over the layers for two tasks: the paper's Figure 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import write_whole
from ..evaluation import densities as figure
from ..evaluation.wording import size
from ..experiment import Experiment
from ..models.size import size_of
from ..tasks.embedded import TASKS as EMBEDDED_TASKS
from . import plots, scene, tables
from .scales import Scale, base_experiment

TASKS: Mapping[str, tuple[str, ...]] = {
    "tiny": tuple(EMBEDDED_TASKS)[:2],
    "small": ("scienceqa", "arc_challenge"),
    "paper": ("scienceqa", "arc_challenge"),
}
"""Two tasks by scale; the paper shows ScienceQA and ARC-Challenge."""
PROMPTS = 32


def figure5(scale: Scale, given: Mapping[str, Any], overrides: Sequence[str], out: Path) -> list[str | Path | Table]:
    """Measure both tasks and write `densities.csv`, `.svg`, `.html` and `fig5-*.svg`, `.png`.

    Args:
        scale: which model and data.
        given: what options say, by dotted key.
        overrides: `key=value` of an experiment's settings.
        out: where to.

    Returns:
        A table, sentences and paths, in the order to show them.

    Raises:
        ValueError: whatever is wrong with the model or the data.
    """
    x = _experiment(scale, given, overrides)
    sharing = figure.Sharing()
    layout, measured = figure.measure(x.model, x.tasks, x.seed)
    by_task = figure.layer_densities(layout, measured, sharing)
    paths = figure.write_densities(by_task, figure.title(x.model, sharing), out)
    paths.append(_latex(by_task, figure.title(x.model, sharing), out / "fig5.tex"))
    notes: list[str] = []
    for what, name in figure.PANELS:
        lines = [
            plots.Curve(task, tuple((float(n), _value(row, what), float("nan")) for n, row in enumerate(rows)))
            for task, rows in by_task.items()
        ]
        highest = max((p[1] for line in lines for p in line.spots), default=1.0)
        axes = plots.Axes(
            f"Figure 5: {name}", figure.title(x.model, sharing), "layer", top=plots.rounded(highest), suffix=""
        )
        made, note = scene.write(plots.curves(axes, lines), out / f"fig5-{what}")
        paths += made
        notes += [f"note: {note}"] if note and not notes else []
    return [figure.density_table(by_task), *figure.sentences(by_task), *notes, *paths]


def price(scale: Scale, given: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """What it will cost, in a sentence; no weight is read."""
    model = _experiment(scale, given, overrides).model
    held = size(size_of(model).parameters * (2 if model.dtype == "bfloat16" else 4))
    return (
        f"fig5 puts {PROMPTS} prompts of two tasks through the model and trains nothing: {held} of memory for its "
        "weights, under 1 MB of disk"
    )


def _experiment(scale: Scale, given: Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    asked = {"tasks.names": list(TASKS[scale.name]), "tasks.train_examples": PROMPTS, **given}
    return base_experiment(scale, {}, asked, overrides)


def _latex(by_task: figure.ByTask, caption: str, path: Path) -> Path:
    """Entropy and density of every layer, two columns for each task."""
    names = ["Layer", *(name for task in by_task for name in (f"{task}, entropy", "density, %"))]
    layers = zip(*by_task.values(), strict=True)
    cells = [[some[0].label, *(f"{_value(r, w):.2f}" for r in some for w in ("entropy", "density"))] for some in layers]
    write_whole(path, tables.latex("fig5", names, [("", cells)], caption).encode())
    return path


def _value(row: figure.LayerDensity, what: str) -> float:
    return row.entropy if what == "entropy" else 100 * row.density
