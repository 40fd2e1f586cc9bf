"""`orthomesh reproduce` as a user types it, and what they get wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orthomesh.cli import app
from orthomesh.experiment import Experiment
from orthomesh.presets import from_plain, read_yaml
from orthomesh.reproduction.runs import claimed

FEW = [
    *("--tasks", "zelk,morv", "-s", "train.steps=2", "-s", "train.batch_size=4", "-s", "workers=1"),
    *("-s", "tasks.train_examples=20", "-s", "tasks.test_examples=5", "-s", "rounds=2"),
]


def reproduce(*words: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *words], catch_exceptions=False)


def test_a_table_is_run_once_and_written_again(tmp_path: Path) -> None:
    words = ("table2", "--only", "gossip,orthomesh", "--seeds", "2", "--out", str(tmp_path), *FEW)
    first = reproduce(*words)
    assert first.exit_code == 0, first.output
    assert "4 runs of 2 methods: at most about" in first.output
    assert {p.name for p in tmp_path.iterdir()} >= {"gossip", "orthomesh", "table2.csv", "table2.tex", "table2.svg"}
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records/**/*.json")}
    (tmp_path / "gossip" / "seed1" / "summary.json").unlink()  # as if interrupted before the end
    again = reproduce(*words)
    assert again.exit_code == 0
    assert "gossip LoRA" not in again.output  # nothing is exchanged: nothing was expected of it
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records/**/*.json")} == stamps
    assert json.loads((tmp_path / "gossip" / "seed1" / "summary.json").read_text())["seed"] == 1
    elsewhere = ("table2", "--only", "gossip,orthomesh", "--seeds", "2", "--runs", str(tmp_path), *FEW)
    shared = reproduce(*elsewhere, "--finished", "--out", str(tmp_path / "tables"))
    assert "LoRA" in shared.output
    assert (tmp_path / "tables" / "table2.csv").read_bytes() == (tmp_path / "table2.csv").read_bytes()
    other = reproduce(*words, "-s", "rounds=3")
    assert other.exit_code == 2
    assert "holds a run with other settings (rounds)" in other.output


def test_a_process_leaves_alone_what_another_works_on(tmp_path: Path) -> None:
    words = ("methods", "--only", "local", "--seeds", "1", "--out", str(tmp_path), *FEW)
    with claimed(tmp_path / "local" / "seed0"):
        result = reproduce(*words)
        assert result.exit_code == 0
        assert f"other processes are at {tmp_path}/local/seed0" in result.output
    none = reproduce(*words, "--finished")
    assert none.exit_code == 2
    assert "holds no finished run" in none.output
    reproduce(*words, "-q")
    assert "Local only" in reproduce(*words, "--finished").output


def test_the_cost_is_said_and_nothing_written(tmp_path: Path) -> None:
    place = tmp_path / "none"
    result = reproduce("fig4", "--cost", "--counts", "1,2", "--only", "gossip", "--out", str(place), *FEW)
    assert result.exit_code == 0
    assert "6 runs of 1 method:" in result.output
    assert not place.exists()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("fig5", "puts 96 prompts of each task through the model, 32 for each of 3 seeds, and trains nothing: 1.32 MB"),
        ("fig6", "no model in memory"),
    ],
)
def test_figures_that_train_nothing_say_what_they_cost(what: str, sentence: str, tmp_path: Path) -> None:
    result = reproduce(what, "--cost", "--out", str(tmp_path / "none"))
    assert result.exit_code == 0
    assert sentence in result.output
    assert not (tmp_path / "none").exists()


def test_the_largest_run_is_refused_before_any_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = os.sysconf
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**12}  # 16 MiB
    monkeypatch.setattr("orthomesh.models.size.os.sysconf", lambda name: pages.get(name) or told(name))
    result = reproduce("table1", "--out", str(tmp_path / "out"), *FEW)
    assert result.exit_code == 2
    assert "leave out what trains every weight, e.g. --only gossip,lori,orthomesh" in result.output
    assert "on disk; this machine has 0.0 GiB of memory" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table3"], "no 'table3' to reproduce. Did you mean 'table2'?"),
        (["table1", "--scale", "smal"], "no scale 'smal'. Did you mean 'small'?"),
        (["table1", "--only", "lory"], "has no row 'lory'. Did you mean 'lori'?"),
        (["table1", "--tasks", "zelc"], "did you mean 'zelk'?"),
        (["fig4", "--counts", "2,x"], "whole numbers separated by commas"),
        (["table1", "--scale", "small"], "needs --data DIR and --model DIR"),
        (["fig6", "-s", "rules.max_colision=1"], "Did you mean 'max_collision'?"),
        (["fig6", "--only", "gossip"], "--only has no use with fig6: it plans networks and trains nothing"),
        (["equal", "--runs", "nowhere"], "nowhere has no finished runs of `reproduce methods` with these settings"),
        (["fig5", "--finished"], "--finished has no use with fig5"),
        (["table1", "--counts", "3"], "--counts has no use with table1: its number of devices is"),
        (["methods", "-s", "methods.fedex.topology=ring"], "topology: fedex has none to choose, a server among the"),
        (
            ["methods", "-s", "methods.lori.topology=ring"],
            "topology ring may need relays, and lori keeps what",
        ),
        (["methods", "-s", "methods.gossip.topology=hypercube", *FEW, "--tasks", "zelk,morv,quib"], "a power of two"),
    ],
)
def test_mistakes_end_in_a_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    result = reproduce(*words, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


HUB = {
    "boolq/train": {"question": "is ice cold", "passage": "Ice.", "answer": True},
    "boolq/validation": {"question": "is fire cold", "passage": "Fire.", "answer": False},
    "gsm8k/train": {"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
    "gsm8k/test": {"question": "1+2?", "answer": "1+2=<<1+2=3>>3\n#### 3"},
    "mbpp/train": {
        "task_id": 601, "text": "Give 1.", "code": "def f():\r\n return 1", "test_list": ["assert f() == 1"],
        "test_setup_code": "", "challenge_test_list": [],
    },
    "humaneval/test": {
        "task_id": "HumanEval/0", "prompt": "def one():\n", "canonical_solution": "    return 1\n",
        "test": "def check(f):\n    assert f() == 1", "entry_point": "one",
    },
}  # fmt: skip
"""Rows of the paper's data sets as the hub has them."""


def test_the_papers_scale_lacks_only_the_weights(tmp_path: Path) -> None:
    """Its settings but for their numbers, its data sets in their own columns, on a model of Qwen2.5's shape."""
    for name, row in HUB.items():
        place = tmp_path / "data" / f"{name}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text((json.dumps(row) + "\n") * 8)
    few = ("rounds=1", "train.steps=1", "train.batch_size=2", "train.accumulate=1", "tasks.train_examples=2")
    words = ("table2", "--scale", "paper", "--model", "embedded", "--data", str(tmp_path / "data"), "--seeds", "1")
    asked = (*words, "--tasks", "boolq,gsm8k,humaneval", "--only", "orthomesh,gossip", "--out", str(tmp_path / "out"))
    small = (*few, "tasks.test_examples=1", "model.max_length=64", "evaluate.answer_tokens=3", "evaluate.scorer=own")
    result = reproduce(*asked, *(word for one in small for word in ("-s", one)))
    assert result.exit_code == 0, result.output
    assert "answers are scored by our own scorer, which stands in for lm-evaluation-harness" in result.output
    x: Experiment = from_plain(read_yaml(tmp_path / "out" / "gossip" / "seed0" / "config.yaml"), "x")
    assert (x.devices, x.model.rank, x.model.dtype, x.train.schedule) == (10, 32, "bfloat16", "cosine")
    for label in ("orthomesh", "gossip"):
        summary = json.loads((tmp_path / "out" / label / "seed0" / "summary.json").read_text())
        assert summary["tasks"] == ["boolq", "gsm8k", "humaneval"]
        assert set(summary["methods"]) == {"base", label}
        assert all(set(m["accuracy"]) == set(summary["tasks"]) for m in summary["methods"].values())
