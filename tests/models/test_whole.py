"""Full-parameter fine-tuning against torch's AdamW on a copy of the model."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from orthomesh.models.base import Base, load_base
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.models.whole import change_of, fit_whole, updates_of, wearing
from orthomesh.tasks.embedded import examples

TRAIN = TrainSettings(steps=3, batch_size=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def rows(small: Base) -> list[Row]:
    return tokenise(small, examples("zelk", "train", 12, np.random.default_rng(0)), "zelk")


def print_of(base: Base) -> str:
    total = hashlib.sha256()
    for weight in base.model.state_dict().values():
        total.update(weight.view(torch.uint8).numpy().tobytes())
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())
    return total.hexdigest()


def flat(model: torch.nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def nothing(base: Base) -> np.ndarray:
    return np.zeros(base.num_parameters, dtype=np.float32)


def batches(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


# reference


@pytest.mark.parametrize("clip_norm", [0.1, 1e3])
def test_steps_are_adamw_on_all_weights(small: Base, rows: list[Row], clip_norm: float) -> None:
    model, order, losses = copy.deepcopy(small.model).requires_grad_(), batches(), []
    optimiser = torch.optim.AdamW(model.parameters(), lr=TRAIN.learning_rate, weight_decay=0.0)
    for _ in range(TRAIN.steps):
        optimiser.zero_grad()
        picked = [rows[n] for n in order.integers(len(rows), size=TRAIN.batch_size)]
        total = torch.zeros(())
        for row in picked:
            logits = model(input_ids=torch.tensor([[*row.prompt, *row.target]]), use_cache=False).logits[0]
            hit = logits[len(row.prompt) - 1 : -1]
            total = total + F.cross_entropy(hit, torch.tensor(row.target), reduction="sum")
        loss = total / sum(len(row.target) for row in picked)
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimiser.step()
    expected = flat(model) - flat(small.model)
    settings = replace(TRAIN, clip_norm=clip_norm)
    change, learnt = fit_whole(small, rows, nothing(small), settings, batches(), range(3))
    assert np.linalg.norm(change - expected) < 0.02 * np.linalg.norm(expected)
    assert (learnt.first_loss, learnt.last_loss) == pytest.approx((losses[0], losses[-1]), rel=1e-4)
    assert learnt.trained == small.num_parameters == sum(p.numel() for p in model.parameters())


def test_a_model_that_wears_a_change_is_the_changed_model(small: Base, rows: list[Row]) -> None:
    change = 0.01 * np.random.default_rng(1).standard_normal(small.num_parameters).astype(np.float32)
    model, first = copy.deepcopy(small.model), 0
    for p in model.parameters():
        p.data = p.data + torch.from_numpy(change[first : first + p.numel()]).view(p.shape)
        first += p.numel()
    ids, before = torch.tensor([rows[0].prompt]), print_of(small)
    with torch.no_grad(), wearing(small, change):
        worn = small.model(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        torch.testing.assert_close(worn, model(input_ids=ids, use_cache=False).logits)
        assert (small.model(input_ids=ids, use_cache=False).logits - worn).abs().max() > 1e-3
    assert print_of(small) == before


# law


def test_what_was_recorded_on_the_base_is_put_aside_meanwhile(small: Base) -> None:
    small.stages["of the base"] = 1
    with wearing(small, nothing(small)):
        assert small.stages == {}
        small.stages["of the worn"] = 2
    assert small.stages.pop("of the base") == 1
    assert small.stages == {}


def test_a_second_round_goes_on_where_the_first_ended(small: Base, rows: list[Row]) -> None:
    """And further along the cosine: from half the rate on a step is shorter."""
    one = replace(TRAIN, steps=1, schedule="cosine")
    first, _ = fit_whole(small, rows, nothing(small), one, batches(), range(0, 2))
    second, learnt = fit_whole(small, rows, first, one, batches(), range(1, 2))
    assert 0 < np.abs(second - first).max() < 0.6 * np.abs(first).max()
    assert learnt.steps == 1


def test_in_16_bit_small_steps_add_up_in_32(small: Base, rows: list[Row], save_model) -> None:  # type: ignore[no-untyped-def]
    """A step of 1e-5 is far below what bfloat16 resolves of a weight near one."""
    base = load_base(ModelSettings(source=str(save_model("qwen2")), rank=4, dtype="bfloat16"))
    before = print_of(base)
    change, _ = fit_whole(base, rows, nothing(base), replace(TRAIN, learning_rate=1e-5), batches(), range(3))
    assert np.median(np.abs(change[change != 0])) == pytest.approx(2e-5, rel=0.6)
    assert print_of(base) == before


# edge


def test_the_base_is_untouched_even_after_a_mistake(small: Base, rows: list[Row]) -> None:
    before = print_of(small)
    with pytest.raises(ValueError, match="the loss became"):
        fit_whole(small, rows, nothing(small), replace(TRAIN, learning_rate=1e30), batches(), range(3))
    assert print_of(small) == before


def test_a_change_of_another_size_is_refused(small: Base, rows: list[Row]) -> None:
    with pytest.raises(ValueError, match=r"a change of shape \(3,\) does not fit the"):
        fit_whole(small, rows, np.zeros(3, dtype=np.float32), TRAIN, batches(), range(3))


def test_more_steps_than_the_run_has_are_refused(small: Base, rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="3 steps do not fit into the 2"):
        fit_whole(small, rows, nothing(small), TRAIN, batches(), range(2))


def test_a_change_of_adapted_layers_is_found_at_their_weights() -> None:
    base = load_base(ModelSettings())
    updates = [np.full((s.out_features, s.in_features), n + 1.0) for n, s in enumerate(base.layout.shapes)]
    change = change_of(base, updates)
    assert change.shape == (base.num_parameters,)
    assert change.sum() == sum(u.sum() for u in updates)
    before = [slot.base.weight.clone() for slot in base.slots.values()]
    with wearing(base, change):
        for n, (slot, old) in enumerate(zip(base.slots.values(), before, strict=True)):
            assert torch.allclose(slot.base.weight, old + n + 1.0, atol=1e-5)


def test_only_active_weights_move_and_a_change_is_read_back(small: Base, rows: list[Row]) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((s.out_features, s.in_features)) < 0.1 for s in small.layout.shapes]
    active = change_of(small, masks) > 0
    change, learnt = fit_whole(small, rows, nothing(small), TRAIN, batches(), range(3), active)
    assert learnt.trained == active.sum() == sum(m.sum() for m in masks)
    assert not change[~active].any()
    assert change[active].any()
    for update, mask in zip(updates_of(small, change), masks, strict=True):
        assert not update[~mask].any()
    np.testing.assert_array_equal(change_of(small, updates_of(small, change)), change)
