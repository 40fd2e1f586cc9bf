"""While the tests run, annotations are checked: kinds everywhere, and shapes against each other."""

from __future__ import annotations

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from checked import _checked
from jaxtyping import Float

from orthomesh.adapters.interference import gram, gram_ratio
from orthomesh.planning.tsfa import Uplinks
from orthomesh.topology.cliques import skew
from orthomesh.types import DeviceState
from orthomesh.units import from_db


def test_kinds_are_checked_of_arguments_and_fields() -> None:
    assert from_db(0) == 1.0  # as for the type checker
    with pytest.raises(BeartypeCallHintParamViolation):
        from_db("0")  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintParamViolation):
        DeviceState(id="0", own={})  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintParamViolation):
        Uplinks(snr_hz=[1.0], compute_s=np.ones(1), band_hz=1.0)  # type: ignore[arg-type]


def test_shapes_are_checked_each_and_against_each_other() -> None:
    two, three = np.ones((2, 5)), np.ones((3, 5))
    assert gram(two, three).shape == (2, 3)
    for one, other in ((two, three), (two, two[:, :4]), (two, two[0]), (two, [[1.0]])):
        with pytest.raises(BeartypeCallHintParamViolation):
            gram_ratio(one, other)  # type: ignore[arg-type]
    with pytest.raises(BeartypeCallHintParamViolation):  # a shape by another name
        skew((0,), {0: two})


def test_a_result_is_checked_against_the_arguments_and_sizes_end_with_their_call() -> None:
    @_checked
    def turned(x: Float[np.ndarray, "a b"], wrong: bool) -> Float[np.ndarray, "b a"]:
        return x if wrong else x.T

    assert turned(np.ones((2, 3)), False).shape == (3, 2)
    assert turned(np.ones((4, 5)), False).shape == (5, 4)
    with pytest.raises(BeartypeCallHintReturnViolation):
        turned(np.ones((2, 3)), True)
