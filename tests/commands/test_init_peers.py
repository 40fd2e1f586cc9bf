"""`orthomesh init-peers` writes folders one can carry away."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from orthomesh.cli import app
from orthomesh.node import read_node


def test_folders_for_three(tmp_path: Path) -> None:
    given = [
        "init-peers",
        str(tmp_path),
        "a=127.0.0.1",
        "b=127.0.0.2",
        "c=127.0.0.3:9000",
        "--preset",
        "smoke",
        "--air",
        "real",
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "device 1, b at 127.0.0.2:7447, learns" in done.output
    node, x = read_node(tmp_path / "c" / "node.yaml")
    assert (node.listen, node.air, x.name, x.workers) == ("127.0.0.3:9000", "real", "smoke", 1)
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2
    assert "is there already" in again.output
