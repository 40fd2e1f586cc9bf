"""A cache goes in and comes out by the name that the installed transformers uses, without its warning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthomesh.models.base import Base
from orthomesh.models.cache import NAMES, cache_of, cached


@torch.no_grad()
def test_a_pass_goes_on_from_the_cache_of_another(small: Base) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    whole = small.model(input_ids=ids, use_cache=False).logits[:, -1]
    cache = cache_of(small.model(input_ids=ids[:, :3], use_cache=True))
    assert cache.get_seq_length() == 3
    rest = small.model(input_ids=ids[:, 3:], use_cache=True, **cached(small.model, cache)).logits[:, -1]
    torch.testing.assert_close(rest, whole)


@pytest.mark.parametrize("name", NAMES)
def test_models_of_both_ages_are_given_the_name_they_know(name: str) -> None:
    class Model(nn.Module):
        pass

    def old(past_key_values: object = None) -> None: ...
    def new(cache: object = None) -> None: ...

    model = Model()
    model.forward = {"past_key_values": old, "cache": new}[name]
    assert cached(model, 3) == {name: 3}
    assert cache_of({name: None}) is None


def test_a_model_without_a_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear takes no cache of keys and values, none of cache, past_key_values"):
        cached(nn.Linear(1, 1), 3)
