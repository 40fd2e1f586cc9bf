"""Figure 5 as a table, a file of numbers and two drawings."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orthomesh.adapters.density import allocate
from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.evaluation import densities
from orthomesh.evaluation.densities import ByTask, Measured, Sharing, layer_densities, measure
from orthomesh.models.base import load_base
from orthomesh.models.covariance import layer_entropies
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.catalogue import training_share
from orthomesh.tasks.settings import TaskSettings

SVG = "{http://www.w3.org/2000/svg}"


def layout_of(num_blocks: int) -> Layout:
    """Two matrices a block, [16 8] and [32 8], in the model's order."""
    shapes = [
        (f"m.layers.{b}.{kind}", side) for b in range(num_blocks) for kind, side in (("attn.q", 16), ("mlp.up", 32))
    ]
    return Layout(tuple(Shape(name, side, 8) for name, side in shapes), rank=2)


def drawn(num_blocks: int = 2, names: tuple[str, ...] = ("one", "two"), density: float = 0.5) -> ByTask:
    """Entropies ln 4 and 0 by turns for the first task, the other way round for the second, and so on."""
    layout = layout_of(num_blocks)
    found = [Measured(name, math.log(4) * ((np.arange(2 * num_blocks) + n + 1) % 2), 5, 0)
             for n, name in enumerate(names)]  # fmt: skip
    return layer_densities(layout, found, Sharing(density=density, temperature=1.0))


def printed(by_task: ByTask) -> str:
    out = io.StringIO()
    Console(width=100, file=out).print(densities.density_table(by_task))
    return out.getvalue()


def test_densities_on_paper() -> None:
    """q has 32 entries, up 64. A quarter of 96 is shared as 4 x 32 : 1 x 64 and as 1 x 32 : 4 x 64."""
    by_task = drawn(1, density=0.25)
    one, two = by_task["one"], by_task["two"]
    assert [(r.block, r.kind, r.active, r.size, r.density) for r in one] == [
        (0, "q", 16, 32, 0.5),
        (0, "up", 8, 64, 0.125),
    ]
    assert [r.active for r in two] == [3, 21]  # 24 / 9 = 2.67 and 21.33
    assert [r.entropy for r in one] == [math.log(4), 0.0]
    assert [r.label for r in one] == ["0.q", "0.up"]


def test_what_is_measured_is_what_devices_have() -> None:
    model, tasks = ModelSettings(rank=4), TaskSettings(names=("zelk", "morv"), train_examples=6)
    layout, measured = measure(model, tasks, 3)
    base = load_base(model)
    assert layout == base.layout
    for one, task in zip(measured, ("zelk", "morv"), strict=True):
        rows = tokenise(base, training_share(tasks, task, 3, 0, 1), task)
        assert (one.task, one.prompts, one.cut) == (task, 6, 0)
        assert one.entropies.tolist() == layer_entropies(base, rows).tolist()
    found = layer_densities(layout, measured, Sharing(rule="softmax"))
    quota = allocate(measured[1].entropies, layout.expansion_sizes, layout.num_expansion // 8, "softmax")
    assert [r.active for r in found["morv"]] == quota.tolist()


def test_more_tasks_than_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="tells 10 tasks apart, got 11"):
        measure(ModelSettings(), TaskSettings(names=tuple("abcdefghijk")), 0)


def test_a_layer_without_a_number_goes_by_its_name() -> None:
    layout = Layout((Shape("head", 8, 8), Shape("wte.out", 8, 8)), rank=2)
    rows = layer_densities(layout, [Measured("t", np.array([1.0, 1.0]), 1, 0)], Sharing(density=0.5))["t"]
    assert [(r.block, r.kind, r.label) for r in rows] == [(-1, "head", "head"), (-1, "out", "wte.out")]


def test_a_small_model_is_listed_layer_by_layer_and_a_large_one_by_kind() -> None:
    lines = printed(drawn(25)).splitlines()
    assert len([line for line in lines if re.match(r"\d+\.(q|up) ", line)]) == 50
    lines = printed(drawn(26, density=0.24)).splitlines()
    by_kind = {line.split()[0]: line for line in lines if re.match(r"(q|up) ", line)}
    assert by_kind.keys() == {"q", "up"}
    # 599 entries: 15.36 and 7.68 a block, or 2.56 and 20.48; the odd one goes to the first of the others
    assert by_kind["q"].split()[1:] == ["1.39", "46.88", "to", "50.00", "0.00", "9.38"]
    assert by_kind["up"].split()[1:] == ["0.00", "12.50", "1.39", "31.25", "to", "32.81"]


def test_three_tasks_stand_two_by_two() -> None:
    text = printed(drawn(1, ("one", "[b]two[/b]", "three")))
    assert text.count("0.q ") == 2
    assert "[b]two[/b]" in text


def test_spread_in_words() -> None:
    one, two, between = densities.sentences(drawn(1, density=0.25))
    assert "density 12.5 % (0.up) to 50.0 % (0.q), a factor of 4.0; 24 of 96 entries" in one
    assert "density 9.4 % (0.q) to 32.8 % (0.up), a factor of 3.5" in two
    apart = (16 / 3, 21 / 8)
    assert f"a factor of {math.sqrt(apart[0] * apart[1]):.2f} in the (geometric) mean" in between
    assert f"{apart[0]:.2f} at most (0.q)" in between
    assert len(densities.sentences(drawn(1, ("one",)))) == 1


def test_files_hold_every_layer(tmp_path: Path) -> None:
    by_task = drawn(3)
    paths = densities.write_densities(by_task, "a run", tmp_path / "deep" / "er")
    assert [p.name for p in paths] == ["densities.csv", "densities.svg", "densities.html"]
    with open(paths[0], newline="") as file:
        read = list(csv.DictReader(file))
    expected = [row for rows in by_task.values() for row in rows]
    assert len(read) == len(expected) == 12
    for got, row in zip(read, expected, strict=True):
        assert got == {name: str(value) for name, value in row._asdict().items()}


def test_svg_has_a_line_for_every_task_and_kind_in_both_panels() -> None:
    by_task = drawn(3)
    root = ElementTree.fromstring(densities.svg(by_task, "a run"))
    lines = root.findall(f"{SVG}polyline")
    assert len(lines) == 2 * 2 * 2
    assert {line.get("stroke") for line in lines} == set(densities.COLOURS[:2])
    box = [float(v) for v in str(root.get("viewBox")).split()]
    spots = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{SVG}circle")]
    assert len(spots) == 2 * 12
    assert all(62 <= x <= 970 and 0 < y < box[3] for x, y in spots)
    rows = [row for what in range(2) for task in by_task.values() for kind in ("q", "up") for row in task
            if row.kind == kind]  # fmt: skip
    for panel, value in ((slice(0, 12), "entropy"), (slice(12, 24), "density")):
        values = [getattr(row, value) for row in rows[panel]]
        heights = [y for _, y in spots[panel]]
        slope, bottom = np.polyfit(values, heights, 1)
        np.testing.assert_allclose(heights, np.polyval((slope, bottom), values), atol=0.11)
        assert slope < 0  # more is higher up
    assert [x for x, _ in spots[:3]] == sorted(x for x, _ in spots[:3])


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True), st.text())
def test_any_name_leaves_valid_xml(names: list[str], words: str) -> None:
    root = ElementTree.fromstring(densities.svg(drawn(1, tuple(names)), words))
    assert len(root.findall(f"{SVG}polyline")) == 4 * len(names)


def test_no_spread_can_be_drawn() -> None:
    layout = layout_of(1)
    by_task = layer_densities(layout, [Measured("t", np.zeros(2), 1, 0)], Sharing(density=0.5))
    assert len(ElementTree.fromstring(densities.svg(by_task, "")).findall(f"{SVG}circle")) == 4


def test_page_holds_both_panels_and_every_number() -> None:
    by_task = drawn(2, ("<b>one</b>", "two"))
    page = densities.page(by_task, "a <run>")
    told = re.findall(r'<script type="application/json" data-for="(\w+)">(.*?)</script>', page)
    assert [name for name, _ in told] == ["entropy", "density"]
    entropy, density = (json.loads(figure) for _, figure in told)
    assert [trace["name"] for trace in entropy["data"]] == ["&lt;b&gt;one&lt;/b&gt;", "two"]
    assert entropy["data"][0]["x"] == [0, 1, None, 3, 4, None]
    assert entropy["data"][0]["y"] == pytest.approx([math.log(4), math.log(4), None, 0.0, 0.0, None])
    first = {row.label: 100 * row.density for row in by_task["<b>one</b>"]}
    assert density["data"][0]["y"] == pytest.approx(
        [first["0.q"], first["1.q"], None, first["0.up"], first["1.up"], None]
    )
    assert density["layout"]["xaxis"]["ticktext"] == ["q", "up"]
    assert density["layout"]["xaxis"]["tickvals"] == [0.5, 3.5]
    assert page.count("<tr>") == 1 + 8
    assert "<run>" not in page
    assert "<b>one" not in page
