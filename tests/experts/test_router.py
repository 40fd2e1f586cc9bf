"""Which expert a prompt goes to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experts.router import nearest


def naively(prompts: np.ndarray, codes: np.ndarray, widths: tuple[int, ...]) -> list[int]:
    """Best mean of centred cosines, prompt by prompt and layer by layer."""
    centre = codes.mean(axis=0)
    found = []
    for x in prompts:
        votes = []
        for h in codes:
            cosines, start = [], 0
            for width in widths:
                a, b = (v[start : start + width] - centre[start : start + width] for v in (x, h))
                cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                start += width
            votes.append(sum(cosines))
        found.append(votes.index(max(votes)))
    return found


def test_nearest_on_paper() -> None:
    codes = np.array([[10.0, 1.0], [10.0, -1.0], [12.0, 0.0]])
    prompts = np.array([[10.2, 5.0], [10.2, -0.1], [99.0, 1.0]])
    # raw cosines would send the first prompt to 0, the last to 2, and could not tell the middle one
    assert nearest(prompts, codes, (2,)).tolist() == [0, 1, 2]


def test_layers_vote() -> None:
    codes = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    assert nearest(np.array([[9.0, -0.1, -0.1], [-0.1, 0.1, 0.1]]), codes, (1, 1, 1)).tolist() == [1, 0]


@given(st.integers(0, 2**32 - 1))
def test_nearest_is_the_best_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = tuple(int(w) for w in rng.integers(2, 6, size=3))
    codes = rng.standard_normal((int(rng.integers(2, 6)), sum(widths)))
    prompts = rng.standard_normal((9, sum(widths)))
    assert nearest(prompts, codes, widths).tolist() == naively(prompts, codes, widths)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_a_prompt_that_is_a_code_finds_it(seed: int, num_codes: int) -> None:
    codes = np.random.default_rng(seed).standard_normal((num_codes, 10))
    assert nearest(codes, codes, (4, 6)).tolist() == list(range(num_codes))


def test_the_earlier_expert_wins_a_tie() -> None:
    codes = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert nearest(np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 9.0]]), codes, (2,)).tolist() == [1, 0, 0]


def test_no_prompts_and_wrong_widths() -> None:
    assert nearest(np.zeros((0, 2)), np.eye(2), (2,)).shape == (0,)
    with pytest.raises(ValueError, match=r"widths \(3,\)"):
        nearest(np.zeros((1, 2)), np.eye(2), (3,))
