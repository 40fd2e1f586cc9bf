"""What methods share: every device has its task, its own examples, and their tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orthomesh.methods.setup import Setup, device_examples, device_rows
from orthomesh.models.base import load_base
from orthomesh.tasks.embedded import split_of
from orthomesh.tasks.settings import TaskSettings


def test_devices_of_one_task_have_disjoint_shares(tiny_setup: Setup) -> None:
    setup = replace(tiny_setup, assignment=("zelk", "morv", "zelk"), tasks=TaskSettings(train_examples=30))
    assert setup.num_devices == 3
    one, other, two = (device_examples(setup, k) for k in range(3))
    assert [len(x) for x in (one, other, two)] == [30, 30, 30]
    assert {e.prompt.split(" ")[0] for e in (*one, *two)} == {"zelk"}
    assert {e.prompt.split(" ")[0] for e in other} == {"morv"}
    pool = device_examples(replace(setup, assignment=("zelk",), tasks=TaskSettings(train_examples=60)), 0)
    assert one + two == pool  # together what one device with all of it would have


def test_nothing_trained_on_is_tested_on(tiny_setup: Setup) -> None:
    for k in range(tiny_setup.num_devices):
        for example in device_examples(tiny_setup, k):
            assert split_of(example.prompt.removesuffix("=").split(" ", 1)[1]) == "train"


def test_rows_are_the_tokens_of_the_examples(tiny_setup: Setup) -> None:
    base = load_base(tiny_setup.model)
    rows, examples = device_rows(tiny_setup, 1), device_examples(tiny_setup, 1)
    assert [base.tokenizer.decode(r.prompt) for r in rows] == [e.prompt for e in examples]
    assert [base.tokenizer.decode(r.target[:-1]) for r in rows] == [e.target for e in examples]
    assert all(r.target[-1] == base.eos_id and not r.cut for r in rows)


def test_another_seed_draws_other_examples(tiny_setup: Setup) -> None:
    assert device_examples(tiny_setup, 0) != device_examples(replace(tiny_setup, seed=1), 0)
    assert device_examples(tiny_setup, 0) == device_examples(replace(tiny_setup), 0)


def test_a_task_that_does_not_exist_is_named(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="did you mean 'zelk'"):
        device_rows(replace(tiny_setup, assignment=("zelkk",)), 0)
