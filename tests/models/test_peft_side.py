"""Our adapter on a model that PEFT made, in a plain loop and in a Trainer; our own fine-tuning is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerState

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.adapters.mask import magnitude_mask, quotas
from orthomesh.adapters.projection import projection
from orthomesh.models.base import Base
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.peft_io import import_peft
from orthomesh.models.peft_side import MaskAfter, factors, freeze_projections, sparsify
from orthomesh.models.settings import TINY, TrainSettings
from orthomesh.models.tokens import Row, collate, tokenise
from orthomesh.tasks.embedded import examples

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old way


def lora(**changes: Any) -> Any:
    """A fresh LoRA model on the embedded base, as any PEFT script makes it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    plain = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(**{**plain, **changes}))


def toy(*expansions: Tensor, in_features: int = 4) -> nn.Module:
    """Modules that bear the names PEFT gives its factors, with the given B."""

    def factor(weight: Tensor) -> nn.Module:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = weight.clone()
        return nn.ModuleDict({"default": linear})

    return nn.ModuleDict(
        {
            f"f{n}": nn.ModuleDict({"lora_A": factor(torch.ones(b.shape[1], in_features)), "lora_B": factor(b)})
            for n, b in enumerate(expansions)
        }
    )


def flat(matrices: list[nn.Parameter]) -> np.ndarray:
    return torch.cat([m.detach().flatten() for m in matrices]).numpy()


def at(step: int, max_steps: int = 100) -> TrainerState:
    return TrainerState(global_step=step, max_steps=max_steps)


@pytest.mark.parametrize("kind", ["orthonormal", "gaussian"])
def test_projections_are_those_of_a_device_with_that_seed(embedded: Base, kind: Any) -> None:
    model = lora(init_lora_weights=False)
    freeze_projections(model, 7, kind)
    layout, a, b = factors(model)
    assert layout == embedded.layout
    assert flat(a).tobytes() == projection(7, embedded.layout, kind).tobytes()
    assert not flat(b).any()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == len(b)
    assert all(".lora_B." in name for name in trained)


def test_the_mask_on_paper() -> None:
    model = toy(torch.tensor([[3.0, -1.0], [0.5, -4.0], [0.0, 2.0]]), torch.tensor([[1.0, -2.0], [4.0, 3.0]]))
    sparsify(model, 0.5)
    layout, _, (one, two) = factors(model)
    assert layout == Layout((Shape("f0", 3, 4), Shape("f1", 2, 4)), 2)
    assert one.tolist() == [[3.0, 0.0], [0.0, -4.0], [0.0, 2.0]]
    assert two.tolist() == [[0.0, 0.0], [4.0, 3.0]]
    (7.0 * one.sum() + float("inf") * two.sum()).backward()
    assert one.grad.tolist() == [[7.0, 0.0], [0.0, 7.0], [0.0, 7.0]]
    assert two.grad.tolist() == [[0.0, 0.0], [float("inf"), float("inf")]]  # an overflow is not made nan


def test_gradients_at_hand_are_masked_too() -> None:
    model = toy(torch.tensor([[3.0, -1.0], [0.0, 2.0]]))
    expansion = factors(model).B[0]
    expansion.sum().backward()
    sparsify(model, 0.5)
    assert expansion.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def steps_of(optimiser: torch.optim.Optimizer, expansion: nn.Parameter, seed: int, count: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimiser.zero_grad()
        (expansion * torch.randn(expansion.shape, generator=rng)).sum().backward()
        optimiser.step()


@given(st.integers(0, 999), st.floats(0.01, 1.0), st.sampled_from([0.0, 0.3]), st.booleans())
def test_masked_entries_stay_exactly_zero_whatever_the_momentum(
    seed: int, density: float, weight_decay: float, adam: bool
) -> None:
    model = toy(torch.zeros(9, 3))
    expansion = factors(model).B[0]
    optimiser: torch.optim.Optimizer = torch.optim.SGD([expansion], lr=0.1, momentum=0.9, weight_decay=weight_decay)
    if adam:
        optimiser = torch.optim.AdamW([expansion], lr=0.1, weight_decay=weight_decay, amsgrad=True)
    steps_of(optimiser, expansion, seed, 4)
    dense = expansion.detach().clone()
    callback = MaskAfter(4, density)
    callback.on_step_end(None, at(4), None, model=model, optimizer=optimiser)
    support = magnitude_mask(dense.flatten().numpy(), (27,), quotas((27,), density)).reshape(9, 3)
    assert expansion.tolist() == np.where(support, dense.numpy(), 0).tolist()
    for _ in range(3):
        steps_of(optimiser, expansion, seed + 1, 1)
        assert (expansion.detach().numpy() != 0).tolist() == support.tolist()
    callback.on_step_end(None, at(5), None, model=model, optimizer=optimiser)


def test_momentum_would_move_masked_entries_if_it_were_kept() -> None:
    model = toy(torch.zeros(9, 3))
    expansion = factors(model).B[0]
    optimiser = torch.optim.AdamW([expansion], lr=0.1)
    steps_of(optimiser, expansion, 0, 4)
    sparsify(model, 0.25)
    assert expansion.count_nonzero() == 7
    steps_of(optimiser, expansion, 1, 1)
    assert expansion.count_nonzero() == 27
    with pytest.raises(
        ValueError, match="layer f0: the optimiser moved masked entries of B, 27 are active and 7 should"
    ):
        MaskAfter(4, 0.25).on_step_end(None, at(5), None, model=model, optimizer=optimiser)


@pytest.fixture(scope="module")
def zelk(embedded: Base) -> list[Row]:
    return tokenise(embedded, examples("zelk", "train", 40, np.random.default_rng(0)), "zelk")


def test_warm_up_and_masked_steps_are_those_of_our_fine_tuning(embedded: Base, zelk: list[Row]) -> None:
    train, layout, density = TrainSettings(steps=3, batch_size=4), embedded.layout, 0.125
    begun = Factors(A=projection(5, layout), B=np.zeros(layout.num_expansion, dtype=np.float32))
    order = np.random.default_rng(1)
    warm, _ = fit(embedded, zelk, begun, train, order)
    mask = magnitude_mask(warm.B, layout.expansion_sizes, quotas(layout.expansion_sizes, density))
    moments = {n: m[mask] if m.shape == mask.shape else m for n, m in warm.moments.items()}
    masked = Factors(A=warm.A, B=np.where(mask, warm.B, np.float32(0)), active=mask, moments=moments)
    ended, _ = fit(embedded, zelk, masked, train, order)

    model, callback, order = lora(), MaskAfter(3, density), np.random.default_rng(1)
    freeze_projections(model, 5)
    b = factors(model).B
    optimiser = torch.optim.AdamW(b, lr=train.learning_rate, weight_decay=0.0)
    callback.on_train_begin(None, at(0), None, model=model, optimizer=optimiser)
    for step in range(1, 7):
        batch = collate(embedded, [zelk[int(n)][:2] for n in order.integers(len(zelk), size=4)])
        logits = model(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits
        before = logits[:, -batch.width - 1 : -1]
        F.cross_entropy(before.flatten(0, 1), batch.targets.flatten(), ignore_index=-100).backward()
        nn.utils.clip_grad_norm_(b, train.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        callback.on_step_end(None, at(step), None, model=model, optimizer=optimiser)
    same = (flat(b) != 0) == (ended.B != 0)
    assert same.mean() > 0.999  # near-ties of the mask may fall either way
    assert np.linalg.norm((flat(b) - ended.B)[same]) < 1e-3 * np.linalg.norm(ended.B - masked.B)


def train(place: Path, rows: list[Row], seed: int, resume: str | None = None, **changes: Any) -> Any:
    """Six steps of a Trainer, the last three under a mask, with a checkpoint after every second one."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model = lora(r=4, lora_alpha=8)
    freeze_projections(model, seed)
    how = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 6e-3, **changes}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    data = [{"input_ids": [*r.prompt, *r.target], "labels": [-100] * len(r.prompt) + [*r.target]} for r in rows]
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(TINY))
    trainer = Trainer(model, TrainingArguments(place, **how, **quiet), collator, data, callbacks=[MaskAfter(3, 0.25)])
    trainer.train(resume_from_checkpoint=resume)
    return model


def test_what_a_trainer_saves_is_an_expert_with_a_known_seed(zelk: list[Row], tmp_path: Path) -> None:
    model = train(tmp_path / "run", zelk, seed=11, weight_decay=0.1, save_strategy="no")
    model.save_pretrained(tmp_path / "out")
    layout, _, b = factors(model)
    found = import_peft(tmp_path / "out", layout, 2.0, str(TINY), owner=3)
    assert found.A.tobytes() == projection(11, layout).tobytes()
    assert found.B.tobytes() == flat(b).tobytes()
    assert [int(m.count_nonzero()) for m in b] == quotas(layout.expansion_sizes, 0.25).tolist()


@pytest.fixture(scope="module")
def whole(zelk: list[Row], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run from beginning to end, and where its checkpoints are."""
    place = tmp_path_factory.mktemp("whole")
    return place, train(place, zelk, seed=11)


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_resumed_before_or_after_its_mask_ends_the_same(
    whole: tuple[Path, Any], zelk: list[Row], tmp_path: Path, step: int
) -> None:
    place, expected = whole
    resumed = train(tmp_path, zelk, seed=11, resume=str(place / f"checkpoint-{step}"))
    assert flat(factors(resumed).B).tobytes() == flat(factors(expected).B).tobytes()
    assert flat(factors(resumed).A).tobytes() == projection(11, factors(expected).layout).tobytes()


def test_a_run_that_would_never_be_masked_is_refused(zelk: list[Row], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training ends after 2 steps, before the mask at step 3"):
        train(tmp_path, zelk, seed=0, max_steps=2, save_strategy="no")


def test_projections_that_would_move_are_refused() -> None:
    with pytest.raises(ValueError, match="lora_A would be trained too; call freeze_projections"):
        MaskAfter(3, 0.5).on_train_begin(None, at(0), None, model=lora(), optimizer=None)


@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|lora_bias)")  # PEFT has its doubts too
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"use_dora": True}, r"lora_magnitude_vector\.default\.weight is no matrix lora_A or lora_B"),
        ({"target_modules": ["embed_tokens"]}, "lora_embedding_A.* is no matrix lora_A or lora_B"),
        ({"lora_bias": True}, r"lora_B\.default\.bias is no matrix lora_A or lora_B"),
        ({"rank_pattern": {"q_proj": 8}}, r"must share one rank, the model has \[8, 16\]"),
    ],
)
def test_other_kinds_of_lora_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        freeze_projections(lora(**changes), 0)


def test_models_without_one_plain_adapter_are_refused() -> None:
    with pytest.raises(ValueError, match="must hold one LoRA adapter, as get_peft_model makes it; it has none"):
        freeze_projections(nn.Linear(3, 3), 0)
    two = lora()
    two.add_adapter("second", two.peft_config["default"])
    with pytest.raises(ValueError, match=r"one LoRA adapter.* it has default, second"):
        sparsify(two, 0.5)
    with pytest.raises(ValueError, match=r"is torch\.bfloat16, a seeded projection needs torch\.float32"):
        freeze_projections(toy(torch.zeros(3, 2)).to(torch.bfloat16), 0)
    with pytest.raises(ValueError, match="rank 2 exceeds layer f0"):
        freeze_projections(toy(torch.zeros(1, 2)), 0)


@pytest.mark.parametrize(
    ("value", "sentence"), [(0.0, "B is zero, as before any training"), (float("nan"), "B is not finite")]
)
def test_expansions_without_magnitudes_are_refused(value: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sparsify(toy(torch.full((3, 2), value)), 0.5)


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_densities_out_of_range_are_refused(density: float) -> None:
    with pytest.raises(ValueError, match="density must lie in"):
        sparsify(toy(torch.ones(3, 2)), density)
    with pytest.raises(ValueError, match="density must lie in"):
        MaskAfter(3, density)


def test_a_mask_before_the_first_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        MaskAfter(0, 0.5)
