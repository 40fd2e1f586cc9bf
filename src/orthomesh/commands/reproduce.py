"""`orthomesh reproduce`: the paper's tables and figures, each by one command, beside its printed numbers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from .speech import say, sentences

if TYPE_CHECKING:
    from ..experiment import Experiment

WHAT = ("table1", "table2", "fig4", "fig5", "fig6")


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
def reproduce(
    what: Annotated[str, typer.Argument(help="table1, table2, fig4, fig5 or fig6.")],
    scale: Annotated[str, typer.Option(help="tiny (embedded, minutes), small (--model, --data) or paper.")] = "tiny",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions; an interval worth its name needs three.")] = 3,
    only: Annotated[str, typer.Option(help="Rows by label, separated by commas; default: all.")] = "",
    model: Annotated[str | None, typer.Option(help="Directory or hub name of a causal language model.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks by name, separated by commas.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Directory of NAME/train.jsonl and NAME/test.jsonl, or `hub`.")
    ] = None,
    counts: Annotated[str, typer.Option(help="Numbers of devices of fig4 and fig6, e.g. 2,4,8.")] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting of the runs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: reproduced/WHAT-SCALE.")] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Say what it will cost, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Reproduce a table or figure of the paper, beside its printed numbers.

    Writes CSV, LaTeX, Markdown, SVG and PNG. The same command goes on where it was interrupted.
    """
    begun, place = time.monotonic(), out or Path("reproduced") / f"{what}-{scale}"
    named = {"model.source": model, "tasks.data": data, "tasks.names": tasks and [t.strip() for t in tasks.split(",")]}
    asked = Asked(
        what, scale, seeds, only, {k: v for k, v in named.items() if v is not None}, counts, set_ or [], place
    )
    console = Console(highlight=False)
    with sentences():
        for one in _done(asked, console, cost, quiet):
            if isinstance(one, str | Path):
                console.print(str(one), markup=False, soft_wrap=True)
            else:  # nothing is cut, however narrow the terminal
                console.print(one, width=max(console.width, Console(width=1000).measure(one).maximum), crop=False)
                console.print()
        console.print(f"took {time.monotonic() - begun:.0f} s", markup=False)


class Asked(NamedTuple):
    """What the options say. given: settings by dotted key. place: where everything goes."""

    what: str
    scale: str
    seeds: int
    only: str
    given: dict[str, Any]
    counts: str
    overrides: list[str]
    place: Path


def _done(asked: Asked, console: Console, only_cost: bool, quiet: bool) -> list[Any]:
    """Do it: tables, sentences and paths, in the order to show them."""
    from ..config import near
    from ..reproduction.scales import base_experiment, scale_of

    if asked.what not in WHAT:
        raise ValueError(f"there is no {asked.what!r} to reproduce.{near(asked.what, WHAT)}")
    scale = scale_of(asked.scale)
    counts = _numbers(asked.counts) if asked.counts else scale.counts
    if asked.what == "fig5":
        from ..reproduction.figure5 import figure5

        return figure5(scale, asked.given, asked.overrides, asked.place)
    if asked.what == "fig6":
        from ..reproduction.figure6 import COUNTS, figure6

        counts = counts if asked.counts else COUNTS
        return figure6(counts, asked.overrides, asked.seeds, asked.place)
    from ..reproduction.outcome import write
    from ..reproduction.rows import chosen, methods
    from ..reproduction.runs import runs_of

    rows = chosen(asked.what, [label.strip() for label in asked.only.split(",") if label.strip()])
    x = base_experiment(scale, methods(rows), asked.given, asked.overrides)
    runs = runs_of(x, asked.place, asked.seeds, counts if asked.what == "fig4" else ())
    finished = _carry_out(runs, console, only_cost, quiet)
    return write(asked.what, rows, runs, asked.place) if finished else []


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of devices from an option."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--counts {text}: whole numbers separated by commas belong here, e.g. 2,4,8") from None
    if min(found) < 1:
        raise ValueError(f"--counts {text}: a network has one device at least")
    return found


def _carry_out(runs: dict[Path, Experiment], console: Console, only_cost: bool, quiet: bool) -> bool:
    """Say what it will cost, then run what is not there yet; False where nothing was to be run."""
    from .. import experiment
    from ..evaluation.wording import duration, size
    from ..reproduction.costs import check_memory, cost, probe
    from ..reproduction.runs import begin
    from ..show import follow

    for x in runs.values():
        check_memory(x)
    first = next(iter(runs.values()))
    notes = experiment.check(first)
    for note in notes if not quiet else ():
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    price = cost(runs, probe(first))
    console.print(
        f"{len(runs)} runs of {len(first.methods)} methods: at most about {duration(price.seconds)} from here on this "
        f"machine as it is now, {size(price.memory_b)} of memory and {size(price.disk_b)} of disk",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if only_cost:
        return False
    try:
        for directory, x in runs.items():
            if not begin(directory, x):
                started = time.monotonic()
                console.print(f"{directory}", markup=False, soft_wrap=True)
                follow(experiment.run(x, directory), x, console, quiet)
                experiment.finish(x, directory, notes, time.monotonic() - started)
    except KeyboardInterrupt:
        say("interrupted; every finished round is kept. The same command goes on.", 130)
    return True
