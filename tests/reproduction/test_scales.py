"""Sizes of a reproduction, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthomesh.reproduction.rows import TABLE_1, methods
from orthomesh.reproduction.scales import SCALES, at_count, base_experiment, scale_of


def test_sizes_are_the_papers() -> None:
    x = SCALES["paper"].experiment()
    assert (x.devices, x.model.rank, x.model.source) == (10, 32, "Qwen/Qwen2.5-1.5B-Instruct")
    assert max(SCALES["paper"].counts) == 15


def test_settings_reach_single_methods() -> None:
    tiny = base_experiment(scale_of("tiny"), methods(TABLE_1), {}, ["methods.lori.density=0.2"])
    assert tiny.methods["lori"].density == 0.2
    assert len(tiny.setup().assignment) == 8
    assert len(at_count(tiny, 3).setup().assignment) == 3


def test_an_unknown_scale_lists_the_near_one() -> None:
    with pytest.raises(ValueError, match="Did you mean 'tiny'"):
        scale_of("tinny")


def test_missing_data_says_how_to_get_it(tmp_path: Path) -> None:
    small = scale_of("small")
    with pytest.raises(ValueError, match="needs --data DIR and --model DIR"):
        base_experiment(small, {}, {}, [])
    given = {"tasks.data": str(tmp_path / "none"), "model.source": "somewhere"}
    with pytest.raises(ValueError, match=r"no directory .*none; a data directory holds NAME/train.jsonl"):
        base_experiment(small, {}, given, [])
    (tmp_path / "snips").mkdir()
    with pytest.raises(ValueError, match=r"has no trec, .*It has: snips\. Other tasks"):
        base_experiment(small, {}, {**given, "tasks.data": str(tmp_path)}, [])
