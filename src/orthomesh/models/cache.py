"""What transformers calls the keys and values of tokens read before: `past_key_values` once, `cache` since 5.24."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

NAMES = ("cache", "past_key_values")


def cached(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The argument that hands a cache to a model, by the name this version of it takes.

    Args:
        model: a causal language model of transformers.
        cache: what an earlier pass of it returned.

    Raises:
        ValueError: a model that takes no cache.
    """
    known = inspect.signature(model.forward).parameters
    for name in NAMES:
        if name in known:
            return {name: cache}
    raise ValueError(f"{type(model).__name__} takes no cache of keys and values, none of {', '.join(NAMES)}")


def cache_of(found: Mapping[str, Any]) -> Any:
    """The cache among the arguments or in the output of a model, by whatever name; none where there is none.

    >>> cache_of({"past_key_values": 1}), cache_of({"cache": 2}), cache_of({})
    (1, 2, None)
    """
    return next((found[name] for name in NAMES if found.get(name) is not None), None)
