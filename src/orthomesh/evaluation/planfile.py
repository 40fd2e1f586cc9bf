"""A plan as files: `plan.json` with a stable schema, and `devices.csv` for a spreadsheet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..planning.plan import Plan

SCHEMA = 1
"""Raised when a field changes its meaning; fields may be added without."""

COLUMNS = (
    "id", "x_m", "y_m", "cluster", "links", "density", "payload_bytes", "sent_bytes", "power_dbm", "margin_db",
    "airtime_s", "energy_j", "relay_bytes", "relay_energy_j", "battery_rounds",
)  # fmt: skip


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, the content of `plan.json`; docs/plan.md says what each field is.

    Args:
        plan: what was planned.

    Returns:
        Strings, numbers, lists and mappings; devices go by their names; None where there is nothing to say.
    """
    names = [d.name for d in plan.devices]
    devices = [{"id": d.name, **_without(asdict(d), "index", "name", "worst")} for d in plan.devices]
    for entry, d in zip(devices, plan.devices, strict=True):
        entry["worst_member"] = None if d.worst is None else names[d.worst]
    clusters = [
        {**_without(asdict(c), "worst", "index"), "cluster": c.index, "members": [names[i] for i in c.members],
         "worst_link": [names[i] for i in c.worst]}
        for c in plan.clusters
    ]  # fmt: skip
    out = [
        {**_without(asdict(o), "device", "nearest"), "id": names[o.device], "nearest": names[o.nearest]}
        for o in plan.outsiders
    ]
    content: dict[str, Any] = plain({
        "schema": SCHEMA, "name": plan.settings.name, "settings": asdict(plan.settings), "totals": totals(plan),
        "devices": devices, "clusters": clusters,
        "links": [{**asdict(link), "ends": [names[i] for i in link.ends]} for link in plan.links],
        "relays": [{**asdict(r), "ends": [names[i] for i in r.ends]} for r in plan.relays],
        "out_of_reach": out, "same_place": [[names[i] for i in same] for same in plan.twins],
    })  # fmt: skip
    return content


def totals(plan: Plan) -> dict[str, Any]:
    """The plan in a few figures; energy and bytes are sums over the devices, for one round."""
    alone = sum(d.cluster is None for d in plan.devices)
    margins = [c.margin_db for c in plan.clusters]
    return {
        "devices": len(plan.devices), "clusters": len(plan.clusters), "alone": alone,
        "out_of_reach": len(plan.outsiders), "connected_parts": list(plan.parts),
        "solver": plan.settings.rules.solver, "groups": plan.num_groups, "bound": plan.bound,
        "bound_by": plan.bound_by, "gap": plan.gap, "mean_collision": plan.mean_collision,
        "least_margin_db": min(margins, default=None),
        "delay_s": max((c.delay_s for c in plan.clusters), default=0.0),
        "energy_j": math.fsum(d.energy_j for d in plan.devices), "sent_bytes": sum(d.sent_bytes for d in plan.devices),
        "relay_bytes": sum(d.relay_bytes for d in plan.devices),
        "relay_energy_j": math.fsum(d.relay_energy_j for d in plan.devices),
        "relay_delay_s": max((r.airtime_s for r in plan.relays), default=0.0),
    }  # fmt: skip


def plain(value: Any) -> Any:
    """Tuples as lists, and what JSON has no word for (infinity) as None."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_plan(plan: Plan, directory: Path) -> list[Path]:
    """Write `plan.json` and `devices.csv`.

    Args:
        plan: what was planned.
        directory: made where it is lacking.

    Returns:
        What was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = as_json(plan)
    paths = [directory / "plan.json", directory / "devices.csv"]
    paths[0].write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with open(paths[1], "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows([["" if d[name] is None else d[name] for name in COLUMNS] for d in content["devices"]])
    return paths


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in names}
