"""`orthomesh plan`: what it prints and writes, and a sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from orthomesh.cli import app


def orthomesh(*words: str) -> Result:
    return CliRunner().invoke(app, ["plan", *words], catch_exceptions=False)


def test_a_plan_without_a_word_is_a_network_planned(tmp_path: Path) -> None:
    result = orthomesh("--out", str(tmp_path / "p"))
    assert result.exit_code == 0
    assert {p.name for p in (tmp_path / "p").iterdir()} >= {"plan.json", "devices.csv", "plan.svg", "plan.html"}
    totals = json.loads((tmp_path / "p" / "plan.json").read_text())["totals"]
    assert totals["devices"] == 40
    assert f"40 devices in {totals['clusters']} clusters" in result.output
    assert "optimality gap" in result.output or "fewest possible" in result.output


def test_a_file_then_options_then_settings(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("name: yard\ndevices: 9\nseed: 4\nrules: {max_collision: 0.2}\n")
    words = ["--seed", "5", "-s", "rules.max_collision=0.3", "--quiet"]
    assert orthomesh(str(tmp_path / "net.yaml"), *words, "--out", str(tmp_path)).exit_code == 0
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["name"] == "yard"
    assert (content["settings"]["devices"], content["settings"]["seed"]) == (9, 5)
    assert content["settings"]["rules"]["max_collision"] == 0.3


def test_settings_are_a_file_to_start_from(tmp_path: Path) -> None:
    text = orthomesh("--settings", "--devices", "3").output
    assert yaml.safe_load(text)["devices"] == 3
    (tmp_path / "mine.yaml").write_text(text)
    assert orthomesh(str(tmp_path / "mine.yaml"), "--out", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--solver", "anges"], "Did you mean 'agnes'?"),
        (["--devices", "0"], "greater than or equal to 1"),
        (["-s", "radio.bandwidth_hz=0"], "greater than 0"),
        (["-s", "radio.bandwidth_hz=-5"], "greater than 0"),
        (["-s", "radio.max_power_dbm=-.inf"], "finite"),
        (["-s", "compute.max_cost=1"], "compute limit leaves 0 entries of B"),
        (["-s", "rules.max_collision=2"], "less than or equal to 1"),
        (["-s", "radio.deadline=2"], "Did you mean 'deadline_s'?"),
        (["-s", "radio"], "write it as key=value"),
        (["--positions", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--devices", "30000"], "30,000 devices are too many"),
    ],
)
def test_a_mistake_is_a_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    result = orthomesh(*words, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_bad_file_of_devices_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("id,x_m,y_m\na,0,0\nb,nan,0\n")
    result = orthomesh("--positions", str(path))
    assert result.exit_code == 2
    assert "line 3, device 'b': x_m must be a finite number, got 'nan'" in result.output


@pytest.mark.parametrize("most", ["0", "1"])
def test_extremes_are_planned(most: str, tmp_path: Path) -> None:
    words = ["--devices", "8", "-s", f"rules.max_collision={most}", "-s", "radio.max_power_dbm=-400"]
    assert orthomesh(*words, "--out", str(tmp_path)).exit_code == 0
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["totals"]["out_of_reach"] == 8  # no power to speak of: reported, not refused
    assert orthomesh(*words[:4], "--out", str(tmp_path)).exit_code == 0


def test_a_sweep_prints_means_and_writes_its_figure(tmp_path: Path) -> None:
    result = orthomesh("--sweep", "M=4,6", "--repeats", "1", "--out", str(tmp_path))
    assert result.exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"sweep.csv", "sweep.svg", "sweep.html"}
    assert "LoRI" in result.output
    assert orthomesh("--sweep", "N=4,6").exit_code == 2
