from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation.devicemap import cluster_colour, device_map, device_text, pairs

Records = dict[str, list[dict[str, Any]]]


@pytest.fixture
def drawn(summary: dict[str, Any], records: Records) -> Any:
    return device_map(summary, summary["rows"][3], records["rounds"], records["links"])


def test_devices_stand_where_they_are(drawn: Any) -> None:
    discs = next(t for t in drawn.data if t.text is not None)
    assert (list(discs.x), list(discs.y)) == ([0.0, 60.0, 0.0], [0.0, 0.0, 80.0])
    assert drawn.layout.yaxis.scaleanchor == "x"
    names = [note.text for note in drawn.layout.annotations]
    assert sorted(names) == ["&lt;b&gt;beta&lt;/b&gt; &amp; co", "alpha", "cluster 1", "cluster 2", "gamma"]


def test_links_are_solid_inside_and_dashed_between_clusters(drawn: Any) -> None:
    lines = [t for t in drawn.data if t.mode == "lines" and t.showlegend is False and t.legendgroup]
    assert [(t.line.dash, (t.x[0], t.y[0])) for t in lines] == [("dash", (0, 0)), ("solid", (0, 0))]
    solid = lines[1]
    assert (list(solid.x), list(solid.y)) == ([0.0, 30.0, 60.0, None], [0.0, 0.0, 0.0, None])


def test_a_pair_that_lost_a_transfer_is_crossed(drawn: Any) -> None:
    crosses = next(t for t in drawn.data if t.name == "lost a transfer" and t.showlegend)
    assert list(crosses.hovertext) == ["<b>0 ↔ 2</b><br>inter: 0 of 1 arrived"]
    assert len(crosses.x) == 1


def test_a_device_tells_its_account(summary: dict[str, Any], records: Records) -> None:
    mine = [r for r in records["rounds"] if r["method"] == "orthomesh"]
    text = device_text(summary["rows"][3], summary["devices"][2], mine)
    assert text.split("<br>") == [
        "<b>device 2</b>",
        "task: gamma",
        "cluster 2",
        "at (0.0, 80.0) m",
        "experts held: 3",
        "highest power: 100 mW (20.0 dBm)",
        "sent: 8.00 kB in 10.0 ms",
        "lost transfers: 0",
        "orthomesh on its task: 85.0 %",
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=30))
def test_pairs_count_every_transfer_once(transfers: list[tuple[int, int, bool]]) -> None:
    links = [{"phase": f"p{i % 2}", "src": i, "dst": j, "arrived": ok} for i, j, ok in transfers]
    found = pairs(links)
    counts = [count for phases in found.values() for count in phases.values()]
    assert sum(tried for tried, _ in counts) == len(transfers)
    assert sum(arrived for _, arrived in counts) == sum(ok for *_, ok in transfers)
    assert list(found) == sorted(found)
    assert all(i <= j for i, j in found)


def test_without_clusters_devices_are_grey_and_links_are_just_used(summary: dict[str, Any]) -> None:
    links = [{"method": "gossip", "round": 1, "phase": "gossip", "src": 0, "dst": 1, "arrived": True}]
    figure = device_map(summary, summary["rows"][2], [], links)
    assert {cluster_colour(summary["rows"][2], i) for i in range(3)} == {"#64748B"}
    assert [t.name for t in figure.data if t.showlegend is not False and t.name] == ["link used"]


def test_one_device_alone_on_one_spot(summary: dict[str, Any]) -> None:
    summary |= {"devices": summary["devices"][:1], "radio": None}
    figure = device_map(summary, {**summary["rows"][3], "clusters": [[0]]}, [], [])
    low, high = figure.layout.xaxis.range
    assert low < 0 < high


def test_many_devices_lose_their_names_but_stay_on_the_map(summary: dict[str, Any]) -> None:
    summary["devices"] = [{"id": i, "task": "alpha", "x_m": float(i), "y_m": 0.0} for i in range(50)]
    figure = device_map(summary, summary["rows"][2], [], [])
    discs = next(t for t in figure.data if t.text is not None)
    assert len(discs.x) == 50
    assert not figure.layout.annotations


def test_no_devices_no_map(summary: dict[str, Any]) -> None:
    assert device_map({**summary, "devices": []}, summary["rows"][3], [], []) is None
