"""Centralised training: one adapter trained on the pooled rows of all devices; the other end of the scale from `local`.

It is no method for devices: their data would have to leave them, and nothing is charged for that, nor for handing the
adapter out. It says what one adapter of this size can learn from all data when nothing stands in the way.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..models.settings import TrainSettings
from ..rng import stream
from ..types import Array, DeviceState, Learnt, Method, Round
from .gossip_lora import GossipLora
from .local import nobody, silent
from .setup import Setup, device_rows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Centralised:
    """Settings of centralised training."""

    kind: Literal["centralised"] = "centralised"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Every device holds the one adapter that is trained on everything."""
        train = setup.train if self.learning_rate is None else replace(setup.train, learning_rate=self.learning_rate)
        return replace(
            GossipLora().build(setup), fit=partial(fit, train=train, setup=setup), describe=silent, plan=nobody
        )


def fit(device: DeviceState, t: Round, train: TrainSettings, setup: Setup) -> tuple[DeviceState, Learnt]:
    """As many steps as all devices make together, on rows of all; the same on every device.

    `Learnt.steps` is the device's share of them.
    """
    own = device.own
    a, b = (own[name].tobytes() if name in own else None for name in ("A", "B"))
    A, B, learnt = _trained(int(own["seed"]), a, b, t, train, setup)
    return replace(device, own={**own, "A": A, "B": B}), replace(learnt, steps=train.steps)


@functools.lru_cache(maxsize=1)
def _trained(
    seed: int, a: bytes | None, b: bytes | None, t: Round, train: TrainSettings, setup: Setup
) -> tuple[Array, Array, Learnt]:
    """A and B after the round; kept, since every device asks for the same."""
    from ..models import finetune  # late: the command line reads this file for its settings
    from ..models.base import load_base

    base = load_base(setup.model)
    A = projection(seed, base.layout) if a is None else np.frombuffer(a, dtype=np.float32)
    B = np.zeros(base.layout.num_expansion, dtype=np.float32) if b is None else np.frombuffer(b, dtype=np.float32)
    rows: list[Any] = [row for k in range(setup.num_devices) for row in device_rows(setup, k)]
    steps = setup.num_devices * train.steps
    start = finetune.Factors(A=A, B=B, train_projection=True)
    order = stream(t.seed, "pooled-batches", t.index)
    span = {"done": t.index * steps, "total": t.total * steps}
    ended, learnt = finetune.fit(base, rows, start, replace(train, steps=steps), order, **span)
    return ended.A, ended.B, learnt
