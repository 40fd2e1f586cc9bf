"""`orthomesh status` asks devices that run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from orthomesh import peering
from orthomesh.cli import app
from orthomesh.node import book, read_node
from orthomesh.ready import Found


def test_who_answers_and_who_does_not(peer_files: Callable[..., list[Path]]) -> None:
    files = peer_files(2)
    node, x = read_node(files[1])
    peer, status = peering.start(node, x, book(node, files[1])[0], files[1].parent / "run", Found("0" * 64, 14))
    status.doing, status.label, status.loss, status.cluster = "training", "ours", 0.25, (0, 1)
    try:
        done = CliRunner().invoke(app, ["status", str(files[0]), "--wait", "1"])
    finally:
        peer.close()
    assert done.exit_code == 0, done.output
    assert "a: does not answer" in done.output
    assert "b: training, ours round 0 of 3, loss 0.250, cluster 0+1" in done.output
    assert "1 of 2 devices answer" in done.output
