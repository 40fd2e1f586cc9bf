"""The page of a plan: whole, safe, and it fetches nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from orthomesh.evaluation.planpage import page
from orthomesh.planning.plan import Plan, plan
from orthomesh.planning.settings import PlanSettings
from orthomesh.wireless.channel import Channel


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(PlanSettings(devices=14, channel=Channel(radius_m=400.0, fading="none")))


def facts_of(text: str) -> dict[str, list[str]]:
    found = re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)
    assert found
    facts: dict[str, list[str]] = json.loads(found[1])
    return facts


def test_every_device_cluster_and_gateway_has_its_account(planned: Plan) -> None:
    facts = facts_of(page(planned))
    assert facts["names"] == [d.name for d in planned.devices]
    assert facts["cluster"] == [d.cluster for d in planned.devices]
    assert [len(facts[k]) for k in ("devices", "clusters", "relays")] == [
        14,
        len(planned.clusters),
        len(planned.relays),
    ]
    for d, text in zip(planned.devices, facts["devices"], strict=True):
        assert (d.power_dbm is None) or f"{d.power_dbm:.1f} dBm" in text
    out = planned.outsiders[0]
    assert f"would take {out.power_dbm:.1f} dBm, or a deadline of" in facts["devices"][out.device]


def test_it_works_without_a_network_and_without_the_library_of_charts(planned: Plan) -> None:
    text = page(planned)
    assert "default-src 'none'" in text
    assert "plotly" not in text.lower()
    addresses = set(re.findall(r"https?://[^\"'\s<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert len(text) < 150_000


def test_every_table_has_a_row_for_each(planned: Plan) -> None:
    text = page(planned)
    cards = {title: text.split(f"<h2>{title}</h2>")[1].split("</section>")[0] for title in
             ("Clusters", "Devices", "Gateways", "Out of reach")}  # fmt: skip
    wanted = {"Clusters": planned.clusters, "Devices": planned.devices, "Gateways": planned.relays,
              "Out of reach": planned.outsiders}  # fmt: skip
    for title, rows in wanted.items():
        assert cards[title].count('<th scope="row"') == len(rows) > 0, title


def test_names_cannot_break_out(planned: Plan) -> None:
    evil = "</script><script>alert(1)</script>"
    text = page(replace(planned, devices=(replace(planned.devices[0], name=evil), *planned.devices[1:])))
    assert text.count("<script") == page(planned).count("<script")
    assert "&lt;script&gt;alert" in facts_of(text)["devices"][0]


def test_an_empty_plan_still_has_a_page() -> None:
    text = page(plan(PlanSettings(devices=1)))
    assert "Everybody is alone." in text
    assert "<h2>Gateways</h2>" not in text
