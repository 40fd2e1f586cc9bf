"""`orthomesh peer` on a run of one device: the same directory as a simulation, mistakes in a sentence."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from orthomesh.cli import app
from orthomesh.commands.peer import _Line


def test_a_run_of_one_leaves_what_a_simulation_leaves(peer_files: Callable[..., list[Path]]) -> None:
    (file,) = peer_files(1, "methods.gossip=null", "methods.paper=null", "methods.local=null")
    done = CliRunner().invoke(app, ["peer", str(file)])
    assert done.exit_code == 0, done.output
    directory = file.parent / "run"
    left = {p.name for p in directory.iterdir()}
    assert left >= {"config.yaml", "versions.json", "records", "state", "summary.json", "report.html", "traffic.json"}
    told = json.loads((directory / "summary.json").read_text())
    assert f"a: final state sha256 {told['final_sha256']}" in done.output
    again = CliRunner().invoke(app, ["peer", str(file), "--quiet"])  # there is nothing left to do
    assert again.exit_code == 0
    assert told["final_sha256"] in again.output
    asked = CliRunner().invoke(app, ["ask", str(directory), "zelk abcd="])
    assert asked.exit_code == 0, asked.output
    simulated = CliRunner().invoke(
        app, ["run", "smoke", "-c", str(_settings(file)), "--out", str(file.parent / "sim"), "-q"]
    )
    assert told["final_sha256"] in simulated.output


def _settings(file: Path) -> Path:
    made = file.with_name("run.yaml")
    settings = yaml.safe_load(file.read_text())["experiment"]
    settings["methods"] |= dict.fromkeys(("gossip", "paper", "local"))
    made.write_text(yaml.safe_dump(settings))
    return made


def test_the_line_below_is_always_of_now() -> None:
    told: dict[str, Any] = {"name": "pi-1", "doing": "training", "label": "ours", "round": 1, "rounds": 5}
    line, console = _Line(lambda: told), Console(width=100, record=True, file=io.StringIO())
    console.print(line)
    told |= {"round": 2, "loss": 0.5, "cluster": [0, 2]}
    console.print(line)
    assert console.export_text().splitlines() == [
        "pi-1: training, ours round 1 of 5, connected to 0",
        "pi-1: training, ours round 2 of 5, loss 0.500, cluster 0+2, connected to 0",
    ]


def test_a_port_in_use_and_a_file_that_is_none_end_in_a_sentence(peer_files: Callable[..., list[Path]]) -> None:
    (file,) = peer_files(1)
    host, _, port = yaml.safe_load(file.read_text())["listen"].partition(":")
    with socket.create_server((host, int(port))):
        done = CliRunner().invoke(app, ["peer", str(file)])
    assert done.exit_code == 2
    assert "is in use; another peer may be running here" in done.output
    missing = CliRunner().invoke(app, ["peer", str(file.with_name("none.yaml"))])
    assert missing.exit_code == 2
    assert "cannot be read" in missing.output


@pytest.mark.parametrize("line", ["", "- a", "run: x"])
def test_a_file_that_says_too_little(line: str, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(line)
    done = CliRunner().invoke(app, ["peer", str(tmp_path / "node.yaml")])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
