"""Every annotation in the package, shapes included, is checked while the tests run."""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: idle threads must not spin
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("orthomesh", "beartype.beartype")

import torch

torch.set_num_threads(1)

settings.register_profile("house", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
