"""A plan on a terminal of 80 columns, and in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from orthomesh.evaluation.plantable import FEW, SHOWN, gap_in_words, listed, sentences, tables
from orthomesh.planning.plan import Plan, plan
from orthomesh.planning.settings import Compute, PlanSettings
from orthomesh.wireless.channel import Channel


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(PlanSettings(devices=14, channel=Channel(radius_m=400.0, fading="none")))


def text_of(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_tables_fit_eighty_columns_and_hold_a_line_for_each(planned: Plan) -> None:
    clusters, devices, out = tables(planned)
    assert clusters.row_count == len(planned.clusters)
    assert devices.row_count == 14
    assert out.row_count == len(planned.outsiders) > 0
    for table in (clusters, devices, out):
        assert max(len(line.rstrip()) for line in text_of(table).splitlines()) <= 80


def test_many_devices_are_left_to_the_files_unless_asked_for(planned: Plan) -> None:
    many = replace(planned, devices=planned.devices * 2)
    assert len(many.devices) > FEW
    assert len(tables(many)) == 2
    assert tables(many, all_devices=True)[1].row_count == 28
    crowd = replace(planned, clusters=planned.clusters * SHOWN)
    assert tables(crowd)[0].row_count == SHOWN


def test_figures_of_a_cluster_are_in_its_line(planned: Plan) -> None:
    line = text_of(tables(planned)[0]).splitlines()[2]
    c = planned.clusters[0]
    assert line.split()[0] == "1"
    assert f"{c.margin_db:.1f}" in line
    assert f"{c.distance_m:.0f} m" in line
    assert ("reach" if c.limit == "reach" else "S_max") in line


def test_sentences_name_what_a_reader_should_know(planned: Plan) -> None:
    said = " ".join(sentences(planned))
    assert (
        f"14 devices in {len(planned.clusters)} clusters, {sum(d.cluster is None for d in planned.devices)} alone"
        in said
    )
    assert f"{len(planned.parts)} separate parts" in said
    here = Channel(positions_m=((0.0, 0.0), (0.0, 0.0)), fading="none")
    said = " ".join(sentences(plan(PlanSettings(channel=here, compute=Compute(max_cost=1e6)))))
    assert "devices 0, 1 are at one point; their distance counts as 1 m" in said
    assert "computing, (11c), lowers the density of 2 devices: 0, 1" in said


def test_the_gap_is_said_in_words(planned: Plan) -> None:
    loose = replace(planned, num_groups=6, bound=5, gap=0.2, bound_by="their sizes")
    assert gap_in_words(loose).endswith("of at least 5 (by their sizes): optimality gap at most 20.0 %")
    proven = replace(planned, num_groups=5, bound=5, gap=0.0, bound_by="exact solution")
    assert "fewest possible (by proof)" in gap_in_words(proven)


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=30), st.integers(20, 60))
def test_a_list_keeps_to_its_room_and_counts_everybody(words: list[str], room: int) -> None:
    text = listed(words, room)
    assert len(text) <= room + 2
    shown, _, rest = text.partition(" and ")
    assert len(shown.split(", ")) + int(rest.removesuffix(" more") or 0) == len(words)
