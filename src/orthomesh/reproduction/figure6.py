"""The collision rate over the number of devices: the text's Figure 6 (its caption says 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import write_whole
from ..config import parse
from ..evaluation import sweepfigure
from ..evaluation.statistics import Interval, interval
from ..evaluation.wording import count
from ..planning.settings import PlanSettings
from ..planning.sweep import Axis, Row, sweep
from ..presets import overlaid, plain
from . import plots, scene, tables
from .scales import Scale

COUNTS = (2, 4, 6, 8, 10, 12, 15)
"""Numbers of devices where none are asked for; the paper has up to 15."""
RADIUS_M = 100.0
"""Of the disk: so few devices hear each other, as in the paper, whose radio it does not give."""


QWEN_1_5B = {"blocks": 28, "widths": [1536, 256, 256, 1536, 8960, 8960, 1536]}
"""Adapted matrices of Qwen2.5-1.5B, as its configuration has them."""


def planned(scale: Scale) -> dict[str, Any]:
    """Settings of a plan at a scale: `paper` has the paper's model, rank and radio, the others what a plan has."""
    found = plain(PlanSettings())
    if scale.name == "paper":
        x = scale.experiment()
        found |= {"adapter": found["adapter"] | QWEN_1_5B | {"rank": x.model.rank}, "radio": plain(x.radio)}
    return found


def figure6(
    scale: Scale, counts: Sequence[int], overrides: Sequence[str], seeds: int, out: Path
) -> list[str | Path | Table]:
    """Plan networks of every size with every method and write `sweep.csv`, `.svg`, `.html` and `fig6.svg`, `.png`.

    No model is trained: the rate follows from densities and from who shares with whom, (19).

    Args:
        scale: whose adapters and radio.
        counts: numbers of devices.
        overrides: `key=value` of the plan's settings.
        seeds: at each of them.
        out: where to.

    Returns:
        A table, sentences and paths, in the order to show them.

    Raises:
        ValueError: settings a plan refuses.
    """
    near = {"channel.radius_m": RADIUS_M}
    settings = parse(PlanSettings, *overlaid(planned(scale), "fig6", None, overrides, near))
    over = Axis("devices", "M", tuple(float(m) for m in counts))
    rows = list(sweep(settings, over, seeds))
    paths = sweepfigure.write_sweep(rows, over, seeds, out)
    axes = plots.Axes(
        "Collision rate over the number of devices",
        f"share of positions that two or more of a group hold, (19); {count(seeds, 'seed')}, 95 % intervals",
        "devices",
    )
    drawn = curves(rows)
    made, note = scene.write(plots.curves(axes, drawn), out / "fig6")
    made.append(_latex(drawn, over, seeds, out / "fig6.tex"))
    notes = [
        "the paper's text has the collision rate in Figure 6 and accuracy in Figure 4, its captions the reverse; this "
        "is the text's Figure 6",
        *([note] if note else []),
    ]
    table = sweepfigure.sweep_table(over, sweepfigure.points(rows))
    return [table, *(f"note: {n}" for n in notes), *paths, *made]


def _latex(drawn: Sequence[plots.Curve], over: Axis, seeds: int, path: Path) -> Path:
    """The same means with their intervals, a row for each method."""
    names = ["Method", *(f"M = {m:g}" for m in over.values)]
    told = [{x: tables.number(Interval(mean, half)) for x, mean, half in curve.spots} for curve in drawn]
    cells = [[curve.name, *(one.get(m, "-") for m in over.values)] for curve, one in zip(drawn, told, strict=True)]
    caption = f"Collision rate over the number of devices M, %: {count(seeds, 'seed')} with 95 % t-intervals"
    write_whole(path, tables.latex("fig6", names, [("", cells)], caption).encode())
    return path


def curves(rows: Sequence[Row]) -> list[plots.Curve]:
    """Mean rate with its interval over seeds, %, a line for each method; where nobody shares there is no spot."""
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        spots = []
        for value in sorted({row.value for row in rows}):
            met = [
                100 * r.collision
                for r in rows
                if r.method == method and r.value == value and r.collision == r.collision
            ]
            if met:
                spots.append((value, *interval(met)))
        found.append(plots.Curve(sweepfigure.LOOKS[method][2], tuple(spots)))
    return found
