"""What every layer gets for a task, the paper's Figure 5: spectral entropy (21) and density (22), layer by layer."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import plotly.graph_objects as go
from pydantic import Field
from pydantic.dataclasses import dataclass
from rich import box
from rich.table import Table
from rich.text import Text

from ..adapters.density import Rule, allocate, entry_budget
from ..adapters.lowrank import Layout
from ..config import STRICT
from ..models.settings import ModelSettings
from ..tasks.catalogue import names, training_share
from ..tasks.settings import TaskSettings
from ..types import Array
from .axes import FONT, GRID, INK, SOFT, clean, figure_of
from .page import Cell, card, chart, document, escape, table
from .wording import percent

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5BA6", "#8C6D31", "#17A2A8", "#B0413E")
"""One for each task, in order."""
WHOLE = 50
"""Layers up to which the table on a terminal names every one; above, every kind."""
PANELS = (("entropy", "spectral entropy, nats"), ("density", "density, %"))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sharing:
    """How a budget of active entries is shared among the layers, eq. (22)."""

    density: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Share of all entries of B that is active."""
    rule: Rule = "entropy"
    """`entropy` is ours, `softmax` the paper's."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """In nats; None is the rule's own."""


class Measured(NamedTuple):
    """What one task's prompts showed. entropies: of every layer. [L] cut: prompts that lost their beginning."""

    task: str
    entropies: Array
    prompts: int
    cut: int


class LayerDensity(NamedTuple):
    """One layer under one task; a line of `densities.csv`. block is -1 where the layer's name has no number; entropy,
    density and active entries may be means."""

    task: str
    layer: str
    block: int
    kind: str
    entropy: float
    density: float
    active: float
    size: int

    @property
    def label(self) -> str:
        """Block and kind, or the layer's own name."""
        return f"{self.block}.{self.kind}" if self.block >= 0 else self.layer


ByTask = Mapping[str, Sequence[LayerDensity]]


def measure(model: ModelSettings, tasks: TaskSettings, seed: int) -> tuple[Layout, list[Measured]]:
    """Spectral entropies of every layer under every task's prompts.

    Args:
        model: the base model.
        tasks: which, from where; `train_examples` prompts of each, as the first device with the task draws them.
        seed: of that draw.

    Returns:
        The adapted layers, and what each task showed, in order.

    Raises:
        ValueError: whatever is wrong with the model or the data; more tasks than there are colours.
    """
    layout, (measured,) = measure_draws(model, tasks, [seed])
    return layout, measured


def measure_draws(
    model: ModelSettings, tasks: TaskSettings, seeds: Sequence[int]
) -> tuple[Layout, list[list[Measured]]]:
    """The same by one base model for several draws of prompts; what the tasks showed in each, in order of the seeds."""
    from ..models.base import load_base  # late: the command line reads settings without torch
    from ..models.covariance import layer_entropies
    from ..models.tokens import tokenise

    if len(names(tasks)) > len(COLOURS):
        raise ValueError(f"a figure tells {len(COLOURS)} tasks apart, got {len(names(tasks))}")
    base, measured = load_base(model), []
    for seed in seeds:
        rows = {t: tokenise(base, training_share(tasks, t, seed, 0, 1), f"task {t}") for t in names(tasks)}
        shown = [Measured(t, layer_entropies(base, r), len(r), sum(row.cut for row in r)) for t, r in rows.items()]
        measured.append(shown)
    return base.layout, measured


def layer_densities(layout: Layout, measured: Sequence[Measured], sharing: Sharing) -> dict[str, list[LayerDensity]]:
    """Densities of every layer for every task, in the layout's order, each task with the whole budget for itself.

    Raises:
        ValueError: a density that leaves a layer without an entry.
    """
    sizes = layout.expansion_sizes
    budget = entry_budget(sizes, sharing.density, None, None, 1)
    found: dict[str, list[LayerDensity]] = {}
    for one in measured:
        quota = allocate(one.entropies, sizes, budget, sharing.rule, sharing.temperature).tolist()
        lines = zip(layout.names, one.entropies.tolist(), quota, sizes, strict=True)
        found[one.task] = [LayerDensity(one.task, n, _block(n), _kind(n), h, q / s, q, s) for n, h, q, s in lines]
    return found


def _block(layer: str) -> int:
    return next((int(part) for part in layer.split(".") if part.isdecimal()), -1)


def _kind(layer: str) -> str:
    return layer.rsplit(".", 1)[-1]


def density_table(by_task: ByTask) -> Table:
    """Entropy and density for a terminal: every layer of a small model, every kind of layer of a large one."""
    layers = next(iter(by_task.values()))
    lines = {row.label: [i] for i, row in enumerate(layers)} if len(layers) <= WHOLE else _by_kind(layers)
    stack, tasks = Table.grid(), list(by_task)
    for pair in (tasks[i : i + 2] for i in range(0, len(tasks), 2)):  # two tasks fit side by side
        part = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        part.add_column("layer" if len(layers) <= WHOLE else f"{len(layers)} layers by kind", no_wrap=True)
        for task in pair:
            part.add_column(Text(f"{task}\nentropy"), justify="right", no_wrap=True)
            part.add_column("\ndensity, %", justify="right", no_wrap=True)
        for label, index in lines.items():
            rows = [[by_task[task][i] for i in index] for task in pair]
            cells = [(_range([r.entropy for r in some]), _range([100 * r.density for r in some])) for some in rows]
            part.add_row(Text(label), *(cell for two in cells for cell in two))
        stack.add_row(part)
        stack.add_row("")
    return stack


def _by_kind(layers: Sequence[LayerDensity]) -> dict[str, list[int]]:
    """Where the layers of every kind are, kinds in order of appearance."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(layers):
        found.setdefault(row.kind, []).append(i)
    return found


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def sentences(by_task: ByTask) -> list[str]:
    """How far apart a task's layers are, and how far apart the tasks."""
    said = []
    for task, rows in by_task.items():
        low, high = min(rows, key=lambda r: r.density), max(rows, key=lambda r: r.density)
        active, size = sum(r.active for r in rows), sum(r.size for r in rows)
        said.append(
            f"{task}: entropy {_range([r.entropy for r in rows])} nats; density {percent(low.density)} ({low.label}) "
            f"to {percent(high.density)} ({high.label}), a factor of {high.density / low.density:.1f}; "
            f"{active:,.0f} of {size:,} entries active"
        )
    if len(by_task) > 1:
        across = [[r.density for r in rows] for rows in zip(*by_task.values(), strict=True)]
        apart = [max(some) / min(some) for some in across]
        most = next(iter(by_task.values()))[apart.index(max(apart))].label
        said.append(
            f"between tasks a layer's density differs by a factor of {math.prod(apart) ** (1 / len(apart)):.2f} in the "
            f"(geometric) mean over the layers, {max(apart):.2f} at most ({most})"
        )
    return said


def title(model: ModelSettings, sharing: Sharing) -> str:
    """What was measured, in a line.

    >>> title(ModelSettings(), Sharing())
    'embedded, rank 16: density 12.5 %, shared by entropy'
    """
    tau = "" if sharing.temperature is None else f" at temperature {sharing.temperature:g}"
    name = model.source.rstrip("/").rsplit("/", 1)[-1]
    return f"{name}, rank {model.rank}: density {percent(sharing.density)}, shared by {sharing.rule}{tau}"


def write_densities(by_task: ByTask, words: str, directory: Path) -> list[Path]:
    """Write `densities.csv`, `densities.svg` and `densities.html`.

    Args:
        by_task: as `layer_densities` gives it.
        words: what was measured, from `title`.
        directory: made where it is lacking.

    Returns:
        What was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"densities.{end}" for end in ("csv", "svg", "html")]
    with open(paths[0], "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(LayerDensity._fields)
        lines.writerows(row for rows in by_task.values() for row in rows)
    paths[1].write_text(svg(by_task, words), encoding="utf-8")
    paths[2].write_text(page(by_task, words), encoding="utf-8")
    return paths


def page(by_task: ByTask, words: str) -> str:
    """Both panels to point at, and every number."""
    head = f'<header><p class="kicker">orthomesh</p><h1>Densities</h1><p class="what">{escape(words)}</p></header>'
    figures = [chart(_figure(by_task, what), what, "", name) for what, name in PANELS]
    how = "Layers by kind, and within a kind from the first block to the last. Point at one for its numbers."
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(by_task))
    cells = [
        [Cell(text=row.label, tip=row.layer, head=True), *(Cell(text=t) for t in _cells(row))]
        for rows in by_task.values()
        for row in rows
    ]
    head_row = ["layer", "task", "entropy, nats", "density", "active entries", "of"]
    numbers = card("Numbers", "Every layer, task by task.", said, table(head_row, cells, tall=True))
    return document(f"{words} · orthomesh", "\n".join((head, card("Layers", how, *figures), numbers)))


def _cells(row: LayerDensity) -> tuple[str, ...]:
    return row.task, f"{row.entropy:.4f}", percent(row.density), f"{row.active:,.0f}", f"{row.size:,}"


def _value(row: LayerDensity, what: str) -> float:
    return row.entropy if what == "entropy" else 100 * row.density


def _places(layers: Sequence[LayerDensity]) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """For every kind its layers as (index, place on the axis), a place free between kinds; and the last place."""
    found, place = {}, 0
    for kind, index in _by_kind(layers).items():
        found[kind] = [(i, place + n) for n, i in enumerate(index)]
        place += len(index) + 1
    return found, place - 2


def _figure(by_task: ByTask, what: str) -> go.Figure:
    """One panel: a line per task, broken between kinds of layers."""
    kinds, last = _places(next(iter(by_task.values())))
    figure = figure_of(320)
    for colour, (task, rows) in zip(COLOURS, by_task.items(), strict=False):
        x = [v for spots in kinds.values() for v in (*(place for _, place in spots), None)]
        shown = [r for spots in kinds.values() for r in (*(rows[i] for i, _ in spots), None)]
        figure.add_scatter(
            x=x, y=[None if r is None else _value(r, what) for r in shown], mode="lines+markers", name=clean(task),
            line={"color": colour, "width": 2}, marker={"color": colour, "size": 6}, hoverinfo="text",
            hovertext=["" if r is None else f"<b>{clean(task)}</b>, {clean(r.label)}: entropy {r.entropy:.3f}, "
                       f"density {percent(r.density)}, {r.active:,.0f} of {r.size:,}" for r in shown],
        )  # fmt: skip
    middles = [(spots[0][1] + spots[-1][1]) / 2 for spots in kinds.values()]
    figure.update_xaxes(tickvals=middles, ticktext=[clean(kind) for kind in kinds], range=[-0.7, last + 0.7])
    figure.update_yaxes(rangemode="tozero")
    return figure.update_layout(hovermode="closest")


def svg(by_task: ByTask, words: str) -> str:
    """Both panels above one another, as in the paper's Figure 5, for a document."""
    kinds, last = _places(next(iter(by_task.values())))

    def across(place: float) -> float:
        return 62 + 908 * (place + 0.7) / (last + 1.4)

    parts = [f'<text x="62" y="24" font-size="15" font-weight="600">{clean(words, 110)}</text>']
    parts.append(f'<text x="970" y="48" text-anchor="end" fill="{SOFT}">within a kind from first to last block</text>')
    for n, (colour, task) in enumerate(zip(COLOURS, by_task, strict=False)):
        left, line = 62 + 160 * (n % 4), 48 + 18 * (n // 4)
        parts.append(f'<path d="M{left} {line - 4}h22" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{left + 28}" y="{line}">{clean(task)}</text>')
    top = 66 + 18 * ((len(by_task) - 1) // 4)
    for what, name in PANELS:
        parts += _panel(by_task, what, name, top, across)
        top += 250
    for kind, spots in kinds.items():
        x = across((spots[0][1] + spots[-1][1]) / 2)
        parts.append(f'<text x="{x:.1f}" y="{top}" text-anchor="middle" fill="{SOFT}">{clean(kind)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {top + 16}" width="1000" height="{top + 16}" '
        f'font-family="{escape(FONT)}" font-size="12.5" fill="{INK}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(by_task: ByTask, what: str, name: str, top: float, across: Callable[[float], float]) -> list[str]:
    """Grid, numbers and lines of one panel of 200 units of height."""
    kinds, last = _places(next(iter(by_task.values())))
    high = max(_value(row, what) for rows in by_task.values() for row in rows)
    step = _step(high)
    num_steps = max(1, math.ceil(high / step))
    base, per_unit = top + 226, 200 / (step * num_steps)
    parts = [f'<text x="62" y="{top + 14}" fill="{SOFT}">{name}</text>']
    for n in range(num_steps + 1):
        y = base - n * step * per_unit
        parts.append(f'<path d="M{across(-0.7):.1f} {y:.1f}H{across(last + 0.7):.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="54" y="{y + 4:.1f}" text-anchor="end" fill="{SOFT}">{n * step:g}</text>')
    for colour, (task, rows) in zip(COLOURS, by_task.items(), strict=False):
        for spots in kinds.values():
            dots = [(across(place), base - _value(rows[i], what) * per_unit) for i, place in spots]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
            for (x, y), (i, _) in zip(dots, spots, strict=True):
                tip = f"{clean(task)}, {clean(rows[i].label)}: {_value(rows[i], what):.3f}"
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"><title>{tip}</title></circle>')
    return parts


def _step(high: float) -> float:
    """A round distance between three to six ticks up to `high`.

    >>> _step(4.8), _step(27.0)
    (1.0, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(high / 3 or 1.0))
    return max(m * power for m in (1, 2, 5) if m * power <= max(high / 3, power))
