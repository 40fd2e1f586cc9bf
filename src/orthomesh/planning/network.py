"""The devices of a plan: places given, drawn or read from a CSV file, with their densities, payloads and budgets."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ..adapters.density import allocate, entry_budget
from ..config import near
from ..rng import stream
from ..units import from_dbm
from ..wireless.channel import positions
from ..wireless.compute import parameter_budget
from .settings import Adapter, PlanSettings

LARGEST = 20_000
"""Devices up to which a plan looks at every pair of them, 2e8."""
LOUDEST_DBM = 150.0
"""A million megawatts; more is a mistake in the unit."""
REQUIRED = ("id", "x_m", "y_m")
OPTIONAL = ("density", "max_power_dbm", "max_cost", "battery_j")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Devices by index 0..M-1; a value that is not given is NaN.

    names: as in the file, or the index. density: of every block, after what computing leaves. wanted: share of B asked
    for. entries: active entries of B. cost: of fine-tuning them, (7).
    """

    names: tuple[str, ...]
    xy_m: Float[np.ndarray, "M 2"]
    density: Float[np.ndarray, "M L"]
    wanted: Float[np.ndarray, " M"]
    entries: Int[np.ndarray, " M"]
    cost: Float[np.ndarray, " M"]
    payload_bits: Int[np.ndarray, " M"]
    max_power_w: Float[np.ndarray, " M"]
    battery_j: Float[np.ndarray, " M"]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


def network(settings: PlanSettings) -> Network:
    """Devices with everything a plan needs to know of them.

    Args:
        settings: of the plan.

    Returns:
        The devices, in the order of the file or of `channel.positions_m`, or as drawn.

    Raises:
        ValueError: a file that cannot be used (line and column are named), a power limit of 0 W, a compute limit that
            no density can meet, too many devices.
    """
    if settings.positions is not None:
        if settings.channel.positions_m is not None:
            raise ValueError("places come from `positions` or from `channel.positions_m`, not from both; null one")
        names, xy_m, given = read_devices(Path(settings.positions))
    else:
        listed = settings.channel.positions_m
        _check_number(settings.devices if listed is None else len(listed))
        xy_m = positions(settings.channel, settings.seed, settings.devices if listed is None else len(listed))
        names, given = tuple(str(i) for i in range(len(xy_m))), {}
    _check_number(len(names))
    m, sizes = len(names), block_sizes(settings.adapter)
    columns = {name: given.get(name, np.full(m, math.nan)) for name in OPTIONAL}
    wanted = _wanted(settings, columns["density"])
    limit = settings.compute.max_cost
    max_cost = np.where(np.isnan(columns["max_cost"]), math.nan if limit is None else limit, columns["max_cost"])
    density = np.array([_densities(settings, names[i], i, wanted[i], max_cost[i]) for i in range(m)])
    entries = np.rint(density * np.array(sizes)).astype(np.int64).sum(axis=1)
    c = settings.compute
    power_dbm = np.where(np.isnan(columns["max_power_dbm"]), settings.radio.max_power_dbm, columns["max_power_dbm"])
    if (power_dbm > LOUDEST_DBM).any():
        raise ValueError(f"a power limit of {power_dbm.max():g} dBm is beyond every transmitter; handsets have 23")
    return Network(
        names=names, xy_m=xy_m, density=density, wanted=wanted, entries=entries, sizes=sizes,
        cost=entries * (c.coefficient * c.samples / c.batch_size),
        payload_bits=8 * -(-entries * settings.adapter.bits_per_entry // 8),
        max_power_w=np.array([from_dbm(p) for p in power_dbm]), battery_j=columns["battery_j"],
    )  # fmt: skip


def _check_number(num_devices: int) -> None:
    if num_devices > LARGEST:
        raise ValueError(
            f"{num_devices:,} devices are too many to plan at once, {LARGEST:,} are not: plan a part of the area"
        )


def block_sizes(adapter: Adapter) -> tuple[int, ...]:
    """Entries of all B of every block, r sum d.

    >>> block_sizes(Adapter(blocks=2, widths=(10, 20), rank=4))
    (120, 120)
    """
    return (adapter.rank * sum(adapter.widths),) * adapter.blocks


def read_devices(path: Path) -> tuple[tuple[str, ...], Float[np.ndarray, "M 2"], dict[str, Float[np.ndarray, " M"]]]:
    """Devices of a CSV file with a header line.

    Args:
        path: the file; columns `REQUIRED` and any of `OPTIONAL`, in any order.

    Returns:
        Names, (x, y) in m [M 2], and the optional columns there are, NaN where a cell is empty. [M] each

    Raises:
        ValueError: missing or not text, a column that is missing or unknown, a cell that is not a finite number or
            out of range, an id given twice, no device: with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = list(csv.reader(text.splitlines(), skipinitialspace=True))
    head = [name.strip() for name in lines[0]] if lines else []
    _check_head(path, head)
    rows = [(n, [cell.strip() for cell in row]) for n, row in enumerate(lines[1:], 2) if any(c.strip() for c in row)]
    names: dict[str, int] = {}
    values: dict[str, list[float]] = {name: [] for name in head if name != "id"}
    for line, row in rows:
        if len(row) != len(head):
            raise ValueError(f"{path}, line {line}: {len(row)} cells for {len(head)} columns")
        name = row[head.index("id")]
        if not name:
            raise ValueError(f"{path}, line {line}: a device needs an id")
        if name in names:
            raise ValueError(f"{path}, line {line}: device {name!r} is there already, in line {names[name]}")
        names[name] = line
        for column, cells in values.items():
            cells.append(_number(f"{path}, line {line}, device {name!r}", column, row[head.index(column)]))
    if not names:
        raise ValueError(f"{path} lists no device below its header")
    columns = {name: np.array(cells) for name, cells in values.items()}
    return tuple(names), np.stack([columns.pop("x_m"), columns.pop("y_m")], axis=1), columns


def _check_head(path: Path, head: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in head]
    if missing:
        got = ", ".join(head) or "nothing"
        raise ValueError(f"{path} has no column {missing[0]!r}; its first line must name id, x_m and y_m, got {got}")
    for name in head:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"{path}: there is no column {name!r}.{near(name, REQUIRED + OPTIONAL)}")
        if head.count(name) > 1:
            raise ValueError(f"{path}: the column {name!r} is there twice")


LIMITS = {"density": (0.0, 1.0), "max_cost": (0.0, math.inf), "battery_j": (0.0, math.inf)}
"""Lowest and highest value of a column; a density of 0 sends nothing and is none."""


def _number(place: str, column: str, cell: str) -> float:
    """A cell as a finite number in the range of its column; NaN for an empty one that may be left out."""
    if cell == "" and column in OPTIONAL:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    low, high = LIMITS.get(column, (-math.inf, math.inf))
    if not math.isfinite(value):
        raise ValueError(f"{place}: {column} must be a finite number, got {cell!r}")
    if not low <= value <= high or (column == "density" and value == 0.0):
        raise ValueError(
            f"{place}: {column} must lie in {'(' if column == 'density' else '['}{low:g}, {high:g}], got {cell}"
        )
    return value


def _wanted(settings: PlanSettings, given: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Density asked for: the file's, else drawn around the common one."""
    a, wide = settings.adapter, math.log(settings.adapter.density_spread)
    drawn = [a.density]
    if wide:
        drawn = [
            a.density * math.exp(wide * stream(settings.seed, "density", i).uniform(-1, 1)) for i in range(len(given))
        ]
    return np.where(np.isnan(given), np.minimum(np.broadcast_to(drawn, given.shape), 1.0), given)


def _densities(
    settings: PlanSettings, name: str, device: int, wanted: float, max_cost: float
) -> Float[np.ndarray, " L"]:
    """Densities of the blocks under what computing leaves, (22)."""
    sizes, c, spread = block_sizes(settings.adapter), settings.compute, settings.adapter.entropy_spread
    affordable = None if math.isnan(max_cost) else parameter_budget(max_cost, c.samples, c.batch_size, c.coefficient)
    try:
        budget = entry_budget(sizes, float(wanted), affordable, None, settings.adapter.bits_per_entry)
    except ValueError as error:
        raise ValueError(f"device {name}: {error}") from None
    entropies = stream(settings.seed, "entropy", device).random(len(sizes)) * spread
    return np.asarray(allocate(entropies, sizes, budget) / np.array(sizes))
