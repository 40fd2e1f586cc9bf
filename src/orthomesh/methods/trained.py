"""What a device answers with just after local fine-tuning, before anything of that round is exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..types import Bank, DeviceState, Method
from .setup import Setup
from .sparse_orthogonal import SparseOrthogonal, unjoined


def as_trained(settings: Any, method: Method, setup: Setup) -> Callable[[DeviceState], Bank]:
    """The bank of devices that have trained: what they have trained, without what others sent in earlier rounds.

    That is what `fit` itself saw. A method that keeps experts would otherwise answer with those of the round before.

    Args:
        settings: of the method.
        method: built of them.
        setup: of the run.
    """
    if isinstance(settings, SparseOrthogonal):
        return partial(unjoined, c=settings, setup=setup)
    return partial(alone, bank=method.bank)


def alone(device: DeviceState, bank: Callable[[DeviceState], Bank]) -> Bank:
    """What a device would answer with if nobody had sent it anything."""
    return bank(replace(device, bank={}))
