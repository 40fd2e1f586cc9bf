"""What is said beforehand: memory and disk by arithmetic, time from a probe, refusal before loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orthomesh.experiment import Experiment
from orthomesh.methods.fedsb import FedSb
from orthomesh.methods.flora import Flora
from orthomesh.methods.full import Full, memory_bytes
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.hard_moe import HardMoe
from orthomesh.methods.local import Local
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.size import size_of
from orthomesh.reproduction.costs import REPORT_B, Probe, check_memory, cost, disk, memory
from orthomesh.tasks.settings import TaskSettings

from .conftest import Done

X = Experiment(
    rounds=3,
    devices=4,
    train=TrainSettings(steps=5),
    tasks=TaskSettings(names=("zelk", "morv"), test_examples=10),
    evaluate={"every": 0},  # type: ignore[arg-type]
    methods={"gossip": GossipLora()},
)


def test_seconds_on_paper(tmp_path: Path) -> None:
    """4 devices of 3 rounds of 5 steps, and 4 times 2 tasks and their own once more, of 10 prompts."""
    found = cost({tmp_path: X}, Probe(step_s=1.0, answer_s=0.5))
    assert found.seconds == pytest.approx(60 + 60)
    two = cost({tmp_path / "a": X, tmp_path / "b": X}, Probe(step_s=1.0, answer_s=0.5))
    assert two.seconds == pytest.approx(2 * found.seconds)
    assert (two.memory_b, two.disk_b) == (found.memory_b, 2 * found.disk_b)


def test_an_oracle_asks_each_task_once(tmp_path: Path) -> None:
    x = replace(X, methods={"hard": HardMoe(experts="lora")})
    assert cost({tmp_path: x}, Probe(step_s=0.0, answer_s=1.0)).seconds == pytest.approx(20 + 40)


def test_what_is_on_record_costs_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "records" / "gossip" / "exam-0003.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({}))
    assert cost({tmp_path: X}, Probe(step_s=1.0, answer_s=1.0)).seconds == 0


def test_full_fine_tuning_keeps_every_weight_of_every_device() -> None:
    size = size_of(ModelSettings()).parameters
    x = replace(X, methods={"full": Full()})
    assert disk(x) == REPORT_B + 4 * 4 * size
    assert memory(x) - memory(replace(X, methods={"local": Local()})) > memory_bytes(size, 4) / 2


def test_what_is_folded_into_bases_grows_with_rounds() -> None:
    """Each round every device keeps A and B of all four, in 4 bytes; a change of all weights is made of them."""
    size = size_of(X.model)
    three, six = (replace(X, rounds=n, methods={"flora": Flora()}) for n in (3, 6))
    assert disk(six) - disk(three) == 4 * 3 * 4 * 4 * (size.expansion + size.projection)
    assert memory(three) > memory(X) + 8 * size.parameters


def test_first_gradients_of_all_devices_are_in_memory_at_once() -> None:
    size = size_of(X.model).parameters
    gradients, seed = (replace(X, methods={"fedsb": FedSb(start=start)}) for start in ("gradients", "seed"))  # type: ignore[arg-type]
    assert memory(gradients) - memory(seed) == (6 * 4 + 4) * size
    assert disk(gradients) == disk(seed)


def test_runs_leave_no_more_than_was_said(done: Done) -> None:
    for directory, x in done.runs.items():
        left = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        assert 0.2 * disk(x) < left <= disk(x)


def test_more_of_anything_is_not_less() -> None:
    for more in (
        replace(X, devices=8),
        replace(X, workers=2),
        replace(X, train=replace(X.train, batch_size=64)),
        replace(X, model=replace(X.model, rank=32)),
    ):
        assert memory(more) > memory(X)
    assert memory(replace(X, train=replace(X.train, checkpointing=True))) < memory(X)


def test_too_large_a_model_is_refused_with_the_estimate() -> None:
    check_memory(X, there=2**34)
    with pytest.raises(ValueError, match=r"would hold about 0\.1 GiB at once .* It takes less with: -s model.dtype"):
        check_memory(X, there=2**24)
    full = replace(X, methods={"all": Full(), "gossip": GossipLora()})
    with pytest.raises(ValueError, match=r"leave out what trains every weight, -s methods\.all=null"):
        check_memory(full, there=2**24)
    with pytest.raises(ValueError, match="every weight, --only gossip"):
        check_memory(full, there=2**24, without_full="--only gossip")
    check_memory(replace(X, model=ModelSettings(device="cuda")), there=1)
