"""Full-parameter fine-tuning by gossip (the paper's FPFT): every weight of the base is trained, sent and averaged.

What travels is how far each weight has moved, in 16 bit: 2 bytes a weight in every message. A frame holds at most 4
GiB, so that a model of more than 2.1 billion weights is refused.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..exchange.payload import check_length
from ..models.settings import TrainSettings
from ..rng import stream
from ..topology.overlay import Topology
from ..types import Bank, DeviceState, Expert, Learnt, Method, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup, device_rows

RATE = 1 / 6
"""Learning rate of all weights over that of adapters: 0.006 and 0.001 are best on the embedded tasks."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Full:
    """Settings of full-parameter fine-tuning."""

    kind: Literal["full"] = "full"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: a sixth of the run's, which is meant for adapters."""

    def build(self, setup: Setup) -> Method:
        """Gossip of one vector, the change of all weights.

        Raises:
            ValueError: a model whose weights do not fit into a message, or whose changes of all devices not into
                memory.
        """
        from ..models.size import size_of  # late: the command line reads this file for its settings

        count = size_of(setup.model).parameters
        check_length(2 * count, "full-parameter fine-tuning: all weights in 16 bit")
        check_memory(count, setup.num_devices)
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours)
        train = replace(setup.train, learning_rate=self.learning_rate or RATE * setup.train.learning_rate)
        return replace(
            c.build(setup),
            init=init,
            fit=partial(fit, train=train, setup=setup),
            describe=partial(gossip.describe, names=("weights",)),
            send=partial(gossip.send, names=("weights",)),
            merge=partial(gossip.merge, names=("weights",)),
            bank=bank,
        )


def memory_bytes(num_parameters: int, num_devices: int) -> int:
    """What a run in one process holds at once beyond the base.

    Of every device its change before and after a phase, 4 bytes a weight each, and its message, 2; of the one that
    trains, 20 bytes a weight (`models.whole.fit_whole`).

    >>> memory_bytes(1_543_714_304, 10) / 2**30  # Qwen2.5-1.5B, in GiB
    172.52351760864258
    """
    return num_parameters * (10 * num_devices + 20)


def check_memory(num_parameters: int, num_devices: int) -> None:
    """Whether all devices' changes fit into this machine's memory.

    Raises:
        ValueError: they do not.
    """
    from ..models.size import memory_b  # late: it loads torch

    needed, there = memory_bytes(num_parameters, num_devices), memory_b()
    if needed > there:
        raise ValueError(
            f"full-parameter fine-tuning of {num_parameters:,} weights on {num_devices} devices takes about "
            f"{needed / 2**30:.1f} GiB beside the base, this machine has {there / 2**30:.1f}; take fewer devices, a "
            "smaller model, or a low-rank method"
        )


def init(device: int) -> DeviceState:
    """Nothing yet: the weights are those of the base."""
    return DeviceState(id=device, own={})


def fit(device: DeviceState, t: Round, train: TrainSettings, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train all weights on the device's own data; the optimiser starts afresh every round."""
    from ..models.base import load_base
    from ..models.whole import fit_whole

    base = load_base(setup.model)
    start = device.own.get("weights", np.zeros(base.num_parameters, dtype=np.float32))
    order = stream(t.seed, "batches", t.index, device.id)
    span = range(t.index * train.steps, t.total * train.steps)
    change, learnt = fit_whole(base, device_rows(setup, device.id), start, train, order, span)
    return replace(device, own={"weights": change}), learnt


def bank(device: DeviceState) -> Bank:
    """The one model the device has."""
    if "weights" not in device.own:
        return Bank(experts=())
    none = np.zeros(0, dtype=np.float32)
    return Bank(experts=(Expert(owner=device.id, A=none, B=none, weights=device.own["weights"]),))
