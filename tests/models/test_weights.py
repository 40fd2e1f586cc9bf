"""The digest of a base model sees every weight."""

from __future__ import annotations

import torch
from torch import nn

from orthomesh.models.weights import weights_digest


def test_one_weight_differs() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = weights_digest(model)
    assert weights_digest(model) == before
    with torch.no_grad():
        model[1].weight[1, 2] = torch.nextafter(model[1].weight[1, 2], torch.tensor(9.0))
    assert weights_digest(model) != before


def test_types_shapes_and_names_count() -> None:
    digests = {
        weights_digest(nn.Linear(2, 3)),
        weights_digest(nn.Linear(2, 3).to(torch.bfloat16)),
        weights_digest(nn.Sequential(nn.Linear(2, 3))),
        weights_digest(nn.Linear(2, 3, bias=False)),
    }
    assert len(digests) == 4
