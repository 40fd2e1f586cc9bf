"""What is written when all runs of a table are there: tables, figures, and what they say in words."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from ..checkpoint import write_whole
from ..evaluation.statistics import Paired
from ..evaluation.wording import count
from ..experiment import BASE, ORACLE, Experiment
from . import forgetting, plots, scene, tables
from .breakdown import CAUSES, MEAN, STAGES, Loss, as_markdown, as_table, losses
from .printed import remarks
from .record import Line, Point, against_ours, directories, frontier, lines, shared, unread
from .rows import OURS, Row
from .runs import broken_down, computed_on

Said = list[str | Path | Table]


def write(what: str, rows: Sequence[Row], runs: Mapping[Path, Experiment], out: Path) -> Said:
    """Write everything of one table.

    Args:
        what: `table1` or `table2`.
        rows: its rows.
        runs: finished, by directory.
        out: where to.

    Returns:
        Tables, sentences and paths, in the order to show them.
    """
    found = lines(rows, runs)
    tests, seeds = against_ours(found), seeds_of(found)
    caption = f"{what.capitalize()} of the paper: ours over {seeds} with 95 % t-intervals, and as printed"
    said: Said = [*tables.terminal(what, found, tests)]
    files = {
        "csv": tables.as_csv(what, found, tests),
        "tex": tables.as_latex(what, found, caption),
        "md": tables.as_markdown(what, found, tests),
    }
    paths = [put(out / f"{what}.{end}", text) for end, text in files.items()]
    measures = [
        plots.Measure(
            line.row.title, *line.average, tuple(p.average for p in tables.printed_of(what, line.row.title).values())
        )
        for line in found
    ]
    words = "mean accuracy over tasks; dots: ours with 95 % intervals, rings: the paper's 1.5B and 7B"
    drawn = {what: plots.dots(f"{what}, {seeds}", words, measures)}
    if what == "table1":
        sending = [line.row for line in found if line.sent and line.row.settings is not None]
        drawn |= frontiers({row: frontier(row.label, directories(row, runs)) for row in sending}, out, paths)
        kept = forgetting.forgotten(rows, runs)
        broken, lost = _breakdowns(found, runs, kept, out, paths)
        drawn, said = drawn | broken | forgetting.figure(kept), [*said, *lost]
    notes, nothing = draw(drawn, out, paths), unread(rows, list(runs))
    expected = verdicts(found) if what == "table1" else []  # of methods that exchange
    own = uneven({line.row.label: line.seeds for line in found})
    told = (*expected, *nothing, *remarks(what), *few(found, tests.values()), *own, *computed_on(runs), *notes)
    said += [f"note: {one}" for one in told]
    return [*said, *paths]


def put(path: Path, text: str) -> Path:
    """Write a file whole, and say where."""
    write_whole(path, text.encode())
    return path


def draw(drawn: Mapping[str, scene.Scene], out: Path, paths: list[Path]) -> list[str]:
    """Write the figures; sentences about what could not be."""
    notes = []
    for name, figure in drawn.items():
        made, note = scene.write(figure, out / name)
        paths += made
        notes.append(note)
    return sorted(set(notes) - {""})


def few(found: Sequence[Line], tests: Iterable[Paired]) -> list[str]:
    """A sentence where a mean or a test has too few seeds."""
    each = [*(len(line.seeds) for line in found), *(test.seeds for test in tests)]
    if min(each) >= 3:
        return []
    some = "" if min(each) == max(each) else "as few as "
    return [f"{some}{count(min(each), 'seed')}: intervals and tests need three at least"]


def seeds_of(found: Sequence[Line]) -> str:
    """How many seeds methods have, e.g. `3 seeds`, or `1 to 3 seeds` before all runs are finished."""
    most = max(len(line.seeds) for line in found)
    least = min(len(line.seeds) for line in found)
    return count(most, "seed") if least == most else f"{least} to {count(most, 'seed')}"


def uneven(seeds: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A sentence where some methods have other seeds than most, as before all runs are finished.

    >>> uneven({"gossip": (0, 1), "lori": (0, 1), "full": (1,)})[0].partition(":")[0]
    'seeds 0, 1, but full at 1'
    """
    sets = {name: tuple(sorted(own)) for name, own in seeds.items()}
    ((most, number),) = Counter(sets.values()).most_common(1)
    if number == len(sets):
        return []
    others = "; ".join(f"{name} at {_listed(own)}" for name, own in sets.items() if own != most)
    how = "means are over a method's own seeds, tests over those that ours has too"
    return [f"seeds {_listed(most)}, but {others}: {how}"]


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def verdicts(found: Sequence[Line]) -> list[str]:
    """What was expected of the methods, beside what came out (issue: results that count)."""
    by = {line.row.label: line for line in found}
    if OURS not in by:
        return []
    said = []
    for label, least, words in (("gossip", 5.0, "gossip LoRA"), ("lori", 3.0, "LoRI")):
        if (two := _means(by, OURS, label)) is not None:
            ahead = two[0] - two[1]
            said.append(f"{ahead:+.1f} points on {words}; at least {least:g} were expected: {_holds(ahead >= least)}")
    if (two := _means(by, OURS, ORACLE)) is not None:
        share = 100 * two[0] / max(two[1], 1e-9)
        said.append(f"{share:.1f} % of the oracle with the same adapters; 99 were expected: {_holds(share >= 99)}")
    if "gossip" in by and by["gossip"].sent:
        part = by[OURS].sent / by["gossip"].sent
        said.append(f"1/{1 / max(part, 1e-9):.1f} of LoRA's bytes a round; 1/20 was expected: {_holds(part <= 0.05)}")
    if (two := _means(by, "paper", BASE)) is not None:
        said.append(f"the paper's reading below the untouched model, as expected: {_holds(two[0] < two[1])}")
    return said


def _means(by: Mapping[str, Line], one: str, other: str) -> tuple[float, float] | None:
    """Accuracy of two methods over the seeds that both have."""
    if one not in by or other not in by:
        return None
    a, b = shared(by[one], by[other])
    return (a.average.mean, b.average.mean) if a.seeds else None


def _holds(whether: bool) -> str:
    return "holds" if whether else "does not hold"


def frontiers(points: Mapping[Row, Sequence[Point]], out: Path, paths: list[Path]) -> dict[str, scene.Scene]:
    """Accuracy over what was sent and over seconds on the air, round by round, for every method that sends."""
    rows = [(row.title, row.label, p.round, p.sent, p.seconds, p.accuracy) for row, ps in points.items() for p in ps]
    paths.append(write_csv(out / "frontier.csv", ("method", "label", "round", "bytes", "seconds", "accuracy_%"), rows))
    nan = float("nan")

    def curve(row: Row, ps: Iterable[Point], seconds: bool) -> plots.Curve:
        return plots.Curve(row.title, tuple((p.seconds if seconds else p.sent, p.accuracy, nan) for p in ps))

    words = "mean accuracy after every round that was examined; rounds on the way on few prompts, the last on all"
    axes = {
        "frontier-bytes": plots.Axes(
            "Accuracy for bytes", words, "sent per device so far", "B", log=True,
            frontier="broad: best for so few bytes",
        ),
        "frontier-seconds": plots.Axes(
            "Accuracy for seconds", words, "time on the air so far", "s", log=True,
            frontier="broad: best in so little time",
        ),
    }  # fmt: skip
    drawn = sorted(points.items(), key=lambda one: one[0].label != OURS)  # so that ours has the first look
    return {
        name: plots.curves(axis, [curve(row, ps, name.endswith("seconds")) for row, ps in drawn])
        for name, axis in axes.items()
    }


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a line of names and lines of values, and say where."""
    out = io.StringIO()
    lines_ = csv.writer(out, lineterminator="\n")
    lines_.writerow(names)
    lines_.writerows(rows)
    return put(path, out.getvalue())


def _breakdowns(
    found: Sequence[Line],
    runs: Mapping[Path, Experiment],
    kept: Sequence[forgetting.Forgotten],
    out: Path,
    paths: list[Path],
) -> tuple[dict[str, scene.Scene], list[Table]]:
    """From the oracle down to the answer given, for every method with experts: by task, and methods side by side.

    Beside it, `kept`: every method's tasks before and after aggregation.
    """
    whole = write_forgetting(kept, out, paths)
    told: list[Loss] = []
    drawn = {}
    for line in found:
        each = [b for d, x in runs.items() if (b := broken_down(d, x, line.row.label)) is not None]
        if not each:
            continue
        mine = losses(line.row.title, each, line.tasks)
        told += mine
        words = "from each task's own expert (top of a bar) down to what devices answer rightly"
        title = f"{line.row.title}: what is lost on the way"
        bars = {loss.task: _parts(loss) for loss in mine if loss.task != MEAN}
        drawn[f"breakdown-{line.row.label}"] = plots.stacked(title, words, bars, CAUSES)
    if not told:
        paths.append(put(out / "breakdown.md", forgetting.as_markdown(kept)))
        return {}, [whole]
    rows = [(one.method, one.task, *one.stages, *one.drops) for one in told if one.task != MEAN]
    paths.append(write_csv(out / "breakdown.csv", ("method", "task", *STAGES, *CAUSES), rows))
    paths.append(put(out / "breakdown.md", f"{as_markdown(told)}\n{forgetting.as_markdown(kept)}"))
    words = "mean over tasks and seeds: from the oracle (top of a bar) down to what devices answer rightly"
    means = {loss.method: _parts(loss) for loss in told if loss.task == MEAN}
    drawn["breakdown"] = plots.stacked("What is lost on the way to an answer", words, means, CAUSES)
    return drawn, [as_table(told), whole]


def write_forgetting(kept: Sequence[forgetting.Forgotten], out: Path, paths: list[Path]) -> Table:
    """Write every method's tasks before and after aggregation as CSV and Markdown; the table of means."""
    paths.append(put(out / "forgetting.csv", forgetting.as_csv(kept)))
    paths.append(put(out / "forgetting.md", forgetting.as_markdown(kept)))
    return forgetting.as_table(kept)


def _parts(loss: Loss) -> dict[str, float]:
    """What is given and what every cause takes, %."""
    return {"given": loss.stages[-1], **dict(zip(CAUSES, loss.drops, strict=True))}
