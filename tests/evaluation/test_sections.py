from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import sections


def rows_of(table: str) -> dict[str, str]:
    """Lines of a table by the name at their beginning, tags and all."""
    found = re.findall(r"<tr[^>]*>(<th scope=\"row\".*?)</tr>", table)
    return {re.sub(r"<[^>]*>", "", re.match(r"<th.*?</th>", line)[0]): line for line in found}


def numbers_in(line: str) -> list[float]:
    """Every number a reader finds in a line, also by pointing at it."""
    told = " ".join([*re.findall(r">([^<]*)<", line), *re.findall(r'title="([^"]*)"', line)])
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*(?:e[-+]?\d+)?", told)]


def test_every_number_of_the_summary_is_in_the_line_of_its_method(summary: dict[str, Any]) -> None:
    accuracy = rows_of(sections.accuracy_table(summary))
    sent, effort = rows_of(sections.bytes_table(summary)), rows_of(sections.effort_table(summary))
    for row in summary["rows"]:
        for value in (row["mean"], *row["accuracy"].values()):
            assert pytest.approx(value, abs=5e-5) in numbers_in(accuracy[row["label"]])
        for value in (
            *row["bytes_per_device"].values(),
            *row["bytes_per_device_round"].values(),
            row["lost"],
        ):
            assert pytest.approx(value) in numbers_in(sent[row["label"]])
        assert pytest.approx(sum(row["bytes_per_device"].values())) in numbers_in(sent[row["label"]])
        names = ("airtime_s", "energy_j", "elapsed_s", "trained_parameters", "experts_held")
        for value in (summary["rounds"], *(row[name] for name in names)):
            assert pytest.approx(value) in numbers_in(effort[row["label"]])
        if row["route_right"] is not None:
            assert pytest.approx(100 * row["route_right"]) in numbers_in(effort[row["label"]])


def test_a_task_before_and_after_aggregation(summary: dict[str, Any]) -> None:
    assert "was not recorded" in sections.forgetting_table(summary)
    first, second, _ = summary["tasks"]
    gossip = next(row for row in summary["rows"] if row["label"] == "gossip")
    gossip |= {"as_trained": {first: 0.9, second: 0.7}, "aggregated": {first: 0.5, second: 0.3}}
    (line,) = rows_of(sections.forgetting_table(summary)).values()
    assert re.findall(r">(-?[\d.]+)<", line) == ["80.0", "40.0", "15.0", "40.0"]


def test_many_tasks_go_down_the_page(summary: dict[str, Any]) -> None:
    summary["tasks"] = [f"task{i}" for i in range(20)]
    for row in summary["rows"]:
        row["accuracy"] = {t: i / 20 for i, t in enumerate(summary["tasks"])}
    lines = rows_of(sections.accuracy_table(summary))
    assert list(lines) == ["mean", *summary["tasks"]]
    assert lines["task13"].count(">65.0<") == len(summary["rows"])


def test_the_header_says_what_was_run(summary: dict[str, Any]) -> None:
    assert sections.what_was_run(summary) == (
        "One model (embedded, 860,160 parameters, 28 layers) is fine-tuned for 3 tasks on 3 devices "
        "in 2 rounds, with no server. "
        "Radio: 20 MHz of bandwidth, a deadline of 5 s, at most 100 mW (20 dBm), within 150 m. "
        "Bytes are what was framed and sent; time and energy are the channel's, not this machine's. "
        "Seed 7; the run took 1 min 15 s."
    )
    assert "<h1>a &lt;i&gt;run&lt;/i&gt;</h1>" in sections.header(summary)
    assert "<b>85.0\u00a0%</b>" in sections.header(summary)


def test_a_run_without_radio_does_not_speak_of_one(summary: dict[str, Any]) -> None:
    assert "Radio" not in sections.what_was_run({**summary, "radio": None})


def test_clusters_are_listed_with_their_tasks(summary: dict[str, Any]) -> None:
    listed = re.sub(r"<[^>]*>", " ", sections.members(summary, summary["rows"][3]))
    assert listed.split() == ("cluster 1 0 alpha, 1 &lt;b&gt;beta&lt;/b&gt; &amp; co cluster 2 2 gamma".split())
    assert "does not form clusters" in sections.members(summary, summary["rows"][2])


def test_the_foot_tells_how_to_get_it_again(summary: dict[str, Any]) -> None:
    foot = sections.foot(summary)
    assert "orthomesh run --config config.yaml" in foot
    assert summary["final_sha256"] in foot
    assert "numpy 2.4.0, orthomesh 0.1.0" in foot
    assert "&lt;script&gt;" in foot
    assert "<script>" not in foot


def test_no_method_still_makes_a_header_and_tables(summary: dict[str, Any]) -> None:
    nothing = {**summary, "rows": []}
    assert "no method was run" in sections.header(nothing)
    assert rows_of(sections.accuracy_table(nothing)) == {}
    assert rows_of(sections.effort_table(nothing)) == {}
    assert sections.glossary(nothing) == ""


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=5))
def test_exact_bytes_are_always_there_to_be_pointed_at(sent: list[int]) -> None:
    rows = [_silent(f"m{i}", v) for i, v in enumerate(sent)]
    lines = rows_of(sections.bytes_table({"rows": rows}))
    for row, v in zip(rows, sent, strict=True):
        assert f'title="{v:,} bytes"' in lines[row["label"]]


def _silent(label: str, values: int) -> dict[str, Any]:
    names = ("mask", "codes", "control", "one_off")
    parts = {"values": values, **dict.fromkeys(names, 0)}
    per_round = {name: v / 2 for name, v in parts.items()}
    return {
        "label": label, "kind": label, "mean": 0.0, "lost": 0,
        "bytes_per_device": parts, "bytes_per_device_round": per_round,
    }  # fmt: skip


def test_the_glossary_explains_known_methods_and_names_the_kind_of_others(
    make_row: Callable[..., Any],
) -> None:
    rows = [make_row("gossip", [0, 0, 0]), make_row("mine", [0, 0, 0], kind="<new>")]
    text = sections.glossary({"rows": rows})
    assert "Dec-LoRA" in text
    assert "<dd>&lt;new&gt;</dd>" in text
