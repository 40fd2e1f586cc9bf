"""Directories of peers, joined, say what one process would have said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orthomesh import experiment
from orthomesh.checkpoint import load_devices, save_devices
from orthomesh.experiment import Experiment
from orthomesh.joining import join
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.models.settings import TrainSettings
from orthomesh.presets import plain
from orthomesh.tasks.settings import TaskSettings

X = Experiment(
    name="joined", rounds=2, devices=3, train=TrainSettings(steps=3, batch_size=4),
    tasks=TaskSettings(names=("zelk", "morv", "vask"), train_examples=10, test_examples=3),
    evaluate=experiment.Evaluate(every=0), methods={"ours": SparseOrthogonal()},
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    list(experiment.run(X, directory))
    experiment.finish(X, directory, [], 1.0)
    return directory


def part(whole: Path, device: int, into: Path) -> Path:
    """What a peer of this run would have left: its own state, its own rows."""
    states, done = load_devices(experiment.checkpoint_path(whole, "ours"))
    save_devices(experiment.checkpoint_path(into, "ours"), {device: states[device]}, done)
    journal, mine = experiment.Journal(whole), experiment.Journal(into)
    for n, record in enumerate(journal.rounds("ours"), start=1):
        own = [row for row in record["devices"] if row["device"] == device]
        links = [link for link in record["links"] if link["dst"] == device]
        mine.put("ours", "round", n, {**record, "devices": own, "links": links})
    for label in ("base", "ours"):
        for exam in journal.exams(label):
            held = {k: v for k, v in exam["held"].items() if int(k) == device or label == "base"}
            own = {t: v for t, v in exam["own"].items() if t == X.setup().assignment[device]}
            mine.put(label, "exam", exam["round"], {**exam, "held": held, "own": own})
    task = X.setup().assignment[device]
    (before,) = journal.trained("ours")
    only = {name: {task: before[name][task]} for name in ("accuracy", "prompts")}
    mine.put("ours", "trained", X.rounds, {**before, **only})
    (exam,) = journal.exams("oracle")
    mine.put("oracle", "exam", 0, {**exam, "accuracy": {task: exam["accuracy"][task]}, "held": {str(device): 1}})
    (into / "config.yaml").write_text(yaml.safe_dump(plain(X)))
    return into


def test_the_parts_make_the_whole(whole: Path, tmp_path: Path) -> None:
    parts = [part(whole, k, tmp_path / str(k)) for k in (2, 0, 1)]
    summary = join(parts, tmp_path / "joined")
    told = json.loads((whole / "summary.json").read_text())
    assert summary["final_sha256"] == told["final_sha256"]
    again = json.loads((tmp_path / "joined" / "summary.json").read_text())
    assert again["methods"] == told["methods"]
    assert set(again["methods"]["ours"]["as_trained"]) == {"zelk", "morv", "vask"}
    assert (tmp_path / "joined" / "report.html").is_file()


def test_a_device_that_is_missing_is_said(whole: Path, tmp_path: Path) -> None:
    parts = [part(whole, k, tmp_path / str(k)) for k in (0, 2)]
    assert "ours: nothing here of devices 1" in join(parts, tmp_path / "joined")["notes"]


def test_mistakes(whole: Path, tmp_path: Path) -> None:
    one, two = part(whole, 0, tmp_path / "0"), part(whole, 0, tmp_path / "1")
    with pytest.raises(ValueError, match="device 0 is in another directory too"):
        join([one, two], tmp_path / "x")
    (two / "config.yaml").write_text(yaml.safe_dump(plain(replace(X, seed=5))))
    with pytest.raises(ValueError, match="is of another run than"):
        join([one, two], tmp_path / "y")
    with pytest.raises(ValueError, match="is not empty"):
        join([one, two], one)
