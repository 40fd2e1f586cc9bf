"""Settings of a plan: explained, checked, and the same when read back."""

from __future__ import annotations

import pytest
import yaml

from orthomesh.config import parse
from orthomesh.planning.settings import PlanSettings
from orthomesh.presets import explain


def test_what_is_printed_reads_back_as_the_same_settings() -> None:
    text = explain(PlanSettings())
    assert parse(PlanSettings, yaml.safe_load(text), "file") == PlanSettings()
    keys = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    for above, line in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        assert line.strip().startswith("#") or above.strip().startswith("#"), f"{line} has no explanation"
    assert len(keys) > 40


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"rules": {"solver": "exat"}},
            "got 'exat'. Did you mean 'exact'?",
        ),
        ({"rules": {"max_colision": 0.1}}, "Did you mean 'max_collision'?"),
        ({"radio": {"bandwidth_hz": 0}}, "greater than 0, got 0"),
        ({"radio": {"bandwidth_hz": -1e6}}, "greater than 0"),
        ({"radio": {"max_power_dbm": float("-inf")}}, "finite"),
        ({"adapter": {"density": 0}}, "greater than 0"),
        ({"rules": {"max_collision": 1.5}}, "less than or equal to 1"),
        ({"name": "a/b"}, "settings.name"),
    ],
)
def test_a_mistake_is_named_with_its_place(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match="settings") as caught:
        parse(PlanSettings, values, "settings")
    assert words in str(caught.value)
