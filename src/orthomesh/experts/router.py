"""Which expert answers: one choice per prompt by task code (reading R7)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from .taskcode import similarity


def nearest(
    prompts: Float[np.ndarray, "N K"], codes: Float[np.ndarray, "M K"], widths: tuple[int, ...]
) -> Int[np.ndarray, " N"]:
    """Index of the expert whose task code is most similar to each prompt; the earlier one on a tie.

    Reading R7: eq. (29) chooses ranks per token by magnitude, which does not choose an expert; the vectors the
    paper already shares choose one almost perfectly when the choice is made once per prompt.

    Args:
        prompts: mean layer inputs of prompts under the base model. [N, sum k]
        codes: task codes of the experts. [M, sum k]
        widths: k of every layer.

    Returns:
        Index in [0, M). [N]
    """
    return np.asarray(np.argmax(similarity(prompts, codes, widths), axis=1))
