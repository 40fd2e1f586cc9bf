"""A plan as files: whole, strict JSON, and documented field by field."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from orthomesh.config import parse
from orthomesh.evaluation.planfile import COLUMNS, SCHEMA, as_json, plain, write_plan
from orthomesh.planning.plan import Plan, plan
from orthomesh.planning.settings import PlanSettings
from orthomesh.wireless.channel import Channel

DOC = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(PlanSettings(devices=14, channel=Channel(radius_m=400.0, fading="none")))


def strict(text: str) -> dict[str, object]:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    value: dict[str, object] = json.loads(text, parse_constant=refuse)
    return value


def test_files_say_the_same_as_the_plan(planned: Plan, tmp_path: Path) -> None:
    paths = write_plan(planned, tmp_path / "new" / "place")
    assert [p.name for p in paths] == ["plan.json", "devices.csv"]
    content = strict(paths[0].read_text(encoding="utf-8"))
    assert content == as_json(planned)
    assert content["schema"] == SCHEMA == 1
    rows = list(csv.DictReader(paths[1].read_text(encoding="utf-8").splitlines()))
    assert [row["id"] for row in rows] == [d.name for d in planned.devices]
    assert [float(row["energy_j"]) for row in rows] == [d.energy_j for d in planned.devices]
    assert [row["power_dbm"] == "" for row in rows] == [d.power_dbm is None for d in planned.devices]


def test_settings_in_the_file_make_the_same_plan(planned: Plan) -> None:
    again = parse(PlanSettings, as_json(planned)["settings"], "plan.json")
    assert as_json(plan(again)) == as_json(planned)


def test_every_field_is_documented_and_every_total_adds_up(planned: Plan) -> None:
    content = as_json(planned)
    for name in ("devices", "clusters", "links", "relays", "out_of_reach"):
        assert content[name], f"the example has no {name}"
        for field in content[name][0]:
            assert f"`{field}`" in DOC, field
    for field in (*content, *content["totals"]):
        assert f"`{field}`" in DOC, field
    totals = content["totals"]
    assert totals["alone"] == sum(d["cluster"] is None for d in content["devices"])
    assert sum(totals["connected_parts"]) == totals["devices"] == 14
    assert totals["sent_bytes"] == sum(c["sent_bytes"] for c in content["clusters"])
    assert totals["energy_j"] == pytest.approx(sum(c["energy_j"] for c in content["clusters"]))
    assert totals["relay_energy_j"] >= sum(r["energy_j"] for r in content["relays"])
    assert set(COLUMNS) <= set(content["devices"][0])


def test_what_json_has_no_word_for_is_none() -> None:
    assert plain({"a": (1.5, float("inf")), "b": [float("nan"), "x"]}) == {"a": [1.5, None], "b": [None, "x"]}
