"""The map of a plan: well-formed, complete, and everything where it is."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation.devicemap import CLUSTER_COLOURS
from orthomesh.evaluation.planmap import NIGHT, colours_of, round_length, svg, view_of, width_of
from orthomesh.planning.plan import Plan, plan
from orthomesh.planning.settings import PlanSettings
from orthomesh.wireless.channel import Channel

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(PlanSettings(devices=14, channel=Channel(radius_m=400.0, fading="none")))


def layer(drawing: ElementTree.Element, name: str) -> ElementTree.Element:
    (found,) = [g for g in drawing.iter(f"{SVG}g") if g.get("class") == name]
    return found


def test_everything_is_drawn_once_and_where_it_is(planned: Plan) -> None:
    drawing = ElementTree.fromstring(svg(planned))
    view = view_of(planned, (30.0, 84.0, 1170.0, 901.0))
    marks = {int(e.get("data-i", "")): e for e in layer(drawing, "devices").iter() if e.get("data-i")}
    assert sorted(marks) == [d.index for d in planned.devices]
    for d in planned.devices:
        at = [float(marks[d.index].get(f"data-{k}", "nan")) for k in "xy"]
        assert at == pytest.approx(list(view.at(d.x_m, d.y_m)), abs=0.06)
    out = {i for i, e in marks.items() if e.get("class") == "out"}
    assert out == {o.device for o in planned.outsiders} != set()
    assert len(layer(drawing, "areas")) == len(planned.clusters)
    assert len(layer(drawing, "relays")) == len(planned.relays)
    lines = [p.get("d", "") for p in layer(drawing, "links").iter(f"{SVG}path")]
    assert sum(d.count("M") for d in lines) == len(planned.links)


def test_it_fetches_nothing_and_runs_nothing(planned: Plan) -> None:
    text = svg(replace(planned, settings=replace(planned.settings, name="ten, and a park")))
    assert "ten, and a park" in text
    assert "<script" not in text
    assert text.count("http") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert "prefers-color-scheme: dark" in text


def test_names_cannot_break_out(planned: Plan) -> None:
    evil = replace(planned.devices[0], name='</text><script>"&')
    ElementTree.fromstring(text := svg(replace(planned, devices=(evil, *planned.devices[1:]))))
    assert "<script" not in text


def test_one_point_and_one_line_still_get_a_map() -> None:
    for places in (((3.0, 4.0),), ((1.0, 1.0), (1.0, 1.0)), ((0.0, 0.0), (50.0, 0.0))):
        ElementTree.fromstring(svg(plan(PlanSettings(channel=Channel(positions_m=places, fading="none")))))


def test_neighbouring_clusters_differ_in_colour() -> None:
    p = plan(PlanSettings(devices=60, channel=Channel(radius_m=500.0, fading="none")))
    colour = colours_of(p)
    places = np.array([np.mean([(p.devices[i].x_m, p.devices[i].y_m) for i in c.members], axis=0) for c in p.clusters])
    assert len(p.clusters) > len(CLUSTER_COLOURS) == len(NIGHT)
    assert set(colour) <= set(range(10))
    for k, here in enumerate(places):
        distance = np.hypot(*(places - here).T)
        distance[k] = np.inf
        assert colour[int(np.argmin(distance))] != colour[k]


@given(st.floats(1e-3, 1e6))
def test_scale_bars_are_round_and_as_long_as_fits(most: float) -> None:
    bar = round_length(most)
    assert bar <= most * 1.001 <= 2.6 * bar
    assert f"{bar:.0e}"[0] in "125"


@given(st.floats(-5, 60), st.floats(0, 30))
def test_more_to_spare_is_never_drawn_thinner(margin_db: float, more_db: float) -> None:
    assert 0.7 <= width_of(margin_db) <= width_of(margin_db + more_db) <= 3.9
