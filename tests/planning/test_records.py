"""What a plan says is what its documentation says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from orthomesh.planning.records import ClusterPlan, DevicePlan, Relay

DOC = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
RENAMED = {"index": "id", "name": "id", "worst": "worst_member"}


@pytest.mark.parametrize("kind", [DevicePlan, ClusterPlan, Relay])
def test_every_field_is_documented(kind: type) -> None:
    for field in fields(kind):
        assert f"`{RENAMED.get(field.name, field.name)}`" in DOC, field.name
