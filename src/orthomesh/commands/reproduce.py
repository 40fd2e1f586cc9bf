"""`orthomesh reproduce`: the paper's tables and figures beside its printed numbers, and all methods compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from .speech import say, sentences

if TYPE_CHECKING:
    from ..experiment import Experiment
    from ..reproduction.equal import Equal
    from ..reproduction.rows import Row
    from ..reproduction.scales import Scale

WHAT = ("table1", "table2", "fig4", "fig5", "fig6", "methods", "equal")


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
def reproduce(
    what: Annotated[
        str, typer.Argument(help="table1, table2, fig4, fig5, fig6; methods: all there are; equal: all at our bytes.")
    ],
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
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Where the runs are, if not in --out: tables share those in common; equal: where methods' are."
        ),
    ] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Say what it will cost, and stop.")] = False,
    finished: Annotated[bool, typer.Option("--finished", help="Run nothing; show what is finished.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Reproduce a table or figure of the paper, beside its printed numbers; or compare all methods.

    Writes CSV, LaTeX, Markdown, SVG and PNG. The same command goes on where it was interrupted; given again while it
    runs, it takes over runs that nobody has begun.
    """
    begun, place = time.monotonic(), out or Path("reproduced") / f"{what}-{scale}"
    named = {"model.source": model, "tasks.data": data, "tasks.names": tasks and [t.strip() for t in tasks.split(",")]}
    given = {k: v for k, v in named.items() if v is not None}
    there = runs or (Path("reproduced") / f"methods-{scale}" if what == "equal" else place)
    asked = Asked(what, scale, seeds, only, given, counts, set_ or [], place, there)
    console = Console(highlight=False)
    told = {"only": only, "model": model, "tasks": tasks, "data": data, "counts": counts, "runs": runs,
            "finished": finished}  # fmt: skip
    with sentences():
        _check_used(what, [name for name, value in told.items() if value])
        for one in _done(asked, console, Way(cost, finished, quiet)):
            if isinstance(one, str | Path):
                console.print(str(one), markup=False, soft_wrap=True)
            else:  # nothing is cut, however narrow the terminal
                wide = max(console.width, Console(width=1000).measure(one).maximum)
                Console(highlight=False, width=wide).print(one, "", crop=False)
        console.print(f"took {time.monotonic() - begun:.0f} s", markup=False)


class Asked(NamedTuple):
    """What the options say. given: settings by dotted key. place: where everything goes. runs: where the runs are."""

    what: str
    scale: str
    seeds: int
    only: str
    given: dict[str, Any]
    counts: str
    overrides: list[str]
    place: Path
    runs: Path


class Way(NamedTuple):
    """only_cost: say what it costs, and stop. finished: run nothing. quiet: only the result."""

    only_cost: bool
    finished: bool
    quiet: bool


UNUSED = {
    "fig5": ("only", "counts", "runs", "finished"),
    "fig6": ("only", "model", "tasks", "data", "runs", "finished"),
    "fig4": (),
}
"""Options that change nothing of a figure; of tables and methods it is the number of devices."""


def _check_used(what: str, given: Sequence[str]) -> None:
    """Whether every option that is given has something to say here."""
    for name in given:
        if what in WHAT and name in UNUSED.get(what, ("counts",)):
            why = {"fig5": "it looks at two tasks and trains nothing", "fig6": "it plans networks and trains nothing"}
            reason = why.get(what, "its number of devices is the setting -s devices=N")
            raise ValueError(f"--{name} has no use with {what}: {reason}")


def _done(asked: Asked, console: Console, way: Way) -> list[Any]:
    """Do it: tables, sentences and paths, in the order to show them."""
    from ..config import near
    from ..reproduction.scales import scale_of

    if asked.what not in WHAT:
        raise ValueError(f"there is no {asked.what!r} to reproduce.{near(asked.what, WHAT)}")
    scale = scale_of(asked.scale)
    counts = _numbers(asked.counts) if asked.counts else scale.counts
    if asked.what == "fig5":
        from ..reproduction.figure5 import figure5, price

        if way.only_cost:
            return [price(scale, asked.given, asked.overrides, asked.seeds)]
        return figure5(scale, asked.given, asked.overrides, asked.seeds, asked.place)
    if asked.what == "fig6":
        from ..reproduction.figure6 import COUNTS, figure6

        if way.only_cost:
            return ["fig6 plans networks and trains nothing: some seconds, no model in memory, about 5 MB of disk"]
        counts = counts if asked.counts else COUNTS
        return figure6(scale, counts, asked.overrides, asked.seeds, asked.place)
    return _tabled(asked, scale, counts, console, way)


def _tabled(asked: Asked, scale: Scale, counts: tuple[int, ...], console: Console, way: Way) -> list[Any]:
    """Whatever trains: run it, or take what is finished, and write it."""
    from ..reproduction import comparison, figure4, outcome
    from ..reproduction.rows import chosen, methods
    from ..reproduction.runs import runs_of, there
    from ..reproduction.scales import base_experiment

    all_of = asked.what in ("methods", "equal")
    given = {"workers": 1, **asked.given} if all_of else asked.given  # processes share the runs
    rows = chosen(
        "methods" if all_of else asked.what, [label.strip() for label in asked.only.split(",") if label.strip()]
    )
    x = base_experiment(scale, methods(rows), given, asked.overrides)
    runs = runs_of(x, asked.runs, asked.seeds, counts if asked.what == "fig4" else ())
    if asked.what == "equal":
        return _equal(asked, rows, there(runs), console, way)
    if not way.finished and not _carry_out(runs, x, console, way):
        return []
    done = there(runs)
    if not done:
        raise ValueError(f"{asked.runs} holds no finished run of these")
    if asked.what == "methods":
        return comparison.write(rows, done, asked.place)
    if asked.what == "fig4":
        return figure4.figure4(rows, done, asked.place)
    return outcome.write(asked.what, rows, done, asked.place)


def _equal(
    asked: Asked, rows: tuple[Row, ...], finished: dict[Path, Experiment], console: Console, way: Way
) -> list[Any]:
    """All methods at our bytes, which finished runs of `methods` say."""
    from ..reproduction import comparison
    from ..reproduction.runs import there

    if asked.place == asked.runs:
        raise ValueError(f"--out: {asked.place} has the runs of methods; those at our bytes go elsewhere")
    if not finished:
        raise ValueError(f"--runs: {asked.runs} has no finished runs of `reproduce methods` with these settings")
    made = _at_our_bytes(asked.place, finished, console, way)
    if made is None:
        return []
    titles = [r.title for r in rows if r.label in made.left]
    short = f"note: left out, one exchange alone is more than ours sends in all: {', '.join(titles)}"
    told = comparison.write(made.rows(rows), there(made.runs), asked.place, "our bytes")
    return [*told, *([short] if titles else [])]


def _at_our_bytes(place: Path, finished: dict[Path, Experiment], console: Console, way: Way) -> Equal | None:
    """Run all with less until none sends more than ours, or take what is finished; None with nothing to show yet."""
    from ..reproduction.equal import at_our_bytes, nearer
    from ..reproduction.runs import there

    made = at_our_bytes(finished, place)
    while True:
        new = {d: x for d, x in made.runs.items() if d not in finished}
        if new and not way.finished:
            methods = {k: m for x in new.values() for k, m in x.methods.items()}
            if not _carry_out(new, replace(next(iter(new.values())), methods=methods), console, way):
                return None
        closer = nearer(made, place)
        added = {d: x for d, x in closer.runs.items() if d not in made.runs}
        if closer.runs == made.runs or (way.finished and len(there(added)) < len(added)):
            return made  # what sent too much is shown, and named, until what is nearer has been run
        made = closer


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of devices from an option."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--counts {text}: whole numbers separated by commas belong here, e.g. 2,4,8") from None
    if min(found) < 1:
        raise ValueError(f"--counts {text}: a network has one device at least")
    return found


def _carry_out(runs: dict[Path, Experiment], whole: Experiment, console: Console, way: Way) -> bool:
    """Say what it will cost, then run what is not there yet; False where there is nothing to show yet.

    `whole` has the methods of all runs.
    """
    from .. import experiment
    from ..evaluation.wording import count, duration, size
    from ..reproduction.costs import check_memory, cost, memory, probe
    from ..reproduction.scales import scored_by

    check_memory(max(runs.values(), key=memory), without_full="e.g. --only gossip,lori,orthomesh")
    first = replace(next(iter(runs.values())), methods=whole.methods)
    notes = experiment.check(first)
    if first.name == "paper":
        notes.append(scored_by(first))
    for note in notes if not way.quiet else ():
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    price = cost(runs, probe(first))
    console.print(
        f"{count(len(runs), 'run')} of {count(len(whole.methods), 'method')}: at most about "
        f"{duration(price.seconds)} from here on this machine as it is now, {size(price.memory_b)} of memory and "
        f"{size(price.disk_b)} of disk",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if way.only_cost:
        return False
    try:
        while _pass(runs, notes, console, way.quiet):
            pass
    except KeyboardInterrupt:
        say("interrupted; every finished round is kept. The same command goes on.", 130)
    return _all_there(runs, console)


def _pass(runs: dict[Path, Experiment], notes: list[str], console: Console, quiet: bool) -> int:
    """Run everything that is neither finished nor held by another process; how many there were."""
    from .. import experiment
    from ..reproduction.runs import begin, claimed
    from ..show import follow

    count = 0
    for directory, x in runs.items():
        with claimed(directory) as mine:
            if mine and not begin(directory, x):
                started, count = time.monotonic(), count + 1
                console.print(f"{directory}", markup=False, soft_wrap=True)
                follow(experiment.run(x, directory), x, console, quiet)
                experiment.finish(x, directory, notes, time.monotonic() - started)
    return count


def _all_there(runs: dict[Path, Experiment], console: Console) -> bool:
    """Whether every run is finished; says which other processes still have."""
    from ..reproduction.runs import there

    done = there(runs)
    left = [str(d) for d in runs if d not in done]
    if left:
        said = f"other processes are at {', '.join(left)}; the last to end shows the result"
        console.print(said, markup=False, soft_wrap=True)
    return not left
