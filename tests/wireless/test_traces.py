"""Measured links from files: the latest sample counts, and whatever is wrong has a sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from orthomesh.wireless.channel import Channel, gains
from orthomesh.wireless.link import Radio, link_rate_bps, max_power_w
from orthomesh.wireless.traces import at, rate_gains, read_trace, traced_gains

GOOD = """time_s,from,to,gain
0,0,1,1e-9
10,0,1,4e-9
0,1,0,2e-9
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "links.csv"
    path.write_text(text)
    return path


def test_the_latest_sample_counts(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, GOOD))
    assert at(trace, 0.0, 2).tolist() == at(trace, 9.9, 2).tolist() == [[0.0, 1e-9], [2e-9, 0.0]]
    assert at(trace, 10.0, 2).tolist() == at(trace, 99.0, 2).tolist() == [[0.0, 4e-9], [2e-9, 0.0]]
    channel = Channel(trace=str(tmp_path / "links.csv"), round_s=5.0)
    assert [traced_gains(channel, Radio(), t, 2)[0, 1] for t in range(4)] == [1e-9, 1e-9, 4e-9, 4e-9]


def test_order_of_rows_and_kind_of_file_do_not_matter(tmp_path: Path) -> None:
    head, *rows = GOOD.splitlines()
    trace = read_trace(written(tmp_path, GOOD))
    upside_down = read_trace(written(tmp_path, "\n".join([head, *rows[::-1]])))
    columns = {"time_s": [10.0, 0.0, 0.0], "from": [0, 0, 1], "to": [1, 1, 0], "gain": [4e-9, 1e-9, 2e-9]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "links.parquet")
    for other in (upside_down, read_trace(tmp_path / "links.parquet")):
        assert other.kind == trace.kind
        assert all(np.array_equal(a, b) for a, b in zip(other[1:], trace[1:], strict=True))


def test_a_rate_is_the_gain_that_gives_it_at_full_power(tmp_path: Path) -> None:
    radio = Radio(gap_db=2.0, useful_share=0.8)
    text = "time_s,from,to,rate_bps\n0,0,1,3e6\n0,1,0,0\n"
    h = traced_gains(Channel(trace=str(written(tmp_path, text))), radio, 3, 2)
    assert h[1, 0] == 0.0
    assert link_rate_bps(max_power_w(radio), float(h[0, 1]), 1e6, radio) == pytest.approx(3e6, rel=1e-12)
    with pytest.raises(ValueError, match="beyond any code"):
        rate_gains(np.full((2, 2), 1e12), radio)


def test_an_old_sample_is_a_gap(tmp_path: Path) -> None:
    channel = Channel(trace=str(written(tmp_path, GOOD)), round_s=1.0, trace_max_age_s=15.0)
    assert traced_gains(channel, Radio(), 15, 2)[1, 0] == 2e-9
    with pytest.raises(ValueError, match=r"links\.csv: .*no sample from 1 to 0 in the 15 s before 16 s"):
        traced_gains(channel, Radio(), 16, 2)
    with pytest.raises(ValueError, match="no sample from 0 to 2 at or before 0 s, and 3 more gaps"):
        traced_gains(replace(channel, trace_max_age_s=None), Radio(), 0, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("time_s,from,to\n0,0,1\n", "one of gain and rate_bps, got time_s, from, to"),
        ("time_s,from,to,gain,rate_bps\n", "one of gain and rate_bps"),
        (GOOD + "20,0,1\n", "line 5: 3 entries where 4 belong"),
        (GOOD + "20,0,1,-1e-9\n", "sample 4: a gain is >= 0, got -1e-09"),
        (GOOD + "20,0,1,nan\n", "sample 4: gain is 'nan', a finite number"),
        (GOOD + "20,0,1.5,1e-9\n", "a device is a whole number, got 1.5"),
        (GOOD + "-1,0,1,1e-9\n", "a time is >= 0 s, got -1"),
        (GOOD + "20,1,1,1e-9\n", "no link to itself, got 1"),
        (GOOD + "10,0,1,5e-9\n", "two samples from 0 to 1 at 10 s"),
        (GOOD + "10,0,7,5e-9\n", "has a device 7; ids are 0..1"),
        (GOOD + "10,-2,1,5e-9\n", "has a device -2"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        traced_gains(Channel(trace=str(written(tmp_path, text))), Radio(), 2, 2)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        read_trace(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="a trace is"):
        read_trace(tmp_path / "links.txt")
    with pytest.raises(ValueError, match="name a CSV"):
        traced_gains(Channel(), Radio(), 0, 2)
    with pytest.raises(ValueError, match="depend on the radio too"):
        gains(Channel(trace="links.csv"), 0, 0, 2)
