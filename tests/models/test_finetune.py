"""Local fine-tuning against AdamW run by hand on the merged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.models.answer import answer, prompt_means
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.finetune import Factors, adapters, fit, rate_at
from orthomesh.models.inject import holding
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.embedded import examples
from orthomesh.tasks.skills import SKILLS, skill_example
from orthomesh.types import Bank, Expert

TRAIN = TrainSettings(steps=3, batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def rows(small: Base) -> list[Row]:
    """Rows of different lengths."""
    return tokenise(small, examples("zelk", "train", 12, np.random.default_rng(0)), "zelk")


def start(base: Base, seed: int = 0, density: float | None = None, **changes: object) -> Factors:
    """A projection, and an expansion that is not zero, so that both have gradients; zero off the mask."""
    rng = np.random.default_rng(seed)
    size = base.layout.num_expansion
    active = None if density is None else rng.random(size) < density
    b = (0.1 * rng.standard_normal(size)).astype(np.float32)
    b = b if active is None else np.where(active, b, np.float32(0))
    return replace(Factors(A=projection(seed, base.layout), B=b, active=active), **changes)


def batches(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def loss_by_hand(base: Base, rows: Sequence[Row], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean over all target tokens under W0 + s B A, each row by itself and without padding."""
    merged: dict[str, torch.Tensor] = {}
    start_a = start_b = 0
    rank = base.layout.rank
    for name, d, k in base.layout.shapes:
        a_l, b_l = a[start_a : start_a + rank * k].view(rank, k), b[start_b : start_b + d * rank].view(d, rank)
        start_a, start_b = start_a + rank * k, start_b + d * rank
        merged[f"{name}.base.weight"] = base.slots[name].base.weight + base.scaling * b_l @ a_l
    total, count = torch.zeros(()), 0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.target]])
        out = torch.func.functional_call(base.model, merged, kwargs={"input_ids": ids, "use_cache": False})
        predicts = out.logits[0, len(row.prompt) - 1 : -1]
        total = total + F.cross_entropy(predicts, torch.tensor(row.target), reduction="sum")
        count += len(row.target)
    return total / count


def fit_by_hand(
    base: Base,
    rows: Sequence[Row],
    begun: Factors,
    train: TrainSettings,
    order: np.random.Generator,
    saliency: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """AdamW on whole vectors: what is frozen has its gradient wiped out before the norm is clipped.

    A cosine schedule is torch's own. `saliency`: absolute gradients of B are added to it.
    """
    a, b = torch.from_numpy(begun.A.copy()), torch.from_numpy(begun.B.copy())
    b.requires_grad_()
    trained = [b, a.requires_grad_()] if begun.train_projection else [b]
    optimiser = torch.optim.AdamW(trained, lr=train.learning_rate, weight_decay=0.0)
    falls = train.schedule == "cosine"
    least = 0.1 * train.learning_rate
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, train.steps, eta_min=least) if falls else None
    losses = []
    for _ in range(train.steps):
        optimiser.zero_grad()
        loss = loss_by_hand(base, [rows[n] for n in order.integers(len(rows), size=train.batch_size)], a, b)
        loss.backward()
        losses.append(loss.item())
        if saliency is not None:
            saliency += b.grad.abs().numpy()
        if begun.active is not None:
            b.grad *= torch.from_numpy(begun.active)
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in trained))
        for p in trained:
            p.grad *= min(1.0, train.clip_norm / norm)
        optimiser.step()
        if schedule is not None:
            schedule.step()
    return a.detach().numpy(), b.detach().numpy(), losses


def moved(ended: np.ndarray, begun: np.ndarray, expected: np.ndarray) -> float:
    """Error of a step relative to the step."""
    return float(np.linalg.norm(ended - expected) / np.linalg.norm(expected - begun))


def digest(base: Base) -> float:
    return math.fsum(float(p.double().abs().sum()) for p in base.model.parameters())


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("density", [None, 0.2])
def test_steps_are_adamw_on_the_merged_weights(
    small: Base, rows: list[Row], density: float | None, clip_norm: float
) -> None:
    begun, train = start(small, density=density), replace(TRAIN, clip_norm=clip_norm)
    ended, learnt = fit(small, rows, begun, train, batches())
    a, b, losses = fit_by_hand(small, rows, begun, train, batches())
    assert moved(ended.B, begun.B, b) < 1e-3
    assert ended.A.tobytes() == begun.A.tobytes() == a.tobytes()
    assert (learnt.first_loss, learnt.last_loss) == pytest.approx((losses[0], losses[-1]), rel=1e-5)
    assert learnt.steps == 3
    assert learnt.trained == (begun.B.size if begun.active is None else begun.active.sum())


@pytest.mark.parametrize("density", [None, 0.2])
def test_both_factors_are_trained_alike(small: Base, rows: list[Row], density: float | None) -> None:
    begun = start(small, density=density, train_projection=True)
    ended, learnt = fit(small, rows, begun, TRAIN, batches())
    a, b, _ = fit_by_hand(small, rows, begun, TRAIN, batches())
    assert moved(ended.B, begun.B, b) < 1e-3
    assert moved(ended.A, begun.A, a) < 1e-3
    num_b = begun.B.size if begun.active is None else int(begun.active.sum())
    assert learnt.trained == num_b + begun.A.size == ended.moments["exp_avg"].size


@settings(max_examples=8, phases=[Phase.generate])  # to shrink an example would take minutes
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_only_active_entries_move_and_are_remembered(small: Base, rows: list[Row], seed: int, density: float) -> None:
    begun = start(small, seed, density)
    assert begun.active is not None
    ended, learnt = fit(small, rows, begun, replace(TRAIN, steps=1), batches(seed))
    num_active = int(begun.active.sum())
    assert not ended.B[~begun.active].any()
    assert np.count_nonzero(ended.B != begun.B) > 0.9 * num_active
    assert ended.A.tobytes() == begun.A.tobytes()
    assert ended.moments["exp_avg"].shape == ended.moments["exp_avg_sq"].shape == (num_active,)
    assert learnt.trained == num_active
    assert np.max(np.abs(ended.B - begun.B)) <= TRAIN.learning_rate * (1 + 1e-3)  # AdamW's first step


@pytest.mark.parametrize("train_projection", [False, True])
def test_two_fits_are_one_of_twice_the_length(small: Base, rows: list[Row], train_projection: bool) -> None:
    begun, order = start(small, density=0.3, train_projection=train_projection), batches()
    half, _ = fit(small, rows, begun, TRAIN, order)
    twice, _ = fit(small, rows, half, TRAIN, order)
    once, _ = fit(small, rows, begun, replace(TRAIN, steps=6), batches())
    assert twice.B.tobytes() == once.B.tobytes()
    assert twice.A.tobytes() == once.A.tobytes()
    assert {n: m.tobytes() for n, m in twice.moments.items()} == {n: m.tobytes() for n, m in once.moments.items()}
    forgetful, _ = fit(small, rows, replace(half, moments={}), TRAIN, batches())
    assert forgetful.B.tobytes() != once.B.tobytes()


def test_a_cosine_is_torchs(small: Base, rows: list[Row]) -> None:
    begun, train = start(small, density=0.3), replace(TRAIN, steps=4, schedule="cosine")
    ended, _ = fit(small, rows, begun, train, batches())
    _, b, _ = fit_by_hand(small, rows, begun, train, batches())
    assert moved(ended.B, begun.B, b) < 1e-3
    constant, _ = fit(small, rows, begun, replace(train, schedule="constant"), batches())
    assert moved(constant.B, begun.B, b) > 0.1


def test_rates_on_paper() -> None:
    train = TrainSettings(learning_rate=2.0, schedule="cosine")
    assert [rate_at(train, t, 4) for t in (0, 1, 2, 3)] == pytest.approx(
        [2.0, 2 * (0.55 + 0.45 * math.sqrt(0.5)), 1.1, 2 * (0.55 - 0.45 * math.sqrt(0.5))]
    )
    assert {rate_at(replace(train, schedule="constant"), t, 4) for t in range(4)} == {2.0}


@given(st.integers(1, 1000), st.floats(1e-6, 1.0))
def test_a_cosine_falls_to_a_tenth(total: int, rate: float) -> None:
    rates = [rate_at(TrainSettings(learning_rate=rate, schedule="cosine"), t, total) for t in range(total)]
    assert rates[0] == pytest.approx(rate)
    assert all(a > b for a, b in pairwise(rates))
    assert rates[-1] > 0.1 * rate


def test_rounds_share_one_schedule(small: Base, rows: list[Row]) -> None:
    begun, order = start(small, density=0.3), batches()
    train = replace(TRAIN, steps=2, schedule="cosine")
    half, _ = fit(small, rows, begun, train, order, done=0, total=4)
    twice, _ = fit(small, rows, half, train, order, done=2, total=4)
    once, _ = fit(small, rows, begun, replace(train, steps=4), batches())
    assert twice.B.tobytes() == once.B.tobytes()
    restarted, _ = fit(small, rows, half, train, batches())
    assert restarted.B.tobytes() != once.B.tobytes()


@pytest.mark.parametrize(("done", "total"), [(3, None), (2, 4), (-1, 8), (0, 2)])
def test_more_steps_than_the_run_has_are_refused(small: Base, rows: list[Row], done: int, total: int | None) -> None:
    with pytest.raises(ValueError, match=rf"3 steps after {done} do not fit into a run of {total or 3}"):
        fit(small, rows, start(small), TRAIN, batches(), done=done, total=total)


@pytest.mark.parametrize("accumulate", [2, 3, 5])
@pytest.mark.parametrize("train_projection", [False, True])
def test_a_batch_in_parts_is_the_batch(small: Base, rows: list[Row], accumulate: int, train_projection: bool) -> None:
    # targets of one token and of many: a mean of the parts' means would be another loss
    uneven = [row._replace(target=row.target[-2 - 4 * (n % 2) :]) for n, row in enumerate(rows)]
    assert len({len(row.target) for row in uneven}) > 1
    begun, train = start(small, density=0.5, train_projection=train_projection), replace(TRAIN, batch_size=5)
    whole, told = fit(small, uneven, begun, train, batches())
    parts, learnt = fit(small, uneven, begun, replace(train, accumulate=accumulate), batches())
    assert moved(parts.B, begun.B, whole.B) < 1e-3
    assert (learnt.first_loss, learnt.last_loss) == pytest.approx((told.first_loss, told.last_loss), rel=1e-5)


@settings(max_examples=3, phases=[Phase.generate])
@given(st.integers(0, 2**32 - 1))
def test_saliency_is_the_sum_of_absolute_gradients(small: Base, rows: list[Row], seed: int) -> None:
    none = np.zeros(small.layout.num_expansion, dtype=np.float32)
    begun = start(small, seed, saliency=none)
    train = replace(TRAIN, steps=2, clip_norm=1e-3)  # what is clipped is summed as it was
    expected = none.copy()
    fit_by_hand(small, rows, begun, train, batches(), saliency=expected)
    ended, _ = fit(small, rows, begun, train, batches())
    assert ended.saliency is not None
    np.testing.assert_allclose(ended.saliency, expected, rtol=1e-2, atol=1e-4 * expected.max())
    assert not none.any()
    further, _ = fit(small, rows, ended, train, batches())
    assert further.saliency is not None
    assert np.all(further.saliency >= ended.saliency)
    plain, _ = fit(small, rows, replace(begun, saliency=None), train, batches())
    assert plain.saliency is None
    assert plain.B.tobytes() == ended.B.tobytes()


def test_a_saliency_under_a_mask_is_refused(small: Base, rows: list[Row]) -> None:
    begun = start(small, density=0.5)
    with pytest.raises(ValueError, match="before a mask is found"):
        fit(small, rows, replace(begun, saliency=np.zeros_like(begun.B)), TRAIN, batches())


@pytest.mark.parametrize("family", [*LIKE_LLAMA, *sorted(FAMILIES.keys() - {"llama"})])
@pytest.mark.parametrize("train_projection", [False, True])
def test_checkpointing_saves_memory_and_changes_nothing(
    family: str, train_projection: bool, rows: list[Row], save_model: Callable[[str], Path]
) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    begun, train = start(base, density=0.5, train_projection=train_projection), replace(TRAIN, steps=2)
    ends, kept = [], []
    for checkpointing in (False, True):
        places: dict[int, int] = {}

        def pack(x: torch.Tensor, places: dict[int, int] = places) -> torch.Tensor:
            places[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            ended, _ = fit(base, rows, begun, replace(train, steps=1, checkpointing=checkpointing), batches())
        ends.append(ended)
        kept.append(sum(places.values()))
    assert ends[0].B.tobytes() == ends[1].B.tobytes()
    assert ends[0].A.tobytes() == ends[1].A.tobytes()
    assert kept[1] < 0.6 * kept[0]
    assert not any("forward" in vars(module) for module in base.model.modules())
    assert not base.model.training


@pytest.mark.parametrize("changes", [{"density": 0.5}, {"train_projection": True}])
def test_sixteen_bit_weights_train_float32_factors(small: Base, rows: list[Row], changes: dict[str, float]) -> None:
    narrow = load_base(ModelSettings(source=small.model.config.name_or_path, rank=4, dtype="bfloat16"))
    begun, train = start(small, **changes), replace(TRAIN, steps=2, batch_size=2, learning_rate=1e-4)
    wide, told = fit(small, rows[:1], begun, train, batches())
    ended, learnt = fit(narrow, rows[:1], begun, train, batches())
    assert ended.B.dtype == ended.A.dtype == ended.moments["exp_avg"].dtype == np.float32
    assert (learnt.first_loss, learnt.last_loss) == pytest.approx((told.first_loss, told.last_loss), rel=0.05)
    # steps of 1e-4 on entries of 0.1 would be lost in factors of 8 bits; here they go the way they should
    there, here = wide.B - begun.B, ended.B - begun.B
    assert there @ here > 0.8 * np.linalg.norm(there) * np.linalg.norm(here)
    parts, _ = fit(narrow, rows[:1], begun, replace(train, checkpointing=True), batches())
    assert parts.B.tobytes() == ended.B.tobytes()


@pytest.mark.parametrize("choice", ["only", "nearest", "topk"])
def test_sixteen_bit_weights_answer(choice: Literal["only", "nearest", "topk"]) -> None:
    base = load_base(ModelSettings(dtype="bfloat16"))
    rng = np.random.default_rng(0)
    rows = tokenise(base, [skill_example(SKILLS[word], rng) for word in ("flip", "caps", "last", "next")], "skills")
    rows += [row._replace(choices=(row.target, (7, 1), (30, 9, 1))) for row in rows]
    starts = [start(base, seed) for seed in range(2)]
    codes = prompt_means(base, rows[:2])
    assert codes.dtype == np.float32
    quiet = [
        Expert(owner=n, A=one.A, B=np.float32(1e-4) * one.B, code=codes[n]) for n, one in enumerate(starts)
    ]  # what the base knows, it still knows
    answers = answer(base, Bank(experts=tuple(quiet), choice=choice, top_k=8, gated=True), rows)
    assert answers.right.all()


def test_adapters_from_a_block_on_train_like_a_mask_that_spares_those_below(small: Base, rows: list[Row]) -> None:
    upper = load_base(ModelSettings(source=small.model.config.name_or_path, rank=4, first_block=1))
    num = upper.layout.num_expansion
    whole = start(small)
    tail = start(upper, A=whole.A[-upper.layout.num_projection :], B=whole.B[-num:])
    active = np.arange(small.layout.num_expansion) >= small.layout.num_expansion - num
    cut = replace(whole, B=np.where(active, whole.B, np.float32(0)), active=active)
    ended, _ = fit(upper, rows, tail, TRAIN, batches())
    expected, _ = fit(small, rows, cut, TRAIN, batches())
    assert moved(ended.B, tail.B, expected.B[-num:]) < 1e-3


def test_losses_are_means_over_a_tenth_of_the_steps(small: Base, rows: list[Row]) -> None:
    now, order, losses = start(small), batches(), []
    for _ in range(20):
        now, learnt = fit(small, rows, now, replace(TRAIN, steps=1, batch_size=1), order)
        losses.append(learnt.first_loss)
        assert learnt.first_loss == learnt.last_loss
    _, learnt = fit(small, rows, start(small), replace(TRAIN, steps=20, batch_size=1), batches())
    assert learnt.first_loss == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-12)
    assert learnt.last_loss == pytest.approx((losses[18] + losses[19]) / 2, rel=1e-12)


def test_nothing_given_is_changed(small: Base, rows: list[Row]) -> None:
    begun = start(small, density=0.5, train_projection=True)
    first, _ = fit(small, rows, begun, TRAIN, batches())
    kept: Mapping[str, np.ndarray] = {"A": first.A.copy(), "B": first.B.copy(), **first.moments}
    kept = {name: array.copy() for name, array in kept.items()}
    before = digest(small)
    fit(small, rows, first, TRAIN, batches())
    assert digest(small) == before
    assert all(slot.held is None for slot in small.slots.values())
    assert not any(p.requires_grad or p.grad is not None for p in small.model.parameters())
    for name, array in {"A": first.A, "B": first.B, **first.moments}.items():
        assert array.tobytes() == kept[name].tobytes()


def test_flat_factors_become_matrices_with_the_scaling_in_a(small: Base) -> None:
    begun = start(small)
    held = adapters(small, begun.A, begun.B)
    assert list(held) == list(small.slots)
    for one, a, b in zip(
        held.values(), matrices_a(begun.A, small.layout), matrices_b(begun.B, small.layout), strict=True
    ):
        assert one.A.tolist() == (2.0 * a).tolist()
        assert one.B.tolist() == b.tolist()
        assert one.scale == 1.0


def test_loss_falls_on_a_task(embedded: Base) -> None:
    rows = tokenise(embedded, examples("zelk", "train", 200, np.random.default_rng(0)), "zelk")
    layout = embedded.layout
    begun = Factors(A=projection(1, layout), B=np.zeros(layout.num_expansion, dtype=np.float32))
    ended, learnt = fit(embedded, rows, begun, TrainSettings(steps=10, batch_size=16), batches())
    assert learnt.last_loss < 0.8 * learnt.first_loss
    with torch.no_grad(), holding(embedded.slots, adapters(embedded, ended.A, ended.B)):
        after = loss_by_hand(embedded, rows[:20], torch.from_numpy(begun.A), torch.from_numpy(begun.B))
    before = loss_by_hand(embedded, rows[:20], torch.from_numpy(begun.A), torch.from_numpy(begun.B))
    assert after < 0.8 * before  # rows it was shown, with the adapter as evaluation will hold it


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(small: Base, rows: list[Row], value: float) -> None:
    b = start(small).B
    b[0] = value
    with pytest.raises(ValueError, match=r"the loss became .*lower train\.learning_rate"):
        fit(small, rows, start(small, B=b), TRAIN, batches())
    assert all(slot.held is None for slot in small.slots.values())
