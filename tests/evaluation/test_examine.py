"""Who is asked what: devices that answer alike once, in as many parts as wanted; the oracle asks owners only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.engines.inprocess import InProcess
from orthomesh.evaluation import accuracy
from orthomesh.evaluation.accuracy import Exam, Score, mean_accuracy, no_bank, sit
from orthomesh.evaluation.examine import examine, examine_oracle, examine_own
from orthomesh.models.answer import answer
from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.rng import stream
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Bank, DeviceState, Engine, Expert, Facts, Formed, Forming, Message, Phase, Round

TASKS = ("third", "sure", "yesno")


@dataclass(frozen=True)
class Watched:
    """An engine in this process that remembers what was mapped."""

    jobs: list[Mapping[int, Any]] = field(default_factory=list)
    hosted: tuple[int, ...] = (0,)

    def map(self, fn: Callable[..., Any], items: Mapping[int, Any], *args: Any) -> dict[int, Any]:
        self.jobs.append(items)
        return InProcess(1).map(fn, items, *args)

    def share(self, facts: Mapping[int, Facts], t: Round) -> dict[int, Facts]:
        raise NotImplementedError

    def form(self, forming: Forming, t: Round) -> Formed:
        raise NotImplementedError

    def exchange(self, outbox: Sequence[Message], phase: Phase, t: Round) -> dict[int, Any]:
        raise NotImplementedError


def person(id: int, kind: int) -> DeviceState:
    return DeviceState(id=id, own={"kind": np.array(kind)})


def loud(owner: int) -> Expert:
    """An expert of large random entries: it answers at random, and unlike any other."""
    layout, rng = load_base(ModelSettings()).layout, stream(0, "loud", owner)
    sizes = (layout.num_projection, layout.num_expansion)
    a, b = (rng.standard_normal(n).astype(np.float32) for n in sizes)
    return Expert(owner=owner, A=a, B=b)


def by_kind(device: DeviceState) -> Bank:
    """Devices of one kind answer with the same expert; those of kind 0 with none."""
    kind = int(device.own["kind"])
    return Bank(experts=(loud(kind),)) if kind else no_bank(device)


def both(device: DeviceState) -> Bank:
    """Its own expert and a stranger's, mixed."""
    return Bank(experts=(loud(device.id), loud(99)), choice="topk", top_k=16)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    """third: of its three rows exactly one can be answered rightly; sure: two rows, one choice; yesno: sixteen."""
    root = tmp_path_factory.mktemp("exam")
    options = ["answer1", "answer2", "answer3"]
    rows = {
        "third": [{"instruction": "which?", "output": a, "choices": options} for a in options],
        "sure": [{"instruction": q, "output": "yes", "choices": ["yes"]} for q in ("is it?", "and this?")],
        "yesno": [{"instruction": f"{n}?", "output": "yes", "choices": ["yes", "no"]} for n in range(16)],
    }
    for task, told in rows.items():
        (root / task).mkdir()
        (root / task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    tasks = TaskSettings(names=TASKS, data=str(root))
    owners = (("third", (0, 3)), ("sure", (1, 2, 4)), ("yesno", (5, 6)))
    return Exam(model=ModelSettings(), tasks=tasks, seed=0, limit=100, owners=owners)


# example


def test_devices_that_answer_alike_are_asked_once(exam: Exam) -> None:
    devices = {k: person(k, kind) for k, kind in enumerate((1, 0, 1, 1, 2))}
    engine = Watched()
    result = examine(devices, by_kind, exam, engine)
    asked = [device.id for device, _ in engine.jobs[-1].values()]
    assert asked == [0, 1, 4]
    assert result.weights == [3, 1, 1]
    assert result.held == {0: 1, 1: 0, 2: 1, 3: 1, 4: 1}
    assert [s["sure"] for s in result.scores] == [Score(2, 2, -1, 0)] * 3
    assert [s["third"] for s in result.scores] == [Score(3, 1, -1, 0)] * 3


def test_of_devices_whose_banks_are_made_of_the_same_one_bank_is_looked_at(exam: Exam) -> None:
    devices = {k: person(k, kind) for k, kind in enumerate((1, 0, 1, 2))}
    looked: list[int] = []

    def bank(device: DeviceState) -> Bank:
        looked.append(device.id)
        return by_kind(device)

    def made_of(device: DeviceState) -> bytes:
        return device.own["kind"].tobytes() if device.id else b"another way to the same"

    short = exam._replace(owners=exam.owners[:1], limit=1)
    result = examine(devices, bank, short, InProcess(4), made_of=made_of)
    assert looked[:4] == [0, 1, 2, 3]
    looked.clear()
    devices[4] = person(4, 1)
    result = examine(devices, bank, short, InProcess(5), made_of=made_of)
    assert sorted(looked[:4]) == [0, 1, 2, 3]
    assert result == examine(devices, by_kind, short, InProcess(5))


def test_the_oracle_adds_up_what_owners_answer(exam: Exam) -> None:
    devices = {k: person(k, 0) for k in range(7)}
    result = examine_oracle(devices, no_bank, exam, InProcess(7))
    assert (result.weights, result.held) == ([1], dict.fromkeys(range(7), 1))
    assert list(result.scores[0]) == list(TASKS)
    assert result.scores[0]["third"] == Score(6, 2, 6, 0)  # two owners
    assert result.scores[0]["sure"] == Score(6, 6, 6, 0)  # three
    assert result.scores[0]["yesno"].asked == 32


def test_own_tasks_are_those_of_the_devices_asked(exam: Exam) -> None:
    """Of third's owners 0 and 3 one is asked, of sure's two, of yesno's none."""
    devices = {k: person(k, 0) for k in (0, 1, 4)}
    result = examine(devices, no_bank, exam, InProcess(5))
    assert result.own == {"third": Score(3, 1, -1, 0), "sure": Score(4, 4, -1, 0)}
    assert examine_own(devices, no_bank, exam, InProcess(5)).own == result.own


# reference


def test_own_tasks_are_answered_with_all_that_is_held(exam: Exam) -> None:
    devices = {k: person(k, 1 + k % 2) for k in range(7)}
    whole = examine(devices, by_kind, exam, InProcess(7)).own
    assert examine_own(devices, by_kind, exam, InProcess(7)).own == whole
    each = [sit((devices[k], ("yesno",)), by_kind, exam)["yesno"].right for k in (5, 6)]
    assert whole["yesno"].right == sum(each)
    assert each[0] != each[1]


def test_asking_everybody_gives_the_same_mean(exam: Exam) -> None:
    devices = {k: person(k, kind) for k, kind in enumerate((2, 1, 2, 0))}
    result = examine(devices, by_kind, exam, InProcess(4))
    each = [sit((device, TASKS), by_kind, exam) for device in devices.values()]
    assert mean_accuracy(result.scores, result.weights) == pytest.approx(mean_accuracy(each, [1] * 4))
    assert len({s["yesno"].right for s in each}) > 1  # they do not all answer alike


def test_the_oracle_takes_the_owner_s_expert_only(exam: Exam) -> None:
    base, rows = load_base(ModelSettings()), accuracy.test_rows(exam, "yesno")
    own = [answer(base, Bank(experts=(loud(k),)), rows).right.sum() for k in (5, 6)]
    mixed = [answer(base, both(person(k, 0)), rows).right.sum() for k in (5, 6)]
    assert sum(own) != sum(mixed)
    engine = Watched()
    result = examine_oracle({k: person(k, 0) for k in range(7)}, both, exam, engine)
    assert result.scores[0]["yesno"] == Score(32, sum(own), 32, 0)
    jobs = {k: tasks for k, (_, tasks) in engine.jobs[-1].items()}
    assert jobs == {k: (task,) for task, owners in exam.owners for k in owners}  # nobody is asked for others' tasks


# law


@settings(max_examples=8)
@given(kinds=st.dictionaries(st.integers(0, 9), st.integers(0, 2), min_size=1, max_size=6), num_parts=st.integers(1, 5))
def test_splitting_changes_nothing(exam: Exam, kinds: dict[int, int], num_parts: int) -> None:
    short = exam._replace(limit=2)
    devices = {k: person(k, kind) for k, kind in kinds.items()}
    engine = Watched()
    result = examine(devices, by_kind, short, engine, num_parts)
    assert result == examine(devices, by_kind, short, InProcess(10))
    assert [list(s) for s in result.scores] == [list(TASKS)] * len(set(kinds.values()))
    assert sum(result.weights) == len(kinds)
    first = {kind: min(k for k in kinds if kinds[k] == kind) for kind in kinds.values()}
    assert sorted({device.id for device, _ in engine.jobs[-1].values()}) == sorted(first.values())
    asked = [(device.id, task) for device, part in engine.jobs[-1].values() for task in part]
    assert sorted(asked) == sorted((k, task) for k in first.values() for task in TASKS)
    assert len(engine.jobs[-1]) == len(first) * min(num_parts, len(TASKS))


# edge


def test_one_untouched_device_stands_for_the_base(exam: Exam) -> None:
    result = examine({0: DeviceState(id=0, own={})}, no_bank, exam, InProcess(1), 3)
    assert (result.weights, result.held) == ([1], {0: 0})
    assert result.scores[0]["third"] == Score(3, 1, -1, 0)


def test_a_watched_engine_is_an_engine() -> None:
    assert isinstance(Watched(), Engine)
