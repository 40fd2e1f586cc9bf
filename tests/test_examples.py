"""The examples, run as a user would, with fewer steps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.mask import quotas
from orthomesh.adapters.projection import projection
from orthomesh.models.base import load_base
from orthomesh.models.peft_io import import_peft
from orthomesh.models.settings import TINY, ModelSettings

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers the old way
def test_the_trainer_script_leaves_a_sparse_expert_that_learnt(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

    script = load("peft_trainer")
    before, after = script.main(str(tmp_path), steps=18)
    layout = load_base(ModelSettings()).layout
    expert = import_peft(tmp_path, layout, 2.0, str(TINY), owner=0)
    assert expert.A.tobytes() == projection(7, layout).tobytes()
    active = [np.count_nonzero(b) for b in matrices_b(expert.B, layout)]
    assert active == quotas(layout.expansion_sizes, 0.125).tolist()

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    batch = DataCollatorForSeq2Seq(tokenizer)(list(script.rows(tokenizer, "test", 100)))
    base = AutoModelForCausalLM.from_pretrained(TINY).eval()
    with torch.no_grad():
        untouched = base(**batch).loss.item()
        tuned = PeftModel.from_pretrained(base, str(tmp_path)).eval()(**batch).loss.item()
    assert tuned < 0.5 * untouched  # on inputs it never saw
    assert 0.0 <= before <= after <= 1.0
    names = {key.rpartition(".lora_")[0] for key in load_file(tmp_path / "adapter_model.safetensors")}
    assert len(names) == len(matrices_a(expert.A, layout))
