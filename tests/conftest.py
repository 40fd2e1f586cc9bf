"""Every annotation in the package, shapes included, is checked while the tests run."""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: idle threads must not spin
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# as the type checker has it, an int will do for a float
install_import_hook("orthomesh", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch

from orthomesh.methods.setup import Setup
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.tasks.settings import TaskSettings
from orthomesh.wireless.link import Radio

torch.set_num_threads(1)

settings.register_profile("house", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def tiny_setup() -> Setup:
    """Four devices with an embedded task each, and training that takes milliseconds."""
    return Setup(
        seed=0,
        assignment=("zelk", "morv", "vask", "glim"),
        model=ModelSettings(),
        train=TrainSettings(steps=4, batch_size=4),
        tasks=TaskSettings(train_examples=20, test_examples=10),
        radio=Radio(),
    )
