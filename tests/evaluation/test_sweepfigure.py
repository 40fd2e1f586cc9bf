"""The figure of a sweep: means, bands, files."""

from __future__ import annotations

import csv
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console

from orthomesh.evaluation.sweepfigure import LOOKS, _ticks, page, points, svg, sweep_table, title, write_sweep
from orthomesh.planning.sweep import Axis, Row

OVER = Axis("devices", "M", (5.0, 10.0))
NAN = math.nan


def row(value: float, seed: int, method: str, collision: float) -> Row:
    return Row(value=value, seed=seed, method=method, collision=collision, groups=2.0, alone=0.5, sent_bytes=1e6)


ROWS = [row(v, s, m, r) for m in LOOKS for v, s, r in ((5, 0, 0.1), (5, 1, 0.3), (10, 0, 0.4), (10, 1, NAN))]
ROWS += [row(5, 2, "LoRA", NAN)]


def test_means_leave_out_seeds_where_nobody_shares() -> None:
    first, second = points(ROWS)["orthomesh"]
    assert (first.mean, first.low, first.high) == (0.2, 0.1, 0.3)
    assert (second.mean, second.low, second.high) == (0.4, 0.4, 0.4)
    nobody = points([row(5, 0, "LoRI", NAN)])["LoRI"][0]
    assert math.isnan(nobody.mean)
    assert math.isnan(nobody.low)


def test_files_hold_every_row_and_every_line(tmp_path: Path) -> None:
    paths = write_sweep(ROWS, OVER, 2, tmp_path / "new")
    assert [p.name for p in paths] == ["sweep.csv", "sweep.svg", "sweep.html"]
    lines = list(csv.DictReader(paths[0].read_text(encoding="utf-8").splitlines()))
    assert len(lines) == len(ROWS)
    assert [line["M"] for line in lines] == [str(r.value) for r in ROWS]
    assert [line["collision"] == "" for line in lines] == [math.isnan(r.collision) for r in ROWS]
    drawing = ElementTree.fromstring(paths[1].read_text(encoding="utf-8"))
    drawn = [e for e in drawing.iter() if e.tag.endswith("polyline")]
    assert len(drawn) == len(LOOKS)
    text = paths[2].read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert text.count('<th scope="row"') == 2 * len(LOOKS)


def test_a_point_is_where_its_rate_is() -> None:
    """0 % lies at the foot, 100 % at the top, and the first value at the left."""
    drawing = ElementTree.fromstring(svg(points([row(5, 0, "LoRA", 1.0), row(10, 0, "LoRA", 0.0)]), OVER, "words"))
    dots = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in drawing.iter() if e.tag.endswith("circle")]
    assert dots == [(62.0, 84.0), (740.0, 420.0)]


def test_a_method_without_a_rate_has_no_line_and_one_value_is_enough() -> None:
    by_method = points([row(5, 0, "LoRI", NAN), row(5, 0, "orthomesh", 0.5)])
    one = Axis("devices", "M", (5.0,))
    assert svg(by_method, one, "w").count("<polyline") == 1
    assert "orthomesh" in page(by_method, one, "w")


def test_table_and_title_say_what_was_swept() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(sweep_table(OVER, points(ROWS)))
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines[2] == ["5", *["20.0"] * 5, "2.0"]
    assert title(OVER, 1).endswith("over M, one seed")


def test_ticks_are_a_dozen_at_most_with_both_ends() -> None:
    for count in (1, 2, 7, 20, 100):
        values = [float(k) for k in range(count)]
        ticks = _ticks(values)
        assert len(ticks) <= 12
        assert (ticks[0], ticks[-1]) == (values[0], values[-1])
        assert sorted(set(ticks)) == ticks
