"""How a device learns: quotas, warm-up, what the mask ranks, and the steps of a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.collision import collision_rate, empirical_rate
from orthomesh.adapters.lowrank import slices
from orthomesh.adapters.mask import merged
from orthomesh.methods.learning import CODE_PROMPTS, entries, init
from orthomesh.methods.parts import fixed_bits, unpack
from orthomesh.methods.setup import Setup, device_rows
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.models import finetune
from orthomesh.models.base import load_base
from orthomesh.models.covariance import layer_entropies
from orthomesh.types import DeviceState, Learnt, Round
from orthomesh.wireless.link import max_power_w, noise_w, rate_bps

Play = Callable[..., Any]
Small = Callable[..., Setup]


def learnt_alone(settings: SparseOrthogonal, setup: Setup, index: int = 0) -> tuple[DeviceState, Learnt]:
    method = settings.build(setup)
    return method.fit(method.init(0), Round(0, index, 2))


# masks


def test_every_layer_has_its_quota_and_b_is_zero_off_the_mask(quarters: Any) -> None:
    for device in quarters.last.values():
        mask = unpack(device.own["mask"], device.own["B"].size)
        cuts = slices(device.own["sizes"].tolist())
        assert [int(mask[c].sum()) for c in cuts] == device.own["quota"].tolist()
        assert [q / n for q, n in zip(device.own["quota"], device.own["sizes"], strict=True)] == [0.25] * len(cuts)
        assert not device.own["B"][~mask].any()
        assert device.own["moment/exp_avg"].shape == (int(mask.sum()),)


def test_masks_stay_as_they_were_found(quarters: Any) -> None:
    for round_ in (1, 2):
        np.testing.assert_array_equal(quarters.masks(round_), quarters.masks(0))
    assert len({info.plan.clusters for info in quarters.infos}) == 1


def test_independent_masks_collide_as_often_as_equation_19_says(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(density=0.25, masks="independent", score="random", max_collision=1.0)
    masks = play(settings, small(3), rounds=1).masks()
    expected = float(collision_rate(np.full((3, 1), 0.25))[0])
    assert expected == pytest.approx(10 / 64)
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / masks.shape[1])
    assert abs(empirical_rate(masks) - expected) < five_sigma


@pytest.mark.parametrize("score", ["magnitude", "signed", "gradient"])
def test_the_mask_keeps_what_is_scored_highest_after_the_warm_up(score: Any, small: Small) -> None:
    setup = small(("zelk",))
    after, _ = learnt_alone(SparseOrthogonal(masks="independent", density=0.1, score=score), setup)
    before, _ = learnt_alone(SparseOrthogonal(density=0.1, score=score), setup)  # negotiated: still dense
    dense = before.own["B"]
    ranked = {"magnitude": np.abs(dense), "signed": dense, "gradient": before.own.get("saliency")}[score]
    mask = unpack(after.own["mask"], after.own["B"].size)
    for cut in slices(after.own["sizes"].tolist()):
        assert ranked[cut][mask[cut]].min() >= ranked[cut][~mask[cut]].max()
    assert "saliency" not in after.own  # done its work
    assert ("saliency" in before.own) == (score == "gradient")


def test_saliency_is_the_summed_absolute_gradient(small: Small) -> None:
    """After one step AdamW's first moment is a tenth of the gradient, clipped by one factor for all."""
    device, _ = learnt_alone(SparseOrthogonal(score="gradient"), small(("zelk",), steps=1))
    saliency, moment = device.own["saliency"], np.abs(device.own["moment/exp_avg"])
    assert saliency.dtype == np.float32
    factor = np.linalg.norm(saliency) / np.linalg.norm(moment)
    assert factor >= 10 * (1 - 1e-5)
    np.testing.assert_allclose(saliency, factor * moment, rtol=1e-4, atol=1e-6 * saliency.max())


def test_a_random_mask_ignores_magnitudes_and_is_the_device_s_own(play: Play, small: Small) -> None:
    settings = SparseOrthogonal(masks="independent", score="random", max_collision=1.0, seeds="common")
    one, two = (play(settings, small(2, learning_rate=r), rounds=1).masks() for r in (1e-3, 1e-2))
    np.testing.assert_array_equal(one, two)
    assert (one[0] != one[1]).any()


@pytest.mark.parametrize(("level", "groups"), [("matrix", [1] * 21), ("layer", [7] * 3), ("global", [21])])
def test_matrices_compete_within_their_level(level: Any, groups: list[int], small: Small) -> None:
    setup = small(("zelk",))
    after, _ = learnt_alone(SparseOrthogonal(masks="independent", level=level), setup)
    dense, _ = learnt_alone(SparseOrthogonal(level=level), setup)
    own, size = after.own, np.abs(dense.own["B"])
    assert own["spans"].tolist() == groups
    mask = unpack(own["mask"], size.size)
    for cut, owed in zip(slices(merged(own["sizes"], own["spans"]).tolist()), groups, strict=True):
        assert mask[cut].sum() == size[cut].size // 8, owed
        assert size[cut][mask[cut]].min() >= size[cut][~mask[cut]].max()
    assert own["quota"].tolist() == [int(mask[cut].sum()) for cut in slices(own["sizes"].tolist())]  # as it came out
    assert (len(set((own["quota"] / own["sizes"]).tolist())) == 1) == (level == "matrix")


def test_a_short_warm_up_trains_the_rest_of_the_round_under_the_mask(small: Small) -> None:
    after, learnt = learnt_alone(SparseOrthogonal(masks="independent", warmup_steps=1), small(("zelk",), steps=4))
    assert learnt.steps == 4
    assert learnt.trained == int(after.own["quota"].sum())
    assert float(after.own["moment/step"]) == 4.0


def test_a_short_warm_up_fixes_the_bid_and_the_round_goes_on_densely(small: Small) -> None:
    """As many steps as with independent masks; the bid is that of a device that has trained no further."""
    setup = small(("zelk",), steps=4)
    after, learnt = learnt_alone(SparseOrthogonal(warmup_steps=1), setup)
    assert learnt.steps == 4
    assert float(after.own["moment/step"]) == 4.0
    assert learnt.trained == after.own["B"].size
    assert "mask" not in after.own
    method = SparseOrthogonal().build(small(("zelk",), steps=1))
    first, _ = method.fit(method.init(0), Round(0, 0, 8))  # the same schedule: 8 steps in all
    np.testing.assert_array_equal(after.own["bid"], first.own["bid"])
    assert not np.array_equal(after.own["B"], first.own["B"])


# how many entries


def test_without_limits_the_density_is_the_same_everywhere(tiny_setup: Setup) -> None:
    sizes = load_base(tiny_setup.model).layout.expansion_sizes
    assert entries(0, SparseOrthogonal(), tiny_setup).tolist() == [n // 8 for n in sizes]
    odd = entries(0, SparseOrthogonal(density=0.1), tiny_setup)
    assert odd.sum() == sum(sizes) // 10
    assert np.abs(odd - 0.1 * np.array(sizes)).max() < 1


def test_entropy_moves_entries_and_meets_the_budget(tiny_setup: Setup) -> None:
    base = load_base(tiny_setup.model)
    sizes = np.array(base.layout.expansion_sizes)
    quota = entries(0, SparseOrthogonal(allocation="entropy"), tiny_setup)
    assert quota.sum() == sizes.sum() // 8
    entropies = layer_entropies(base, device_rows(tiny_setup, 0)[:CODE_PROMPTS])
    assert np.corrcoef(np.log(quota / sizes), entropies)[0, 1] > 0.99  # density goes as exp(H / tau)
    sharper = entries(0, SparseOrthogonal(allocation="entropy", temperature=0.5), tiny_setup)
    assert np.ptp(sharper / sizes) > np.ptp(quota / sizes)
    plain = entries(0, SparseOrthogonal(allocation="softmax"), tiny_setup)
    assert not np.array_equal(plain, quota)
    assert plain.sum() <= sizes.sum() // 8


def test_the_compute_limit_on_paper(tiny_setup: Setup) -> None:
    """c_max B / (eps N) = 500 x 4 / (0.5 x 20) = 200 entries."""
    assert entries(0, SparseOrthogonal(max_cost=500.0, cost_per_parameter=0.5), tiny_setup).sum() == 200
    entropy = SparseOrthogonal(max_cost=500.0, cost_per_parameter=0.5, allocation="entropy")
    assert entries(0, entropy, tiny_setup).sum() == 200


def test_the_radio_limit_is_what_the_link_carries_beside_mask_and_code(tiny_setup: Setup) -> None:
    base, radio = load_base(tiny_setup.model), tiny_setup.radio
    bits = radio.deadline_s * rate_bps(
        max_power_w(radio), 10**-13.5, radio.bandwidth_hz, noise_w(radio, radio.bandwidth_hz)
    )
    fixed = fixed_bits(base.layout.num_expansion, sum(base.widths))
    quota = entries(0, SparseOrthogonal(link_gain_db=-135.0, density=1.0, choice="nearest"), tiny_setup)
    assert quota.sum() == int((bits - fixed) / 16) < base.layout.num_expansion


def test_what_is_budgeted_for_the_link_fits_it(play: Play, small: Small) -> None:
    """Framed, a first exchange stays below what the limit allowed."""
    setup = small(2)
    radio = setup.radio
    settings = SparseOrthogonal(link_gain_db=-135.0, masks="independent", max_collision=1.0, density=1.0)
    played = play(settings, setup, rounds=1)
    rate = rate_bps(max_power_w(radio), 10**-13.5, radio.bandwidth_hz, noise_w(radio, radio.bandwidth_hz))
    for spend in played.infos[0].cost.by_device.values():
        assert 8 * spend.total_bytes < rate * radio.deadline_s


# seeds and steps


def test_seeds_are_a_device_s_own_or_common(tiny_setup: Setup) -> None:
    own = [int(init(k, SparseOrthogonal(), tiny_setup).own["seed"]) for k in range(4)]
    assert len(set(own)) == 4
    common = [int(init(k, SparseOrthogonal(seeds="common"), tiny_setup).own["seed"]) for k in range(4)]
    assert len(set(common)) == 1
    other = replace(tiny_setup, seed=1)
    assert int(init(0, SparseOrthogonal(seeds="common"), other).own["seed"]) != common[0]


def test_a_schedule_spans_the_run_and_the_warm_up_counts(monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    seen: list[tuple[int, int, int]] = []
    real = finetune.fit

    def watched(*args: Any, done: int = 0, total: int | None = None) -> Any:
        seen.append((args[3].steps, done, total or 0))
        return real(*args, done=done, total=total)

    monkeypatch.setattr(finetune, "fit", watched)
    settings, setup = SparseOrthogonal(masks="independent", warmup_steps=1), small(("zelk",), steps=3)
    learnt_alone(settings, setup)
    learnt_alone(SparseOrthogonal(), setup, index=1)
    assert seen == [(1, 0, 6), (2, 1, 6), (3, 3, 6)]


def test_a_device_that_looks_for_company_knows_how_sure_its_code_is(tiny_setup: Setup) -> None:
    base = load_base(tiny_setup.model)
    device, _ = learnt_alone(SparseOrthogonal(pool=4.0), tiny_setup)
    assert (device.own["error"].dtype, device.own["error"].shape) == (np.float32, (len(base.widths),))
    assert (device.own["error"] > 0).all()
    alone, _ = learnt_alone(SparseOrthogonal(), tiny_setup)
    assert "error" not in alone.own
