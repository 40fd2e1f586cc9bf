"""Measured links instead of any model: a table of (time_s, from, to, gain or rate_bps) in CSV or parquet.

Every directed link needs a sample at or before each round; a link that does not exist is a gain of 0. A rate counts
as measured at full power over the whole band; it becomes the gain that gives it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..units import from_db
from .channel import Channel
from .link import Radio, max_power_w, noise_w

COLUMNS = ("time_s", "from", "to")


class Trace(NamedTuple):
    """Samples of links in order of (from, to, time). value: gain or rate_bps, as `kind` says."""

    kind: str
    time_s: Float[np.ndarray, " S"]
    src: Int[np.ndarray, " S"]
    dst: Int[np.ndarray, " S"]
    value: Float[np.ndarray, " S"]


def read_trace(path: Path) -> Trace:
    """A trace from a file, checked.

    Args:
        path: .csv with a head, or .parquet; columns time_s, from, to, and gain or rate_bps.

    Returns:
        The samples, sorted.

    Raises:
        ValueError: no such file, another ending, a column missing or both of gain and rate_bps, something that is
            not a number, a negative time, gain or rate, a device that talks to itself, a sample twice.
    """
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    missing = [name for name in COLUMNS if name not in table]
    kinds = [name for name in ("gain", "rate_bps") if name in table]
    if missing or len(kinds) != 1:
        raise ValueError(
            f"trace {path}: columns are time_s, from, to and one of gain and rate_bps, got {', '.join(table)}"
        )
    time_s, src, dst, value = (_numbers(table[name], name, path) for name in (*COLUMNS, kinds[0]))
    _check_samples(path, kinds[0], (time_s, src, dst, value))
    order = np.lexsort((time_s, dst, src))
    samples = Trace(kinds[0], time_s[order], src[order].astype(np.int64), dst[order].astype(np.int64), value[order])
    same = np.flatnonzero((np.diff(samples.time_s) == 0) & (np.diff(samples.src) == 0) & (np.diff(samples.dst) == 0))
    if same.size:
        n = int(same[0])
        raise ValueError(
            f"trace {path}: two samples from {samples.src[n]} to {samples.dst[n]} at {samples.time_s[n]:g} s; keep one"
        )
    return samples


def at(trace: Trace, time_s: float, num_devices: int, max_age_s: float | None = None) -> Float[np.ndarray, "M M"]:
    """The latest sample of every link at or before a time.

    Args:
        trace: the samples.
        time_s: when.
        num_devices: M; ids are 0..M-1.
        max_age_s: how old a sample may be; None: any age.

    Returns:
        Gains or rates by (from, to), [M M]; the diagonal is 0.

    Raises:
        ValueError: a device that does not exist, or a link without a sample that is recent enough.
    """
    unknown = np.concatenate([trace.src, trace.dst])
    unknown = unknown[(unknown < 0) | (unknown >= num_devices)]
    if unknown.size:
        raise ValueError(f"the trace has a device {unknown[0]}; ids are 0..{num_devices - 1}")
    found = np.zeros((num_devices, num_devices))
    when = np.full((num_devices, num_devices), -math.inf)
    past = trace.time_s <= time_s
    found[trace.src[past], trace.dst[past]] = trace.value[past]  # sorted by time, so the latest is written last
    when[trace.src[past], trace.dst[past]] = trace.time_s[past]
    np.fill_diagonal(when, time_s)
    oldest = -math.inf if max_age_s is None else time_s - max_age_s
    gap = np.argwhere((when == -math.inf) | (when < oldest))
    if len(gap):
        i, j = gap[0].tolist()
        age = "at or before" if max_age_s is None else f"in the {max_age_s:g} s before"
        raise ValueError(
            f"the trace has no sample from {i} to {j} {age} {time_s:g} s, and {len(gap) - 1} more gaps; "
            "write a gain of 0 where there is no link"
        )
    return found


def rate_gains(rates_bps: Float[np.ndarray, "M M"], radio: Radio) -> Float[np.ndarray, "M M"]:
    """Gains at which full power over the whole band gives these rates, h = G sigma^2 / p_max (2^(R / (eta W)) - 1).

    Args:
        rates_bps: payload bits per second.
        radio: band, noise, power, gap, useful share.

    Returns:
        Linear gains, >= 0.

    Raises:
        ValueError: a rate beyond a thousand bit/s/Hz.

    >>> gain = rate_gains(np.array([[0.0, 1e6], [2e6, 0.0]]), Radio(max_power_dbm=30.0))
    >>> bool(np.isclose(gain[1, 0], 3 * gain[0, 1]))
    True
    """
    efficiency = rates_bps / (radio.useful_share * radio.bandwidth_hz)
    if np.any(efficiency > 1000.0):
        raise ValueError(
            f"the trace has a rate of {rates_bps.max():g} bit/s, beyond any code in a band of {radio.bandwidth_hz:g} Hz"
        )
    noise = from_db(radio.gap_db) * noise_w(radio, radio.bandwidth_hz)
    return np.asarray(noise / max_power_w(radio) * np.expm1(efficiency * math.log(2.0)))


def traced_gains(channel: Channel, radio: Radio, round_index: int, num_devices: int) -> Float[np.ndarray, "M M"]:
    """Gains of a round from the trace that the channel names.

    Args:
        channel: trace, round duration, age of samples.
        radio: turns rates into gains.
        round_index: t; its time is t times `round_s`.
        num_devices: M.

    Returns:
        Linear gains by (from, to), [M M], >= 0.

    Raises:
        ValueError: what `read_trace` and `at` raise, or no trace at all.
    """
    if channel.trace is None:
        raise ValueError("channel.trace: name a CSV or parquet file")
    trace = _read(channel.trace)
    try:
        values = at(trace, round_index * channel.round_s, num_devices, channel.trace_max_age_s)
    except ValueError as error:
        raise ValueError(f"trace {channel.trace}: {error}") from None
    return values if trace.kind == "gain" else rate_gains(values, radio)


@lru_cache(maxsize=2)
def _read(path: str) -> Trace:
    return read_trace(Path(path))


def _csv(path: Path) -> Mapping[str, Sequence[Any]]:
    if path.suffix != ".csv":
        raise ValueError(f"trace {path}: a trace is a .csv or a .parquet file")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"trace {path} cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"trace {path} is empty; its first line names the columns")
    head = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(head):
            raise ValueError(f"trace {path}, line {number}: {len(row)} entries where {len(head)} belong")
    return {name: [row[n] for row in rows[1:]] for n, name in enumerate(head)}


def _parquet(path: Path) -> Mapping[str, Sequence[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"trace {path} cannot be read: {error}") from None
    return {name: table[name].to_pylist() for name in table.column_names}


def _numbers(column: Sequence[Any], name: str, path: Path) -> Float[np.ndarray, " S"]:
    """A column as numbers; the first entry that is none is named."""
    found = np.empty(len(column))
    for n, entry in enumerate(column):
        try:
            found[n] = float(entry)
        except (TypeError, ValueError):
            found[n] = math.nan
        if not math.isfinite(found[n]):
            raise ValueError(f"trace {path}, sample {n + 1}: {name} is {entry!r}, a finite number belongs here")
    return found


def _check_samples(path: Path, kind: str, columns: Sequence[Float[np.ndarray, " S"]]) -> None:
    time_s, src, dst, value = columns
    wrong = [
        (time_s < 0.0, "a time is >= 0 s", time_s),
        (value < 0.0, f"a {kind} is >= 0", value),
        (src % 1 != 0, "a device is a whole number", src),
        (dst % 1 != 0, "a device is a whole number", dst),
        (src == dst, "a device has no link to itself", src),
    ]
    for bad, rule, column in wrong:
        if bad.any():
            n = int(np.flatnonzero(bad)[0])
            raise ValueError(f"trace {path}, sample {n + 1}: {rule}, got {column[n]:g}")
