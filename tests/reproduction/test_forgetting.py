"""Tasks before and after aggregation out of summaries that one can add up by hand, and of a real small run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from orthomesh.experiment import Experiment
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.reproduction.forgetting import HEAD, MISSING, as_csv, as_markdown, as_table, figure, forgotten
from orthomesh.reproduction.rows import chosen

ROWS = chosen("methods", ["gossip"])


def summaries(root: Path, **more: Any) -> dict[Path, Experiment]:
    """Two seeds of two tasks: 0.9 and 0.5 as trained, 0.4 and 0.5 aggregated, then 0.7 and 0.5 and 0.4 and 0.7."""
    runs = {}
    for seed, (before, after) in enumerate((((0.9, 0.5), (0.4, 0.5)), ((0.7, 0.5), (0.4, 0.7)))):
        place = root / f"seed{seed}"
        place.mkdir(parents=True)
        made = {"as_trained": dict(zip("ab", before, strict=True)), "aggregated": dict(zip("ab", after, strict=True))}
        method = {"accuracy": {"a": 0.2, "b": 0.3}, **made, **more}
        (place / "summary.json").write_text(json.dumps({"tasks": ["a", "b"], "methods": {"gossip": method}}))
        runs[place] = Experiment(seed=seed, methods={"gossip": GossipLora()})
    return runs


# example


def test_two_tasks_and_two_seeds_on_paper(tmp_path: Path) -> None:
    a, b, mean = found = forgotten(ROWS, summaries(tmp_path))
    assert [one.task for one in found] == ["a", "b", "mean"]
    assert a.points is not None
    assert a.points.mean == pytest.approx(40)  # 50 and 30
    assert a.points.half == pytest.approx(12.7062 * 10, rel=1e-4)
    assert b.points is not None
    assert b.points.mean == pytest.approx(-10)  # a gain
    assert (mean.trained, mean.aggregated) == (pytest.approx((70, 60)), pytest.approx((45, 55)))
    lines = as_markdown(found).splitlines()
    assert lines[3] == "| LoRA, gossip | b | 50.0 | 60.0 | 30.0 | -10.0 ± 127.1 |"
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert {name: float(rows[2][name]) for name in ("as_trained_%", "aggregated_%", "answered_%", "forgotten")} == {
        "as_trained_%": 65, "aggregated_%": 50, "answered_%": 25, "forgotten": 15,
    }  # fmt: skip
    table = as_table(found)
    assert [column.header for column in table.columns] == [HEAD[0], *HEAD[2:]]
    assert next(iter(table.columns[1].cells)) == "65.0"
    assert list(figure(found)) == ["forgetting"]


# reference: what a run itself has on record


def test_what_is_kept_apart_is_not_forgotten(done: Any) -> None:
    found = {(one.row.label, one.task): one for one in forgotten(done.rows, done.runs)}
    assert {label for label, _ in found} == {"gossip", "orthomesh", "single", "paper"}  # no base, no oracle
    for d, x in done.runs.items():
        (label,) = x.methods
        summary = json.loads((d / "summary.json").read_text())["methods"]
        assert found[label, "zelk"].trained == (100 * summary[label]["as_trained"]["zelk"],)
        if label == "orthomesh":
            assert summary[label]["as_trained"] == summary["oracle"]["accuracy"]


# edge


@pytest.mark.parametrize("more", [{"as_trained": None, "aggregated": None}, {"aggregated": {"a": 0.5}}])
def test_older_runs_and_parts_are_not_recorded(more: dict[str, Any], tmp_path: Path) -> None:
    found = forgotten(ROWS, summaries(tmp_path, **more))
    assert all((one.trained, one.points, len(one.answered)) == ((), None, 2) for one in found)
    assert as_markdown(found).splitlines()[2] == f"| LoRA, gossip | a | {MISSING} | {MISSING} | 20.0 | {MISSING} |"
    assert as_csv(found).splitlines()[1] == '"LoRA, gossip",gossip,a,,,20,,,2'
    assert figure(found) == {}


def test_no_run_has_lost_nothing() -> None:
    assert forgotten(ROWS, {}) == []
