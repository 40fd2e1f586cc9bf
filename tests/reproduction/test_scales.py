"""Sizes of a reproduction, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orthomesh.reproduction.rows import TABLE_1, methods
from orthomesh.reproduction.scales import SCALES, at_count, base_experiment, scale_of
from orthomesh.wireless.channel import gains
from orthomesh.wireless.link import max_power_w
from orthomesh.wireless.power import broadcast_power_w


def test_sizes_are_the_papers() -> None:
    x = SCALES["paper"].experiment()
    assert (x.devices, x.model.rank, x.model.source) == (10, 32, "Qwen/Qwen2.5-1.5B-Instruct")
    assert max(SCALES["paper"].counts) == 15


def test_the_papers_radio_lets_ten_devices_be_one_cluster() -> None:
    """As its row of a single cluster needs: 5 MB, about what a device sends of Qwen2.5-1.5B, to all others."""
    x = SCALES["paper"].experiment()
    for seed in range(5):
        near = gains(x.channel, seed, 0, 10)
        needed = [broadcast_power_w(8 * 5e6, np.delete(near[k], k).tolist(), x.radio) for k in range(10)]
        assert max(needed) <= max_power_w(x.radio)


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
    with pytest.raises(ValueError, match=r"It has: snips\. Did you mean 'snips'\? Other tasks"):
        base_experiment(small, {}, {**given, "tasks.data": str(tmp_path), "tasks.names": ["snip"]}, [])
    with pytest.raises(ValueError, match=r"has no trec, .*It has: snips\. Other tasks"):
        base_experiment(small, {}, {**given, "tasks.data": str(tmp_path)}, [])
