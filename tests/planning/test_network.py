"""Devices from a file, a list or a draw, and what budgets leave them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orthomesh.planning.network import network, read_devices
from orthomesh.planning.settings import Adapter, Compute, PlanSettings
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

SMALL = PlanSettings(
    adapter=Adapter(blocks=2, widths=(10, 15), rank=4, density=0.25, density_spread=1, entropy_spread=0)
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "devices.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_who_is_where_and_what_each_has(tmp_path: Path) -> None:
    path = written(tmp_path, "y_m, id,x_m,density,max_power_dbm,battery_j\n2,a,1,0.5,30,\n\n4,b,3,,,100\n")
    names, xy_m, columns = read_devices(path)
    assert names == ("a", "b")
    assert xy_m.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    net = network(replace(SMALL, positions=str(path)))
    assert net.density.tolist() == [[0.5, 0.5], [0.25, 0.25]]
    assert net.max_power_w.tolist() == [1.0, pytest.approx(0.19952623)]
    assert math.isnan(net.battery_j[0])
    assert net.battery_j[1] == columns["battery_j"][1] == 100.0


def test_payload_on_paper() -> None:
    """Two blocks of 100 entries, a quarter of them, 16 bits each; a step over 32 of 1000 rows costs 31.25 each."""
    net = network(replace(SMALL, devices=3))
    assert net.sizes == (100, 100)
    assert net.entries.tolist() == [50, 50, 50]
    assert net.payload_bits.tolist() == [800, 800, 800]
    assert net.cost.tolist() == [50 * 31.25] * 3


def test_computing_takes_density_away() -> None:
    net = network(replace(SMALL, devices=2, compute=Compute(max_cost=20 * 31.25)))
    assert net.entries.tolist() == [20, 20]
    assert net.wanted.tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match=r"device 0: the compute limit leaves 1 entries of B for 2 layers"):
        network(replace(SMALL, devices=2, compute=Compute(max_cost=1 * 31.25)))


def test_spreads_keep_to_their_bounds_and_the_budget() -> None:
    wide = replace(SMALL, devices=60, adapter=replace(SMALL.adapter, blocks=6, density_spread=2.0, entropy_spread=2.0))
    net = network(wide)
    assert ((net.wanted >= 0.125) & (net.wanted <= 0.5)).all()
    assert net.wanted.max() / net.wanted.min() > 2.0
    assert net.entries.tolist() == [math.floor(w * 600 + 1e-9) for w in net.wanted]
    ratio = net.density.max(axis=1) / net.density.min(axis=1)
    assert 1.5 < np.median(ratio) <= math.exp(2.0 / 2.0) * 1.2  # two nats at a temperature of two, and rounding


def test_adding_a_device_moves_none_of_the_others() -> None:
    few, many = (network(replace(PlanSettings(), devices=m)) for m in (4, 9))
    assert (few.xy_m == many.xy_m[:4]).all()
    assert (few.density == many.density[:4]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column 'id'; its first line must name id, x_m and y_m, got nothing"),
        ("id,x_m\n1,2\n", "no column 'y_m'"),
        ("id,x_m,y_m,densty\n", "there is no column 'densty'. Did you mean 'density'?"),
        ("id,x_m,y_m,x_m\n", "'x_m' is there twice"),
        ("id,x_m,y_m\n", "lists no device"),
        ("id,x_m,y_m\na,nan,1\n", "line 2, device 'a': x_m must be a finite number, got 'nan'"),
        ("id,x_m,y_m\na,1,\n", "y_m must be a finite number, got ''"),
        ("id,x_m,y_m\na,1,here\n", "got 'here'"),
        ("id,x_m,y_m\na,1,inf\n", "got 'inf'"),
        ("id,x_m,y_m\na,1,2\nb,1,2\na,3,4\n", "line 4: device 'a' is there already, in line 2"),
        ("id,x_m,y_m\na,1,2,3\n", "line 2: 4 cells for 3 columns"),
        ("id,x_m,y_m\n,1,2\n", "line 2: a device needs an id"),
        ("id,x_m,y_m,density\na,1,2,0\n", "density must lie in (0, 1], got 0"),
        ("id,x_m,y_m,density\na,1,2,1.5\n", "density must lie in (0, 1], got 1.5"),
        ("id,x_m,y_m,battery_j\na,1,2,-5\n", "battery_j must lie in [0, inf], got -5"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"devices\.csv") as caught:
        read_devices(written(tmp_path, text))
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv cannot be read"):
        read_devices(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"id,x_m,y_m\n\xff\xfe,1,2\n")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_devices(tmp_path / "bytes.csv")
    with pytest.raises(ValueError, match="a power limit of 9999 dBm is beyond every transmitter"):
        network(replace(SMALL, radio=Radio(max_power_dbm=9999.0)))
    both = replace(PlanSettings(), positions="x.csv", channel=Channel(positions_m=((0.0, 0.0),)))
    with pytest.raises(ValueError, match="not from both"):
        network(both)
