"""Plans over a range of one setting, ours beside the paper's baselines: the axes of its Figures 4 and 6."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..adapters.collision import collision_rate, mean_rate
from ..config import near, parse
from ..rng import uniforms
from .hearing import hear, problem_of
from .network import Network, network
from .settings import PlanSettings
from .solve import solve

SHORT = {"M": "devices", "density": "adapter.density", "S_max": "rules.max_collision", "radius": "channel.radius_m"}
"""Names of the usual axes; any other setting goes by its own, such as radio.deadline_s."""
POINTS = 20
"""Values of a range without a step."""


class Axis(NamedTuple):
    """A setting by dotted key, what to call it, and the values it takes."""

    key: str
    label: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one value and seed; a line of sweep.csv.

    collision: S met by a device that shares with somebody, on average; NaN where nobody does. groups: clusters and lone
    devices; NaN where a method has none. alone: share of devices that share with nobody. sent_bytes: per device.
    """

    value: float
    seed: int
    method: str
    collision: float
    groups: float
    alone: float
    sent_bytes: float


def axis(text: str) -> Axis:
    """What `--sweep` asks for.

    Args:
        text: NAME=FROM:TO, NAME=FROM:TO:STEP or NAME=A,B,C; a name in `SHORT` or any setting of a plan.

    Raises:
        ValueError: a name that is no number among the settings, values that are none or not a range.

    >>> axis("M=5:7")
    Axis(key='devices', label='M', values=(5.0, 6.0, 7.0))
    """
    label, equals, wanted = text.partition("=")
    numbers = _numbers()
    key = SHORT.get(label, label)
    if not equals or not wanted:
        raise ValueError(f"--sweep {text}: write it as NAME=FROM:TO, NAME=FROM:TO:STEP or NAME=A,B,C, e.g. M=5:100")
    if key not in numbers:
        raise ValueError(f"--sweep {text}: {label!r} is no number among the settings.{near(label, [*SHORT, *numbers])}")
    try:
        given = [float(one) for one in wanted.replace(":", ",").split(",")]
    except ValueError:
        raise ValueError(f"--sweep {text}: {wanted!r} are not numbers; write FROM:TO or A,B,C") from None
    if not all(math.isfinite(one) for one in given):
        raise ValueError(f"--sweep {text}: values are finite numbers, got {wanted}")
    if ":" not in wanted:
        return Axis(key, label, tuple(given))
    if len(given) > 3 or "," in wanted or len(given) < 2 or given[1] < given[0] or (len(given) == 3 and given[2] <= 0):
        raise ValueError(
            f"--sweep {text}: a range is FROM:TO or FROM:TO:STEP with FROM <= TO and STEP > 0, got {wanted}"
        )
    return Axis(key, label, _range(given[0], given[1], given[2] if len(given) == 3 else None, numbers[key] is int))


def _range(low: float, high: float, step: float | None, whole: bool) -> tuple[float, ...]:
    """Values from `low` up to `high`, both among them where the step allows."""
    if step is None:
        step = (high - low) / (POINTS - 1)
        step = max(1.0, math.ceil(step)) if whole else step
    count = 1 if step == 0.0 else math.floor((high - low) / step + 1e-9) + 1
    if count > 1000:
        raise ValueError(f"a sweep of {count:,} values is too long; up to 1,000 are not, with a wider step")
    return tuple(round(low + k * step, 12) for k in range(count))


def _numbers() -> dict[str, type]:
    """Every setting that is a number, by dotted key, and whether it is whole."""
    found: dict[str, type] = {}

    def walk(values: dict[str, Any], above: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{above}{name}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found[above + name] = type(value)

    walk(asdict(PlanSettings()), "")
    return found


def sweep(settings: PlanSettings, over: Axis, repeats: int) -> Iterator[Row]:
    """Plan at every value, with as many seeds, by every method.

    Methods: ours, as the settings have it; the paper's, agnes with independent masks (19); all in one cluster with
    independent masks, whatever radio says, the paper's `Proposed (Single Cluster)`; LoRI and LoRA, where devices
    aggregate with everybody a random connection under radio limits gives them.

    Args:
        settings: of the plan.
        over: which setting takes which values.
        repeats: seeds at each value, from the settings' own.

    Yields:
        One row per value, seed and method.

    Raises:
        ValueError: a value the settings refuse, or whatever a plan raises, with the value.
    """
    for value in over.values:
        for seed in range(settings.seed, settings.seed + repeats):
            here = _with(settings, over, value, seed)
            try:
                yield from _rows(here, value)
            except ValueError as error:
                raise ValueError(f"at {over.label} = {value:g}: {error}") from None


def _with(settings: PlanSettings, over: Axis, value: float, seed: int) -> PlanSettings:
    """The settings with one of them changed."""
    values = asdict(settings) | {"seed": seed}
    if over.key == "devices" and (settings.positions is not None or settings.channel.positions_m is not None):
        raise ValueError("a sweep over M draws places; it cannot while they are given")
    level = values
    *above, last = over.key.split(".")
    for step in above:
        level = level[step]
    level[last] = int(value) if value == int(value) else value
    return parse(PlanSettings, values, "sweep")


def _rows(here: PlanSettings, value: float) -> Iterator[Row]:
    def row(method: str, collision: float, groups: float, alone: float, sent: float) -> Row:
        return Row(value=value, seed=here.seed, method=method, collision=collision, groups=groups, alone=alone,
                   sent_bytes=sent)  # fmt: skip

    yield row("orthomesh", *_clustered(here))
    yield row("paper", *_clustered(replace(here, rules=replace(here.rules, masks="independent", solver="agnes"))))
    net = network(here)
    many = len(net) > 1
    whole = _rate(net, range(len(net))) if many else math.nan
    yield row("one cluster", whole, 1.0, float(not many), float(net.payload_bits.mean() / 8))
    for name, density in (("LoRI", here.baselines.lori_density), ("LoRA", 1.0)):
        yield row(name, *_connected(here, density))


def _clustered(here: PlanSettings) -> tuple[float, float, float, float]:
    """Collision rate among those who share, groups, share of lone devices and bytes of a plan."""
    net = network(here)
    solution = solve(problem_of(here, net, hear(here, net)), here.rules.solver)
    members = np.array([len(group) for group in solution.clusters])
    shared = members[members > 1]
    met = float(shared @ solution.rates[members > 1] / shared.sum()) if len(shared) else math.nan
    return met, float(len(members)), float((members == 1).sum() / len(net)), float(solution.sent_bytes.mean())


def _connected(here: PlanSettings, density: float) -> tuple[float, float, float, float]:
    """The same for a random connection: every device aggregates with all its neighbours."""
    plain = replace(here.adapter, density=density, density_spread=1.0, entropy_spread=0.0)
    here = replace(here, adapter=plain)
    net = network(here)
    pairs = hear(here, net).links.pairs
    kept = pairs[uniforms(here.seed, "connect", pairs[:, 0], pairs[:, 1]) < here.baselines.connect]
    around: list[list[int]] = [[i] for i in range(len(net))]
    for i, j in kept.tolist():
        around[i].append(j)
        around[j].append(i)
    met = [_rate(net, sorted(group)) for group in around if len(group) > 1]
    sent = [net.payload_bits[i] / 8 if len(group) > 1 else 0.0 for i, group in enumerate(around)]
    return (math.fsum(met) / len(met) if met else math.nan), math.nan, 1.0 - len(met) / len(net), float(np.mean(sent))


def _rate(net: Network, group: Sequence[int]) -> float:
    """S of (19) over some devices."""
    return mean_rate(collision_rate(net.density[list(group)]), net.sizes)
