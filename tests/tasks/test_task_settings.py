"""Where tasks come from: defaults, plain values, and what is said when they are wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.config import parse
from orthomesh.tasks.settings import TaskSettings

texts = st.text(max_size=6)


# example


def test_by_default_all_embedded_tasks_are_learnt() -> None:
    assert (TaskSettings().names, TaskSettings().data) == ((), "")


def test_columns_are_those_of_instruction_data() -> None:
    assert (TaskSettings().prompt_column, TaskSettings().answer_column) == ("instruction", "output")


# law


@given(st.lists(texts, max_size=3), texts, st.integers(1, 10**6), st.integers(1, 10**6), texts, texts)
def test_plain_values_become_settings_that_key_a_cache(
    names: list[str], data: str, train: int, test: int, prompt: str, answer: str
) -> None:
    counts = {"train_examples": train, "test_examples": test}
    plain = {"names": names, "data": data, **counts, "prompt_column": prompt, "answer_column": answer}
    made = parse(TaskSettings, plain, "tasks")
    assert {name: getattr(made, name) for name in plain} == {**plain, "names": tuple(names)}
    assert hash(made) == hash(parse(TaskSettings, plain, "tasks"))
    assert made != parse(TaskSettings, {**plain, "train_examples": train + 1}, "tasks")


# edge


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"train_examples": 0}, r"^tasks\.train_examples: .*greater than or equal to 1, got 0"),
        ({"test_examples": -1}, r"^tasks\.test_examples: .*greater than or equal to 1, got -1"),
        ({"train_examples": 2.5}, r"^tasks\.train_examples: .*integer.* got 2\.5"),
        ({"names": "zelk"}, r"^tasks\.names: .*tuple.* got 'zelk'"),
        ({"names": [1]}, r"^tasks\.names\.0: .*string.* got 1"),
        ({"data": 3}, r"^tasks\.data: .*string.* got 3"),
        ({"prompt_colum": "text"}, "no such setting. Did you mean 'prompt_column'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(TaskSettings, values, "tasks")


def test_settings_are_read_without_torch_and_datasets() -> None:
    code = "import sys, orthomesh.tasks.settings; sys.exit(bool({'torch', 'datasets'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
