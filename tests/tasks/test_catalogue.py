"""Who gets which examples: names, disjoint keyed shares, one test set for everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.tasks.catalogue import names, training_share
from orthomesh.tasks.catalogue import test_set as held_out
from orthomesh.tasks.embedded import TASKS, examples
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Example

POOL = 12


def rows_of(task: str, split: str) -> list[Example]:
    """What the files say, in their order; every prompt is there once."""
    return [Example(f"{task} {split} {n}", f" {n}") for n in range(POOL)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two tasks of twelve rows a split, and one that has nothing to be tested on."""
    root = tmp_path_factory.mktemp("data")
    for task in ("colours", "animals", "untested"):
        (root / task).mkdir()
        for split in ("train", "test"):
            rows = [] if (task, split) == ("untested", "test") else rows_of(task, split)
            lines = [json.dumps({"instruction": r.prompt, "output": r.target.strip()}) for r in rows]
            (root / task / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return str(root)


def numbers(drawn: Sequence[Example]) -> list[int]:
    return [int(e.target) for e in drawn]


# example


def test_all_embedded_tasks_where_none_is_named() -> None:
    assert names(TaskSettings()) == tuple(TASKS)
    assert names(TaskSettings(names=("vask", "zelk"))) == ("vask", "zelk")


def test_twelve_examples_for_three_devices_make_four_each(data: str) -> None:
    c = TaskSettings(names=("colours",), data=data)
    shares = [training_share(c, "colours", 0, k, 3) for k in range(3)]
    assert [len(s) for s in shares] == [4, 4, 4]
    assert sorted(n for s in shares for n in numbers(s)) == list(range(POOL))


@pytest.mark.parametrize(("wanted", "devices", "got"), [(600, 1, 12), (600, 5, 2), (3, 3, 3), (1, 12, 1)])
def test_a_device_gets_what_it_wants_or_what_there_is(data: str, wanted: int, devices: int, got: int) -> None:
    c = TaskSettings(names=("colours",), data=data, train_examples=wanted)
    assert {len(training_share(c, "colours", 0, k, devices)) for k in range(devices)} == {got}


def test_at_most_so_many_test_examples(data: str) -> None:
    for most, got in ((5, 5), (100, POOL)):
        c = TaskSettings(names=("colours",), data=data, test_examples=most)
        assert len(held_out(c, "colours", 0)) == got


# reference


def test_files_are_dealt_in_a_keyed_random_order(data: str) -> None:
    c = TaskSettings(names=("colours",), data=data, train_examples=2)
    order = stream(7, "examples colours train").permutation(POOL)
    assert numbers(training_share(c, "colours", 7, 1, 3)) == order[2:4].tolist()
    order = stream(7, "examples colours test").permutation(POOL)
    assert numbers(held_out(c, "colours", 7)) == order.tolist()


def test_embedded_tasks_are_dealt_from_one_draw() -> None:
    c = TaskSettings(train_examples=5, test_examples=4)
    drawn = examples("vask", "train", 15, stream(3, "examples vask train"))
    assert [e for k in range(3) for e in training_share(c, "vask", 3, k, 3)] == drawn
    assert list(held_out(c, "vask", 3)) == examples("vask", "test", 4, stream(3, "examples vask test"))


# law


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), wanted=st.integers(1, 9), num_devices=st.integers(1, POOL))
def test_shares_are_disjoint_and_equally_long(data: str, seed: int, wanted: int, num_devices: int) -> None:
    c = TaskSettings(names=("colours",), data=data, train_examples=wanted)
    shares = [numbers(training_share(c, "colours", seed, k, num_devices)) for k in range(num_devices)]
    dealt = [n for s in shares for n in s]
    assert len(dealt) == len(set(dealt)) == num_devices * min(wanted, POOL // num_devices)
    assert len({len(s) for s in shares}) == 1


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), others=st.permutations(["animals", "untested"]))
def test_a_task_is_dealt_alike_whatever_else_is_learnt(data: str, seed: int, others: list[str]) -> None:
    alone = TaskSettings(names=("colours",), data=data, train_examples=4)
    among = TaskSettings(names=(*others, "colours"), data=data, train_examples=4)
    assert training_share(alone, "colours", seed, 1, 2) == training_share(among, "colours", seed, 1, 2)
    assert held_out(alone, "colours", seed) == held_out(among, "colours", seed)


def test_seed_task_and_split_each_have_an_order_of_their_own(data: str) -> None:
    c = TaskSettings(names=("colours", "animals"), data=data)
    orders = [
        numbers(dealt)
        for seed in (0, 1)
        for task in ("colours", "animals")
        for dealt in (training_share(c, task, seed, 0, 1), held_out(c, task, seed))
    ]
    assert len(np.unique(orders, axis=0)) == 8


# edge


def test_fewer_examples_than_devices_are_refused(data: str) -> None:
    c = TaskSettings(names=("colours",), data=data)
    with pytest.raises(ValueError, match="task 'colours' has 12 training examples for 13 devices"):
        training_share(c, "colours", 0, 0, 13)


def test_a_split_without_rows_is_refused(data: str) -> None:
    c = TaskSettings(names=("untested",), data=data)
    with pytest.raises(ValueError, match="task 'untested': its split 'test' is empty"):
        held_out(c, "untested", 0)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("tasks.names: a task is named twice in zelk, vask, zelk")):
        names(TaskSettings(names=("zelk", "vask", "zelk")))


@pytest.mark.parametrize("place", ["hub", "somewhere"])
def test_data_without_names_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match=r"tasks\.names: name the tasks to take from tasks\.data"):
        names(TaskSettings(data=place))


def test_a_task_that_is_not_there_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="no embedded task 'colours'"):
        training_share(TaskSettings(names=("colours",)), "colours", 0, 0, 1)
    with pytest.raises(ValueError, match=r"task 'zelk': no train\.jsonl"):
        training_share(TaskSettings(names=("zelk",), data=data), "zelk", 0, 0, 1)


def test_the_hub_is_asked_for_the_name_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "on_the_hub"
    place.mkdir()
    (place / "train.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    c = TaskSettings(names=(str(place),), data="hub")
    assert training_share(c, str(place), 0, 0, 1) == (Example("a", " b"),)
