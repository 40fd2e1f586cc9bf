"""`orthomesh plan`: from positions, budgets and a channel to clusters, powers, delays, energy, bytes and a map."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .speech import sentences

if TYPE_CHECKING:
    from ..planning.settings import PlanSettings


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
def plan(
    config: Annotated[Path | None, typer.Argument(help="YAML file laid over the default network.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="Any setting, e.g. -s radio.deadline_s=2; repeat for more."
        ),
    ] = None,
    devices: Annotated[int | None, typer.Option(help="Number of devices in random places.")] = None,
    positions: Annotated[
        str | None,
        typer.Option(help="CSV file of devices: id, x_m, y_m[, density, max_power_dbm, max_cost, battery_j]."),
    ] = None,
    solver: Annotated[str | None, typer.Option(help="local-search, best-fit, exact or agnes (the paper's).")] = None,
    seed: Annotated[int | None, typer.Option(help="Every random draw is keyed by it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write to; default: plans/NAME-DATE.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="NAME=FROM:TO[:STEP] or NAME=A,B: M, density, S_max, radius or any setting; against LoRI, LoRA."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds at each value of a sweep.")] = 5,
    all_: Annotated[bool, typer.Option("--all", help="Print every device, however many.")] = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print all settings, explained, as YAML, and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only sentences, no tables.")] = False,
) -> None:
    """Plan a network: who clusters with whom, at what power, and what a round costs.

    Ends with a table and writes plan.json, devices.csv, plan.svg and plan.html. All settings, explained:
    orthomesh plan --settings.
    """
    from ..config import parse
    from ..planning.settings import PlanSettings
    from ..presets import explain, overlaid, plain

    console = Console(highlight=False)
    named = {"devices": devices, "positions": positions, "rules.solver": solver, "seed": seed}
    given = {key: value for key, value in named.items() if value is not None}
    with sentences():
        chosen = parse(PlanSettings, *overlaid(plain(PlanSettings()), "plan", config, set_ or [], given))
        if settings:
            print(explain(chosen))
            return
        directory = out or Path("plans") / f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"
        if sweep is not None:
            _sweep(chosen, console, directory, sweep, repeats)
        else:
            _carry_out(chosen, console, directory, all_, quiet)


def _sweep(settings: PlanSettings, console: Console, directory: Path, text: str, repeats: int) -> None:
    """Plan over a range, print the means, write the figure."""
    from ..evaluation import sweepfigure as figure
    from ..planning.sweep import axis, sweep

    begun, over = time.monotonic(), axis(text)
    rows = list(sweep(settings, over, repeats))
    console.print(figure.sweep_table(over, figure.points(rows)), soft_wrap=True)
    for path in figure.write_sweep(rows, over, repeats, directory):
        console.print(path, markup=False, soft_wrap=True)
    console.print(f"took {time.monotonic() - begun:.1f} s", markup=False)


def _carry_out(settings: PlanSettings, console: Console, directory: Path, all_: bool, quiet: bool) -> None:
    """Plan, print, write."""
    from ..evaluation import planfile, plantable
    from ..evaluation.planmap import svg
    from ..evaluation.planpage import page
    from ..planning.plan import plan as planned

    begun = time.monotonic()
    result = planned(settings)
    if not quiet:
        for table in plantable.tables(result, all_):
            console.print(table, soft_wrap=True)
            console.print()
    for sentence in plantable.sentences(result):
        console.print(sentence, markup=False, soft_wrap=True)
    paths = planfile.write_plan(result, directory)
    for name, text in (("plan.svg", svg(result)), ("plan.html", page(result))):
        (directory / name).write_text(text, encoding="utf-8")
        paths.append(directory / name)
    for path in paths:
        console.print(path, markup=False, soft_wrap=True)
    console.print(f"took {time.monotonic() - begun:.1f} s", markup=False)
