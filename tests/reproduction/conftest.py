"""One small table, run once for all tests that read what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from orthomesh import experiment
from orthomesh.reproduction.rows import Row, chosen, methods
from orthomesh.reproduction.runs import begin, runs_of
from orthomesh.reproduction.scales import base_experiment, scale_of

FEW = ("train.steps=2", "train.batch_size=4", "tasks.train_examples=20", "tasks.test_examples=6", "rounds=2")


@dataclass(frozen=True)
class Done:
    """Finished runs of Table I with four methods, two tasks and two devices."""

    rows: tuple[Row, ...]
    runs: dict[Path, experiment.Experiment]
    out: Path


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("table1")
    rows = chosen("table1", ["gossip", "orthomesh", "single", "paper"])
    given = {"tasks.names": ["zelk", "morv"], "workers": 1}
    x = base_experiment(scale_of("tiny"), methods(rows), given, FEW)
    runs = runs_of(x, out, 1)
    for directory, one in runs.items():
        begin(directory, one)
        for _ in experiment.run(one, directory):
            pass
        experiment.finish(one, directory, [], 0.0)
    return Done(rows, runs, out)
