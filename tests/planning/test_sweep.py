"""Sweeps: what is asked for, and baselines whose collision rates are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orthomesh.adapters.collision import collision_rate, mean_rate
from orthomesh.planning.network import network
from orthomesh.planning.plan import plan
from orthomesh.planning.settings import Adapter, Baselines, PlanSettings, Rules
from orthomesh.planning.sweep import Axis, Row, axis, sweep
from orthomesh.wireless.channel import Channel

NEAR = PlanSettings(
    devices=6, channel=Channel(radius_m=10.0, fading="none"), baselines=Baselines(connect=1.0),
    rules=Rules(solver="agnes"),
)  # fmt: skip


def by_method(settings: PlanSettings, over: str, repeats: int = 1) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sweep(settings, axis(over), repeats):
        found.setdefault(row.method, []).append(row)
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("M=5:8", Axis("devices", "M", (5.0, 6.0, 7.0, 8.0))),
        ("M=5:100:40", Axis("devices", "M", (5.0, 45.0, 85.0))),
        ("S_max=0.1,0.3", Axis("rules.max_collision", "S_max", (0.1, 0.3))),
        ("radio.deadline_s=2:2", Axis("radio.deadline_s", "radio.deadline_s", (2.0,))),
    ],
)
def test_what_a_sweep_asks_for(text: str, wanted: Axis) -> None:
    assert axis(text) == wanted


def test_a_range_without_a_step_has_both_its_ends() -> None:
    assert axis("M=5:100").values == tuple(float(m) for m in range(5, 101, 5))
    density = axis("density=0.05:0.5").values
    assert (len(density), density[0], density[-1]) == (20, 0.05, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("M", "write it as NAME=FROM:TO"),
        ("M=", "write it as"),
        ("densty=0.1,0.2", "Did you mean 'density'?"),
        ("name=1:2", "is no number among the settings"),
        ("M=a:b", "are not numbers"),
        ("M=9:5", "FROM <= TO"),
        ("M=1:5:0", "STEP > 0"),
        ("M=1:2:3:4", "a range is FROM:TO"),
        ("M=1:2,3", "a range is FROM:TO"),
        ("M=nan", "finite"),
        ("density=0:1:0.0001", "too long"),
    ],
)
def test_a_sweep_that_is_none_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="sweep") as caught:
        axis(text)
    assert words in str(caught.value)


def test_lori_follows_eq_19_and_lora_collides_everywhere() -> None:
    """Everybody hears everybody: n masks of density 0.1 collide at 1 - 0.9^n - n 0.1 0.9^(n-1)."""
    found = by_method(NEAR, "M=5,10")
    for row, n in zip(found["LoRI"], (5, 10), strict=True):
        assert row.collision == pytest.approx(1 - 0.9**n - n * 0.1 * 0.9 ** (n - 1), abs=1e-6)
    assert [row.collision for row in found["LoRA"]] == [1.0, 1.0]
    assert found["LoRA"][0].sent_bytes == pytest.approx(10 * found["LoRI"][0].sent_bytes, rel=1e-4)


def test_ours_is_the_plan_and_the_papers_keeps_its_limit() -> None:
    settings = replace(NEAR, rules=Rules(max_collision=0.12, solver="agnes"), adapter=Adapter(density=0.2))
    found = by_method(settings, "M=10", repeats=2)
    for row in found["orthomesh"]:
        p = plan(replace(settings, devices=10, seed=row.seed))
        shared = sum(len(c.members) for c in p.clusters)
        assert row.groups == p.num_groups
        assert row.alone == pytest.approx(1 - shared / 10)
        assert row.collision == pytest.approx(sum(len(c.members) * c.collision for c in p.clusters) / shared)
    assert all(row.collision <= 0.12 for row in found["paper"])
    for row in found["one cluster"]:
        net = network(replace(settings, devices=10, seed=row.seed))
        assert row.collision == pytest.approx(mean_rate(collision_rate(net.density), net.sizes))


def test_nobody_to_share_with_is_no_rate() -> None:
    found = by_method(NEAR, "M=1")
    assert all(math.isnan(rows[0].collision) for rows in found.values())
    assert [found["LoRI"][0].alone, found["orthomesh"][0].alone] == [1.0, 1.0]


def test_random_connections_keep_the_share_asked_for() -> None:
    few = replace(NEAR, baselines=Baselines(connect=0.3))
    dense, sparse = (by_method(s, "M=16")["LoRI"][0] for s in (NEAR, few))
    n = 1 + 0.3 * 15
    near = 1 - 0.9**n - n * 0.1 * 0.9 ** (n - 1)
    assert sparse.collision == pytest.approx(near, abs=0.08)
    assert sparse.collision < dense.collision


def test_a_value_that_is_refused_is_named() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        list(sweep(NEAR, axis("S_max=0.5,1.5"), 1))
    given = replace(NEAR, channel=Channel(positions_m=((0.0, 0.0), (1.0, 0.0))))
    with pytest.raises(ValueError, match="it cannot while they are given"):
        list(sweep(given, axis("M=1:2"), 1))
