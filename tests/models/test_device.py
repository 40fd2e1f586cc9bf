"""The same training, reading and answering on a GPU as on the CPU, to the precision of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orthomesh.adapters.projection import projection
from orthomesh.models.answer import answer, prompt_sketches
from orthomesh.models.base import Base, load_base
from orthomesh.models.covariance import layer_entropies
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.rng import stream
from orthomesh.tasks.embedded import examples
from orthomesh.types import Bank, Expert

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def base(request: pytest.FixtureRequest) -> Base:
    return load_base(ModelSettings(device=request.param))


@pytest.fixture(scope="module")
def cpu() -> Base:
    return load_base(ModelSettings(device="cpu"))


def rows(base: Base, count: int = 64) -> list[Row]:
    return tokenise(base, examples("zelk", "train", count, stream(1, "rows")), "zelk")


def trained(base: Base) -> tuple[Factors, float]:
    A = projection(7, base.layout)
    active = stream(3, "mask").random(base.layout.num_expansion) < 0.25
    start = Factors(A=A, B=np.zeros(base.layout.num_expansion, dtype=np.float32), active=active)
    factors, learnt = fit(base, rows(base), start, TrainSettings(steps=12, batch_size=16), stream(2, "batches"))
    return factors, learnt.last_loss


def test_training_moves_the_same_entries_to_the_same_places(cpu: Base, base: Base) -> None:
    (ours, loss), (reference, known) = trained(base), trained(cpu)
    assert loss == pytest.approx(known, rel=1e-3)
    assert np.linalg.norm(ours.B - reference.B) < 0.02 * np.linalg.norm(reference.B)


def test_what_is_read_of_prompts_is_the_same(cpu: Base, base: Base) -> None:
    a, b = (prompt_sketches(one, rows(one), 1, 32) for one in (base, cpu))
    np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(layer_entropies(base, rows(base)), layer_entropies(cpu, rows(cpu)), atol=1e-3)


@pytest.mark.parametrize("choice", ["only", "topk", "norm", "arrow"])
def test_answers_are_the_same(cpu: Base, base: Base, choice: str) -> None:
    factors, _ = trained(cpu)
    expert = Expert(owner=0, A=factors.A, B=factors.B, code=np.ones(sum(cpu.widths), dtype=np.float32))
    bank = Bank(experts=(expert, expert), choice=choice, top_k=4)  # type: ignore[arg-type]
    a, b = (answer(one, bank, rows(one, 200)).right for one in (base, cpu))
    assert np.mean(a != b) <= 0.02
