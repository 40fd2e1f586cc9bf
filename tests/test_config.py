"""Settings: typed, bounded, nothing unknown."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict
from difflib import SequenceMatcher
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from orthomesh.config import STRICT, near, parse


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Inner:
    rank: Annotated[int, Field(gt=0, le=1024)] = 16
    """Width of the adapter."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Outer:
    inner: Inner = Inner()
    density: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of positions."""
    mode: Literal["magnitude", "random"] = "magnitude"


def test_values_become_a_record_with_defaults_elsewhere() -> None:
    outer = parse(Outer, {"inner": {"rank": 4}, "mode": "random"}, "run.yaml")
    assert outer == Outer(inner=Inner(rank=4), density=0.25, mode="random")
    with pytest.raises(FrozenInstanceError):
        outer.density = 0.5  # type: ignore[misc]


def test_a_misspelt_setting_is_named_with_its_place_and_the_right_word() -> None:
    with pytest.raises(ValueError, match="no such setting") as error:
        parse(Outer, {"densty": 0.5}, "run.yaml")
    assert str(error.value) == "run.yaml.densty: there is no such setting. Did you mean 'density'?"
    with pytest.raises(ValueError, match="no such setting") as error:
        parse(Outer, {"inner": {"rnak": 4}}, "run.yaml")
    assert str(error.value) == "run.yaml.inner.rnak: there is no such setting. Did you mean 'rank'?"


def test_far_from_everything_lists_what_is_known() -> None:
    assert near("zzz", ["steps", "rank"]) == " Known: rank, steps."


def test_attribute_docstrings_are_the_descriptions() -> None:
    schema = TypeAdapter(Outer).json_schema()
    assert schema["properties"]["density"]["description"] == "Share of positions."


@pytest.mark.parametrize(
    ("values", "place", "got"),
    [
        ({"density": 0.0}, "run.yaml.density", "0.0"),
        ({"density": "much"}, "run.yaml.density", "'much'"),
        ({"density": math.nan}, "run.yaml.density", "nan"),
        ({"density": math.inf}, "run.yaml.density", "inf"),
        ({"mode": "both"}, "run.yaml.mode", "'both'"),
        ({"inner": {"rank": 2.5}}, "run.yaml.inner.rank", "2.5"),
        ({"inner": {"rank": 2000}}, "run.yaml.inner.rank", "2000"),
    ],
)
def test_bad_values_are_named_with_their_place(values: dict[str, object], place: str, got: str) -> None:
    with pytest.raises(ValueError, match="got") as error:
        parse(Outer, values, "run.yaml")
    assert str(error.value).startswith(f"{place}: ")
    assert str(error.value).endswith(f"got {got}.")
    assert "\n" not in str(error.value)


@given(
    rank=st.integers(1, 1024),
    density=st.floats(0, 1, exclude_min=True),
    mode=st.sampled_from(["magnitude", "random"]),
)
def test_a_record_written_out_reads_back(rank: int, density: float, mode: Literal["magnitude", "random"]) -> None:
    outer = Outer(inner=Inner(rank=rank), density=density, mode=mode)
    assert parse(Outer, asdict(outer), "run.yaml") == outer


@given(st.from_regex(r"[a-z]{3,8}", fullmatch=True), st.sampled_from(["rank", "steps", "density"]))
def test_the_hint_is_the_known_word_most_alike(word: str, known: str) -> None:
    hint = near(word, ["density", "rank", "steps"])
    alike = {k: SequenceMatcher(None, k, word).ratio() for k in ("density", "rank", "steps")}
    if max(alike.values()) < 0.6:
        assert hint == " Known: density, rank, steps."
    else:
        assert alike[hint.split("'")[1]] == max(alike.values())
    assert near(known, ["density", "rank", "steps"]) == f" Did you mean {known!r}?"
