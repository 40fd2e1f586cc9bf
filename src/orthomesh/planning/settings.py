"""What a network planner gives: where devices are, what they train and send, what the air and their budgets allow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..wireless.channel import Channel
from ..wireless.link import Radio

Solver = Literal["agnes", "best-fit", "local-search", "exact"]

Width = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adapter:
    """What every device trains and sends. The default is Qwen2.5-0.5B: seven matrices in each of 24 blocks."""

    blocks: Annotated[int, Field(ge=1, le=1000)] = 24
    """Transformer blocks; the collision rate is looked at block by block."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (896, 128, 128, 896, 4864, 4864, 896)
    """Outputs d of the adapted matrices of one block: q, k, v, o, gate, up and down."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank r of the adapters: B has d r entries."""

    density: Share = 0.125
    """Share s of the entries of B a device trains and sends, the paper's sparsity rate."""

    density_spread: Annotated[float, Field(ge=1, le=100)] = 1.5
    """Devices' densities lie between density / spread and density * spread, uniform in the logarithm, at most 1.
    1: all the same. Not used for devices whose density the file gives."""

    entropy_spread: Annotated[float, Field(ge=0, le=20)] = 2.0
    """Spectral entropies of a device's blocks lie uniformly over so many nats, and densities follow them by (22).
    0: all blocks alike; real models show 2 to 3."""

    bits_per_entry: Annotated[int, Field(ge=1, le=64)] = 16
    """Bits of one value on the air."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compute:
    """What local fine-tuning may cost, (7) and (11c)."""

    coefficient: Annotated[float, Field(gt=0)] = 1.0
    """epsilon: cost of one parameter in one step."""

    samples: Annotated[int, Field(ge=1)] = 1000
    """N: rows of a device's data."""

    batch_size: Annotated[int, Field(ge=1)] = 32
    """B: rows of one step."""

    max_cost: Annotated[float, Field(ge=0)] | None = None
    """c_max, in the unit of the coefficient; what it leaves lowers the density. Null: no limit."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rules:
    """What a cluster must keep to, (11a), (11b) and S_max, and how it is found."""

    max_collision: Annotated[float, Field(ge=0, le=1)] = 0.1
    """S_max: largest collision rate a cluster may reach, in [0, 1]."""

    masks: Literal["negotiated", "independent"] = "negotiated"
    """R3: agreed on in a cluster so that none collide where densities allow, or each device for itself, (19)."""

    cast: Literal["broadcast", "unicast"] = "broadcast"
    """R9: one transmission that all members decode, or the band split among them, as in the paper."""

    margin_db: Annotated[float, Field(ge=0)] = 10.0
    """Power kept back on every link for fades, dB. Under Rayleigh fading 10 dB loses one transfer in ten, 20 dB
    one in a hundred; the paper knows the fade and has 0."""

    solver: Solver = "local-search"
    """R10: how clusters are found. `local-search` improves on both `agnes`, the paper's, and `best-fit`, which packs
    the densest first; `exact` is the optimum and for few devices."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Baselines:
    """What `--sweep` compares with, the paper's LoRI and LoRA."""

    lori_density: Share = 0.1
    """Density of LoRI's masks, the same in every block."""

    connect: Share = 0.5
    """Share of the links within reach that a random connection keeps; the paper says no more than random."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlanSettings:
    """Everything a plan depends on: the same settings give the same plan."""

    name: Annotated[str, Field(pattern=r"^[\w .,+-]+$", max_length=60)] = "plan"
    """What to call it: letters, digits, spaces and .,+-_."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Every random draw is keyed by it."""

    devices: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """Number of devices in random places; what `channel.positions_m` or a file lists otherwise."""

    positions: str | None = None
    """CSV file of the devices with a header: `id`, `x_m`, `y_m`, and where wanted `density`, `max_power_dbm`,
    `max_cost`, `battery_j`, whose cells may be empty. Null: random places, or `channel.positions_m`."""

    channel: Channel = Channel(radius_m=350.0, fading="none", draws="hash")
    """What lies between the antennas. Without fading here, `rules.margin_db` stands for it; with it, a plan is for
    the fades of one round."""

    radio: Radio = Radio(bandwidth_hz=20e6)
    """What one device transmits and receives with."""

    adapter: Adapter = Adapter()
    """What it trains and sends."""

    compute: Compute = Compute()
    """What fine-tuning may cost."""

    rules: Rules = Rules()
    """What a cluster must keep to."""

    baselines: Baselines = Baselines()
    """What a sweep compares with."""
